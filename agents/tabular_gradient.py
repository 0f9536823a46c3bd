r"""Policy gradient with a table of logits: REINFORCE and actor-critic. Sutton & Barto (2018), chapter 13.

The gradients are those of :func:`advrl.estimators.score_function`, with the return (REINFORCE, Williams, 1992) or the
temporal-difference error (actor-critic, one step) as a negative cost. The exact gradient to hold them against is
:func:`advrl.tabular.policy_gradient`. Shapes: N agents, B episodes to a gradient, T steps, S states, A actions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition, progress_bar
from advrl.checks import integer
from advrl.estimators import leave_one_out, score_function
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator, sample_trajectories

if TYPE_CHECKING:
    from typing_extensions import Unpack


def reinforce(
    mdp: MDP | Simulator, *, alpha: Rate = 0.1, batch: int = 8, logits: Tensor | None = None, **common: Unpack[Common]
) -> Learned:
    r"""REINFORCE: logits += alpha times the mean over B episodes of sum_t gamma^t (G_t - b_t) grad log pi(a_t|s_t).

    The baseline is the mean of the other episodes' gamma^t G_t (leave-one-out), which keeps the gradient unbiased;
    with one episode to a gradient there is none. What a time limit cuts off counts 0: the gradient is that of the
    return within it.

    Args:
        alpha: step size: a number, one for each agent (N,), or a schedule of episodes done.
        batch: B, of which the number of episodes must be a multiple.
        logits: (S, A) or (N, S, A) to start from; zeros if ``None``.
        common: see :class:`Common`, without ``initial`` and ``keep``.

    Returns:
        V, with nothing that estimates it, is 0; the policy is (N, S, A) probabilities.
    """
    _refuse(common, "initial", "keep")
    loop = Loop(mdp, **common)
    if loop.episodes % integer("batch", batch):
        raise ValueError(f"episodes must be a multiple of batch={batch}, got {loop.episodes}")
    rate, N = loop.rate("alpha", alpha, torch.inf), loop.agents
    theta = loop.new_table(0.0 if logits is None else logits).view(N, loop.states, loop.actions)
    sampler = loop.simulator
    who = torch.arange(N, device=loop.device).repeat(batch)
    returns, lengths = [], []
    bar = progress_bar(loop.episodes) if loop.progress else None
    for _ in range(loop.episodes // batch):
        policy = _softmax(loop, theta)
        t = sample_trajectories(sampler, policy[who], batch * N, loop.max_steps, loop.generator)
        gamma = loop.gamma[who]
        G = t.returns(gamma)
        times = gamma[:, None] ** torch.arange(G.shape[1], dtype=G.dtype, device=G.device)
        cost = -(times * G).view(batch, N, -1)
        leaf = theta.detach().requires_grad_()
        log_prob = _log_softmax(loop, leaf)[who[:, None], t.state, t.action].view(batch, N, -1)
        baseline = leave_one_out(cost) if batch > 1 else 0.0
        surrogate = score_function(log_prob, cost, baseline).masked_fill(~t.mask.view(batch, N, -1), 0.0)
        (gradient,) = torch.autograd.grad(surrogate.sum(-1).mean(0).sum(), leaf)
        theta = theta - rate(loop.finished)[:, None, None] * gradient
        loop.finished += batch
        returns.append(t.returns(loop.simulator.gamma)[:, 0].view(batch, N).T)
        lengths.append(t.mask.sum(1).view(batch, N).T)
        if bar is not None:
            bar.update(batch)
    if bar is not None:
        bar.close()
    length = torch.cat(lengths, 1)
    V = torch.zeros(N, loop.states, dtype=loop.dtype, device=loop.device)
    return Learned(None, V, _softmax(loop, theta), torch.cat(returns, 1), length, int(length.sum()))


class ActorCritic:
    """Logits and values of N agents, moved after every step by the critic's error."""

    def __init__(self, loop: Loop, alpha: Rate, critic: Rate, logits: Tensor | None) -> None:
        self.loop, self.alpha, self.critic = loop, loop.rate("alpha", alpha, torch.inf), loop.rate("critic", critic)
        self.theta = loop.new_table(0.0 if logits is None else logits)
        self.V = loop.new_table().amax(-1)
        self.discount = torch.ones_like(self.alpha(loop.finished))

    def waiting(self) -> Tensor | None:
        return None

    def table(self) -> Tensor:
        return self.V[:, None].expand(-1, self.loop.actions)

    def act(self, state: Tensor) -> Tensor:
        rows = self.theta.index_select(0, self.loop.base + state)
        cdf = _closed(self.loop, rows, state).softmax(-1).cumsum(-1)
        return (self.loop.uniform(1).T * cdf[:, -1:] >= cdf[:, :-1]).sum(-1)

    def update(self, t: Transition) -> None:
        loop = self.loop
        here, then = loop.base + t.state, loop.base + t.next
        T = self.V.index_select(0, then).masked_fill(t.ended, 0.0)
        error = t.reward + loop.gamma * T - self.V.index_select(0, here)
        leaf = self.theta.index_select(0, here).requires_grad_()
        log_prob = _closed(loop, leaf, t.state).log_softmax(-1).gather(1, t.action[:, None]).squeeze(1)
        (gradient,) = torch.autograd.grad(score_function(log_prob, -self.discount * error).sum(), leaf)
        step = self.alpha(loop.finished).masked_fill(~t.moving, 0.0)
        self.theta.index_add_(0, here, -step[:, None] * gradient)
        self.V.index_add_(0, here, (self.critic(loop.finished) * error).masked_fill(~t.moving, 0.0))
        self.discount = (self.discount * loop.gamma).masked_fill(t.done, 1.0)


def actor_critic(
    mdp: MDP | Simulator,
    *,
    alpha: Rate = 0.1,
    critic: Rate = 0.1,
    logits: Tensor | None = None,
    **common: Unpack[Common],
) -> Learned:
    """One-step actor-critic, Sutton & Barto (2018), section 13.5.

    Args:
        alpha: the actor's step size: a number, one for each agent (N,), or a schedule of episodes done.
        critic: the critic's step size.
        logits: (S, A) or (N, S, A) to start from; zeros if ``None``.
        common: see :class:`Common`; ``initial`` are the critic's values.

    Returns:
        V is the critic's; the policy is (N, S, A) probabilities.
    """
    loop = Loop(mdp, **common)
    learner = ActorCritic(loop, alpha, critic, logits)
    run = loop.run(learner)
    shape = (loop.agents, loop.states, loop.actions)
    policy = _softmax(loop, learner.theta.view(shape))
    return dataclasses.replace(run, Q=None, V=learner.V.view(shape[:2]), policy=policy)


def _closed(loop: Loop, logits: Tensor, state: Tensor) -> Tensor:
    return logits if loop.all_allowed else logits.masked_fill(~loop.allowed.index_select(0, state), -torch.inf)


def _log_softmax(loop: Loop, theta: Tensor) -> Tensor:
    return (theta if loop.all_allowed else theta.masked_fill(~loop.allowed, -torch.inf)).log_softmax(-1)


def _softmax(loop: Loop, theta: Tensor) -> Tensor:
    return _log_softmax(loop, theta.detach()).exp()


def _refuse(common: Common, *names: str) -> None:
    for name in names:
        if name in common:
            raise ValueError(f"{name} has no meaning for this learner: leave it out")
