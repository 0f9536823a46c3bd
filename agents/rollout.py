"""Whole episodes of a generation task, played side by side on its device, and what a policy says of them afterwards.

Playing needs no gradient; one differentiable pass over the finished episodes then gives the log-probabilities that
every policy-gradient rule starts from. Three kinds of policy play:

- those that write a sample at once, ``policy.distribution(z)``, in a :class:`advrl.envs.OneShotGeneration`;
- those that write tokens from a cached state, ``policy.start``, ``step`` and ``logits`` (``advrl.nn.GRUPolicy``), in an
  :class:`advrl.envs.SequenceGeneration`;
- any module from what the environment shows to logits (n, A), in any task whose actions are numbered.

Shapes: n episodes, T steps at most, A actions, C numbers of context.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import gymnasium as gym
import torch
from torch import Tensor, nn

from advrl.data import Stream
from advrl.distributions import sample_categorical
from advrl.envs.generation import Generation, State, choose
from advrl.envs.oneshot import OneShotGeneration
from advrl.envs.sequence import SequenceGeneration


@dataclass(frozen=True)
class Episodes:
    """Finished episodes, a row each.

    Args:
        action: (n, T, *action), of which those behind the end mean nothing.
        mask: (n, T) bool, the steps that an episode has.
        sample: (n, *event) what was written, as the reward sees it.
        context: (n, C), where there is one.
        allowed: (n, T, A) bool, which actions could be taken, where some could not.
        observation: (n, T, *observation) what was seen before each step, or a dictionary of such; where it was asked
            for.
        states: the task's T + 1 states, for what is still to be paid.
    """

    action: Tensor
    mask: Tensor
    sample: Tensor
    context: Tensor | None = None
    allowed: Tensor | None = None
    observation: Tensor | dict[str, Tensor] | None = None
    states: tuple[State, ...] = ()

    def __len__(self) -> int:
        return len(self.mask)

    def rows(self, index: Tensor | slice) -> Episodes:
        """Some of the episodes, without the task's states."""
        seen = self.observation
        return replace(
            self,
            action=self.action[index],
            mask=self.mask[index],
            sample=self.sample[index],
            context=None if self.context is None else self.context[index],
            allowed=None if self.allowed is None else self.allowed[index],
            observation={k: v[index] for k, v in seen.items()} if isinstance(seen, dict) else None if seen is None
            else seen[index],
            states=(),
        )  # fmt: skip


class Actor(Protocol):
    """A policy as the player of a task."""

    reads: bool
    """Whether it needs the observations of finished episodes."""

    def start(self, state: State) -> Any:
        """Its memory before the first step."""

    def act(self, state: State, last: Tensor | None, allowed: Tensor | None, memory: Any) -> tuple[Tensor, Any]:
        """Actions (n, *action) and its memory, after the ``last`` actions."""

    def log_prob(self, episodes: Episodes) -> Tensor:
        """(n, T) log-probabilities of the actions that were taken, differentiable, 0 behind the end."""


@torch.no_grad()
def play(actor: Actor, task: Generation, n: int, context: Tensor | None = None, *, observe: bool = False) -> Episodes:
    """n episodes from start to end, not yet paid.

    Args:
        actor: see :func:`actor_for`.
        task: its dynamics.
        n: episodes.
        context: (n, C), or one drawn for each.
        observe: keep what was seen before each step.
    """
    state = task.init(n, context)
    memory, last = actor.start(state), None
    live = torch.ones(n, dtype=torch.bool, device=task.device)
    states, actions, lives, masks = [state], [], [], []
    for _ in range(task.horizon):
        allowed = task.mask(state) if task.masked else None
        last, memory = actor.act(state, last, allowed, memory)
        after, ended = task.advance(state, last)
        state = choose(live, after, state)  # what is over stays as it was
        states.append(state)
        actions.append(last)
        lives.append(live)
        masks.append(allowed)
        live = live & ~ended
    return Episodes(
        action=torch.stack(actions, 1),
        mask=torch.stack(lives, 1),
        sample=task.sample(state),
        context=state.get("context"),
        allowed=torch.stack([cast(Tensor, mask) for mask in masks], 1) if task.masked else None,
        observation=_observations(task, states[:-1]) if observe or actor.reads else None,
        states=tuple(states),
    )


def pay(task: Generation, episodes: Episodes) -> Tensor:
    """(n, T) rewards: all samples in one call, at each episode's last step; or, if the task is dense, at every step.

    Raises:
        ValueError: for rewards of another shape, or not finite, naming the samples.
    """
    mask = episodes.mask
    if task.dense:
        return torch.stack([task.pay(episodes.states[t + 1], mask[:, t]) for t in range(mask.shape[1])], 1)
    paid = task.pay(episodes.states[-1], torch.ones_like(mask[:, 0]))
    place = mask.sum(1, keepdim=True) - 1
    return torch.zeros(mask.shape, dtype=paid.dtype, device=paid.device).scatter(1, place, paid[:, None])


def _observations(task: Generation, states: list[State]) -> Tensor | dict[str, Tensor]:
    seen = [task.observe(state) for state in states]
    if isinstance(seen[0], dict):
        return {key: torch.stack([cast(dict[str, Tensor], o)[key] for o in seen], 1) for key in seen[0]}
    return torch.stack(cast(list[Tensor], seen), 1)


class OneShotActor:
    """``policy.distribution(z)`` writes the whole sample; its value, flattened, is the action."""

    reads = False

    def __init__(self, policy: nn.Module, task: OneShotGeneration) -> None:
        self.policy: Any = policy
        self.integers, self.like = task.kind != "box", next(policy.parameters())

    def start(self, state: State) -> None:
        return None

    def act(self, state: State, last: Tensor | None, allowed: Tensor | None, memory: None) -> tuple[Tensor, None]:
        x = self.policy.distribution(state["context"].to(self.like.dtype)).sample()
        return (x.long() if self.integers else x).flatten(1), None

    def log_prob(self, episodes: Episodes) -> Tensor:
        distribution = self.policy.distribution(cast(Tensor, episodes.context).to(self.like.dtype))
        x = episodes.action.to(self.like.dtype).view(len(episodes), *distribution.event_shape)
        log_prob: Tensor = distribution.log_prob(x)
        return log_prob[:, None]


class TokenActor:
    """A policy of sequences with a cached state; what is not allowed has probability 0, and the rest sums to one."""

    reads = False

    def __init__(self, policy: nn.Module) -> None:
        self.policy: Any = policy
        self.like = next(policy.parameters())

    def start(self, state: State) -> Any:
        return self.policy.start(len(state["steps"]), self._given(state.get("context")))

    def act(self, state: State, last: Tensor | None, allowed: Tensor | None, memory: Any) -> tuple[Tensor, Any]:
        logits, memory = self.policy.step(last, memory)
        return _draw(_closed(logits, allowed)), memory

    def log_prob(self, episodes: Episodes) -> Tensor:
        logits = self.policy.logits(episodes.action, self._given(episodes.context))
        return _chosen(_closed(logits, episodes.allowed), episodes)

    def _given(self, context: Tensor | None) -> Tensor | None:
        return None if context is None else context.to(self.like.dtype)


class SightActor:
    """A module from observations (n, *observation) to logits (n, A): it sees the environment and remembers nothing."""

    reads = True

    def __init__(self, policy: nn.Module, task: Generation) -> None:
        self.policy, self.task, self.like = policy, task, next(policy.parameters())
        self.actions = int(cast(gym.spaces.Discrete, task.action_space).n)

    def start(self, state: State) -> None:
        return None

    def act(self, state: State, last: Tensor | None, allowed: Tensor | None, memory: None) -> tuple[Tensor, None]:
        logits = self.policy(as_numbers(self.task.observe(state), self.like.dtype))
        expected = (len(state["steps"]), self.actions)
        if tuple(logits.shape) != expected:
            raise ValueError(f"the policy must give a logit for each action, {expected}, got {tuple(logits.shape)}")
        return _draw(_closed(logits, allowed)), None

    def log_prob(self, episodes: Episodes) -> Tensor:
        n, steps = episodes.mask.shape
        seen = as_numbers(flat(episodes.observation), self.like.dtype)
        logits = self.policy(seen).unflatten(0, (n, steps))
        return _chosen(_closed(logits, episodes.allowed), episodes)


def actor_for(policy: nn.Module, task: Generation) -> Actor:
    """The policy as a player of the task.

    Raises:
        TypeError: if it cannot play: a one-shot task needs ``distribution(z)``, all others numbered actions.
        ValueError: if a policy of sequences has another vocabulary, length or end than the task.
    """
    name = type(policy).__name__
    if isinstance(task, OneShotGeneration):
        if not hasattr(policy, "distribution"):
            raise TypeError(f"a one-shot task needs a policy with distribution(z), which {name} has not")
        return OneShotActor(policy, task)
    if not isinstance(task.action_space, gym.spaces.Discrete):
        raise TypeError(f"only tasks with numbered actions, or at one shot, can be played; got {task.action_space}")
    if not hasattr(policy, "step"):
        return SightActor(policy, task)
    if not isinstance(task, SequenceGeneration):
        raise TypeError(f"{name} writes tokens, and {type(task).__name__} takes none: give a module of observations")
    theirs = (task.vocab, task.length, task.eos is not None)
    own = tuple(getattr(policy, key, None) for key in ("vocab_size", "length", "eos"))
    if own != theirs:
        raise ValueError(
            f"the policy has (vocab_size, length, eos) = {own}, but the task has {theirs}: make them agree"
        )
    return TokenActor(policy)


class Player(nn.Module):
    """A policy with the task that it plays: ``sample(n)`` is what evaluators and ``advrl sample`` ask for."""

    def __init__(self, policy: nn.Module, task: Generation) -> None:
        super().__init__()
        self.policy, self.task, self.actor = policy, task, actor_for(policy, task)

    def sample(self, n: int) -> Tensor:
        """n fresh samples (n, *event)."""
        return play(self.actor, self.task, n).sample


class Turns(Stream):
    """Batches of nothing, for agents that learn from a reward and no data: what counts is how many rows there are.

    Args:
        batch_size: episodes of a step, of all ranks together.
        device: of the trainer.
    """

    def __init__(self, batch_size: int, device: torch.device | str = "cpu") -> None:
        super().__init__(batch_size, 0, torch.device(device))

    def draw(self, generator: torch.Generator) -> Tensor:
        """(batch_size, 1) zeros."""
        return torch.zeros(self.batch_size, 1, device=generator.device)


def flat(observation: Any) -> Any:
    """Observations (n, T, ...) with n T rows."""
    if isinstance(observation, dict):
        return {key: value.flatten(0, 1) for key, value in observation.items()}
    return observation.flatten(0, 1)


def as_numbers(observation: Any, dtype: torch.dtype) -> Any:
    """Observations with their floats, not their tokens, in the policy's precision."""
    if isinstance(observation, dict):
        return {key: as_numbers(value, dtype) for key, value in observation.items()}
    return observation.to(dtype) if observation.is_floating_point() else observation


def _closed(logits: Tensor, allowed: Tensor | None) -> Tensor:
    return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)


def _draw(logits: Tensor) -> Tensor:
    return sample_categorical(logits)


def _chosen(logits: Tensor, episodes: Episodes) -> Tensor:
    """(n, T) log-probabilities of the actions under logits (n, T, A), 0 behind the end."""
    log_prob = logits.gather(-1, episodes.action[..., None]).squeeze(-1) - logits.logsumexp(-1)
    return log_prob.masked_fill(~episodes.mask, 0.0)
