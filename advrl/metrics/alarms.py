"""Signs of collapse: figures that look good, or are not looked at, because a generator says few things.

Each alarm compares with real data of the same size, and says what to do.
"""

from __future__ import annotations

from typing import NamedTuple

from advrl import checks
from advrl.metrics.likelihood import Estimate


class Alarm(NamedTuple):
    """What is wrong, in one sentence, and what to do about it, in another."""

    name: str
    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.finding} {self.remedy}"


def floor_alarm(nll_oracle: Estimate, floor: Estimate) -> Alarm | None:
    """NLL_oracle lies below the floor, their intervals apart: samples are likelier than the oracle's own."""
    if nll_oracle.high >= floor.low:
        return None
    return Alarm(
        "floor",
        f"NLL_oracle {nll_oracle} is below the floor {floor}: samples are likelier than the oracle's own, "
        "which only lost diversity explains.",
        "Raise the temperature or the entropy bonus, stop earlier, and judge by NLL_test and both divergences.",
    )


def entropy_alarm(entropy: float, real: float, share: float = 0.9) -> Alarm | None:
    """The n-gram entropy is below ``share`` of that of as many real sequences.

    Raises:
        ValueError: if an entropy is negative or the share is not in (0, 1].
    """
    checks.number("entropy", entropy, 0.0)
    checks.number("real", real, 0.0)
    checks.number("share", share, 0.0, 1.0, exclusive=True)
    if entropy >= share * real:
        return None
    return Alarm(
        "entropy",
        f"n-gram entropy {entropy:.3g} nats is below {share:.0%} of real text's {real:.3g}: the same phrases return.",
        "Add an entropy bonus or a divergence to the maximum-likelihood model, or train the discriminator more slowly.",
    )


def duplicate_alarm(duplicates: float, real: float, margin: float = 0.02) -> Alarm | None:
    """The share of duplicates is above that of as many real sequences by more than ``margin``.

    Raises:
        ValueError: if a share or the margin is not in [0, 1].
    """
    for name, value in (("duplicates", duplicates), ("real", real), ("margin", margin)):
        checks.number(name, value, 0.0, 1.0)
    if duplicates <= real + margin:
        return None
    return Alarm(
        "duplicates",
        f"{duplicates:.1%} of the samples repeat another one, against {real:.1%} of the real ones: modes are lost.",
        "Sample at a higher temperature, start from an earlier checkpoint, or use a baseline over several samples.",
    )
