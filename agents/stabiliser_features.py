r"""Feature matching: the generator meets the data's mean features instead of deceiving the discriminator.

    |E f(x) - E f(G(z))|^2        f: what goes into one layer of the discriminator      Salimans et al. (2016), 3.1

The discriminator learns as ever, so that f stays a place where data and samples differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from advrl.agents.stabiliser import Stabiliser
from advrl.distributed import mean

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer


class FeatureMatching(Stabiliser):
    """The generator minimises the squared distance of mean features; its objective is not played.

    The mean couples the batch, so the estimator must differentiate the cost in the samples. With several ranks the
    means are of all of them, and so is the gradient. Costs one more pass of the discriminator, on the real batch.

    Args:
        layer: name of the layer whose input is f, as in ``discriminator.named_modules()``; the last linear or
            convolutional one, which gives the logit, if ``None``.

    Raises:
        ValueError: when attached, if the discriminator has no such layer.
    """

    name = "feature-matching"
    couples = True
    matches = True

    def __init__(self, layer: str | None = None) -> None:
        super().__init__()
        self.layer = layer
        self._trainer: list[AdversarialTrainer] = []
        self._heard: list[Tensor] = []

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Find the layer."""
        self._trainer, self._site = [trainer], [feature_layer(trainer.discriminator, self.layer)]

    def features(self, x: Tensor) -> Tensor:
        """f of samples (B, *event), as the discriminator is shown them: (B, F)."""
        heard: list[Tensor] = []

        def hear(module: nn.Module, given: tuple[Any, ...]) -> None:
            heard.append(given[0])

        (trainer,), (site,) = self._trainer, self._site
        handle = site.register_forward_pre_hook(hear)
        try:
            trainer.discriminator(trainer.shown(x))
        finally:
            handle.remove()
        return heard[-1].flatten(1)

    def cost(self, fake: Tensor, real: Tensor) -> Tensor:
        """(), with the ranks' common means in its value and its gradient."""
        return squared_gap(self.features(real).detach().mean(0), self.features(fake).mean(0))


def squared_gap(real: Tensor, fake: Tensor) -> Tensor:
    """|real - fake|^2 of means (F,) over all ranks; averaging the ranks' gradients gives that of the joined batch."""
    gap = fake - real
    common = mean(gap.detach())
    return common.square().sum() + (2 * common * (gap - gap.detach())).sum()


def feature_layer(net: nn.Module, name: str | None = None) -> nn.Module:
    """The layer called ``name``, or the last linear or convolutional one.

    Raises:
        ValueError: if there is none.
    """
    layers = dict(net.named_modules())
    found = [n for n, m in layers.items() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    if name is None and found:
        name = found[-1]
    if name is None or name not in layers:
        raise ValueError(
            f"the discriminator has no layer {name!r} to match the features of (one of: {', '.join(found)})"
        )
    return layers[name]
