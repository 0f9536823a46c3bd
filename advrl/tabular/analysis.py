r"""What follows from a policy exactly: where it goes, how long it takes, how often it succeeds, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.tabular import transitions
from advrl.tabular.evaluation import (
    check_policy,
    expected_steps,
    policy_evaluation,
    refuse_improper,
    solve_linear,
    under_policy,
)  # fmt: skip
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import q_from_v


def _start(mdp: MDP, p0: Tensor | None) -> Tensor:
    start = mdp.p0 if p0 is None else p0.to(mdp.R)
    if start is None:
        raise ValueError("give p0, the probabilities of the first state (S,), here or in the MDP")
    return start.expand_as(mdp.R[..., 0])


def _kernel(mdp: MDP, policy: Tensor) -> tuple[MDP, Tensor]:
    """The process under the policy, and its dense (*b, S, S) transitions."""
    process = under_policy(mdp, check_policy(mdp, policy))
    return process, transitions.densify(process.P, mdp.num_states, 1).squeeze(-2)


def successor_representation(mdp: MDP, policy: Tensor) -> Tensor:
    """(*b, S, S') discounted expected visits of s' from s, sum_t gamma^t P(s_t = s'); Dayan (1993).

    Raises:
        ValueError: where gamma is 1 and the policy never ends.
    """
    refuse_improper(mdp, check_policy(mdp, policy))
    process, P = _kernel(mdp, policy)
    eye = torch.eye(mdp.num_states, dtype=P.dtype, device=P.device)
    inverse: Tensor = torch.linalg.inv(eye - process.discount[..., None] * P)
    return inverse


def occupancy(mdp: MDP, policy: Tensor, p0: Tensor | None = None, *, horizon: int | None = None) -> Tensor:
    """(*b, S, A) expected discounted number of times that each action is taken in each state, until the end.

    Args:
        policy: (*b, S) actions or (*b, S, A) probabilities.
        p0: (*b, S) probabilities of the first state; the MDP's own if ``None``.
        horizon: count only the first so many steps.

    Raises:
        ValueError: without p0, or where gamma is 1, there is no horizon and the policy never ends.
    """
    policy = check_policy(mdp, policy)
    process, P = _kernel(mdp, policy)
    start = _start(mdp, p0)
    if mdp.terminal is not None:
        start = start.masked_fill(mdp.terminal, 0.0)
    if horizon is None:
        refuse_improper(mdp, policy)
        eye = torch.eye(mdp.num_states, dtype=P.dtype, device=P.device)
        visits = torch.linalg.solve((eye - process.discount[..., None] * P).mT, start[..., None]).squeeze(-1)
    else:
        visits, here = torch.zeros_like(start), start
        for _ in range(integer("horizon", horizon)):
            visits = visits + here
            here = process.discount * (here[..., None, :] @ P).squeeze(-2)
    if mdp.terminal is not None:
        visits = visits.masked_fill(mdp.terminal, 0.0)
    if policy.is_floating_point():
        return visits[..., None] * policy
    return torch.zeros_like(mdp.R).scatter_(-1, policy[..., None], visits[..., None])


def stationary_distribution(mdp: MDP, policy: Tensor) -> Tensor:
    """(*b, S) the distribution that a policy's chain keeps, for chains that never end and have one recurrent class.

    Raises:
        ValueError: if the chain ends, or keeps more than one distribution.
    """
    _, P = _kernel(mdp, policy)
    if bool(((P.sum(-1) - 1).abs() > 1e-6).any()):
        raise ValueError("a chain that ends has no stationary distribution: ask for its occupancy")
    S = mdp.num_states
    A = torch.eye(S, dtype=P.dtype, device=P.device) - P.mT
    if bool((torch.linalg.matrix_rank(A) < S - 1).any()):
        raise ValueError("the chain has more than one recurrent class, so its stationary distribution is not unique")
    system = torch.cat([A, torch.ones_like(A[..., :1, :])], -2)
    right = torch.zeros_like(system[..., :1])
    right[..., -1, :] = 1
    found: Tensor = torch.linalg.lstsq(system, right).solution.squeeze(-1)
    return found.clamp(min=0)


def steps_to_end(mdp: MDP, policy: Tensor) -> Tensor:
    """(*b, S) expected number of steps until the episode ends, undiscounted.

    Raises:
        ValueError: if the policy never ends from some state.
    """
    undiscounted = _with(mdp, gamma=1.0)
    policy = check_policy(mdp, policy)
    refuse_improper(undiscounted, policy)
    return expected_steps(under_policy(undiscounted, policy)).to(mdp.dtype) / (1 + 1e-6)


def hitting_times(mdp: MDP, policy: Tensor, target: Tensor) -> Tensor:
    """(*b, S) expected number of steps until a ``target`` state (S,) bool is first entered; inf if it may be missed."""
    _, P = _kernel(mdp, policy)
    target = target.to(mdp.device).expand(P.shape[:-1])
    reach = hitting_probability(mdp, policy, target)
    sure = reach > 1 - 1e-9
    inside = (sure & ~target).to(P.dtype)
    Q = P * inside[..., None] * inside[..., None, :]
    eye = torch.eye(mdp.num_states, dtype=P.dtype, device=P.device)
    steps = torch.linalg.solve(eye - Q, inside[..., None]).squeeze(-1)
    return steps.masked_fill(~sure, torch.inf).masked_fill(target, 0.0)


def hitting_probability(mdp: MDP, policy: Tensor, target: Tensor, *, horizon: int | None = None) -> Tensor:
    """(*b, S) probability that the policy ever is in a ``target`` state (S,) bool, or within ``horizon`` steps.

    Terminal states can be targets; an episode that ends by ``stop`` goes nowhere.
    """
    _, P = _kernel(mdp, policy)
    target = target.to(mdp.device).expand(P.shape[:-1])
    onward = P.masked_fill(target[..., None], 0.0)
    hit = target.to(P.dtype)
    if horizon is not None:
        here = hit
        for _ in range(integer("horizon", horizon)):
            here = torch.where(target, hit, (onward @ here[..., None]).squeeze(-1))
        return here
    reach = target.clone()  # where it cannot get at all, the equations below would have more than one solution
    for _ in range(mdp.num_states):
        grown = reach | ((onward > 0) & reach[..., None, :]).any(-1)
        if bool((grown == reach).all()):
            break
        reach = grown
    onward = onward * reach[..., None].to(P.dtype)
    eye = torch.eye(mdp.num_states, dtype=P.dtype, device=P.device)
    found: Tensor = torch.linalg.solve(eye - onward, hit[..., None]).squeeze(-1).clamp(0, 1)
    return found


def policy_gradient(mdp: MDP, logits: Tensor, p0: Tensor | None = None) -> Tensor:
    r"""(*b, S, A) exact gradient of sum_s p0(s) V_pi(s) for pi = softmax(logits), logits (*b, S, A).

    d(s) pi(a|s) (Q(s, a) - V(s)) with d the discounted occupancy: Sutton et al. (2000), theorem 1.
    """
    policy = torch.softmax(logits.to(mdp.R), -1) if mdp.mask is None else torch.softmax(
        logits.to(mdp.R).masked_fill(~mdp.mask & ~_ended(mdp), -torch.inf), -1
    )  # fmt: skip
    found = policy_evaluation(mdp, policy, tol=1e-10)
    visits = occupancy(mdp, policy, p0)
    advantage = torch.where(policy > 0, found.Q - found.V[..., None], torch.zeros_like(found.Q))
    return visits * advantage


def _ended(mdp: MDP) -> Tensor:
    none = torch.zeros_like(mdp.R[..., :1], dtype=torch.bool)
    return none if mdp.terminal is None else mdp.terminal[..., None]


def success_probability(
    mdp: MDP, policy: Tensor, success: Tensor, *, horizon: int | None = None, p0: Tensor | None = None
) -> Tensor:
    """(*b) exact probability that an episode succeeds, in all or within a time limit of ``horizon`` steps.

    Args:
        success: (S, A) or (*b, S, A) probability that the step ends the episode with success, such as the expected
            reward where success pays 1 and nothing else does; or (S,) bool target states.
        horizon: the environment's time limit.
        p0: (*b, S) probabilities of the first state; the MDP's own if ``None``.
    """
    start = _start(mdp, p0)
    if success.dtype == torch.bool:
        return (start * hitting_probability(mdp, policy, success, horizon=horizon)).sum(-1)
    counted = _with(mdp, R=success.to(mdp.R).expand_as(mdp.R), gamma=1.0)
    process = under_policy(counted, check_policy(mdp, policy))
    if horizon is None:
        refuse_improper(counted, check_policy(mdp, policy))
        return (start * solve_linear(process)).sum(-1)
    V = torch.zeros_like(start)
    for _ in range(integer("horizon", horizon)):
        V = q_from_v(process, V).squeeze(-1)
    return (start * V).sum(-1)


def _with(mdp: MDP, **changes: object) -> MDP:
    other = object.__new__(MDP)
    for name in MDP.__dataclass_fields__:
        object.__setattr__(other, name, changes.get(name, getattr(mdp, name)))
    return other
