r"""Historical averaging of both players: Salimans et al. (2016), section 3.3.

    player's loss + w |theta - (1 / t) sum_{i=1..t} theta_i|^2        t steps so far, theta_i the weights after step i

which pulls each player to the mean of its own past: on V(x, y) = x y, where plain gradient play circles for ever, both
then settle at the equilibrium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from advrl.agents.stabiliser import Player, Stabiliser
from advrl.checks import number

if TYPE_CHECKING:
    from advrl.agents.adversarial import AdversarialTrainer


class HistoricalAveraging(Stabiliser):
    """Adds w |theta - mean of its past|^2 to each player's loss; nothing before the first step is over.

    Costs a copy of both players' weights, and two passes over them a step, whatever the batch.

    Args:
        weight: w.

    Raises:
        ValueError, TypeError: for a weight that is not positive.
    """

    name = "historical-averaging"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = number("historical averaging's weight", weight, 0.0, exclusive=True)
        self._players: dict[str, list[Tensor]] = {}
        self._past: dict[str, list[Tensor]] = {}

    def attach(self, trainer: AdversarialTrainer, sample: Tensor) -> None:
        """Begin with the weights as they are."""
        for player, net in (("generator", trainer.generator), ("discriminator", trainer.discriminator)):
            self.follow(player, net)

    def follow(self, player: str, net: nn.Module) -> None:
        """Remember the weights of a network under this name."""
        self._players[player] = [p for p in net.parameters() if p.requires_grad]
        for i, p in enumerate(self._players[player]):
            self.register_buffer(f"{player}_{i}", p.detach().clone())
        self._past[player] = [self.get_buffer(f"{player}_{i}") for i in range(len(self._players[player]))]

    def penalty(self, player: Player) -> Tensor:
        """w times the squared distance of a player's weights from their mean so far."""
        terms = [(p - past).square().sum() for p, past in zip(self._players[player], self._past[player], strict=True)]
        return self.weight * torch.stack(terms).sum()

    @torch.no_grad()
    def after(self, steps: int) -> None:
        """Take the weights in: mean += (theta - mean) / steps."""
        for player, parameters in self._players.items():
            torch._foreach_lerp_(self._past[player], parameters, 1 / steps)
