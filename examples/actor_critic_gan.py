"""A GAN is an actor-critic method, in an environment whose reward the actor cannot affect: Pfau & Vinyals (2016).

An episode is one step. A coin decides, out of the actor's sight, whether the critic is shown a real sample (reward 1)
or the actor's own (reward 0). The critic learns the expected reward Q(x) of what it is shown, by cross-entropy; at the
optimum that is p(x) / (p(x) + q(x)). The actor is deterministic, x = G(z), and follows the deterministic policy
gradient of Silver et al. (2014),

    grad J = E_z[ grad_x log Q(x) at x = G(z)  times  grad_theta G(z) ]

although nothing that it does changes what it is paid. Both gradients are computed here, in two ways that share no
code, and are the same: the GAN's step is that policy gradient.
"""

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.functional import logsigmoid

from advrl.agents import AdversarialTrainer
from advrl.data import ring
from advrl.estimators import Path
from advrl.metrics import mode_coverage
from advrl.nn import MLP
from advrl.objectives import non_saturating


class CoinEnv(gym.Env):
    """State: noise z. Action: a point. What the critic observes is in info; the reward says where it came from."""

    def __init__(self, data):
        self.data = data
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gym.spaces.Box(-2, 2, (2,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.normal(size=2), {}

    def step(self, action):
        real = self.np_random.random() < 0.5
        shown = self.data[self.np_random.integers(len(self.data))] if real else action
        return self.np_random.normal(size=2), float(real), True, False, {"shown": shown}


torch.manual_seed(0)
mixture = ring(std=0.05)
data = mixture.sample(4000).double()
actor, critic = MLP(2, 2, (64, 64), "relu").double(), MLP(2, (), (64, 64)).double()

# 1. The reward does not depend on the actor: with the same coins, any two actions are paid the same.
paid = []
for action in (np.zeros(2), np.ones(2)):
    env = CoinEnv(data.numpy())
    env.reset(seed=0)
    paid.append([env.step(action)[1] for _ in range(1000)])
assert paid[0] == paid[1]
print(f"reward whatever the actor does: {np.mean(paid[0]):.3f}, the coin's")

# 2. The critic's regression on (shown, reward) is the discriminator's loss.
shown, reward = [], []
for _ in range(256):
    z, _ = env.reset()
    _, r, _, _, info = env.step(actor(torch.from_numpy(z)[None])[0].detach().numpy())
    shown.append(torch.as_tensor(info["shown"]))
    reward.append(r)
shown, reward = torch.stack(shown), torch.tensor(reward, dtype=torch.float64)
logit = critic(shown)
regression = nn.functional.binary_cross_entropy_with_logits(logit, reward)
real, fake = logit[reward == 1], logit[reward == 0]
game = (-logsigmoid(real).sum() - logsigmoid(-fake).sum()) / len(reward)
print(f"critic's regression {regression.item():.12f} = discriminator's loss {game.item():.12f}")
assert abs(regression - game) < 1e-12

# 3. The GAN's step: back through critic and generator. The trainer of advrl train, at learning rate 0.
trainer = AdversarialTrainer(
    actor, critic, latent=2, estimator=Path(), objective=non_saturating, lr_generator=0.0, lr_discriminator=0.0, ema=0
)
z = torch.randn(128, 2, dtype=torch.float64)
trainer.step(data[:128], z)
path = torch.cat([p.grad.flatten() for p in actor.parameters()])

# The policy gradient: the critic's slope in the action, and the Jacobian of the actor, each on its own.
with torch.no_grad():
    x = actor(z)
slope = vmap(torch.func.grad(lambda x: logsigmoid(critic(x[None]))[0]))(x)  # (128, 2) d log Q / d action
weights = {name: p.detach() for name, p in actor.named_parameters()}
jacobian = vmap(jacrev(lambda w, z: functional_call(actor, w, (z[None],))[0]), (None, 0))(weights, z)
ascent = torch.cat([torch.einsum("na,na...->n...", slope, j).mean(0).flatten() for j in jacobian.values()])
gap = (path + ascent).abs().max() / path.abs().max()  # the GAN descends its cost, the actor climbs
print(f"GAN step against deterministic policy gradient through the critic: largest relative difference {gap:.1e}")
assert gap < 1e-12

# 4. And it learns, from an environment that pays it nothing for it.
trainer = AdversarialTrainer(
    actor, critic, latent=2, estimator=Path(), objective=non_saturating, lr_generator=1e-3, ema=0.99,
    instance_noise=lambda step: 0.3 * max(0.0, 1 - step / 900),
)  # fmt: skip
for _ in range(1200):
    trainer.step(data[torch.randint(len(data), (256,))])
with torch.no_grad():
    found = mode_coverage(trainer.average(torch.randn(4000, 2, dtype=torch.float64)), mixture.centres.double(), 0.05)
    q = torch.sigmoid(critic(data)).mean()
good = f"{found.high_quality:.0%} of samples within 3 standard deviations"
print(f"after 1,200 steps: {int(found.modes)} of 8 modes, {good}")
print(f"the critic's expected reward on real samples: {q:.2f}")
