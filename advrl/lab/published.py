"""Published rows of the benchmarks of mode collapse, each with its source and what its numbers mean.

They stand beside ours and are never averaged with them: networks, steps and (for stacked digits) data are others. All
were trained without labels. The KL of all of them is that of the samples' shares from equal ones, KL(h || u): reverse.
"""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = float("nan")
PACGAN = "PacGAN, Lin et al. (2018)"


class Published(NamedTuple):
    """One row; NaN where the source gives no number.

    Args:
        task: of ``advrl bench modes``, which it stands beside.
        method: its name there.
        modes, modes_error: mean and standard error.
        high_quality: share of samples.
        reverse_kl: KL(h || u).
        source: paper and table, and what is different from ours.
    """

    task: str
    method: str
    modes: float
    modes_error: float
    high_quality: float
    reverse_kl: float
    source: str


def _plane(task: str, rows: tuple[tuple[str, float, float, float, float], ...]) -> list[Published]:
    return [Published(task, *row, source=f"{PACGAN}, table 1") for row in rows]


def _stacked(source: str, rows: tuple[tuple[str, float, float], ...]) -> list[Published]:
    return [Published("stacked", m, modes, UNKNOWN, UNKNOWN, kl, source) for m, modes, kl in rows]


PUBLISHED: tuple[Published, ...] = (
    *_plane("ring", (
        ("GAN", 6.3, 0.5, 0.982, 0.45), ("ALI", 6.6, 0.3, 0.976, 0.36),
        ("PacGAN2", 7.9, 0.1, 0.956, 0.07), ("PacGAN4", 7.8, 0.1, 0.959, 0.07),
    )),
    *_plane("grid", (
        ("GAN", 17.3, 0.8, 0.948, 0.70), ("ALI", 24.1, 0.4, 0.957, 0.14),
        ("PacGAN2", 23.8, 0.7, 0.913, 0.13), ("PacGAN4", 24.8, 0.2, 0.936, 0.04),
    )),
    *_stacked(f"{PACGAN}, table 2: stacked MNIST", (
        ("DCGAN", 78.9, 4.50), ("PacDCGAN2", 1000.0, 0.06),
    )),
    *_stacked(f"{PACGAN}, table 3: stacked MNIST, D a quarter of G", (
        ("DCGAN", 30.6, 5.99), ("Unrolled, 10 steps", 327.2, 4.66),
        ("PacDCGAN2", 484.5, 2.61), ("PacDCGAN4", 667.4, 1.81),
    )),
)  # fmt: skip
"""All rows, in the order of the table."""

SETTING = (
    "PacGAN's ring and grid: G of 400 units, D of 200 maxout-5, batch norm, Adam 1e-4 with beta1 .8, batches of 100, "
    "400 epochs, z of 2 numbers, 2,500 samples, 10 runs. Their stacked digits are of MNIST, 28 x 28; ours are of 8 x 8 "
    "unless --data says otherwise: another benchmark, and numbers of the two are not comparable."
)
