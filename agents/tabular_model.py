r"""Planning in a learned model, and what a learned policy is truly worth.

Agents count what follows each pair, plan in the model of maximum likelihood, and act greedily in it (certainty
equivalence). With a bonus the model pays r + c / sqrt(n(s, a)), which makes it optimistic about what it has seen little
of: MBIE-EB, Strehl & Littman (2008). The policy's value in the true MDP is exact, so its gap to V* is the price of the
model's errors, and the model's own opinion of its policy can be held against both. Shapes: N agents, S states, A
actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advrl.agents.tabular_control import GreedyTable
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate, Transition
from advrl.checks import integer, number
from advrl.tabular.evaluation import check_policy
from advrl.tabular.mdp import MDP
from advrl.tabular.planning import solve
from advrl.tabular.transitions import densify

if TYPE_CHECKING:
    from typing_extensions import Unpack

_ENTRIES = 2**24  # of transition matrices held at once


@dataclass(frozen=True, eq=False)
class LearnedModel(Learned):
    """What agents with a model have learned; Q and V are the model's.

    Attributes:
        model: the N models as one batch; pairs never tried end the episode and pay nothing. Of posterior sampling, the
            means of the posteriors.
        believed: (N,) value of the first state in the model.
        achieved: (N,) exact value of the greedy policy in the true MDP.
        best: value of the best policy there; ``best - achieved`` is the gap.
    """

    model: MDP | None = None
    believed: Tensor | None = None
    achieved: Tensor | None = None
    best: float = math.nan

    @property
    def gap(self) -> Tensor:
        """(N,) what the policy loses against the best one."""
        assert self.achieved is not None
        return self.best - self.achieved


class Counting(GreedyTable):
    """N agents that count outcomes, sweep their models every so often, and are greedy in them."""

    def __init__(self, loop: Loop, bonus: float, epsilon: Rate, every: int, sweeps: int) -> None:
        super().__init__(loop, epsilon)
        self.bonus = number("bonus", bonus, 0.0)
        self.every, self.sweeps = integer("every", every), integer("sweeps", sweeps)
        pairs = loop.agents * loop.states * loop.actions
        like: dict[str, Any] = {"dtype": loop.dtype, "device": loop.device}
        self.following = torch.zeros(pairs, loop.states, **like)
        self.count, self.total = torch.zeros(pairs, **like), torch.zeros(pairs, **like)
        self.tick = 0

    def update(self, t: Transition) -> None:
        self.count_step(t)
        self.tick += 1
        if self.tick % self.every == 0:
            self.plan(self.sweeps)

    def count_step(self, t: Transition) -> None:
        """Take a step's outcome and reward in."""
        at = (self.loop.base + t.state) * self.loop.actions + t.action
        moved = t.moving.to(self.count.dtype)
        self.count.index_add_(0, at, moved)
        self.total.index_add_(0, at, t.reward * moved)
        self.following.view(-1).index_add_(0, at * self.loop.states + t.next, moved.masked_fill(t.ended, 0.0))

    def estimates(self) -> tuple[Tensor, Tensor]:
        """(N, S, A, S) probabilities and (N, S, A) rewards of maximum likelihood; 0 for what was never tried."""
        shape = (self.loop.agents, self.loop.states, self.loop.actions)
        tries = self.count.clamp(min=1)
        return (self.following / tries[:, None]).view(*shape, -1), (self.total / tries).view(shape)

    def plan(self, sweeps: int, bonus: float | None = None) -> None:
        """Value iteration in all models, from where the last one left off."""
        bonus = self.bonus if bonus is None else bonus
        P, R = self.estimates()
        pay = R + bonus * self.count.view_as(R).clamp(min=1).rsqrt()
        if bonus:  # what was never tried is taken for the best there can be: the bonus, for ever
            P = torch.where((self.count > 0).view_as(R)[..., None], P, 0.0)
            pay = torch.where((self.count > 0).view_as(R), pay, bonus / (1 - self.loop.gamma)[:, None, None])
        self.sweep(P, pay, sweeps)

    def sweep(self, P: Tensor, R: Tensor, sweeps: int) -> None:
        """Value iteration with these models (N, S, A, S) and (N, S, A)."""
        flat, gamma = P.flatten(1, 2), self.loop.gamma[:, None, None]
        for _ in range(sweeps):
            V = self.loop.values(self.Q)
            self.Q = (R + gamma * (flat @ V[..., None]).view_as(R)).view(-1, self.loop.actions)


def model_learning(
    mdp: MDP, *, bonus: float = 0.0, epsilon: Rate = 0.1, every: int = 10, sweeps: int = 10, **common: Unpack[Common]
) -> LearnedModel:
    """Learn a model by acting greedily in it, and what the final plan is worth in truth.

    Args:
        bonus: c of c / sqrt(n), which needs gamma < 1; 0 leaves exploration to epsilon.
        epsilon: as of :func:`q_learning`.
        every: steps between two plans, of ``sweeps`` sweeps each; a last plan without bonus is carried to convergence.
        common: see :class:`Common`.

    Raises:
        ValueError: for a bonus where gamma is 1.
    """
    loop = Loop(mdp, **common)
    if bonus and bool((loop.gamma >= 1).any()):
        raise ValueError("a bonus needs gamma < 1, since optimism about the untried would be without end, got gamma=1")
    learner = Counting(loop, bonus, epsilon, every, sweeps)
    run = loop.run(learner)
    return planned(mdp, loop, learner, run, *learner.estimates())


def planned(mdp: MDP, loop: Loop, learner: Counting, run: Learned, P: Tensor, R: Tensor) -> LearnedModel:
    """The plan in N models (N, S, A, S) and (N, S, A), and what it is worth in truth."""
    stop = (1 - P.sum(-1)).clamp(0, 1)
    model = MDP(P, R, loop.gamma, stop=stop, p0=loop.simulator.start.expand(loop.agents, -1),
                mask=None if mdp.mask is None else mdp.mask.expand_as(R), terminal=mdp.terminal)  # fmt: skip
    horizon = None if loop.simulator.gamma < 1 else loop.max_steps
    learner.Q.zero_()
    learner.sweep(P, R, enough(float(loop.gamma.max()), loop.max_steps))
    final = loop.learned(learner.Q, run.returns, run.lengths, run.history)
    start = loop.simulator.start
    achieved = exact_values(mdp, final.policy, horizon=horizon) @ start
    best = float((solve(mdp).V * start).sum())
    return LearnedModel(
        **{field.name: getattr(final, field.name) for field in fields(Learned)},
        model=model, believed=final.V @ start, achieved=achieved, best=best,
    )  # fmt: skip


def enough(gamma: float, limit: int) -> int:
    """Sweeps after which value iteration has forgotten all but a 1e-10th of where it started."""
    return limit if gamma >= 1 else min(limit, max(1, math.ceil(math.log(1e-10) / math.log(max(gamma, 1e-3)))))


def exact_values(mdp: MDP, policies: Tensor, *, horizon: int | None = None) -> Tensor:
    """(N, S) exact values of N policies in one MDP, in all or within a time limit.

    Args:
        policies: (N, S) actions or (N, S, A) probabilities.
        horizon: count the rewards of so many steps alone, by repeated squaring; needed where gamma is 1 and a policy
            may never end.

    Raises:
        ValueError: where gamma is 1, there is no horizon and a policy never ends.
    """
    policies = check_policies(mdp, policies)
    P = densify(mdp.P, mdp.num_states, mdp.num_actions)
    R = mdp.R
    distinct, which = torch.unique(policies, dim=0, return_inverse=True)
    found = []
    gamma = float(mdp.discount)
    for part in distinct.split(max(1, _ENTRIES // mdp.num_states**2)):
        if part.is_floating_point():
            kernel, pay = torch.einsum("nsa,sat->nst", part, P), (part * R).sum(-1)
        else:
            here = torch.arange(mdp.num_states, device=P.device)
            kernel, pay = P[here, part], R[here, part]
        found.append(_values(gamma * kernel, pay, horizon))
    return torch.cat(found)[which]


def check_policies(mdp: MDP, policies: Tensor) -> Tensor:
    """N policies, if the MDP allows each."""
    dims = 2 + policies.is_floating_point()
    if policies.dim() != dims or not len(policies):
        raise ValueError(f"policies must have shape (N, S), or (N, S, A) of probabilities, got {tuple(policies.shape)}")
    for policy in torch.unique(policies, dim=0):
        check_policy(mdp, policy)
    return policies.to(mdp.R) if policies.is_floating_point() else policies.to(mdp.device)


def _values(kernel: Tensor, pay: Tensor, horizon: int | None) -> Tensor:
    """(n, S) values of processes with discounted kernels (n, S, S)."""
    if horizon is None:
        alive = kernel
        for _ in range(40):
            alive = alive @ alive
        if bool((alive.sum(-1) > 0.5).any()):
            raise ValueError("gamma is 1 and a policy never ends: give a horizon")
        eye = torch.eye(pay.shape[-1], dtype=pay.dtype, device=pay.device)
        solved: Tensor = torch.linalg.solve(eye - kernel, pay[..., None]).squeeze(-1)
        return solved
    # V_(m + n) = V_m + K^m V_n: the bits of the horizon, with K^(2^i) and V_(2^i)
    steps, V = integer("horizon", horizon), torch.zeros_like(pay)
    power, block = kernel, pay
    while steps:
        if steps % 2:
            V = block + (power @ V[..., None]).squeeze(-1)
        steps //= 2
        if steps:
            block = block + (power @ block[..., None]).squeeze(-1)
            power = power @ power
    return V


def value_gap(mdp: MDP, policies: Tensor, *, horizon: int | None = None) -> Tensor:
    """(N,) what each policy loses against the best one, from the first states. Arguments of :func:`exact_values`."""
    start = Loop(mdp).simulator.start
    gap: Tensor = (solve(mdp).V * start).sum() - exact_values(mdp, policies, horizon=horizon) @ start
    return gap
