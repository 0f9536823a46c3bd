"""What is done with a trained run: ``advrl sample|edit|evaluate|plot``, their options and the work.

Each returns the exit code; what a user got wrong is a ``ValueError``, which the command line turns into a sentence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained run: a picture and the numbers behind it."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 64
    """Number of samples."""
    seed: int = 0
    """The same seed draws the same samples."""
    checkpoint: Literal["best", "last"] = "best"
    """Which weights: the best by the quick evaluation, or the last."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """The picture. Default: RUN/samples/sample-N.png, with the array beside it as .npy."""
    interpolate: bool = False
    """Walk from one z to another, n times: along great circles, and straight."""
    arithmetic: str | None = None
    """Draw around a sum of classes, as '7-1+4': of mean noises, by class of the samples."""
    label: int | None = None
    """Of a conditional run: draw this class alone, counted from 0."""
    truncation: float | None = None
    """Keep the normal noise within this many standard deviations: better samples, less various."""
    prompt: str = ""
    """Of text: how every line begins."""
    temperature: float = 1.0
    """Of text: below 1 writes what is likelier."""


@dataclass(frozen=True)
class Edit:
    """Find the noise of an image, move it towards a class, and draw what becomes of it."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    image: Path
    """The picture to edit; of grey digits, dark ink on light paper."""
    change: str = ""
    """Classes to go to and from, as '8-3'. Default: none, the image is found and no more."""
    strength: float = 1.0
    """How far to go."""
    light_ink: bool = False
    """The picture is light on dark."""
    seed: int = 0
    """Of the places from which the noise is looked for."""
    checkpoint: Literal["best", "last"] = "best"
    """Which weights: the best by the quick evaluation, or the last."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """The picture. Default: RUN/samples/edit-N.png."""


@dataclass(frozen=True)
class Evaluate:
    """Judge a trained run against real data that it never saw."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    splits: int = 10
    """Independent draws, for means and standard errors."""
    temperatures: str | None = None
    """Of sequences: sweep the policy's temperature, 0.6:1.4:9 or 0.7,1,1.3, for quality against diversity."""
    against: Path | None = None
    """Of sequences: a run to sweep beside it, best of maximum likelihood with the same architecture and budget."""
    checkpoint: Literal["best", "last"] = "best"
    """Which weights: the best by the quick evaluation, or the last."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True)
class Plot:
    """Draw the curves of one or more runs over each other; seeds of one experiment as mean and 95 % interval."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, or folders that hold runs."""
    metrics: tuple[str, ...] = ()
    """Which columns of metrics.csv. Default: all."""
    out: Path | None = None
    """The picture. Default: RUN/plots/curves.png for one run, else curves.png here."""
    smooth: float = 0.0
    """Weight of the past in a moving average, from 0 (none) to below 1."""


def sample(options: Sample) -> int:
    """Draw from a run, or walk between draws, and write them."""
    import numpy as np

    from advrl.checks import integer
    from advrl.nn import ConditionalPolicy
    from advrl.plots import image_grid, save_png
    from advrl.recipes import load
    from advrl.recipes.pairs import rows_by_class

    integer("-n", options.n)
    ways = (options.interpolate, *(x is not None for x in (options.arithmetic, options.truncation, options.label)))
    if sum(ways) > 1:
        raise ValueError("--interpolate, --arithmetic, --truncation and --label are ways of drawing: give one")
    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    if hasattr(run.config, "lines") and options.label is None:
        return _write_text(run, options)
    if options.prompt or options.temperature != 1.0:
        raise ValueError("--prompt and --temperature are for runs that write text")
    path = options.out or _free_name(options.run / "samples")
    if options.interpolate or options.arithmetic is not None:
        return _walk(run, options, path)
    if options.truncation is not None:
        from advrl.recipes.walks import truncate

        samples = truncate(run, options.truncation, options.n, seed=options.seed).cpu()
    else:
        samples = run.sample(options.n, seed=options.seed, label=options.label).cpu()
    policy = run.policy
    if options.label is None and isinstance(policy, ConditionalPolicy) and not getattr(run.config, "clusters", 0):
        rows = rows_by_class(samples.clamp(-1, 1), policy.asked(options.n).cpu(), policy.classes)
        save_png(image_grid(*rows), path)
    else:
        run.config.save_picture(samples, path)
    np.save(path.with_suffix(".npy"), samples.numpy())
    print(f"{options.n} samples of {options.run} (step {run.step:,}, seed {options.seed})")
    print(f"Written:\n  {path}\n  {path.with_suffix('.npy')}  {samples.numpy().dtype} {tuple(samples.shape)}")
    print(f"Next:\n  advrl evaluate {options.run}")
    return 0


def _write_text(run: Any, options: Sample) -> int:
    from advrl.files import write_atomically

    lines = run.config.lines(run, options.n, options.seed, prompt=options.prompt, temperature=options.temperature)
    print("\n".join(lines))
    if options.out is not None:
        write_atomically(options.out, ("\n".join(lines) + "\n").encode())
        print(f"Written:\n  {options.out}")
    return 0


def _walk(run: Any, options: Sample, path: Path) -> int:
    from advrl.recipes.walks import interpolate, sum_of_classes

    if options.arithmetic is None:
        interpolate(run, path, rows=min(options.n, 8), seed=options.seed)
    else:
        shares = sum_of_classes(run, options.arithmetic, path, n=options.n, seed=options.seed)["shares"]
        told = ", ".join(f"{100 * float(shares[i]):.0f} % class {i}" for i in shares.argsort(descending=True)[:3])
        print(f"of {options.n} samples around {options.arithmetic}: {told}")
    print(f"Written:\n  {path}")
    return 0


def edit(options: Edit) -> int:
    """Find an image's noise, and draw what becomes of it."""
    from advrl.recipes import load, walks
    from advrl.recipes.run import read_config

    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    shape = tuple(read_config(options.run)["shape"])
    if len(shape) != 3:
        raise ValueError(f"{options.run} draws samples of shape {shape}, and images alone can be edited")
    image = walks.read_image(options.image, shape, light_ink=options.light_ink).to(run.device)
    path = options.out or _free_name(options.run / "samples", "edit")
    found = walks.edit(run, image, options.change, path, strength=options.strength, seed=options.seed)
    print(f"{options.image} found with a mean squared error of {float(found['error']):.3f} (pixels in [-1, 1])")
    print(f"Written:\n  {path}")
    return 0


def _free_name(folder: Path, stem: str = "sample") -> Path:
    number = 1
    while (folder / f"{stem}-{number}.png").exists():
        number += 1
    return folder / f"{stem}-{number}.png"


def evaluate(options: Evaluate) -> int:
    """Judge a run, print and write the report."""
    from advrl.checks import integer
    from advrl.files import write_atomically
    from advrl.recipes import load
    from advrl.recipes.alarms import alarm_text, sequence_alarms
    from advrl.recipes.run import save_report_plot

    integer("--splits", options.splits)
    if options.against is not None and options.temperatures is None:
        raise ValueError("--against is for a sweep: give --temperatures as well, as 0.6:1.4:9")
    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    if options.temperatures is not None:
        return _sweep(run, options)
    report = run.evaluate(options.splits)
    alarms = sequence_alarms(report.rows)
    path = options.run / "evaluation.json"
    found = {**report.as_dict(), "step": run.step, "alarms": [alarm._asdict() for alarm in alarms]}
    write_atomically(path, json.dumps(found, indent=2).encode())
    save_report_plot(report, options.run)
    told = f"{options.run}, step {run.step:,}\n\n{report}\n\n{alarm_text(alarms)}"
    print(f"{told}Written:\n  {path}\nNext:\n  advrl plot {options.run}")
    return 0


def _sweep(run: Any, options: Evaluate) -> int:
    from advrl.recipes import load
    from advrl.recipes.sweep import sweep_against, sweep_text, temperatures, write_sweep

    assert options.temperatures is not None
    at = temperatures(options.temperatures)
    other = None if options.against is None else load(options.against, device=options.device)
    own, against = sweep_against(run, at, other)
    names = (options.run.name, "" if options.against is None else options.against.name)
    print(f"{options.run}, step {run.step:,}\n\n{sweep_text(names[0], own, against, names[1])}\n\nWritten:")
    for path in write_sweep(options.run, names[0], own, against, names[1]):
        print(f"  {path}")
    print(f"Next:\n  advrl sample {options.run} --temperature {at[0]:g}")
    return 0


def plot(options: Plot) -> int:
    """Draw runs' curves."""
    from advrl.plots import curves, progress_plot

    if len(options.runs) == 1 and options.out is None and (options.runs[0] / "metrics.csv").exists():
        path = progress_plot(options.runs[0], options.metrics or None)
        if (options.runs[0] / "probe.csv").exists():
            from advrl.lab import probe_plot

            print(f"Written:\n  {probe_plot(options.runs[0])}")
    else:
        path = options.out or Path("curves.png")
        curves(options.runs, options.metrics or None, path, smooth=options.smooth)
    print(f"Written:\n  {path}")
    return 0
