r"""Energies: the discriminator gives a number that is *low* for real samples, such as an autoencoder's error.

Shapes: S samples, B batch; energies are at least 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from advrl.checks import number
from advrl.distributed import mean
from advrl.objectives.objective import Objective, Separable, check_pairs


def ebgan(margin: float = 1.0) -> Objective:
    """Zhao, Mathieu & LeCun (2017), eq. 1 and 2: d_loss = E_real + max(0, m - E_fake), cost E_fake.

    The best energy is 0 where the data are likelier than the generator and m elsewhere, and the
    generator's cost there is m times the share of its samples that fall elsewhere.

    Args:
        margin: m, up to which fakes are pushed away.

    Raises:
        ValueError, TypeError: unless the margin is a positive number.
    """
    m = number("margin", margin, 0.0, exclusive=True)
    loss = Separable(lambda e: e, lambda e: relu(m - e), lambda p, q: torch.where(p < q, m, 0.0).to(p.dtype))
    return Objective("ebgan", loss, lambda fake, real=None: fake, high_is_real=False)


class BEGAN(nn.Module):
    """Boundary equilibrium: the fakes' share k of the loss is steered so that E_fake = gamma E_real.

    Berthelot, Schumm & Metz (2017): d_loss = E_real - k E_fake, cost E_fake, and after every step

        k <- clip(k + rate (gamma E_real - E_fake), 0, 1),        M = E_real + |gamma E_real - E_fake|.

    M falls as samples get better, and is their measure of convergence. The state is k alone.

    Args:
        gamma: the diversity ratio, in [0, 1]: low for clearer samples, high for more diverse ones.
        rate: lambda_k, the gain of the controller.

    Raises:
        ValueError, TypeError: for numbers out of range.
    """

    k: Tensor

    def __init__(self, gamma: float = 0.5, rate: float = 1e-3) -> None:
        super().__init__()
        self.gamma, self.rate = number("gamma", gamma, 0.0, 1.0), number("rate", rate, 0.0, exclusive=True)
        self.register_buffer("k", torch.zeros((), device="cpu"))

    @property
    def objective(self) -> Objective:
        """The two losses with this controller's k."""
        return Objective("began", self.d_loss, lambda fake, real=None: fake, high_is_real=False)

    def d_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """E_real - k E_fake of each pair, of the fake's shape."""
        check_pairs(real, fake)
        if self.k.device != fake.device:
            self.to(fake.device)
        return real - self.k * fake

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Move k after a discriminator step on energies (B,); over all ranks. Returns ``k`` and ``convergence``."""
        e_real, e_fake = mean(real.detach().mean()), mean(fake.detach().mean())
        balance = self.gamma * e_real - e_fake
        self.k.add_(self.rate * balance.to(self.k.dtype)).clamp_(0.0, 1.0)
        return {"k": self.k.clone(), "convergence": e_real + balance.abs()}


Controller = Callable[[], BEGAN]
