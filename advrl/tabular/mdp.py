"""A finite Markov decision process as tensors: what planning, learning and the exact answers work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advrl.checks import finite
from advrl.tabular import transitions
from advrl.tabular.transitions import Expectation, Successors, Transitions

if TYPE_CHECKING:
    from advrl.tabular.graph import Graph

ROW_TOLERANCE = 1e-6
EVEN = 1e-6  # probabilities of going on that differ by less are one


@dataclass(frozen=True, eq=False)
class MDP:
    """States S, actions A, transition probabilities, expected rewards and a discount; or a batch of such.

    Everything is on one device, and probabilities and rewards have one dtype. A terminal state is worth 0 whatever is
    done there: its rows of P and R are set to zero. Leading batch dimensions *b are allowed for dense P and
    successor lists, with a gamma for each.

    Args:
        P: probabilities of the next state: dense (*b, S, A, S), :class:`Successors` (*b, S, A, B), or a torch CSR
            matrix (S * A, S) with rows s * A + a.
        R: (*b, S, A) expected reward; or one per transition, (*b, S, A, S) with dense P or (*b, S, A, B) with
            successor lists, which is averaged.
        gamma: discount in [0, 1], a number or (*b).
        terminal: (*b, S) bool: worth 0, nothing follows.
        stop: (*b, S, A) probability that the episode ends with the step, beside P, whose rows then sum to 1 - stop.
        p0: (*b, S) probabilities of the first state.
        mask: (*b, S, A) bool: which actions are feasible; every state that is not terminal has one.
        state_labels, action_labels: names for messages and pictures.
        shape: (rows, columns) of a grid whose states are numbered row by row.

    Raises:
        TypeError: for the wrong kind of tensor.
        ValueError: naming state, action and value, for rows that do not sum to one, negative or NaN probabilities,
            indices out of range, rewards that are not finite, gamma outside [0, 1], states without a feasible action,
            wrong shapes, mixed devices or dtypes.
    """

    P: Transitions
    R: Tensor
    gamma: float | Tensor = 1.0
    terminal: Tensor | None = None
    stop: Tensor | None = None
    p0: Tensor | None = None
    mask: Tensor | None = None
    state_labels: Sequence[str] | None = None
    action_labels: Sequence[str] | None = None
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_kind(self)
        _fold_rewards(self)
        _end_terminals(self)
        _check(self)

    @property
    def num_states(self) -> int:
        """S."""
        return self.R.shape[-2]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.R.shape[-1]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """*b."""
        return tuple(self.R.shape[:-2])

    @property
    def device(self) -> torch.device:
        """Where everything lives."""
        return self.R.device

    @property
    def dtype(self) -> torch.dtype:
        """Of probabilities and rewards."""
        return self.R.dtype

    @cached_property
    def exact_discount(self) -> Tensor:
        """(*b) gamma in float64."""
        gamma = self.gamma
        if not isinstance(gamma, Tensor):
            gamma = torch.full((), gamma, dtype=torch.float64, device=self.device)
        return gamma.to(dtype=torch.float64, device=self.device).expand(self.batch_shape)

    @cached_property
    def discount(self) -> Tensor:
        """(*b, 1) gamma, to multiply values by."""
        return self.exact_discount.to(self.dtype).unsqueeze(-1)

    @cached_property
    def graph(self) -> Graph:
        """Which states can follow which, for an MDP that is no batch; what gamma = 1 needs to know."""
        from advrl.tabular.graph import Graph

        return Graph(self)

    @cached_property
    def expectation(self) -> Expectation:
        """The operator V (*b, S) -> E[V(s') | s, a] (*b, S, A); what ends the episode counts 0."""
        return Expectation(self.P, self.batch_shape, self.num_states, self.num_actions)

    @cached_property
    def continuing(self) -> tuple[Tensor, Tensor]:
        """((*b), (*b)) least and greatest probability of going on over feasible actions, in float64."""
        sums = transitions.row_sums(self.P, self.num_states, self.num_actions)
        if self.mask is None:
            return sums.amin((-2, -1)), sums.amax((-2, -1))
        low, high = sums.masked_fill(~self.mask, torch.inf), sums.masked_fill(~self.mask, -torch.inf)
        return low.amin((-2, -1)), high.amax((-2, -1))

    @cached_property
    def contracts(self) -> bool:
        """Whether gamma times the greatest probability of going on is below 1, so that values are bounded."""
        return bool((self.exact_discount * self.continuing[1] < 1).all())

    @cached_property
    def even(self) -> bool:
        """Whether all rows go on with one probability, so that the values of all states can be wrong by one number."""
        least, greatest = self.continuing
        return bool((greatest - least < EVEN).all())

    @cached_property
    def successors_per_row(self) -> int:
        """The most terms that a backup adds up."""
        if isinstance(self.P, Successors):
            return self.P.prob.shape[-1]
        return int(self.P.crow_indices().diff().max()) if transitions.is_csr(self.P) else self.num_states

    def state(self, index: int) -> str:
        """A state's number, with its label or its place in the grid."""
        if self.state_labels is not None:
            return f"{index} ({self.state_labels[index]})"
        return f"{index} {divmod(index, self.shape[1])}" if self.shape is not None else str(index)

    def action(self, index: int) -> str:
        """An action's number, with its label."""
        return str(index) if self.action_labels is None else f"{index} ({self.action_labels[index]})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> MDP:
        """The same MDP on another device or in another dtype."""
        where = None if device is None else torch.device(device)

        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device=where, dtype=dtype if t.is_floating_point() else None)

        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in ("R", "terminal", "stop", "p0", "mask")}
        moved["gamma"] = move(self.gamma) if isinstance(self.gamma, Tensor) else self.gamma
        return dataclasses.replace(self, P=transitions.to(self.P, where, dtype), **moved)

    def dense(self) -> MDP:
        """The same MDP with dense P (*b, S, A, S)."""
        return dataclasses.replace(self, P=transitions.densify(self.P, self.num_states, self.num_actions))

    def sparse(self) -> MDP:
        """The same MDP with P as a CSR matrix; for one MDP, not for a batch."""
        if self.batch_shape:
            raise ValueError(f"a CSR matrix holds one MDP, this is a batch of shape {self.batch_shape}")
        if transitions.is_csr(self.P):
            return self
        if isinstance(self.P, Successors):
            return dataclasses.replace(self, P=transitions.flat_csr(self.P))
        row, col = transitions.edges(self.P, self.num_states, self.num_actions)
        size = self.num_states * self.num_actions
        crow = torch.cat([row.new_zeros(1), torch.bincount(row, minlength=size).cumsum(0)])
        value = self.P.reshape(size, -1)[row, col]
        P = transitions.sparse_csr(crow.int(), col.int(), value, (size, self.num_states))
        return dataclasses.replace(self, P=P)

    @staticmethod
    def stack(mdps: Sequence[MDP]) -> MDP:
        """A batch of MDPs of one size, dense; gamma may differ."""
        if not mdps:
            raise ValueError("nothing to stack")
        sizes = {(m.num_states, m.num_actions, m.batch_shape) for m in mdps}
        if len(sizes) > 1:
            raise ValueError(f"MDPs of one size can be stacked, got (S, A, batch) of {sorted(sizes)}")
        dense = [m.dense() for m in mdps]
        first = dense[0]

        def joined(name: str, default: float | bool) -> Tensor | None:
            found = [getattr(m, name) for m in dense]
            given = next((t for t in found if t is not None), None)
            if given is None:
                return None
            return torch.stack([torch.full_like(given, default) if t is None else t for t in found])

        gamma = torch.stack([m.discount.squeeze(-1) for m in dense])
        if first.p0 is None or any(m.p0 is None for m in dense):
            p0 = None
        else:
            p0 = joined("p0", 0.0)
        return MDP(
            torch.stack([m.P for m in dense]), torch.stack([m.R for m in dense]), gamma,  # type: ignore[misc]
            terminal=joined("terminal", False), stop=joined("stop", 0.0), p0=p0, mask=joined("mask", True),
            state_labels=first.state_labels, action_labels=first.action_labels, shape=first.shape,
        )  # fmt: skip


def _check_kind(mdp: MDP) -> None:
    prob = transitions.values(mdp.P)
    for name, t in (("P", prob), ("R", mdp.R)):
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {getattr(t, 'dtype', type(t).__name__)}")
    if isinstance(mdp.P, Successors) and mdp.P.next.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"next states must be int32 or int64, got {mdp.P.next.dtype}")
    gamma: Any = mdp.gamma
    if isinstance(gamma, bool) or not isinstance(gamma, (Tensor, Real)):
        raise TypeError(f"gamma must be a number or a tensor, got {gamma!r}")
    if prob.dtype != mdp.R.dtype or prob.device != mdp.R.device:
        raise ValueError(
            f"P and R must share dtype and device, got {prob.dtype} on {prob.device} and {mdp.R.dtype} on "
            f"{mdp.R.device}"
        )
    for name in ("terminal", "mask"):
        t = getattr(mdp, name)
        if t is not None and t.dtype != torch.bool:
            raise TypeError(f"{name} must be a bool tensor, got {t.dtype}")
    for name in ("terminal", "mask", "stop", "p0"):
        t = getattr(mdp, name)
        if t is not None and t.device != mdp.R.device:
            raise ValueError(f"{name} is on {t.device}, R on {mdp.R.device}")


def _fold_rewards(mdp: MDP) -> None:
    """Average rewards given per transition, and check that the shapes belong together."""
    P, R = mdp.P, mdp.R
    if not transitions.is_csr(P):
        prob = transitions.values(P)
        if prob.dim() < 3:
            raise ValueError(f"P must have shape (*b, S, A, S) or (*b, S, A, B), got {tuple(prob.shape)}")
        if R.shape == prob.shape:
            R = torch.where(prob > 0, prob * R, torch.zeros_like(R)).sum(-1)
            object.__setattr__(mdp, "R", R)
        want = tuple(prob.shape[:-1])
        if tuple(R.shape) != want:
            raise ValueError(f"R must have shape {want}, or that of P {tuple(prob.shape)}, got {tuple(R.shape)}")
        if isinstance(P, Tensor) and P.shape[-1] != P.shape[-3]:
            raise ValueError(f"dense P must have shape (*b, S, A, S), got {tuple(P.shape)}")
        if isinstance(P, Successors) and P.next.shape != P.prob.shape:
            raise ValueError(f"next and prob must have one shape, got {tuple(P.next.shape)} and {tuple(P.prob.shape)}")
    else:
        if R.dim() != 2:
            raise ValueError(f"with P in CSR form R must have shape (S, A), got {tuple(R.shape)}")
        if tuple(P.shape) != (R.numel(), R.shape[0]):
            want = (R.numel(), R.shape[0])
            raise ValueError(f"P in CSR form must have shape (S * A, S) = {want}, got {tuple(P.shape)}")
    S, A, b = mdp.num_states, mdp.num_actions, mdp.batch_shape
    for name, tail in (("terminal", (S,)), ("p0", (S,)), ("mask", (S, A)), ("stop", (S, A))):
        t = getattr(mdp, name)
        if t is None:
            continue
        if tuple(t.shape) not in ((*b, *tail), tail):
            raise ValueError(f"{name} must have shape {(*b, *tail)}, got {tuple(t.shape)}")
        object.__setattr__(mdp, name, t.expand(*b, *tail))
    if isinstance(mdp.gamma, Tensor) and tuple(mdp.gamma.shape) not in (b, ()):
        raise ValueError(f"gamma must be a number or have shape {b}, got {tuple(mdp.gamma.shape)}")
    for name, count in (("state_labels", S), ("action_labels", A)):
        labels = getattr(mdp, name)
        if labels is not None and len(labels) != count:
            raise ValueError(f"{name} must name all {count}, got {len(labels)}")
    if mdp.shape is not None and mdp.shape[0] * mdp.shape[1] != S:
        raise ValueError(f"a grid of shape {mdp.shape} has {mdp.shape[0] * mdp.shape[1]} states, the MDP has {S}")


def _end_terminals(mdp: MDP) -> None:
    """Nothing follows a terminal state: its rows become zero, and the whole mass stops."""
    if mdp.terminal is None or not mdp.terminal.any():
        return
    ended = mdp.terminal[..., None].expand_as(mdp.R)
    prob = transitions.values(mdp.P)
    gone = ended.flatten()[transitions.rows_of(mdp.P)] if transitions.is_csr(mdp.P) else ended[..., None]
    object.__setattr__(mdp, "P", transitions.with_values(mdp.P, prob.masked_fill(gone, 0.0)))
    object.__setattr__(mdp, "R", mdp.R.masked_fill(ended, 0.0))
    stop = torch.zeros_like(mdp.R) if mdp.stop is None else mdp.stop
    object.__setattr__(mdp, "stop", stop.masked_fill(ended, 1.0))


def _check(mdp: MDP) -> None:
    S, A = mdp.num_states, mdp.num_actions
    finite("R", mdp.R)
    prob = transitions.values(mdp.P)
    bad = ~(prob >= 0)  # negative or NaN
    if bad.any():
        where = bad.nonzero()[0].tolist()
        row = int(transitions.rows_of(mdp.P)[where[0]]) if transitions.is_csr(mdp.P) else None
        s, a = divmod(row, A) if row is not None else (where[-3], where[-2])
        raise ValueError(
            f"probabilities must not be negative or NaN: state {mdp.state(s)}, action {mdp.action(a)} has "
            f"{prob[tuple(where)].item():g}"
        )
    if transitions.is_csr(mdp.P):
        column = mdp.P.col_indices()
        strays = ((column < 0) | (column >= S)).nonzero()
        if len(strays):
            s, a = divmod(int(transitions.rows_of(mdp.P)[strays[0]]), A)
            raise ValueError(
                f"next states must be in 0..{S - 1}: state {mdp.state(s)}, action {mdp.action(a)} leads to "
                f"{int(column[strays[0]])}"
            )
    if isinstance(mdp.P, Successors):
        out = (mdp.P.next < 0) | (mdp.P.next >= S)
        if out.any():
            where = out.nonzero()[0].tolist()
            raise ValueError(
                f"next states must be in 0..{S - 1}: state {mdp.state(where[-3])}, action {mdp.action(where[-2])} "
                f"leads to {int(mdp.P.next[tuple(where)])}"
            )
    if mdp.stop is not None and not ((mdp.stop >= 0) & (mdp.stop <= 1)).all():
        raise ValueError("stop must hold probabilities, in [0, 1]")
    sums = transitions.row_sums(mdp.P, S, A)
    total = sums if mdp.stop is None else sums + mdp.stop
    wrong = (total - 1).abs() > ROW_TOLERANCE
    if mdp.mask is not None:
        wrong = wrong & mdp.mask
    if wrong.any():
        where = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"probabilities must sum to 1: state {mdp.state(where[-2])}, action {mdp.action(where[-1])} has "
            f"{total[tuple(where)].item():.9g} ({int(wrong.sum())} rows are wrong; normalise them, or give what is "
            "missing as stop=)"
        )
    gamma = mdp.discount
    if not ((gamma >= 0) & (gamma <= 1)).all():
        raise ValueError(f"gamma must be in [0, 1], got {mdp.gamma}")
    if mdp.mask is not None:
        stuck = ~mdp.mask.any(-1)
        if mdp.terminal is not None:
            stuck = stuck & ~mdp.terminal
        if stuck.any():
            name = mdp.state(int(stuck.nonzero()[0][-1]))
            raise ValueError(f"state {name} has no feasible action and is not terminal")
    if mdp.p0 is not None:
        start = mdp.p0.double()
        if not (start >= 0).all() or ((start.sum(-1) - 1).abs() > ROW_TOLERANCE).any():
            raise ValueError(f"p0 must hold probabilities that sum to 1, they sum to {start.sum(-1).tolist()}")
