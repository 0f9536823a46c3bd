"""A small residual pair with spectral norm, for images from 8 x 8 up: Miyato et al. (2018), appendix B.4.

Blocks are ReLU, 3 x 3 convolution, ReLU, 3 x 3 convolution beside a 1 x 1 shortcut; the generator's have batch norm in
front of each ReLU and double the side, the discriminator's halve it by average pooling and every weight in it is
divided by its largest singular value (``torch.nn.utils.parametrizations.spectral_norm``), which bounds its slope.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torch.nn.utils.parametrizations import spectral_norm

from advrl.checks import integer
from advrl.nn.networks import _check, _sides


class ResidualGenerator(nn.Module):
    """z (B, latent) to raw images (B, channels, size, size).

    Args:
        latent: dimension of z.
        channels: of the output.
        size: of the images, at least 8; maps have half the side of the one before.
        width: channels of every hidden map.

    Raises:
        ValueError, TypeError: for another size, numbers below 1, or, when called, noise of another shape.
    """

    def __init__(self, latent: int, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        sides = _sides(size)[::-1]
        integer("latent", latent), integer("channels", channels), integer("width", width)
        self.net = nn.Sequential(
            nn.Linear(latent, width * sides[0] ** 2),
            nn.Unflatten(1, (width, sides[0], sides[0])),
            *(_Up(width, side) for side in sides[1:]),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, 1, 1),
        )
        self.in_shape, self.out_shape = torch.Size([latent]), torch.Size([channels, size, size])

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) to (B, channels, size, size)."""
        _check(z, self.in_shape)
        images: Tensor = self.net(z)
        return images


class ResidualDiscriminator(nn.Module):
    """Images (B, channels, size, size) to logits (B,), each weight of spectral norm 1.

    Args:
        channels: of the images.
        size: of the images, at least 8.
        width: channels of every hidden map.

    Raises:
        ValueError, TypeError: for another size, numbers below 1, or, when called, images of another shape.
    """

    def __init__(self, channels: int, size: int, width: int = 32) -> None:
        super().__init__()
        sides = _sides(size)
        integer("channels", channels), integer("width", width)
        maps = [channels, *[width] * (len(sides) - 1)]
        blocks = [_Down(a, b, s, i == 0) for i, (a, b, s) in enumerate(zip(maps, maps[1:], sides[1:], strict=False))]
        self.maps = nn.Sequential(*blocks, nn.ReLU())
        self.output = nn.Linear(width, 1)
        self.in_shape, self.out_shape = torch.Size([channels, size, size]), torch.Size([])
        spectrally_normalised(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, size, size) to (B,)."""
        _check(x, self.in_shape)
        logits: Tensor = self.output(self.maps(x).sum((2, 3))).squeeze(1)
        return logits


def spectrally_normalised(net: nn.Module) -> nn.Module:
    """Divide the weight of every linear and convolutional layer by its largest singular value, on every call.

    One step of power iteration a call, in training mode; its vectors are buffers, part of a checkpoint. Miyato et al.
    (2018), algorithm 1. What is normalised already stays as it is.

    Args:
        net: changed in place, and returned.
    """
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    for module in list(net.modules()):
        if isinstance(module, kinds) and not nn.utils.parametrize.is_parametrized(module, "weight"):
            spectral_norm(module)
    return net


class _Up(nn.Module):
    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])
        self.first, self.second = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
        self.shortcut = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = interpolate(self.norms[0](x).relu(), size=self.side)
        y = self.second(self.norms[1](self.first(wide)).relu())
        out: Tensor = y + self.shortcut(interpolate(x, size=self.side))
        return out


class _Down(nn.Module):
    def __init__(self, channels: int, width: int, side: int, entrance: bool) -> None:
        super().__init__()
        self.side, self.entrance = side, entrance  # an image is not rectified
        self.first, self.second = nn.Conv2d(channels, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x if self.entrance else x.relu()).relu())
        return adaptive_avg_pool2d(y, self.side) + self.shortcut(adaptive_avg_pool2d(x, self.side))
