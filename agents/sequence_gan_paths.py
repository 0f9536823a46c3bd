r"""How a writer of sequences learns by the path: the discriminator's gradient goes through what was written.

Tokens have no slope. Gumbel-softmax puts a relaxation in their place, and is biased by it; a generator of continuous
vectors needs none, but what is judged is then not what is read. Shapes: n sequences, T steps, K outcomes, vectors of E.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advrl.agents.sequence_gan_rewards import Judge, written
from advrl.agents.sequence_gan_scores import Lesson, SequenceAlgorithm
from advrl.checks import number


@dataclass(frozen=True)
class Annealed:
    """A temperature that goes from ``first`` to ``last`` in ``steps`` steps, by the same factor each.

    Raises:
        ValueError, TypeError: unless both are positive.
    """

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        number("first temperature", self.first, 0.0, exclusive=True)
        number("last temperature", self.last, 0.0, exclusive=True)

    def __call__(self, step: int) -> float:
        share = min(max(step, 0) / max(self.steps, 1), 1.0)
        return float(self.first ** (1 - share) * self.last**share)


class Gumbel(SequenceAlgorithm):
    """Gumbel-softmax: Jang, Gu & Poole (2017); Kusner & Hernández-Lobato (2016); relativistic as RelGAN (Nie, 2019).

    With ``hard`` (straight-through) the discriminator sees exact one-hot draws, and the gradient is that of the
    relaxation: biased, whatever the temperature. Without, it sees relaxed rows: the exact gradient of another game,
    that of rows, which tells them from real one-hot ones. Where sequences end has no gradient either way.

    Args:
        temperature: of the step, counted from the beginning of the adversarial training.
        hard: straight-through.
    """

    def __init__(self, temperature: Callable[[int], float] = Annealed(1.0, 1.0, 1), hard: bool = True) -> None:
        super().__init__()
        self.temperature, self.hard = temperature, bool(hard)

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        temperature = self.temperature(step)
        rows = policy.distribution().relaxed(n, temperature, self.hard)
        cost = judge.cost(rows).mean()
        x = rows.detach().argmax(-1)
        mask = written(rows, policy.outcomes)
        x = torch.where(mask, x, torch.full_like(x, policy.outcomes))
        told = {"reward": -cost.detach(), "temperature": torch.full_like(cost.detach(), temperature)}
        with torch.no_grad():
            told["entropy"] = -(policy.log_probs(x) * mask).sum() / mask.sum()
        return Lesson(cost, x, told)

    @torch.no_grad()
    def fakes(self, policy: Any, n: int, step: int) -> Tensor:
        if self.hard:  # a hard row is a draw
            return super().fakes(policy, n, step)
        rows: Tensor = policy.distribution().relaxed(n, self.temperature(step))
        return rows


class EmbeddingPath(SequenceAlgorithm):
    """For an ``EmbeddingGenerator``: its vectors are judged, beside the rows of its table that real text has.

    The path gradient of that game is exact. It is another game than that of the tokens: a discriminator can tell real
    text by vectors that lie exactly on the table's rows, which noise on both sides hides (instance noise, Sønderby et
    al., 2017), and nothing moves a vector that is already read as the right token.

    Args:
        noise: standard deviation of what is added to each number of every vector that the discriminator sees.
    """

    def __init__(self, noise: float = 0.1) -> None:
        super().__init__()
        self.noise = number("noise", noise, 0.0)

    def lesson(self, policy: Any, judge: Judge, n: int, step: int) -> Lesson:
        vectors = policy(policy.noise(n))
        cost = judge.cost(self._blurred(vectors)).mean()
        x = policy.read(vectors)
        mask = written(x, policy.outcomes)
        missed = (vectors.detach() - policy.vectors(x)).square().sum(-1).sqrt()
        return Lesson(cost, x, {"reward": -cost.detach(), "distance": (missed * mask).sum() / mask.sum()})

    @torch.no_grad()
    def fakes(self, policy: Any, n: int, step: int) -> Tensor:
        return self._blurred(policy(policy.noise(n)))

    def shown(self, policy: Any, real: Tensor) -> Tensor:
        return self._blurred(policy.vectors(real))

    def _blurred(self, vectors: Tensor) -> Tensor:
        if not self.noise:
            return vectors
        there = vectors.detach().abs().sum(-1, keepdim=True) > 0
        return vectors + self.noise * torch.randn_like(vectors) * there
