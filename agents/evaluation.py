"""Evaluation that a memoriser cannot win: samples against real images that nothing was trained on.

Every figure compares equally many samples and held-out images, since Fréchet distance, precision, recall and coverage
all move with the number. Beside the generator stand rows that say what its figures mean: two halves of the real data
against each other, the training half as a generator would score that had learned it by heart, and the ratio of
distances that gives such a generator away.

Shapes: n images of C channels, H rows, W columns, in data space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from advrl import checks, metrics, seeding
from advrl.agents.classifier import STEPS, Classifier, PixelComponents, Prepare, cached_classifier
from advrl.agents.report import Estimate, Report
from advrl.data import ImageData

NEIGHBOUR = 5  # k of precision, recall, density and coverage
MOST = 2_500  # images compared at a time: distances cost the square of it
SHARES_FROM = 10_000  # samples behind the class shares: a share of .1 is then known to .003
FAST_FROM = 2_000
CHUNK = 1_000  # images drawn or classified at a time

Sample = Callable[[int], Tensor]


class Evaluator:
    """Judges samplers of one data set; features are built once.

    Args:
        data: real images, in halves; without labels, features are principal components and there are no class rows.
        prepare: from (N, C, H, W) in [0, 1] to data space, as the policy sees images.
        device: where samples are and figures are computed.
        seed: of the classifier, the divisions and the samples drawn; no business of a run's own seed.
        classifier_steps: the classifier's training steps.
    """

    def __init__(
        self,
        data: ImageData,
        prepare: Prepare,
        device: torch.device | str = "cpu",
        seed: int = 0,
        classifier_steps: int = STEPS,
    ):
        self.data, self.device, self.seed = data, torch.device(device), seed
        self.n = min(len(data.train), len(data.held_out), MOST)
        if self.n <= NEIGHBOUR:
            raise ValueError(f"evaluation needs more than {NEIGHBOUR} images in each half, got {self.n}")
        self.classifier: Classifier | None = None
        with seeding.isolated(seed):
            self._train = prepare(data.train.to(self.device))
            self._held_out = prepare(data.held_out.to(self.device))
            if data.classes is None:
                self._extractor: Classifier | PixelComponents = PixelComponents(self._train.cpu()).to(self.device)
            else:
                self.classifier = cached_classifier(data, prepare, seed, classifier_steps).to(self.device)
                self._extractor = self.classifier
            # The n of each half that samples are held against, the same for every sampler.
            self._train_n = torch.randperm(len(self._train), device=self.device)[: self.n]
            self._held_out_n = torch.randperm(len(self._held_out), device=self.device)[: self.n]
        self._train_features = self._features(self._train)
        self._held_out_features = self._features(self._held_out)

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """All training and all held-out images (N, C, H, W) in data space, on the device."""
        return self._train, self._held_out

    def evaluate(self, sample: Sample, splits: int = 10) -> Report:
        """Every figure of a sampler, with what real images score beside them; changes no generator's state.

        Args:
            sample: from a number n to (n, C, H, W) in data space.
            splits: independent draws of n samples, for means and standard errors.

        Raises:
            ValueError: if samples have another shape or are not finite.
        """
        checks.integer("splits", splits)
        with seeding.isolated(self.seed), torch.no_grad():
            images = self._draw(sample, max(splits * self.n, SHARES_FROM))
            features = self._features(images)
            draws = [slice(start, start + self.n) for start in range(0, splits * self.n, self.n)]
            generated = _estimates(self._against_held_out(images[draw], features[draw]) for draw in draws)
            generated |= {name: Estimate.of(values) for name, values in self.further(sample, splits).items()}
        with seeding.isolated(self.seed), torch.no_grad():  # anew, so that real rows are the same beside every sampler
            halves = _estimates(self._halves() for _ in range(splits))
            by_heart = self._against_held_out(self._train[self._train_n], self._train_features[self._train_n])
            rows = {
                "generated": generated,
                "real halves": halves,
                "training half": _estimates([by_heart]),
                "held-out half": _estimates([self._confidence(self._held_out_features)]),
            }
            shares = {
                "generated": self._shares(features[:SHARES_FROM]),
                "held-out half": self._shares(self._held_out_features),
            }
        return Report(
            data=self.data.name,
            n=self.n,
            splits=splits,
            k=NEIGHBOUR,
            real=(len(self._train), len(self._held_out)),
            features=self._description(),
            accuracy=self._accuracy(),
            rows={name: row for name, row in rows.items() if row},
            class_shares={name: values for name, values in shares.items() if values},
            shares_from=SHARES_FROM,
        )

    def fast(self, sample: Sample) -> dict[str, float]:
        """A figure to choose checkpoints by: Fréchet distance of 2,000 samples to the *training* half.

        Held-out images stay out of the choice. ``share_min`` and ``share_max`` of the classes come with it where there
        are labels. Changes no generator's state.
        """
        with seeding.isolated(self.seed), torch.no_grad():
            features = self._features(self._draw(sample, FAST_FROM))
            result = {"frechet": float(metrics.frechet_distance(self._train_features, features))}
            shares = self._shares(features)
            result |= {name: float(values.mean()) for name, values in self.further(sample, 1).items()}
        return result | ({"share_min": min(shares), "share_max": max(shares)} if shares else {})

    def further(self, sample: Sample, splits: int) -> dict[str, Tensor]:
        """Figures (splits,) by name that a kind of model has beside those that all have."""
        return {}

    def _draw(self, sample: Sample, number: int) -> Tensor:
        """(number, C, H, W) samples, checked."""
        chunks = []
        for start in range(0, number, CHUNK):
            count = min(CHUNK, number - start)
            images = sample(count)
            if tuple(images.shape) != (count, *self._train.shape[1:]):
                raise ValueError(
                    f"sample({count}) must have shape {(count, *self._train.shape[1:])}, got {tuple(images.shape)}"
                )
            chunks.append(checks.finite("sample", images.detach()).to(self._train))
        return torch.cat(chunks)

    def _features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self._extractor.features(chunk) for chunk in images.split(CHUNK)])

    def _compare(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        return {
            "frechet": metrics.frechet_distance(real, fake),
            **metrics.precision_recall(real, fake, NEIGHBOUR),
        }

    def _against_held_out(self, images: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Every figure of n images.

        The ratio of distances is taken on pixels: the classifier has seen one of the halves, so that its features are
        not alike for both.
        """
        train, held_out = self._train[self._train_n], self._held_out[self._held_out_n]
        return {
            **self._compare(self._held_out_features[self._held_out_n], features),
            **self._confidence(features),
            "memorisation": metrics.memorisation_ratio(images, train, held_out),
        }

    def _halves(self) -> dict[str, Tensor]:
        """Two sets of n real images, from both halves together, against each other."""
        features = torch.cat([self._train_features, self._held_out_features])
        order = torch.randperm(len(features), device=features.device)
        return self._compare(features[order[: self.n]], features[order[self.n : 2 * self.n]])

    def _confidence(self, features: Tensor) -> dict[str, Tensor]:
        if self.classifier is None:
            return {}
        with torch.no_grad():
            return {"confident": metrics.confident_share(self.classifier.head(features).softmax(1))}

    def _shares(self, features: Tensor) -> list[float]:
        """Of each class among images with these features; none without labels."""
        if self.classifier is None:
            return []
        with torch.no_grad():
            labels = self.classifier.head(features).argmax(1)
        return metrics.class_shares(labels, self.classifier.head.out_features).tolist()

    def _accuracy(self) -> float | None:
        """The classifier's, on held-out images."""
        if self.classifier is None or self.data.held_out_labels is None:
            return None
        with torch.no_grad():
            labels = self.classifier.head(self._held_out_features).argmax(1)
        return float((labels == self.data.held_out_labels.to(labels.device)).double().mean())

    def _description(self) -> str:
        width = self._train_features.shape[1]
        if self.classifier is None:
            return f"{width} principal components of the training half's pixels (no labels, so no class figures)"
        return f"{width} of a classifier trained on the training half"


def _estimates(rounds: Iterable[dict[str, Tensor]]) -> dict[str, Estimate]:
    """Mean and standard error of each figure over the rounds."""
    rounds = list(rounds)
    return {name: Estimate.of(torch.stack([figures[name] for figures in rounds])) for name in rounds[0]}
