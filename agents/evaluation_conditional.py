"""Evaluation of models that are asked for something: a class, a code, or what class an image has.

What class sample i of a conditional policy's ``sample(n)`` should be is known: ``asked(n)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advrl.agents.classifier import STEPS, Prepare
from advrl.agents.evaluation import CHUNK, Evaluator, Sample
from advrl.agents.switched import evaluating
from advrl.checks import integer
from advrl.data import ImageData

ASKED = 1_000  # samples behind an accuracy


class ConditionalEvaluator(Evaluator):
    """Adds how often the evaluator's classifier sees in a sample the class that was asked for.

    Args:
        data, prepare, device, seed, classifier_steps: as in :class:`Evaluator`; the data must have labels.
        classes: that samplers are asked for.
        asked: n to the classes (n,) that a sampler is asked for; by default 0, 1, 2, ... in turn.
        matched: classes are codes without a name (InfoGAN): each is matched to one class of the data, as well as can
            be on the samples themselves, so that chance is above 1 / classes.

    Raises:
        ValueError: without labels.
    """

    def __init__(
        self,
        data: ImageData,
        prepare: Prepare,
        device: torch.device | str = "cpu",
        seed: int = 0,
        classifier_steps: int = STEPS,
        *,
        classes: int,
        asked: Callable[[int], Tensor] | None = None,
        matched: bool = False,
    ):
        if data.classes is None:
            raise ValueError(f"{data.name} has no labels, by which the classes of samples could be judged")
        self.classes, self.asked, self.matched = integer("classes", classes, 2), asked, matched
        super().__init__(data, prepare, device, seed, classifier_steps)

    def confusion(self, sample: Sample, number: int = ASKED) -> Tensor:
        """(classes, classes of the data): how many samples of each class asked for the classifier puts where."""
        assert self.classifier is not None
        turn = torch.arange(number, device=self.device) % self.classes
        asked = turn if self.asked is None else self.asked(number).to(self.device)
        features = self._features(self._draw(sample, number) if number <= CHUNK else sample(number))
        seen = self.classifier.head(features).argmax(1)
        known = self.classifier.head.out_features
        counts = torch.bincount(asked * known + seen, minlength=self.classes * known)
        return counts.unflatten(0, (self.classes, known))

    def further(self, sample: Sample, splits: int) -> dict[str, Tensor]:
        """``class_accuracy``, or ``code_accuracy`` of matched codes, (splits,)."""
        found = [_diagonal(self.confusion(sample), self.matched) for _ in range(splits)]
        return {
            "code_accuracy" if self.matched else "class_accuracy": torch.tensor(
                found, dtype=torch.float64, device=self.device
            )
        }


class SemiSupervisedEvaluator(Evaluator):
    """Adds the share of held-out images that the discriminator puts in the wrong class.

    Args:
        data, prepare, device, seed, classifier_steps: as in :class:`Evaluator`; the data must have labels.
        discriminator: with ``classes(x)``.

    Raises:
        ValueError: without labels.
    """

    def __init__(
        self,
        data: ImageData,
        prepare: Prepare,
        device: torch.device | str = "cpu",
        seed: int = 0,
        classifier_steps: int = STEPS,
        *,
        discriminator: nn.Module,
    ):
        if data.held_out_labels is None:
            raise ValueError(f"{data.name} has no labels, so that no test error can be told")
        self.discriminator: Any = discriminator
        super().__init__(data, prepare, device, seed, classifier_steps)

    def further(self, sample: Sample, splits: int) -> dict[str, Tensor]:
        """``test_error``, (1,): one number, of one discriminator."""
        assert self.data.held_out_labels is not None
        error = held_out_error(self.discriminator, self._held_out, self.data.held_out_labels.to(self.device))
        return {"test_error": error[None]}


@torch.no_grad()
def held_out_error(discriminator: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Share () of images (N, *event) whose likeliest class, by ``discriminator.classes``, is not labels (N,)."""
    with evaluating(discriminator):
        seen = torch.cat([discriminator.classes(part).argmax(1) for part in images.split(CHUNK)])
    return (seen != labels).double().mean()


def _diagonal(counts: Tensor, matched: bool) -> float:
    """Share on the diagonal of (K, L) counts, or on the best one-to-one matching."""
    if matched:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(counts.cpu().numpy(), maximize=True)
        right = sum(int(counts[i, j]) for i, j in zip(rows, columns, strict=True))
    else:
        right = int(counts.diagonal().sum())
    return right / int(counts.sum())
