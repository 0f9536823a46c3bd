"""Pictures of runs: grids of samples, curves with intervals over seeds, class shares.

Nothing here touches matplotlib's global state: figures are drawn without pyplot, inside one style (``plots.style``),
and matplotlib is imported only when something is drawn. Every file is written atomically.
"""

from advrl.plots.curves import curves, progress_plot
from advrl.plots.images import image_grid, sample_sheet, save_png
from advrl.plots.runs import t_interval
from advrl.plots.shares import class_share_plot
from advrl.plots.style import save_figure, style
from advrl.plots.table import read_metrics

__all__ = [
    "class_share_plot",
    "curves",
    "image_grid",
    "progress_plot",
    "read_metrics",
    "sample_sheet",
    "save_figure",
    "save_png",
    "style",
    "t_interval",
]
