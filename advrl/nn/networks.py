"""Networks for both players: multilayer perceptrons and the convolutional pair of the DCGAN guidelines.

A generator's output is raw: what its numbers mean (logits, means, pixels before a tanh) is the policy's business.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from advrl.checks import choice, integer, number

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class MLP(nn.Module):
    """Fully connected layers between events of any shape.

    ``MLP(64, (1, 8, 8))`` is a generator, ``MLP((1, 8, 8), ())`` a discriminator that gives one logit per sample.

    Args:
        in_shape, out_shape: of one sample, without the batch; an int is a vector, () a scalar.
        hidden: units of the hidden layers.
        activation: ``leaky_relu`` (slope 0.2), ``relu``, ``silu`` or ``tanh``.
        layer_norm: normalise before each activation.
        dropout: share of hidden units dropped in training.

    Raises:
        ValueError, TypeError: for sizes below 1, an unknown activation, a dropout outside [0, 1], or, when called,
            samples of another shape.
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        out_shape: int | Sequence[int],
        hidden: Sequence[int] = (256, 256),
        activation: str = "leaky_relu",
        layer_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        choice("activation", activation, ACTIVATIONS)
        number("dropout", dropout, 0.0, 1.0)
        self.in_shape, self.out_shape = _shape("in_shape", in_shape), _shape("out_shape", out_shape)
        sizes = [math.prod(self.in_shape), *_shape("hidden", hidden)]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after)]
            layers += [nn.LayerNorm(after)] * layer_norm
            layers += [ACTIVATIONS[activation]()]
            layers += [nn.Dropout(dropout)] * (dropout > 0)
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(self.out_shape)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, *in_shape) to (B, *out_shape)."""
        _check(x, self.in_shape)
        out: Tensor = self.net(x.flatten(1))
        return out.reshape(len(x), *self.out_shape)


class DCGANGenerator(nn.Module):
    """z (B, latent) to raw images (B, channels, size, size) by transposed convolutions only.

    Radford, Metz & Chintala (2016), section 3: no pooling, no hidden fully connected layer, batch norm everywhere but
    at the output, ReLU, weights from N(0, 0.02).

    Args:
        latent: dimension of z.
        channels: of the output.
        size: of the images, at least 8; maps have half the side of the one before, the last 3 or 4 (2 for 8).
        width: channels of the last hidden map; each map before it has twice as many.

    Raises:
        ValueError, TypeError: for another size, numbers below 1, or, when called, noise of another shape.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        sides = _sides(size)[::-1]
        integer("latent", latent), integer("channels", channels), integer("width", width)
        maps = width * 2 ** (len(sides) - 2)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (latent, 1, 1)),
            nn.ConvTranspose2d(latent, maps, sides[0], bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
        ]
        for side in sides[1:-1]:
            layers += [nn.ConvTranspose2d(maps, maps // 2, _kernel(side), 2, 1, bias=False), nn.BatchNorm2d(maps // 2)]
            layers += [nn.ReLU()]
            maps //= 2
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(maps, channels, _kernel(size), 2, 1))
        self.in_shape, self.out_shape = torch.Size([latent]), torch.Size([channels, size, size])
        self.apply(_initialise)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) to (B, channels, size, size)."""
        _check(z, self.in_shape)
        images: Tensor = self.net(z)
        return images


class DCGANDiscriminator(nn.Module):
    """Images (B, channels, size, size) to logits (B,) by strided convolutions only.

    Radford, Metz & Chintala (2016), section 3: leaky ReLU of slope 0.2, batch norm everywhere but at the input, weights
    from N(0, 0.02).

    Args:
        channels: of the images.
        size: of the images, at least 8; maps have half the side of the one before, the last 3 or 4 (2 for 8).
        width: channels of the first hidden map; each map after it has twice as many.
        batch_norm: off for gradient penalties, which are meant per sample.

    Attributes:
        features: F, how many numbers the last layer sees.

    Raises:
        ValueError, TypeError: for another size, numbers below 1, or, when called, images of another shape.
    """

    def __init__(self, channels: int, size: int, width: int = 32, batch_norm: bool = True) -> None:
        super().__init__()
        sides = _sides(size)
        integer("channels", channels), integer("width", width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, _kernel(size), 2, 1), nn.LeakyReLU(0.2)]
        for side in sides[1:-1]:
            layers += [nn.Conv2d(width, 2 * width, _kernel(side), 2, 1, bias=not batch_norm)]
            layers += [nn.BatchNorm2d(2 * width)] * batch_norm
            layers += [nn.LeakyReLU(0.2)]
            width *= 2
        self.net = nn.Sequential(*layers, nn.Conv2d(width, 1, sides[-1]), nn.Flatten(0))
        self.features = width * sides[-1] ** 2
        self.in_shape, self.out_shape = torch.Size([channels, size, size]), torch.Size([])
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, size, size) to (B,)."""
        _check(x, self.in_shape)  # larger images would give several logits each, and nobody would notice
        logits: Tensor = self.net(x)
        return logits

    def trunk(self) -> nn.Sequential:
        """The layers before the last: (B, channels, size, size) to features (B, F)."""
        return nn.Sequential(*list(self.net)[:-2], nn.Flatten())


def _shape(name: str, shape: int | Sequence[int]) -> torch.Size:
    sizes = shape if isinstance(shape, Sequence) else (shape,)
    return torch.Size([integer(name, size) for size in sizes])


def _check(x: Tensor, shape: torch.Size) -> None:
    if x.dim() == 0 or x.shape[1:] != shape:
        raise ValueError(f"expected samples of shape {tuple(shape)}, got a batch of shape {tuple(x.shape)}")


def _sides(size: int) -> list[int]:
    """Sides of the maps, from the image's down: 28, 14, 7, 4. Each is half the one before, an odd one rounded up."""
    if integer("size", size) < 8:
        raise ValueError(f"size must be at least 8, got {size}")
    sides = [size, -(-size // 2), -(-size // 4)]
    while sides[-1] > 4:
        sides.append(-(-sides[-1] // 2))
    return sides


def _kernel(side: int) -> int:
    """Of the convolution that halves ``side`` with stride 2 and padding 1, and of the one that leads back."""
    return 3 if side % 2 else 4


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        weight = module.weight.detach().contiguous(memory_format=torch.channels_last)  # maps take after it: quicker
        module.weight = nn.Parameter(weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
