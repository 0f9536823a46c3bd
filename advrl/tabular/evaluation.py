r"""Policy evaluation, V = R_pi + gamma P_pi V, by linear algebra or sweeps: Sutton & Barto (2018), section 4.1."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advrl.checks import choice, integer, number
from advrl.tabular import transitions
from advrl.tabular.graph import name_states, never_ends, recurrent_class
from advrl.tabular.mdp import MDP
from advrl.tabular.solution import bounds_after, feasible, q_from_v

METHODS = ("auto", "lu", "krylov", "iterative", "inplace")
DENSE_LIMIT = 1500


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A policy's values. Shapes as in :class:`~advrl.tabular.Solution`.

    Attributes:
        V, Q: (*b, S) and (*b, S, A) values of the policy.
        lower, upper: (*b, S) certified bounds of V; ``None`` without a proof, as ``reason`` says.
        error_bound: (*b) greatest distance of V from the policy's true values.
        residuals: greatest change of each sweep.
        iterations: sweeps, or 1 for linear algebra.
        status: "converged", "rounding" or "max_iterations".
        history: (*b, S) values after each sweep, if asked for.
        seconds: of wall time.
    """

    V: Tensor
    Q: Tensor
    lower: Tensor | None
    upper: Tensor | None
    error_bound: Tensor | None
    residuals: list[float]
    iterations: int
    status: str
    reason: str = ""
    history: list[Tensor] = field(default_factory=list, repr=False)
    seconds: float = 0.0


def policy_evaluation(
    mdp: MDP,
    policy: Tensor | np.ndarray,
    method: str = "auto",
    *,
    tol: float = 1e-8,
    max_sweeps: int = 1_000_000,
    history: bool = False,
) -> Evaluation:
    """The values of a policy.

    Args:
        policy: (*b, S) actions, or (*b, S, A) probabilities.
        method: ``lu`` (dense factorisation), ``krylov`` (BiCGSTAB, one MDP), ``iterative`` (sweeps of all states at
            once), ``inplace`` (sweeps state by state, one MDP), or ``auto``: lu for up to 1,500 states, else krylov, or
            iterative for a batch.
        tol: error to reach.
        max_sweeps: for the sweeping methods.
        history: keep the values after every sweep.

    Raises:
        ValueError: for a policy that takes an action that is not feasible or is no distribution, or, where gamma is 1,
            one that never ends from some state (naming a class of states that it never leaves).
    """
    started = time.perf_counter()
    choice("method", method, METHODS)
    number("tol", tol, 0.0)
    integer("max_sweeps", max_sweeps)
    policy = check_policy(mdp, policy)
    process = under_policy(mdp, policy)
    refuse_improper(mdp, policy)
    small = mdp.num_states <= DENSE_LIMIT
    if method == "auto":
        method = "lu" if small else "iterative" if mdp.batch_shape else "krylov"
    if mdp.batch_shape and method in ("krylov", "inplace"):
        raise ValueError(f"{method} treats one MDP, this is a batch of shape {mdp.batch_shape}: use lu or iterative")
    residuals: list[float] = []
    kept: list[Tensor] = []
    exhausted = False
    if method == "lu":
        V = solve_linear(process)
    elif method == "krylov":
        V = solve_krylov(process, tol)
    else:
        sweep = evaluation_sweeps(process, inplace=method == "inplace")
        V = torch.zeros_like(process.R[..., 0])
        exhausted = True
        for _, new in zip(range(max_sweeps), sweep, strict=False):
            change = new - V
            V = new
            residuals.append(float(change.abs().max()))
            if history:
                kept.append(V.clone())
            if _small_enough(process, change, tol):
                exhausted = False
                break
    steps = expected_steps(process) if not process.contracts else None
    one = q_from_v(process, V).squeeze(-1)
    lower, upper, reason = bounds_after(process, V, one, steps)
    if lower is None or upper is None:
        error = None
    else:
        if steps is None:
            one = (lower + upper) / 2
        error = torch.maximum((upper - one).amax(-1), (one - lower).amax(-1))
    done = error is None or bool((error <= tol).all())
    status = "converged" if done else "max_iterations" if exhausted else "rounding"
    Q = q_from_v(mdp, one)
    return Evaluation(one, Q, lower, upper, error, residuals, max(len(residuals), 1), status, reason, kept,
                      time.perf_counter() - started)  # fmt: skip


def evaluation_sweeps(process: MDP, V: Tensor | None = None, *, inplace: bool = False) -> Iterator[Tensor]:
    """The values (*b, S) after each sweep of iterative policy evaluation, for ever.

    Args:
        process: a Markov reward process, as of :func:`under_policy`.
        V: where to start; zeros if ``None``.
        inplace: each state at once uses what the sweep has already found (one MDP).
    """
    V = torch.zeros_like(process.R[..., 0]) if V is None else V
    if not inplace:
        while True:
            V = q_from_v(process, V).squeeze(-1)
            yield V
    matrix, reward = _scipy(process)
    gamma = float(process.discount)
    value = V.double().cpu().numpy().copy()
    while True:
        for s in range(len(value)):
            span = slice(matrix.indptr[s], matrix.indptr[s + 1])
            value[s] = reward[s] + gamma * (matrix.data[span] @ value[matrix.indices[span]])
        yield torch.as_tensor(value.copy(), dtype=V.dtype, device=V.device)


def check_policy(mdp: MDP, policy: Tensor | np.ndarray) -> Tensor:
    """The policy as a tensor if it is one for the MDP; arrays of NumPy and lists will do.

    Raises:
        ValueError: naming state and action, for an action out of range or not feasible, or rows that do not sum to 1.
    """
    S, A, b = mdp.num_states, mdp.num_actions, mdp.batch_shape
    allowed = feasible(mdp)
    if not isinstance(policy, Tensor):
        policy = torch.as_tensor(policy, device=mdp.device)
    if policy.is_floating_point():
        if tuple(policy.shape[-2:]) != (S, A) or tuple(policy.shape[:-2]) not in (b, ()):
            raise ValueError(f"a stochastic policy must have shape {(*b, S, A)}, got {tuple(policy.shape)}")
        policy = policy.to(dtype=mdp.dtype, device=mdp.device).expand(*b, S, A)
        wrong = ~(policy >= 0) | ((policy.sum(-1, keepdim=True) - 1).abs() > 1e-5)
        if wrong.any():
            where = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"a policy's probabilities must be at least 0 and sum to 1, state {mdp.state(where[-2])} has "
                f"{policy[tuple(where[:-1])].tolist()}"
            )
        forbidden = (policy > 0) & ~allowed
    else:
        if tuple(policy.shape[-1:]) != (S,) or tuple(policy.shape[:-1]) not in (b, ()):
            raise ValueError(f"a deterministic policy must have shape {(*b, S)}, got {tuple(policy.shape)}")
        policy = policy.to(device=mdp.device, dtype=torch.int64).expand(*b, S)
        out = (policy < 0) | (policy >= A)
        if out.any():
            where = out.nonzero()[0].tolist()
            bad, state = int(policy[tuple(where)]), mdp.state(where[-1])
            raise ValueError(f"actions must be in 0..{A - 1}, state {state} has {bad}")
        forbidden = torch.zeros_like(allowed).scatter_(-1, policy[..., None], True) & ~allowed
    if forbidden.any():
        where = forbidden.nonzero()[0].tolist()
        raise ValueError(f"action {mdp.action(where[-1])} is not feasible in state {mdp.state(where[-2])}")
    return policy


def under_policy(mdp: MDP, policy: Tensor) -> MDP:
    """The Markov reward process that a policy makes of the MDP: the same form, with one action.

    Args:
        policy: (*b, S) actions or (*b, S, A) probabilities, checked.
    """
    process = object.__new__(MDP)  # its parts come from a checked MDP: checking again would cost as much as a solve
    if policy.is_floating_point():
        R = (mdp.R.where(policy > 0, 0.0) * policy).sum(-1, keepdim=True)
        stop = None if mdp.stop is None else (mdp.stop * policy).sum(-1, keepdim=True)
    else:
        R = mdp.R.gather(-1, policy[..., None])
        stop = None if mdp.stop is None else mdp.stop.gather(-1, policy[..., None])
    P = transitions.of_policy(mdp.P, policy, mdp.num_states, mdp.num_actions)
    fields: dict[str, Any] = {
        "P": P, "R": R, "gamma": mdp.gamma, "terminal": mdp.terminal, "stop": stop, "p0": mdp.p0, "mask": None,
        "state_labels": mdp.state_labels, "action_labels": None, "shape": mdp.shape,
    }  # fmt: skip
    for name, value in fields.items():
        object.__setattr__(process, name, value)
    return process


def refuse_improper(mdp: MDP, policy: Tensor) -> None:
    """Raise a ``ValueError`` that names a recurrent class if gamma is 1 and the policy never ends."""
    gamma = mdp.discount.squeeze(-1)
    if bool((gamma < 1).all()):
        return
    for index in np.ndindex(*mdp.batch_shape):
        if float(gamma[index]) < 1:
            continue
        one = element(mdp, index)
        graph, taken = one.graph, policy[index].cpu().numpy()
        if never_ends(graph, taken).any():
            raise ValueError(
                "gamma is 1 and the policy never ends: it stays for ever among states "
                f"{name_states(one, recurrent_class(graph, taken))}; use gamma < 1, or a policy that ends"
            )


def element(mdp: MDP, index: tuple[int, ...]) -> MDP:
    """One MDP of a batch."""
    if not index:
        return mdp
    one = object.__new__(MDP)
    P = mdp.P
    picked = transitions.Successors(P.next[index], P.prob[index]) if isinstance(P, transitions.Successors) else P[index]
    fields: dict[str, Any] = {name: getattr(mdp, name) for name in ("state_labels", "action_labels", "shape")}
    fields |= {"P": picked, "gamma": mdp.discount.squeeze(-1)[index]}
    for name in ("R", "terminal", "stop", "p0", "mask"):
        value = getattr(mdp, name)
        fields[name] = None if value is None else value[index]
    for name, value in fields.items():
        object.__setattr__(one, name, value)
    return one


def solve_linear(process: MDP) -> Tensor:
    """(*b, S) the solution of (I - gamma P) V = R by LU factorisation."""
    S = process.num_states
    P = transitions.densify(process.P, S, 1).squeeze(-2)
    A = torch.eye(S, dtype=P.dtype, device=P.device) - process.discount[..., None] * P
    V: Tensor = torch.linalg.solve(A, process.R).squeeze(-1)
    return V


def _scipy(process: MDP) -> tuple[Any, np.ndarray]:
    """P (S, S) in CSR form and R (S,) as SciPy and NumPy arrays in float64."""
    import scipy.sparse as sp

    P = process.P
    if isinstance(P, transitions.Successors):
        P = transitions.flat_csr(P)
    S = process.num_states
    if transitions.is_csr(P):
        parts = (P.values().double(), P.col_indices(), P.crow_indices())
        matrix = sp.csr_matrix(tuple(t.cpu().numpy() for t in parts), shape=(S, S))
    else:
        matrix = sp.csr_matrix(P.reshape(S, S).double().cpu().numpy())
    return matrix, process.R.reshape(S).double().cpu().numpy()


def solve_krylov(process: MDP, tol: float) -> Tensor:
    """(S,) the solution of (I - gamma P) V = R by BiCGSTAB in float64, by sparse LU if that stalls."""
    import scipy.sparse as sp
    import scipy.sparse.linalg as sla

    P, R = _scipy(process)
    gamma = float(process.discount)
    system = sp.identity(len(R), format="csr") - gamma * P
    V, failed = sla.bicgstab(system, R, rtol=0.0, atol=max(tol * (1 - gamma), 1e-13), maxiter=1000)
    if failed or not np.isfinite(V).all():
        V = sla.spsolve(system.tocsc(), R)
    return torch.as_tensor(V, dtype=process.dtype, device=process.device)


def expected_steps(process: MDP) -> Tensor:
    """(*b, S) expected number of steps until the end, in float64; the policy must end."""
    ones = under_policy(process, torch.zeros_like(process.R[..., 0], dtype=torch.int64))
    object.__setattr__(ones, "R", torch.ones_like(process.R))
    object.__setattr__(ones, "gamma", 1.0)
    if process.terminal is not None:
        object.__setattr__(ones, "R", ones.R.masked_fill(process.terminal[..., None], 0.0))
    dense = process.num_states <= DENSE_LIMIT or bool(process.batch_shape)
    steps = solve_linear(ones) if dense else solve_krylov(ones, 1e-10)
    return steps.double() * (1 + 1e-6)  # itself a solve: leave room for its rounding


def _small_enough(process: MDP, change: Tensor, tol: float) -> bool:
    """Whether a sweep's change proves that the error is below ``tol``, or that rounding is all that is left."""
    d = change.double()
    if process.contracts:
        gamma, high = process.discount.squeeze(-1).double(), process.continuing[1]
        factor = gamma * high / (1 - gamma * high)
        return bool((factor * d.abs().amax(-1) <= tol).all()) or bool((d == 0).all())
    return bool((d.abs() <= tol * 1e-3).all())
