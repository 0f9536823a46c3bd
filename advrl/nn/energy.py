"""Discriminators that give an energy, low for real samples: the error of an autoencoder."""

from __future__ import annotations

from torch import Tensor, nn

from advrl.checks import same_shape


class ReconstructionEnergy(nn.Module):
    """Mean of |x - net(x)|^power over a sample's numbers, (B,): power 2 for EBGAN, 1 for BEGAN.

    Zhao, Mathieu & LeCun (2017); Berthelot, Schumm & Metz (2017).

    Args:
        net: an autoencoder, from samples (B, *event) to their reconstruction.
        power: of the error.

    Raises:
        ValueError: when called, if the network changes the shape; for another power.
    """

    def __init__(self, net: nn.Module, power: int = 2) -> None:
        super().__init__()
        if power not in (1, 2):
            raise ValueError(f"power must be 1 or 2, got {power}")
        self.net, self.power = net, power

    def forward(self, x: Tensor) -> Tensor:
        """(B, *event) to energies (B,), at least 0."""
        again: Tensor = self.net(x)
        same_shape(sample=x, reconstruction=again)
        error = (x - again).abs() if self.power == 1 else (x - again).square()
        return error.flatten(1).mean(1)
