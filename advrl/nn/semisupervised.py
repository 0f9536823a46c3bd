"""A discriminator of K classes, with the class of fakes implied. Salimans et al. (2016), section 5."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from advrl.checks import integer, number
from advrl.objectives import class_logit


class ClassDiscriminator(nn.Module):
    """K class logits l made into one for "real": l_{K+1} = 0, a = log sum_k e^l_k, so that D = Z / (Z + 1).

    Args:
        net: maps samples (B, *event) to l (B, K).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def classes(self, x: Tensor) -> Tensor:
        """l (B, K): softmax(l) is p(y | x, real)."""
        logits: Tensor = self.net(x)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """a (B,)."""
        return class_logit(self.classes(x))


class GaussianNoise(nn.Module):
    """Adds N(0, std) to what it is given, in training alone."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = number("std", std, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *) to (B, *)."""
        return x + self.std * torch.randn_like(x) if self.training and self.std else x


def noisy_mlp(
    inputs: int, outputs: int, hidden: Sequence[int] = (500, 250, 250), noise: tuple[float, float] = (0.3, 0.5)
) -> nn.Sequential:
    """The discriminator of Salimans et al. (2016) for MNIST: Gaussian noise, weights normalised.

    Theirs has hidden layers of 1000, 500, 250, 250 and 250 units. The norm of the weights is apart from their direction
    (Salimans & Kingma, 2016), and is learnt in the last layer alone, as theirs: a hidden unit that could grow would
    drown the noise behind it. :func:`standardise` sets the norms, and should be called before training.

    Args:
        inputs: numbers of a sample, which is flattened.
        outputs: K.
        hidden: units of the hidden layers.
        noise: its standard deviation at the input and before the other layers.
    """
    sizes = [integer("inputs", inputs), *hidden]
    layers: list[nn.Module] = [nn.Flatten(), GaussianNoise(noise[0])]
    for before, after in itertools.pairwise(sizes):
        linear = weight_norm(nn.Linear(before, after))
        linear.parametrizations.weight.original0.requires_grad_(False)
        layers += [linear, nn.ReLU(), GaussianNoise(noise[1])]
    return nn.Sequential(*layers, weight_norm(nn.Linear(sizes[-1], integer("outputs", outputs, 2))))


@torch.no_grad()
def standardise(net: nn.Sequential, samples: Tensor) -> None:
    """Scale and shift each unit of the linear layers so that its outputs have mean 0 and standard deviation 1.

    Layer by layer, of samples on their way through the network; Salimans & Kingma (2016), section 3. With weights as
    ``nn.Linear`` draws them, what a :func:`noisy_mlp` hears of 28 x 28 digits has deviations of .30, .11, .04 and .02
    in its layers, beside noise of .5.

    Args:
        net: its linear layers have normalised weights; changed in place.
        samples: (B, *event), a few hundred.

    Raises:
        ValueError: for fewer than two samples, which have no deviation.
    """
    if len(samples) < 2:
        raise ValueError(f"samples must be at least 2 to have a standard deviation, got {len(samples)}")
    for layer in net:
        if isinstance(layer, nn.Linear):
            deviation, mean = torch.std_mean(layer(samples), 0)
            deviation = deviation.where(deviation > 1e-4, torch.ones_like(deviation))  # a unit that hears nothing
            layer.parametrizations.weight.original0.div_(deviation[:, None])  # type: ignore[union-attr, operator]
            layer.bias.sub_(mean).div_(deviation)
        samples = layer(samples)
