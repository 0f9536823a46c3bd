"""Value iteration, policy iteration, and between them: Puterman (1994), chapter 6; Sutton & Barto (2018), chapter 4."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from advrl.checks import choice, integer, number
from advrl.tabular import fused, ordered, small
from advrl.tabular.evaluation import (
    DENSE_LIMIT,
    check_policy,
    element,
    expected_steps,
    refuse_improper,
    solve_krylov,
    solve_linear,
    under_policy,
)  # fmt: skip
from advrl.tabular.graph import can_avoid, can_end, name_states, proper_policy
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import Solution, finish, greedy, q_from_v, q_from_zero, rounding, shift

SWEEPS = ("jacobi", "gauss-seidel", "prioritised", "topological")
STOPS = ("span", "max")
METHODS = ("auto", "value-iteration", "policy-iteration", "modified-policy-iteration", "linear-program")


def solve(mdp: MDP, method: str = "auto", *, tol: float = 1e-8) -> Solution:
    """The optimal values and a best policy, with their certified error.

    Args:
        method: ``value-iteration``, ``policy-iteration``, ``modified-policy-iteration``, ``linear-program``, or
            ``auto``: policy iteration for up to 500 states and where gamma is 1, else modified policy iteration.
        tol: error to reach.

    Raises:
        ValueError: where gamma is 1 and no policy ends from some state, or the values are unbounded.
    """
    choice("method", method, METHODS)
    if method == "auto":
        exact = mdp.num_states <= 500 or not mdp.contracts
        method = "policy-iteration" if exact else "modified-policy-iteration"
    if method == "policy-iteration":
        return policy_iteration(mdp, tol=tol)
    if method == "value-iteration":
        return value_iteration(mdp, tol=tol)
    if method == "linear-program":
        from advrl.tabular.linear import linear_program

        return linear_program(mdp, tol=tol)
    return modified_policy_iteration(mdp, tol=tol)


def value_sweeps(mdp: MDP, V: Tensor | None = None) -> Iterator[Tensor]:
    """The values (*b, S) after each sweep of value iteration, for ever: to watch, or to animate.

    Args:
        V: where to start; zeros if ``None``.
    """
    V = torch.zeros_like(mdp.R[..., 0]) if V is None else V
    while True:
        V = q_from_v(mdp, V).amax(-1)
        yield V


def value_iteration(
    mdp: MDP,
    *,
    sweep: str = "jacobi",
    stop: str = "span",
    tol: float = 1e-8,
    max_sweeps: int = 100_000,
    history: bool = False,
) -> Solution:
    """Sweeps V <- max_a R + gamma P V until the error is proved to be below ``tol``.

    Args:
        sweep: ``jacobi`` (all states at once; the only one for batches), or state by state, each using what is already
            known: ``gauss-seidel``, ``prioritised`` (the state that will change most first), ``topological`` (component
            by component against the arrows; exact in one pass where no state can come back).
        stop: ``span`` (as soon as the greatest and the least change are close: MacQueen's bounds), or ``max`` (when no
            state changes: the textbook's rule). For ``jacobi``.
        tol: error to reach.
        max_sweeps: give up after so many.
        history: keep the values after every sweep.

    Raises:
        ValueError: where gamma is 1 and no policy ends from some state, or the values are unbounded.
    """
    started = time.perf_counter()
    choice("sweep", sweep, SWEEPS)
    choice("stop", stop, STOPS)
    number("tol", tol, 0.0)
    integer("max_sweeps", max_sweeps)
    steps = prepare_undiscounted(mdp)
    if sweep != "jacobi":
        if mdp.batch_shape:
            raise ValueError(f"{sweep} sweeps treat one MDP, this is a batch of shape {mdp.batch_shape}: use jacobi")
        V, residuals, kept, exhausted = ordered.sweep(mdp, sweep, tol, max_sweeps, history)
        return finish(mdp, V, tol=tol, residuals=residuals, iterations=len(residuals), started=started,
                      exhausted=exhausted, steps=steps, history=kept)  # fmt: skip
    residuals, kept, exhausted = [], [], True
    V = torch.zeros_like(mdp.R[..., 0])
    for _, new in zip(range(max_sweeps), value_sweeps(mdp, V), strict=False):
        change = new - V
        V = new
        low, high = change.amin(-1), change.amax(-1)
        residuals.append(float(torch.maximum(high, -low).max()))
        if history:
            kept.append(V.clone())
        if _proved(mdp, low, high, tol, V, stop):
            exhausted = False
            break
        if not np.isfinite(residuals[-1]) or residuals[-1] > 1e100:
            raise ValueError("the values grow without bound: some policy collects reward for ever; use gamma < 1")
    return finish(mdp, V, tol=tol, residuals=residuals, iterations=len(residuals), started=started,
                  exhausted=exhausted, steps=steps, history=kept)  # fmt: skip


def _proved(mdp: MDP, low: Tensor, high: Tensor, tol: float, V: Tensor, stop: str) -> bool:
    """Whether the last change leaves an error of at most ``tol``, or only what the dtype rounds off."""
    floor = rounding(mdp, V)
    if mdp.contracts:
        if stop == "max":
            extreme = torch.maximum(high, -low)
            low, high = -extreme, extreme
        below, above = shift(mdp, low, high)
        width = above - below
        below, above = shift(mdp, -floor, floor)
        least = above - below
        return bool((width <= torch.maximum(torch.full_like(least, tol), least)).all())
    return bool((torch.maximum(high, -low) <= torch.clamp(floor, min=tol * 1e-3)).all())


def modified_policy_iteration(
    mdp: MDP, *, k: int | None = None, tol: float = 1e-8, max_iterations: int = 100_000, history: bool = False
) -> Solution:
    """Improve the policy, then follow it for k sweeps: Puterman & Shin (1978), with MacQueen's bounds as the stop.

    Where k and history are left alone, one discounted MDP with sparse transitions on the CPU is solved by compiled
    loops, if numba is installed (``pip install 'advrl[fast]'``), in a fraction of the time.

    Args:
        k: sweeps under each policy; ``None`` starts with few and goes on with 5 where the error shrinks no faster than
            gamma, 20 where it does.
        tol, history: as for :func:`value_iteration`.
        max_iterations: improvements before giving up.
    """
    started = time.perf_counter()
    if k is not None:
        integer("k", k, 0)
    number("tol", tol, 0.0)
    steps = prepare_undiscounted(mdp)
    if k is None and not history and fused.usable(mdp):
        V, swept, residuals, exhausted = fused.iterate(mdp, tol, max_iterations)
        return finish(mdp, V, tol=tol, residuals=residuals, iterations=len(residuals), started=started,
                      exhausted=exhausted, swept=swept)  # fmt: skip
    sweeps = 0 if k is None else k
    residuals = []
    kept: list[Tensor] = []
    exhausted = True
    gamma = float(mdp.discount.max())
    before, Q = torch.zeros_like(mdp.R[..., 0]), q_from_zero(mdp)
    for _ in range(max_iterations):
        V, policy = Q.max(-1)
        change = V - before
        low, high = change.amin(-1), change.amax(-1)
        residuals.append(float(torch.maximum(high, -low).max()))
        if history:
            kept.append(V.clone())
        if _proved(mdp, low, high, tol, V, "span"):
            exhausted = False
            break
        if not np.isfinite(residuals[-1]) or residuals[-1] > 1e100:
            raise ValueError("the values grow without bound: some policy collects reward for ever; use gamma < 1")
        if k is None and len(residuals) <= len(fused.SWEEPS):
            sweeps = fused.SWEEPS[len(residuals) - 1]
        elif k is None:
            sweeps = 5 if residuals[-1] > gamma ** (sweeps + 1) * residuals[-2] * 1.5 else 20
        process, before = under_policy(mdp, policy), V
        for _ in range(sweeps):
            before = q_from_v(process, before).squeeze(-1)
        Q = q_from_v(mdp, before)
    return finish(mdp, before, tol=tol, residuals=residuals, iterations=len(residuals), started=started,
                  exhausted=exhausted, steps=steps, history=kept, swept=None if exhausted else Q)  # fmt: skip


def policy_iteration(
    mdp: MDP,
    policy: Tensor | None = None,
    *,
    tol: float = 1e-8,
    max_iterations: int = 1000,
    history: bool = False,
) -> Solution:
    """Evaluate the policy exactly, improve it, until nothing improves: Howard (1960).

    An action is changed only for one that is better by more than rounding, so that ties cannot make it cycle; where
    gamma is 1 it starts from a policy that ends, and then every policy on the way ends too, unless the values are
    unbounded.
    The policy found takes the first of the actions that are best to rounding, unless it would then never end.

    Args:
        policy: (*b, S) actions to start from; if ``None``, the best for the next reward alone, or one that ends.
        tol: error to reach.
        max_iterations: improvements before giving up.
        history: keep the values of every policy.

    Raises:
        ValueError: where gamma is 1 and no policy ends from some state, or the values are unbounded.
    """
    started = time.perf_counter()
    number("tol", tol, 0.0)
    integer("max_iterations", max_iterations)
    if policy is None and not history and small.usable(mdp):
        return small.howard(mdp, tol, max_iterations)
    undiscounted = not mdp.contracts
    steps = prepare_undiscounted(mdp)
    residuals: list[float] = []
    kept: list[Tensor] = []
    exhausted = True
    V = torch.zeros_like(mdp.R[..., 0])
    if policy is not None:
        policy = check_policy(mdp, policy)
        if policy.is_floating_point():
            raise TypeError("policy iteration starts from actions (*b, S), got probabilities")
    else:
        policy = _start(mdp) if undiscounted else greedy(q_from_zero(mdp))[0]
    for _ in range(max_iterations):
        if undiscounted:
            try:
                refuse_improper(mdp, policy)
            except ValueError as error:
                raise ValueError(f"the values are unbounded: better and better policies never end ({error})") from error
        process = under_policy(mdp, policy)
        dense = mdp.num_states <= DENSE_LIMIT or bool(mdp.batch_shape)
        V = solve_linear(process) if dense else solve_krylov(process, tol * 0.1)
        if history:
            kept.append(V.clone())
        Q = q_from_v(mdp, V)
        best, first = Q.max(-1)
        gain = best - Q.gather(-1, policy[..., None]).squeeze(-1)
        residuals.append(float(gain.max()))
        better = gain > torch.clamp(4 * rounding(mdp, V), min=0.0 if dense else tol * 0.1)[..., None]
        if not bool(better.any()):
            exhausted = False
            break
        policy = torch.where(better, first, policy)
    found = finish(mdp, V, tol=tol, residuals=residuals, iterations=len(residuals), started=started,
                   exhausted=exhausted, steps=steps, history=kept)  # fmt: skip
    margin = 4 * rounding(mdp, V)
    first = greedy(found.Q, margin)[1].int().argmax(-1)
    own = found.Q.gather(-1, policy[..., None]).squeeze(-1)
    kept_policy = torch.where(own >= found.V - margin[..., None], policy, first)
    policy = kept_policy if undiscounted and _loops_for_ever(mdp, first) else first
    regret = found.policy_regret_bound
    if regret is not None and mdp.contracts:
        regret = regret + (margin + shift(mdp, margin, margin)[1]).to(regret.dtype)
    return dataclasses.replace(found, policy=policy, policy_regret_bound=regret)


def _loops_for_ever(mdp: MDP, policy: Tensor) -> bool:
    try:
        refuse_improper(mdp, policy)
    except ValueError:
        return True
    return False


def _start(mdp: MDP) -> Tensor:
    """(*b, S) a policy that ends."""
    found = [proper_policy(element(mdp, index).graph) for index in np.ndindex(*mdp.batch_shape)]
    return torch.as_tensor(np.stack(found), device=mdp.device).view(*mdp.batch_shape, mdp.num_states)


def prepare_undiscounted(mdp: MDP) -> Tensor | None:
    """Where gamma is 1: refuse what never ends, and find (*b, S) the greatest expected steps if every policy ends."""
    if mdp.contracts:
        return None
    everywhere = True
    for index in np.ndindex(*mdp.batch_shape):
        one = element(mdp, index)
        if one.contracts:
            continue
        graph = one.graph
        lost = np.flatnonzero(~can_end(graph))
        if len(lost):
            raise ValueError(
                f"gamma is 1 and no policy ends from states {name_states(one, lost)}: use gamma < 1, or mark where the "
                "episode ends as terminal"
            )
        everywhere = everywhere and not can_avoid(graph).any()
    everywhere = everywhere and bool((mdp.discount == 1).all())
    return _longest(mdp) if everywhere else None


def _longest(mdp: MDP) -> Tensor | None:
    """(*b, S) the greatest expected number of steps over all policies, which all end, in float64.

    ``None`` if that is more than float64 can tell from never.
    """
    counting = object.__new__(MDP)
    for name in ("P", "terminal", "stop", "p0", "mask", "state_labels", "action_labels", "shape"):
        object.__setattr__(counting, name, getattr(mdp, name))
    ones = torch.ones_like(mdp.R)
    object.__setattr__(counting, "R", ones if mdp.terminal is None else ones.masked_fill(mdp.terminal[..., None], 0.0))
    object.__setattr__(counting, "gamma", 1.0)
    policy = _start(mdp)
    for _ in range(1000):
        try:
            steps = expected_steps(under_policy(counting, policy))
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            return None
        if not bool((steps < 1e12).all()):
            return None
        Q = q_from_v(counting, steps.to(mdp.dtype))
        best, first = Q.max(-1)
        better = best > Q.gather(-1, policy[..., None]).squeeze(-1) * (1 + 1e-9)
        if not bool(better.any()):
            break
        policy = torch.where(better, first, policy)
    return steps * (1 + 1e-3)  # w needs 1 + P w <= w for every policy: slack covers what ties and rounding leave
