"""Pictures of runs and of solutions: samples, points over densities, curves with intervals, values on a grid.

Nothing here touches matplotlib's global state: figures are drawn without pyplot, inside one style (``plots.style``),
and matplotlib is imported only when something is drawn. Every file is written atomically.
"""

from advrl.plots.costs import cost_plot
from advrl.plots.curves import curves, progress_plot
from advrl.plots.dynamics import columns_plot, occupancy_plot, outcome_plot
from advrl.plots.grids import DIRECTIONS, action_map, occupancy_map, q_triangles, value_map
from advrl.plots.images import image_grid, sample_sheet, save_png
from advrl.plots.points import Frame, evolution_plot, frame_plot, points_plot, read_frames, save_frame
from advrl.plots.runs import t_interval
from advrl.plots.shares import class_share_plot
from advrl.plots.style import save_figure, style
from advrl.plots.sweeps import animate_values, bounds_plot, gambler_plot, value_bars
from advrl.plots.table import read_metrics
from advrl.plots.tradeoff import Sweep, tradeoff_plot

__all__ = [
    "DIRECTIONS",
    "Frame",
    "Sweep",
    "action_map",
    "animate_values",
    "bounds_plot",
    "class_share_plot",
    "columns_plot",
    "cost_plot",
    "curves",
    "evolution_plot",
    "frame_plot",
    "gambler_plot",
    "image_grid",
    "occupancy_map",
    "occupancy_plot",
    "outcome_plot",
    "points_plot",
    "progress_plot",
    "q_triangles",
    "read_frames",
    "read_metrics",
    "sample_sheet",
    "save_figure",
    "save_frame",
    "save_png",
    "style",
    "t_interval",
    "tradeoff_plot",
    "value_bars",
    "value_map",
]
