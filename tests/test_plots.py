"""Pictures of runs: pixels where they belong, intervals that cover, and matplotlib left as it was found."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import NormalDist

import matplotlib
import numpy as np
import pytest
import scipy.stats
import torch
from matplotlib.colors import to_hex
from PIL import Image

from advrl.plots import (
    class_share_plot,
    curves,
    image_grid,
    progress_plot,
    sample_sheet,
    save_figure,
    save_png,
    style,
    t_interval,
)
from advrl.plots.images import GAP_COLOUR
from advrl.plots.runs import group_runs, load_runs
from advrl.plots.style import BLUE, PALETTE, VERMILION

FALSE_ALARM = 1e-6


def write_run(folder: Path, columns: dict[str, list], config: dict | None = None) -> Path:
    """A run folder whose steps are 1, 2, ... and whose seconds are twice that; None is an empty cell."""
    folder.mkdir(parents=True)
    length = len(next(iter(columns.values())))
    table = {"step": list(range(1, length + 1)), "seconds": [2.0 * k for k in range(1, length + 1)], **columns}
    rows = [["" if cell is None else repr(cell) for cell in row] for row in zip(*table.values(), strict=True)]
    (folder / "metrics.csv").write_text("".join(",".join(row) + "\n" for row in [table, *rows]))
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"config": config}))
    return folder


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def lines(axis) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines of a panel, in the order in which they were drawn."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.get_lines()]


# --- grids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("n", "columns", "scale", "gap"), [(7, 3, 4, 2), (6, 3, 1, 0), (1, 5, 2, 3), (5, None, None, 1)]
)
def test_every_sample_is_where_the_formula_says(channels, n, columns, scale, gap):
    height, width = 4, 6
    images = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = image_grid(images, columns, scale, gap, ink=False)
    columns, scale = min(columns or 3, n), scale or 8  # by default about square, and samples about 48 pixels wide
    rows = math.ceil(n / columns)
    assert grid.dtype == np.uint8
    assert grid.shape == (rows * (height * scale + gap) + gap, columns * (width * scale + gap) + gap, 3)
    covered = np.zeros(grid.shape[:2], bool)
    for i in range(n):
        top, left = gap + i // columns * (height * scale + gap), gap + i % columns * (width * scale + gap)
        for row in range(height * scale):
            for column in range(width * scale):
                value = images[i, :, row // scale, column // scale].double().add(1).mul(127.5).round().expand(3)
                assert np.abs(grid[top + row, left + column] - value.numpy()).max() <= 1  # float32 rounds ties
                covered[top + row, left + column] = True
    assert (grid[~covered] == GAP_COLOUR).all()


def test_grey_is_ink_on_paper_unless_told_otherwise():
    images = torch.tensor([-1.0, 1.0, -5.0, 5.0, 0.0]).reshape(5, 1, 1, 1)
    light_on_dark = [0, 255, 0, 255, 128]
    assert image_grid(images, 5, 1, 0, ink=False)[0, :, 0].tolist() == light_on_dark
    assert image_grid(images, 5, 1, 0)[0, :, 0].tolist() == [255, 0, 255, 0, 128]
    assert image_grid(images.expand(5, 3, 1, 1), 5, 1, 0)[0, :, 2].tolist() == light_on_dark
    assert image_grid(images.bfloat16().requires_grad_(), 5, 1, 0, ink=False)[0, :, 1].tolist() == light_on_dark
    with torch.device("meta"):  # nothing is created on the default device
        assert image_grid(images, 5, 1, 0, ink=False)[0, :, 0].tolist() == light_on_dark


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(4, 2, 8, 8)}, r"\(N, C, H, W\) with C = 1 or 3 .* got \(4, 2, 8, 8\)"),
        ({"images": torch.zeros(8, 8)}, r"got \(8, 8\)"),
        ({"images": torch.zeros(0, 1, 8, 8)}, r"got \(0, 1, 8, 8\)"),
        ({"images": torch.full((1, 1, 2, 2), math.nan)}, "images must be finite"),
        ({"columns": 0}, "columns must be at least 1, got 0"),
        ({"scale": -1}, "scale must be at least 1, got -1"),
        ({"gap": -1}, "gap must be at least 0, got -1"),
    ],
)
def test_what_is_no_grid_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        image_grid(**({"images": torch.zeros(4, 1, 8, 8)} | change))


def test_a_sheet_shows_each_grid_pixel_for_pixel_under_its_title():
    generator = torch.Generator().manual_seed(0)
    panels = {name: torch.rand(n, 1, 8, 8, generator=generator) * 2 - 1 for name, n in [("real", 16), ("a mean", 4)]}
    sheet = sample_sheet(panels, "step 100", columns=4)
    width = sheet.shape[1]
    left = 24
    for images in panels.values():
        grid = image_grid(images, 4)
        place = np.s_[24 + 40 + 28 : 24 + 40 + 28 + len(grid), left : left + grid.shape[1]]
        assert (sheet[place] == grid).all()
        above = sheet[24 + 40 : 24 + 40 + 28, left : left + grid.shape[1]]
        assert above.min() < 128 and above.max() == 255  # a title in ink on paper
        left += grid.shape[1] + 24
    assert left == width
    assert (sheet[:, :20] == 255).all() and (sheet[-20:] == 255).all()  # the margin is paper
    assert sample_sheet(panels, columns=4).shape == (sheet.shape[0] - 40, width, 3)
    assert (
        sample_sheet({"a title wider than its panel": panels["real"][:1]}).shape[1]
        > image_grid(panels["real"][:1]).shape[1] + 100
    )
    with pytest.raises(ValueError, match="panels is empty"):
        sample_sheet({})


def test_a_png_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = save_png(array, tmp_path / "samples" / "a.png")
    assert (read_png(path) == array).all()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_png(array[:2], path)
    assert (read_png(path) == array).all()
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match=r"array of uint8, got \(5, 7\) of uint8"):
        save_png(array[..., 0], path)


# --- intervals and groups --------------------------------------------------------------------------------------------


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(size=(4, 6))
    for level in (0.5, 0.95, 0.999):
        mean, low, high = t_interval(values, level)
        exact = scipy.stats.t.interval(level, 3, loc=values.mean(0), scale=scipy.stats.sem(values))
        np.testing.assert_allclose([low, high], exact, rtol=1e-12)
        np.testing.assert_allclose(mean, values.mean(0))
    with pytest.raises(ValueError, match=r"S >= 2 repetitions, got shape \(1, 6\)"):
        t_interval(values[:1])
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        t_interval(values, 95)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    """3 repetitions, 20,000 times: the count of covers is binomial, its z-score bounded at FALSE_ALARM, two-sided."""
    trials, bound = 20_000, NormalDist().inv_cdf(1 - FALSE_ALARM / 2)
    values = np.random.default_rng(0).normal(7.0, 3.0, (3, trials))
    _, low, high = t_interval(values)
    deviation = math.sqrt(trials * 0.95 * 0.05)
    assert abs(((low < 7) & (high > 7)).sum() - 0.95 * trials) < bound * deviation
    half = 1.96 * values.std(0, ddof=1) / math.sqrt(3)  # the known mistake: the normal quantile for three values
    naive = np.abs(values.mean(0) - 7) < half
    assert abs(naive.sum() - 0.95 * trials) > bound * deviation


def test_runs_of_one_experiment_are_found(tmp_path):
    for seed in (10, 9, 0):
        write_run(tmp_path / "loo" / f"seed-{seed}", {"a": [1.0]}, {"estimator": "loo", "seed": seed})
    write_run(tmp_path / "again" / "seed-0", {"a": [1.0]}, {"estimator": "loo", "seed": 0})
    for seed in (0, 1):
        write_run(tmp_path / f"gumbel-s{seed}", {"a": [1.0]}, {"estimator": "gumbel", "seed": seed, "out": str(seed)})
    for copy in ("st", "st-copy"):
        write_run(tmp_path / copy, {"a": [1.0]}, {"estimator": "st", "seed": 0})
    write_run(tmp_path / "other" / "st", {"a": [1.0]})
    names = ["gumbel-s0", "loo", "st", "again", "gumbel-s1", "st-copy", "other/st", "loo/seed-9"]
    groups = group_runs(load_runs([tmp_path / name for name in names]))
    found = {group.label: [str(run.folder.relative_to(tmp_path)) for run in group.runs] for group in groups}
    where = tmp_path.name
    assert found == {
        f"{where}/gumbel (2 seeds)": ["gumbel-s0", "gumbel-s1"],
        f"{where}/loo (3 seeds)": ["loo/seed-0", "loo/seed-9", "loo/seed-10"],
        f"{where}/st": ["st"],  # a run and its copy are no two draws
        "again/seed-0": ["again/seed-0"],
        f"{where}/st-copy": ["st-copy"],
        "other/st": ["other/st"],
    }


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no run folder: it holds no metrics\.csv"):
        curves(tmp_path)
    with pytest.raises(ValueError, match="no run given"):
        curves([])
    run = write_run(tmp_path / "run", {"a": [1.0], "b": [None]}, {"seed": 0})
    with pytest.raises(ValueError, match="unknown metric 'frechte'"):
        curves(run, ["frechte"])
    with pytest.raises(ValueError, match="unknown x 'stop'; did you mean 'step'"):
        curves(run, x="stop")
    with pytest.raises(ValueError, match=r"smooth must be in \[0, 1\), got 1"):
        curves(run, smooth=1)
    empty = write_run(tmp_path / "empty", {"a": [None]})
    with pytest.raises(ValueError, match=r"nothing to draw: .*empty has no metric with a value yet"):
        curves(empty)
    (run / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json cannot be understood as a run's configuration"):
        curves(run)


# --- curves ----------------------------------------------------------------------------------------------------------


def test_one_run_is_drawn_as_it_is(tmp_path):
    run = write_run(tmp_path / "run", {"a": [0.5, None, -0.25], "b": [1.0, 2.0, 3.0], "never": [None] * 3})
    figure = curves(run)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["a", "b"]
    assert lines(figure.axes[0]) == [([1, 3], [0.5, -0.25])]
    assert lines(curves(run, ["b"], x="seconds").axes[0]) == [([2, 4, 6], [1, 2, 3])]
    assert figure.get_suptitle() == "run"
    assert not figure.legends


def test_seeds_are_a_mean_an_interval_and_thin_lines(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4))
    for seed in range(3):
        columns = {"a": values[seed, : 3 if seed == 1 else 4].tolist()}  # one ends early: no mean after its last step
        write_run(tmp_path / "loo" / f"seed-{seed}", columns)
    write_run(tmp_path / "other", {"a": [1.0, 2.0]})
    figure = curves([tmp_path / "loo", tmp_path / "other"])
    (axis,) = figure.axes
    *members, mean, other = lines(axis)
    for seed, (x, y) in enumerate(members):
        assert (x, y) == ([1, 2, 3, 4][: len(y)], values[seed, : len(y)].tolist())
    np.testing.assert_allclose(mean[0], [1, 2, 3])
    np.testing.assert_allclose(mean[1], values[:, :3].mean(0))
    assert other == ([1, 2], [1, 2])
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    _, low, high = t_interval(values[:, :3])
    for step in (1, 2, 3):
        edge = corners[corners[:, 0] == step, 1]
        assert (edge.min(), edge.max()) == pytest.approx((low[step - 1], high[step - 1]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["loo (3 seeds)", "other"]
    colours = [to_hex(line.get_color()).upper() for line in axis.get_lines()]
    assert colours == [PALETTE[0]] * 4 + [PALETTE[1]]


def test_smoothing_is_a_moving_average_without_bias(tmp_path):
    run = write_run(tmp_path / "run", {"a": [3.0] * 5, "b": [4.0, 0.0, 1.0, 2.0, 8.0]})
    constant, moving = curves(run, smooth=0.75).axes
    assert lines(constant)[1][1] == [3.0] * 5
    raw, smoothed = (np.array(y) for _, y in lines(moving))
    assert raw.tolist() == [4, 0, 1, 2, 8]  # still there, faintly
    weights = [0.75 ** np.arange(t, -1, -1.0) for t in range(5)]
    np.testing.assert_allclose(smoothed, [np.average(raw[: t + 1], weights=weights[t]) for t in range(5)])


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([300.0, 30.0, 3.0], "log"),
        ([3.0, 2.0, 1.0], "linear"),
        ([300.0, 3.0, -1.0], "linear"),
        ([0.001, 0.5, 0.9], "linear"),
    ],
)
def test_a_wide_range_above_zero_gets_a_logarithmic_axis(tmp_path, values, scale):
    spread = (1 - 1e-6) / float(
        scipy.stats.t.ppf(0.975, 1)
    )  # the interval of the two ends at a millionth of their mean
    for seed, factor in enumerate((1 - spread, 1 + spread)):
        write_run(tmp_path / "runs" / f"seed-{seed}", {"a": [factor * value for value in values]})
    figure = curves(tmp_path / "runs", out=tmp_path / "a.png")
    (axis,) = figure.axes
    assert axis.get_yscale() == scale
    if scale == "log":
        assert axis.get_ylim()[0] > 1  # the band does not squeeze the curves into the top of the panel


def test_figures_are_drawn_without_a_warning_whatever_the_names(tmp_path):
    runs = [write_run(tmp_path / f"_a $long^name_{i}", {f"m_{j}$": [1.0 + i] for j in range(1 + i)}) for i in range(12)]
    single = curves(runs, ["m_0$"], out=tmp_path / "single.png")
    assert single.axes[0].get_position().height * single.get_figheight() > 1.2  # inches that the legend leaves
    figure = curves(runs, out=tmp_path / "many.png")
    assert len(figure.legends[0].get_texts()) == 12
    assert read_png(tmp_path / "many.png").shape[1] > 500
    assert progress_plot(runs[0]) == runs[0] / "plots" / "curves.png"
    assert read_png(runs[0] / "plots" / "curves.png").shape[1] > 500
    with pytest.raises(ValueError, match="suffix must be one of"):
        save_figure(figure, tmp_path / "many.txt")


# --- class shares ----------------------------------------------------------------------------------------------------


def test_shares_outside_the_band_are_marked():
    shares = [0.065, 0.135, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    figure = class_share_plot(torch.tensor(shares), real=[0.1] * 10)
    (axis,) = figure.axes
    bars = axis.containers[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(shares)
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [VERMILION] * 2 + [BLUE] * 8
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["generated", "generated, outside the band", "real", "band 7 % to 13 %"]


def test_what_are_no_shares_is_refused():
    with pytest.raises(ValueError, match=r"shares must be \(K,\) shares, each at least 0 and adding up to 1"):
        class_share_plot([0.5, 0.6])
    with pytest.raises(ValueError, match="real must be"):
        class_share_plot([0.5, 0.5], real=[1.5, -0.5])
    with pytest.raises(ValueError, match="one length, got 2, 3 and 2"):
        class_share_plot([0.5, 0.5], real=[0.2, 0.3, 0.5])


# --- manners ---------------------------------------------------------------------------------------------------------


def test_matplotlib_is_left_as_it_was_and_does_not_leak_in(tmp_path):
    run = write_run(tmp_path / "run", {"a": [1.0, 2.0]})
    curves(run, out=tmp_path / "plain.png")
    with matplotlib.rc_context(
        {"axes.facecolor": "black", "font.size": 30, "xtick.direction": "in", "axes.labelpad": 20}
    ):
        before = dict(matplotlib.rcParams)
        curves(run, out=tmp_path / "dark.png")
        save_figure(class_share_plot([0.5, 0.5]), tmp_path / "shares.png")
        with pytest.raises(RuntimeError), style():
            raise RuntimeError
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "dark.png").read_bytes()


ALONE = """
import sys, torch
import advrl.plots as plots
assert not {"matplotlib", "PIL", "scipy", "tensorboard", "sklearn"} & set(sys.modules)
folder = sys.argv[1]
plots.save_png(plots.sample_sheet({"a": torch.zeros(4, 1, 8, 8)}, "b"), folder + "/sheet.png")
plots.curves(folder, out=folder + "/curves.png")
plots.save_figure(plots.class_share_plot([0.5, 0.5]), folder + "/shares.png")
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def test_nothing_is_imported_before_something_is_drawn_and_pyplot_never(tmp_path):
    folder = write_run(tmp_path / "runs" / "seed-0", {"a": [1.0, 2.0]}).parent
    write_run(folder / "seed-1", {"a": [1.0, 2.5]})
    run = subprocess.run([sys.executable, "-c", ALONE, str(folder)], timeout=120, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
