"""The loop of all tabular learners: N agents, each in an episode of its own, one batched step for all of them.

An agent that has ended an episode starts the next at once and waits for nobody, until it has had its share. Values are
tables with the agents first, so that one call trains thousands of seeds, or one agent for every setting of a sweep.
An episode that ends is worth nothing from there on; one that a time limit cuts off goes on being worth what the learner
thinks. Shapes: N agents, E episodes, S states, A actions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator
from advrl.tabular.solution import greedy

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rate = float | Tensor | Callable[[Tensor], Tensor]
"""A number, one for each agent (N,), or a schedule: a function of counts (episodes done, or updates of a pair)."""

_CHUNK = 32  # steps between two looks at whether all have finished, which makes the host wait


class Common(TypedDict, total=False):
    """What every learner takes.

    Attributes:
        agents: N, 1 if left out.
        episodes: E of each agent, 500 if left out.
        max_steps: time limit of an episode, 10,000 if left out.
        seed: or a generator on the MDP's device.
        initial: value or (S, A) or (N, S, A) table to start from.
        gamma: what the learner discounts by, a number or one for each agent (N,); the MDP's if left out. Returns, and
            what a policy is worth, stay the MDP's.
        rewards: one per transition, as of :meth:`advrl.tabular.Simulator.of`.
        keep: keep the values after each episode.
        progress: show a bar.
    """

    agents: int
    episodes: int
    max_steps: int
    seed: int | torch.Generator
    initial: float | Tensor
    gamma: float | Tensor
    rewards: Tensor | None
    keep: bool
    progress: bool


@dataclass(frozen=True, eq=False)
class Learned:
    """What N agents have learned.

    Attributes:
        Q: (N, S, A) action values, -inf where an action is not feasible; for prediction, of the one action "follow the
            policy"; ``None`` for learners that have none.
        V: (N, S) state values.
        policy: (N, S) greedy actions, or (N, S, A) probabilities.
        returns: (N, E) return of each episode, discounted by the MDP's gamma, to be held against V of the first state.
        lengths: (N, E) its number of steps.
        steps: number of all agents' steps together.
        history: (N, E, S) values after each episode, if asked for (those of the greedy action for control).
    """

    Q: Tensor | None
    V: Tensor
    policy: Tensor
    returns: Tensor
    lengths: Tensor
    steps: int
    history: Tensor | None = None


class Transition(NamedTuple):
    """(N,) each. ``moving`` are the agents that took part; ``done`` adds what a time limit cut off to ``ended``."""

    state: Tensor
    action: Tensor
    reward: Tensor
    next: Tensor
    ended: Tensor
    done: Tensor
    moving: Tensor


class Learner(Protocol):
    """What the loop asks of a learner; tables are (N * S, A), so that agent n's state s is row n * S + s."""

    def act(self, state: Tensor) -> Tensor:
        """Actions (N,) in states (N,)."""

    def update(self, t: Transition) -> None:
        """Learn from a step."""

    def waiting(self) -> Tensor | None:
        """(N,) bool: agents that still have to digest what they saw before they go on."""

    def table(self) -> Tensor:
        """(N * S, A) action values."""


class Loop:
    """The state of N agents that act in one MDP, and the run to the end of their last episode.

    Args:
        problem: an MDP, or a simulator.

    Raises:
        TypeError, ValueError: for options of the wrong type or size, naming them.
    """

    def __init__(self, problem: MDP | Simulator, **common: Unpack[Common]) -> None:
        unknown = common.keys() - Common.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown option {sorted(unknown)[0]!r} (one of: {', '.join(Common.__annotations__)})")
        self.agents = integer("agents", common.get("agents", 1))
        self.episodes = integer("episodes", common.get("episodes", 500))
        self.max_steps = integer("max_steps", common.get("max_steps", 10_000))
        self.keep, self.progress = common.get("keep", False), common.get("progress", False)
        self.initial = common.get("initial", 0.0)
        rewards = common.get("rewards")
        self.simulator = Simulator.of(problem, rewards) if isinstance(problem, MDP) else problem
        self.device, self.dtype = self.simulator.reward.device, self.simulator.reward.dtype
        seed = common.get("seed", 0)
        if isinstance(seed, torch.Generator):
            if seed.device.type != self.device.type:
                raise ValueError(f"the generator is on {seed.device}, the MDP on {self.device}")
            self.generator = seed
        else:
            self.generator = torch.Generator(self.device).manual_seed(integer("seed", seed, 0))
        self.states, self.actions = self.simulator.num_states, self.simulator.num_actions
        self.base = torch.arange(self.agents, device=self.device) * self.states
        gamma = common.get("gamma", self.simulator.gamma)
        if callable(gamma):
            raise TypeError("gamma must be a number or one for each agent: it has no schedule")
        self.gamma = self.rate("gamma", gamma)(self.base)  # (N,)
        self.finished = torch.zeros(self.agents, dtype=torch.int64, device=self.device)
        self.allowed = self.simulator.allowed
        self.all_allowed = bool(self.allowed.all())
        self.choices = self.allowed.int().argsort(dim=-1, descending=True, stable=True)  # feasible actions come first
        self.num_choices = self.allowed.sum(-1)
        self.uniform_policy = self.allowed.to(self.dtype) / self.num_choices[:, None].clamp(min=1)

    def uniform(self, columns: int) -> Tensor:
        """(columns, N) numbers in [0, 1)."""
        size = (columns, self.agents)
        return torch.rand(size, generator=self.generator, dtype=self.dtype, device=self.device)

    def random_action(self, state: Tensor, uniform: Tensor) -> Tensor:
        """(N,) feasible actions, all alike, for uniform numbers (N,)."""
        if self.all_allowed:
            return (uniform * self.actions).long()
        rank = (uniform * self.num_choices.index_select(0, state)).long()
        return self.choices.flatten().index_select(0, state * self.actions + rank)

    def new_table(self, value: float | Tensor | None = None) -> Tensor:
        """(N * S, A) values to start from."""
        shape = (self.agents, self.states, self.actions)
        value = self.initial if value is None else value
        if isinstance(value, Tensor):
            if value.shape not in (shape, shape[1:]):
                raise ValueError(
                    f"initial must be a number or have shape {shape[1:]} or {shape}, got {tuple(value.shape)}"
                )
            table = value.to(device=self.device, dtype=self.dtype).expand(shape).clone()
        else:
            table = torch.full(shape, float(value), dtype=self.dtype, device=self.device)
        return table.view(-1, self.actions)

    def rate(self, name: str, value: Rate, high: float = 1.0) -> Callable[[Tensor], Tensor]:
        """A rate as a function of counts (N,).

        Raises:
            ValueError: for numbers outside [0, high], or a tensor of another shape than (N,).
        """
        if callable(value) and not isinstance(value, Tensor):
            return lambda count: value(count.to(self.dtype))
        fixed = torch.as_tensor(value, dtype=self.dtype, device=self.device)
        if tuple(fixed.shape) not in ((), (self.agents,)):
            raise ValueError(f"{name} must be a number or have shape ({self.agents},), got {tuple(fixed.shape)}")
        if not bool(((fixed >= 0) & (fixed <= high)).all()):
            raise ValueError(f"{name} must be in [0, {high:g}], got {value}")
        fixed = fixed.expand(self.agents)
        return lambda count: fixed

    def values(self, table: Tensor) -> Tensor:
        """(N, S) greatest feasible action values of a table (N * S, A)."""
        return self._closed(table).amax(-1)

    def _closed(self, table: Tensor) -> Tensor:
        Q = table.view(self.agents, self.states, self.actions)
        return Q if self.all_allowed else Q.masked_fill(~self.allowed, -torch.inf)

    def learned(self, table: Tensor, returns: Tensor, lengths: Tensor, history: Tensor | None = None) -> Learned:
        """The result with a table (N * S, A) of action values."""
        Q = self._closed(table)
        return Learned(Q, Q.amax(-1), greedy(Q)[0], returns, lengths, int(lengths.sum()), history)

    def run(self, learner: Learner) -> Learned:
        """All episodes of all agents."""
        N, E = self.agents, self.episodes
        whole: dict[str, Any] = {"dtype": torch.int64, "device": self.device}
        # a spare column for those who are through
        returns = torch.zeros(N, E + 1, dtype=self.dtype, device=self.device)
        lengths = torch.zeros(N, E + 1, **whole)
        history = torch.zeros(N, E, self.states, dtype=self.dtype, device=self.device) if self.keep else None
        state = self.simulator.first(self.uniform(1)[0])
        age = torch.zeros(N, **whole)
        total = torch.zeros(N, dtype=self.dtype, device=self.device)
        discount = torch.ones_like(total)
        unsaved = torch.zeros(N, dtype=torch.bool, device=self.device)
        bar = progress_bar(self.episodes) if self.progress else None
        tick = 0
        while True:
            waits = learner.waiting()
            moving = self.finished < E
            if waits is not None:
                moving = moving & ~waits
            action = learner.act(state)
            draws = self.uniform(2)
            following, reward, ended = self.simulator.step(state, action, draws[0])
            age = age + moving
            total = torch.where(moving, total + discount * reward, total)
            discount = discount * self.simulator.gamma
            ended = ended & moving
            done = ended | ((age >= self.max_steps) & moving)
            place = self.finished[:, None]
            returns.scatter_(1, place, total[:, None])  # the last one of an episode stands
            lengths.scatter_(1, place, age[:, None])
            learner.update(Transition(state, action, reward, following, ended, done, moving))
            self.finished = self.finished + done
            state = torch.where(done, self.simulator.first(draws[1]), torch.where(moving, following, state))
            age, total = age.masked_fill(done, 0), total.masked_fill(done, 0.0)
            discount = discount.masked_fill(done, 1.0) if waits is None else torch.where(age > 0, discount, 1.0)
            if history is not None:
                unsaved |= done
                waits = learner.waiting()
                ready = unsaved if waits is None else unsaved & ~waits
                who = ready.nonzero().squeeze(-1)
                history[who, self.finished[who] - 1] = self.values(learner.table())[who]
                unsaved &= ~ready
            tick += 1
            if tick % _CHUNK == 0:
                waits = learner.waiting()
                busy = self.finished < E if waits is None else (self.finished < E) | waits
                if bar is not None:
                    bar.n = int(self.finished.min())
                    bar.refresh()
                if not bool(busy.any()):
                    break
        if bar is not None:
            bar.close()
        return self.learned(learner.table(), returns[:, :E], lengths[:, :E], history)


def progress_bar(episodes: int) -> Any:
    """A bar of so many episodes."""
    from tqdm import tqdm

    return tqdm(total=episodes, unit="episode", leave=False, disable=None)  # none where nobody looks


def decay(start: float, end: float, over: int) -> Callable[[Tensor], Tensor]:
    """A schedule that falls in a straight line from ``start`` to ``end`` while ``over`` episodes (or updates) go by."""
    integer("over", over)
    return lambda count: start + (end - start) * (count / over).clamp(max=1.0)


def harmonic(power: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The schedule 1 / n^power of the n-th update; Q-learning converges for (1/2, 1]. Even-Dar & Mansour (2003)."""
    return lambda count: (count + 1) ** -power
