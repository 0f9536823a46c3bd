"""One environment, one generator, every gradient: the path derivative beside the score function in all its dress.

A generator sees noise z and draws a number x ~ N(m(z), s^2); the environment pays r(x), the log-density of two modes.
Its gradient is known without sampling: eight contexts, and Gauss-Hermite quadrature over x. Each way to estimate it is
held against that, then used to train.
"""

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.distributions import Independent, Normal

from advrl.agents import ActorCriticTrainer, PPOTrainer, ReinforceTrainer
from advrl.envs import OneShotGeneration
from advrl.estimators import Critic, MovingAverage, Path, Score, grpo, leave_one_out, optimal_baseline
from advrl.plots import save_figure

STD, SAMPLES, STEPS, SEEDS = 0.15, 8, 150, 2
z = torch.linspace(-1.4, 1.4, 8)[:, None]
task = OneShotGeneration(z, (1,), "two-modes")


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))

    def distribution(self, z):
        return Independent(Normal(self.mean(z), STD), 1)


def cost(x):  # (samples, contexts, 1): what the environment pays, as a cost, differentiable if x is
    return -task.reward(task.decode(x).flatten(0, 1)).unflatten(0, x.shape[:2])


node, weight = np.polynomial.hermite_e.hermegauss(64)
node, weight = (torch.tensor(a, dtype=torch.float32) for a in (node, weight / weight.sum()))


def exact(policy):
    """E[cost], differentiable, without a random number."""
    x = policy.mean(z) + STD * node[:, None, None]  # (nodes, 8, 1)
    return (weight[:, None] * cost(x)).sum(0).mean()


class Estimated:
    """A trainer whose gradient is one of the laboratory's estimators, on the same environment."""

    def __init__(self, policy, estimator, lr):
        self.policy, self.estimator = policy, estimator
        self.opt = torch.optim.Adam(policy.parameters(), lr)

    def step(self, batch, context):
        self.opt.zero_grad()
        self.estimator(self.policy.distribution(context), cost).mean().backward()
        self.opt.step()


single = {"samples": SAMPLES}
WAYS = {
    "path derivative": lambda p, lr: Estimated(p, Path(SAMPLES), lr),
    "score": lambda p, lr: ReinforceTrainer(p, task, lr=lr, **single),
    "score, moving average": lambda p, lr: ReinforceTrainer(p, task, lr=lr, baseline=MovingAverage(0.9), **single),
    "score, critic": lambda p, lr: ReinforceTrainer(p, task, lr=lr, baseline=Critic(), lr_baseline=1e-2, **single),
    "score, leave-one-out": lambda p, lr: ReinforceTrainer(p, task, lr=lr, baseline=leave_one_out, **single),
    "score, optimal baseline": lambda p, lr: Estimated(p, Score(SAMPLES, optimal_baseline), lr),
    "score, GRPO (biased)": lambda p, lr: Estimated(p, Score(SAMPLES, advantage=grpo), lr),
    "actor-critic": lambda p, lr: ActorCriticTrainer(p, task, lr=lr, lr_critic=1e-2, **single),
    "PPO": lambda p, lr: PPOTrainer(p, task, lr=lr, lr_critic=1e-2, normalise=False, epochs=2, minibatches=1, **single),
}


def flat_gradient(policy):
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


batch = torch.zeros(len(z), 1)  # every context, SAMPLES of each
print(f"{'gradient':<25}{'largest |z|':>12}{'cosine':>8}{'noise':>10}{f'return after {STEPS} steps':>24}")
results = {}
for name, make in WAYS.items():
    torch.manual_seed(0)
    policy = Generator()
    exact(policy).backward()
    truth = flat_gradient(policy).clone()
    trainer = make(policy, 0.0)  # it does not move
    if isinstance(trainer, PPOTrainer):
        trainer.epochs = 1
    for _ in range(50):
        trainer.step(batch, z)  # critics and averages learn first
    draws = []
    for _ in range(150):
        trainer.step(batch, z)
        draws.append(flat_gradient(policy).clone())
    draws = torch.stack(draws)
    mean, error = draws.mean(0), draws.std(0) / math.sqrt(len(draws))
    largest = ((mean - truth) / error).abs().max()
    cosine = torch.nn.functional.cosine_similarity(mean, truth, dim=0)
    curves = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        policy = Generator()
        trainer, curve = make(policy, 1e-2), []
        for step in range(STEPS + 1):
            if step % 10 == 0:
                with torch.no_grad():
                    curve.append(-float(exact(policy)))
            trainer.step(batch, z)
        curves.append(curve)
    curves = np.array(curves)
    noise = float(draws.var(0).sum() / mean.square().sum())  # GRPO has a scale of its own
    results[name] = (noise, curves)
    print(f"{name:<25}{largest:>12.1f}{cosine:>8.3f}{noise:>10.3g}{curves[:, -1].mean():>24.2f}")

figure = Figure(figsize=(9, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
names = list(results)
left.barh(names[::-1], [results[name][0] for name in names[::-1]], color=[f"C{names.index(n)}" for n in names[::-1]])
left.set(xlabel=f"variance / |mean|² of a gradient of {len(z) * SAMPLES} samples")
for name, (_, curves) in results.items():
    right.plot(np.arange(0, STEPS + 1, 10), curves.mean(0), label=name)
best = -(STD**2) / (2 * 0.1**2)
right.axhline(best, color="grey", ls=":", lw=1)
right.annotate("every mean on a mode", (STEPS, best), ha="right", va="bottom", fontsize=8, color="grey")
right.set(xlabel="step", ylabel=f"exact return, mean of {SEEDS} seeds", ylim=(-3.2, -1))
right.legend(fontsize=7, ncols=2, loc="lower right")
save_figure(figure, "one_environment.png")
print("Written: one_environment.png")
