r"""Small functional optimisers: from a gradient and a state to a change of the parameters and the next state.

Unlike ``torch.optim`` nothing is changed in place, so a step is itself differentiable: unrolling goes through it. A
player's parameters are a tuple of tensors; so are its gradients and its change. Where no gradient is recorded the
arithmetic is that of ``torch.optim``'s foreach implementations, to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from advrl.checks import number

Params = tuple[Tensor, ...]
State = dict[str, Any]


class Rule(ABC):
    """How a player moves along its gradient. Frozen; what changes is in the state."""

    @abstractmethod
    def init(self, params: Params) -> State:
        """The state before the first step."""

    @abstractmethod
    def change(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        """What to add to the parameters, and the next state.

        Args:
            gradient: of what the player minimises, one tensor to each parameter.
            state: of :meth:`init`, or from the last call.
            rate: factor of the learning rate (a schedule's).
        """

    @abstractmethod
    def steps(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        """The step size of every coordinate, without momentum: what a solver of the local game multiplies by."""

    @abstractmethod
    def sizes(self, params: Params, state: State, rate: float = 1.0) -> Params:
        """The same as it is in this state, without a new gradient; the learning rate before the first."""

    @abstractmethod
    def with_momentum(self, momentum: float) -> Rule:
        """The same with another momentum."""

    @abstractmethod
    def times(self, factor: float) -> Rule:
        """The same with a learning rate ``factor`` times as large."""


@dataclass(frozen=True)
class SGDRule(Rule):
    """Gradient descent with heavy-ball momentum, as ``torch.optim.SGD``, whose momentum cannot be negative.

    Args:
        lr: learning rate.
        momentum: in (-1, 1).

    Raises:
        ValueError, TypeError: for a rate that is not positive, or a momentum outside (-1, 1).
    """

    lr: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        number("lr", self.lr, 0.0, exclusive=True)
        _momentum("momentum", self.momentum)

    def init(self, params: Params) -> State:
        return {"momentum": _zeros(params)} if self.momentum else {}

    def change(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        if not self.momentum:
            return _scaled(gradient, -self.lr * rate), state
        ball = _tuple(torch._foreach_add(gradient, state["momentum"], alpha=self.momentum))
        return _scaled(ball, -self.lr * rate), {"momentum": ball}

    def steps(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        return self.sizes(gradient, state, rate), state

    def sizes(self, params: Params, state: State, rate: float = 1.0) -> Params:
        return tuple(torch.full_like(p, self.lr * rate) for p in params)

    def with_momentum(self, momentum: float) -> SGDRule:
        return replace(self, momentum=momentum)

    def times(self, factor: float) -> SGDRule:
        return replace(self, lr=self.lr * factor)


@dataclass(frozen=True)
class AdamRule(Rule):
    """Adam, Kingma & Ba (2015), algorithm 1, as ``torch.optim.Adam``; the first beta may be negative.

    Args:
        lr: learning rate.
        betas: decay of the first moment, in (-1, 1), and of the second, in [0, 1).
        eps: added to the root of the second moment.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.99)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        number("lr", self.lr, 0.0, exclusive=True)
        number("eps", self.eps, 0.0, exclusive=True)
        _momentum("betas[0]", self.betas[0])
        if not 0 <= number("betas[1]", self.betas[1]) < 1:
            raise ValueError(f"betas[1] must be in [0, 1), got {self.betas[1]}")

    def init(self, params: Params) -> State:
        return {"count": 0, "first": _zeros(params), "second": _zeros(params)}

    def change(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        beta = self.betas[0]
        state = self._moments(gradient, state)
        step = -self.lr * rate / (1 - beta ** state["count"])
        change = _tuple(torch._foreach_div(state["first"], self._root(state)))
        if _recorded(change):
            return _scaled(change, step), state
        torch._foreach_mul_(change, step)
        return change, state

    def steps(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        state = self._moments(gradient, state)
        return self.sizes(gradient, state, rate), state

    def sizes(self, params: Params, state: State, rate: float = 1.0) -> Params:
        if not state["count"]:
            return tuple(torch.full_like(p, self.lr * rate) for p in params)
        return _scaled(_tuple(torch._foreach_reciprocal(self._root(state))), self.lr * rate)

    def with_momentum(self, momentum: float) -> AdamRule:
        return replace(self, betas=(momentum, self.betas[1]))

    def times(self, factor: float) -> AdamRule:
        return replace(self, lr=self.lr * factor)

    def _moments(self, gradient: Params, state: State) -> State:
        one, two = self.betas
        first = torch._foreach_lerp(state["first"], gradient, 1 - one)
        second = torch._foreach_mul(state["second"], two)
        if _recorded(second) or _recorded(gradient):
            second = torch._foreach_addcmul(second, gradient, gradient, 1 - two)
        else:
            torch._foreach_addcmul_(second, gradient, gradient, 1 - two)
        return {"count": state["count"] + 1, "first": _tuple(first), "second": _tuple(second)}

    def _root(self, state: State) -> Params:
        """sqrt(v / (1 - beta^t)) + eps, differentiable where v is 0: there the root's slope would be infinite."""
        correction = 1 / math.sqrt(1 - self.betas[1] ** state["count"])
        if _recorded(state["second"]):
            return tuple(
                torch.where(v > 0, torch.where(v > 0, v, torch.ones_like(v)).sqrt(), torch.zeros_like(v)) * correction
                + self.eps
                for v in state["second"]
            )
        root = torch._foreach_sqrt(state["second"])
        torch._foreach_mul_(root, correction)
        torch._foreach_add_(root, self.eps)
        return _tuple(root)


@dataclass(frozen=True)
class OptimisticRule(Rule):
    """Twice a rule's change minus its change before: w' = w + 2 d_t - d_(t-1), with d_0 = d_1.

    With ``SGDRule`` the optimistic mirror descent of Daskalakis et al. (2018), w' = w - 2 lr F_t + lr F_(t-1); with
    ``AdamRule`` their optimistic Adam (algorithm 1).
    """

    base: Rule

    def init(self, params: Params) -> State:
        return {"base": self.base.init(params), "before": None}

    def change(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        now, base = self.base.change(gradient, state["base"], rate)
        change = now if state["before"] is None else _tuple(torch._foreach_sub(_scaled(now, 2.0), state["before"]))
        return change, {"base": base, "before": now}

    def steps(self, gradient: Params, state: State, rate: float = 1.0) -> tuple[Params, State]:
        steps, base = self.base.steps(gradient, state["base"], rate)
        return steps, {**state, "base": base}

    def sizes(self, params: Params, state: State, rate: float = 1.0) -> Params:
        return self.base.sizes(params, state["base"], rate)

    def with_momentum(self, momentum: float) -> OptimisticRule:
        return OptimisticRule(self.base.with_momentum(momentum))

    def times(self, factor: float) -> OptimisticRule:
        return OptimisticRule(self.base.times(factor))


def check_rule(name: str, rule: object) -> None:
    """Raise a ``TypeError`` unless ``rule`` is one of the above: an optimiser of torch changes weights in place."""
    if not isinstance(rule, Rule):
        what = rule.__name__ if isinstance(rule, type) else type(rule).__name__
        raise TypeError(
            f"{name} must be an SGDRule or an AdamRule, got {what}: a dynamics evaluates the game away from its "
            "weights and may differentiate a step, which an optimiser that changes weights in place cannot do"
        )


def added(params: Params, change: Params) -> Params:
    """params + change."""
    return _tuple(torch._foreach_add(params, change))


def _scaled(params: Params, factor: float) -> Params:
    return _tuple(torch._foreach_mul(params, factor))


def _recorded(params: Any) -> bool:
    """Whether a gradient is recorded, so that nothing may be changed in place."""
    return any(p.requires_grad for p in params)


def _zeros(params: Params) -> Params:
    return tuple(torch.zeros_like(p) for p in params)


def _tuple(tensors: Any) -> Params:
    return tuple(tensors)


def _momentum(name: str, value: float) -> None:
    if not -1 < number(name, value) < 1:
        raise ValueError(f"{name} must be above -1 and below 1, got {value}")
