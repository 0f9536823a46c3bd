"""Writing a sequence token by token: ``gymnasium.make("advrl/Sequence-v0")``.

Shapes: n episodes, L places, V tokens, A actions, C numbers of context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from advrl.checks import integer
from advrl.envs.contexts import Reward
from advrl.envs.generation import Generation, State
from advrl.envs.pictures import cells
from advrl.envs.views import GenerationEnv, GenerationVectorEnv


class SequenceGeneration(Generation):
    """Sequences of at most ``length`` tokens 0 .. V - 1, written one by one and paid when they are finished.

    Observation: (L,) int64, the tokens so far, then padding, which is V + 1 with an end of sequence and V without; with
    a context, a dictionary of ``tokens`` and ``context``. Action: the next token; with ``eos``, V ends the sequence and
    takes a place of its own. An episode terminates with it, or when all places are written. Undiscounted, the return is
    the reward of the finished sequence. A reward function is called with (tokens (n, L), contexts (n, C)) where there
    are contexts.

    Args:
        vocab: V, at least 2.
        length: L, at least 1.
        reward: a name, or a function of finished sequences (n, L) -> (n,); see :class:`Generation`.
        eos: whether there is an end of sequence. Beware: rewards of one sign then favour long or short sequences as
            such, if they are dense or grow with what is written.
        min_length: tokens that must be written before the end may be.
        allowed: a function of prefixes (n, L), padded, -> (n, A) bool, which next tokens may be written.
        context: numbers of noise, or a table (K, C) of contexts.
        dense: pay each step with the reward of the prefix, in place of the last step alone.
        device: of all tensors.

    Raises:
        TypeError, ValueError: for sizes out of range.
    """

    def __init__(
        self, vocab: int = 20, length: int = 10, reward: str | Reward = "countdown", *, eos: bool = False,
        min_length: int = 0, allowed: Callable[[Tensor], Tensor] | None = None, context: int | Tensor | None = None,
        dense: bool = False, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.vocab, self.length = integer("vocab", vocab, 2), integer("length", length)
        self.horizon = self.length
        self.min_length = integer("min_length", min_length, 0)
        if min_length and (not eos or min_length >= length):
            raise ValueError(f"min_length needs eos=True and must be below length {length}, got {min_length}")
        super().__init__(reward, context=context, conditional=context is not None, dense=dense, device=device)
        self.eos = vocab if eos else None
        self.num_actions = vocab + eos
        self.padding = self.num_actions
        self.allowed = allowed
        self.masked = allowed is not None or min_length > 0
        tokens = gym.spaces.Box(0, self.padding, (length,), np.int64)  # Box: SB3 turns MultiDiscrete into one-hots
        self.observation_space = (
            tokens if self.contexts is None else gym.spaces.Dict({"context": self.contexts.space, "tokens": tokens})
        )
        self.action_space = gym.spaces.Discrete(self.num_actions)

    def blank(self, n: int) -> State:
        """All places hold padding."""
        return {"tokens": torch.full((n, self.length), self.padding, dtype=torch.int64, device=self.device)}

    def advance(self, state: State, action: Tensor) -> tuple[State, Tensor]:
        """The next place holds the action."""
        place = state["steps"].clamp(max=self.length - 1)  # of those that are over, and will be replaced
        steps = state["steps"] + 1
        ended = steps >= self.length
        if self.eos is not None:
            ended = ended | (action == self.eos)
        return state | {"tokens": state["tokens"].scatter(1, place[:, None], action[:, None]), "steps": steps}, ended

    def observe(self, state: State) -> Tensor | dict[str, Tensor]:
        """(n, L) tokens, with the context where there is one."""
        if self.contexts is None:
            return state["tokens"]
        return {"context": state["context"], "tokens": state["tokens"]}

    def sample(self, state: State) -> Tensor:
        """(n, L) tokens."""
        return state["tokens"]

    def mask(self, state: State) -> Tensor:
        """(n, A) bool: which tokens may come next.

        Raises:
            ValueError: if ``allowed`` has another shape, or leaves a sequence that is not over without a token.
        """
        n = len(state["steps"])
        mask = torch.ones(n, self.num_actions, dtype=torch.bool, device=self.device)
        if self.allowed is not None:
            mask = self.allowed(state["tokens"])
            if tuple(mask.shape) != (n, self.num_actions) or mask.dtype != torch.bool:
                raise ValueError(
                    f"allowed must give ({n}, {self.num_actions}) bool, got {tuple(mask.shape)} {mask.dtype}"
                )
        if self.min_length:
            early = state["steps"] < self.min_length
            mask = mask.clone()
            mask[:, self.vocab] &= ~early
        if self.allowed is not None:
            stuck = ~mask.any(1) & ~self._over(state)
            if bool(stuck.any()):
                i = int(stuck.nonzero()[0])
                raise ValueError(f"no token may follow {state['tokens'][i].tolist()}: allowed must leave at least one")
            mask = mask | self._over(state)[:, None]  # of what is over nothing is asked
        return mask

    def _over(self, state: State) -> Tensor:
        over = state["steps"] >= self.length
        return over if self.eos is None else over | (state["tokens"] == self.eos).any(1)

    def text(self, state: State, row: int) -> str:
        """Tokens as numbers, ``.`` for the end, ``_`` for what is not written; after the context, if there is one."""
        signs = {self.padding: "_", self.eos: "."}
        written = " ".join(signs.get(token, str(token)) for token in state["tokens"][row].tolist())
        if "context" not in state:
            return written
        return f"[{' '.join(f'{v:.2f}' for v in state['context'][row].tolist())}] {written}"

    def picture(self, state: State, row: int) -> np.ndarray:
        """A row of squares, a hue for each token, black for the end."""
        tokens = state["tokens"][row].cpu().numpy()
        shown = np.where(tokens == self.padding, self.vocab + 1, tokens)
        return cells(shown, self.vocab)


class SequenceEnv(GenerationEnv):
    """:class:`SequenceGeneration`, one sequence at a time. ``advrl/Sequence-v0``. Version 0.

    Args:
        render_mode: ``ansi`` or ``rgb_array``.
        options: those of :class:`SequenceGeneration`.
    """

    dynamics: SequenceGeneration

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        super().__init__(SequenceGeneration(**options), render_mode)


class SequenceVectorEnv(GenerationVectorEnv):
    """:class:`SequenceGeneration`, many sequences side by side.

    Args:
        num_envs: n.
        autoreset_mode, render_mode: as :class:`GenerationVectorEnv` has them.
        options: those of :class:`SequenceGeneration`.
    """

    dynamics: SequenceGeneration

    def __init__(
        self, num_envs: int = 1, *, autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            SequenceGeneration(**options), num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode
        )
