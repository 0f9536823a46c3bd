"""One look for every figure, held in a context: matplotlib's own settings stay as the user has them.

Colours are those of Okabe & Ito (2008), "Color Universal Design", told apart by people with any form of colour
blindness; its yellow is left out, since a thin line of it cannot be read on white.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advrl.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
INK, MUTED, RULE = "#222222", "#666666", "#E3E3E3"  # text, secondary text, grid lines

_SETTINGS: dict[Any, Any] = {
    "figure.dpi": 144,
    "savefig.dpi": "figure",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.constrained_layout.w_pad": 0.07,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib, so a figure looks alike everywhere
    "font.size": 8.5,
    "text.color": INK,
    "axes.facecolor": "white",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "axes.titlecolor": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#AAAAAA",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": "#AAAAAA",
    "ytick.color": "#AAAAAA",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
}


@contextmanager
def style() -> Iterator[None]:
    """Figures made and saved inside look like advrl's; matplotlib's settings are as before once it ends."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not mix with the settings below
        matplotlib.rcParams.update(_SETTINGS)
        yield


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure to ``path`` atomically, in the format of its suffix (``.png``, ``.svg``, ``.pdf``).

    Raises:
        ValueError: if the suffix is none that matplotlib writes.
        OSError: if the file cannot be written; what was there before is then still there.
    """
    path = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix[1:] not in known:
        raise ValueError(f"cannot write a figure as {path.name!r}: its suffix must be one of {', '.join(known)}")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=path.suffix[1:])
    return write_atomically(path, buffer.getvalue())
