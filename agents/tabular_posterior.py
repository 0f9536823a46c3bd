"""Posterior sampling: believe in many models, and act on one of them at a time.

Counts of outcomes make Dirichlet posteriors of the probabilities, mean rewards normal ones. What nobody has tried may
be good, so it is tried; what has been tried and is not good is soon left alone. Shapes: N agents, n of them, S states,
A actions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_loop import Common, Loop, Transition
from advrl.agents.tabular_model import Counting, LearnedModel, enough, planned
from advrl.checks import number
from advrl.tabular.mdp import MDP

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Posterior(Counting):
    """N agents, each greedy in an MDP drawn from what it believes, until its episode is over."""

    def __init__(self, loop: Loop, prior: float, noise: float, terminal: Tensor | None) -> None:
        super().__init__(loop, bonus=0.0, epsilon=0.0, every=1, sweeps=1)
        self.prior, self.noise = number("prior", prior, 0.0), number("noise", noise, 0.0)
        if not prior > 0:
            raise ValueError("prior must be greater than 0: without it what was never tried would have no outcome")
        over = torch.zeros(loop.states, dtype=torch.bool, device=loop.device) if terminal is None else terminal
        self.over = over.to(loop.device)[:, None]
        self.draw(torch.arange(loop.agents, device=loop.device))

    def update(self, t: Transition) -> None:
        self.count_step(t)
        who = t.done.nonzero().squeeze(-1)
        if len(who):
            self.draw(who)

    def outcomes(self, who: Tensor) -> Tensor:
        """(n, S, A, S + 1) parameters of the Dirichlet posteriors; the last outcome is the end."""
        shape = (self.loop.agents, self.loop.states, self.loop.actions)
        seen, tries = self.following.view(*shape, -1)[who], self.count.view(shape)[who]
        return torch.cat([seen, (tries - seen.sum(-1))[..., None]], -1) + self.prior

    def moves(self, weight: Tensor) -> Tensor:
        """(n, S, A, S) probabilities of the next states, for weights (n, S, A, S + 1)."""
        return (weight / weight.sum(-1, keepdim=True))[..., :-1].masked_fill(self.over[..., None], 0.0)

    def rewards(self, who: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S, A) means and standard deviations of the normal posteriors; a priori 0 and ``noise``."""
        shape = (self.loop.agents, self.loop.states, self.loop.actions)
        known = self.count.view(shape)[who] + 1
        return self.total.view(shape)[who] / known, self.noise * known.rsqrt()

    def draw(self, who: Tensor) -> None:
        """Plan in one MDP drawn for each of these agents (n,)."""
        loop = self.loop
        P = self.moves(
            torch._standard_gamma(self.outcomes(who), generator=loop.generator).clamp(min=torch.finfo(loop.dtype).tiny)
        )
        mean, spread = self.rewards(who)
        normal = torch.randn(mean.shape, generator=loop.generator, dtype=mean.dtype, device=mean.device)
        flat, R = P.flatten(1, 2), (mean + spread * normal).masked_fill(self.over, 0.0)
        Q, before = torch.zeros_like(R), torch.full_like(R[..., 0], torch.inf)
        gamma = loop.gamma[who][:, None, None]
        for _ in range(enough(float(loop.gamma.max()), loop.max_steps)):
            V = Q.amax(-1) if loop.all_allowed else Q.masked_fill(~loop.allowed, -torch.inf).amax(-1)
            if bool(((V - before).abs() < 1e-6).all()):
                break
            Q, before = R + gamma * (flat @ V[..., None]).view_as(R), V
        self.Q.view(loop.agents, loop.states, -1)[who] = Q


def posterior_sampling(
    mdp: MDP, *, prior: float | None = None, noise: float = 1.0, **common: Unpack[Common]
) -> LearnedModel:
    """Posterior sampling: at the start of every episode draw an MDP from the posterior, and do what is best in it.

    Strens (2000); Osband, Russo & Van Roy (2013), where it is called PSRL. A pair is tried as often as it may be the
    best, so neither epsilon nor a bonus is needed. Probabilities are Dirichlet a priori, rewards normal with mean 0.
    The result is the plan in the means of the posteriors.

    Args:
        prior: counts that every outcome of a pair (S next states, and the end) has before the first step;
            1 / (S + 1) each if ``None``.
        noise: standard deviation of rewards, and a priori of their means.
        common: see :class:`Common`.

    Raises:
        ValueError: for a prior that is not positive.
    """
    loop = Loop(mdp, **common)
    learner = Posterior(loop, 1 / (loop.states + 1) if prior is None else prior, noise, mdp.terminal)
    run = loop.run(learner)
    everyone = torch.arange(loop.agents, device=loop.device)
    P, R = learner.moves(learner.outcomes(everyone)), learner.rewards(everyone)[0]
    return planned(mdp, loop, learner, run, P, R)
