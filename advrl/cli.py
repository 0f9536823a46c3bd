"""The command line: ``advrl train|sample|evaluate|plot|learn``.

Bad input ends with one sentence and exit code 2, a run that cannot go on with 1, Ctrl-C with 130; a traceback means a
bug, here or in a user's own file.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import advrl

PROGRAM = "advrl"


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


@dataclass(frozen=True)
class Evaluate:
    """Judge a trained run against real images that it never saw."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    splits: int = 10
    """Independent draws, for means and standard errors."""
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(argv)
    except SystemExit as error:  # tyro's way of ending after --help or a wrong flag
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 2


def _main(argv: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sample": lambda rest: _sample(_parse(Sample, rest, "sample")),
        "evaluate": lambda rest: _evaluate(_parse(Evaluate, rest, "evaluate")),
        "plot": lambda rest: _plot(_parse(Plot, rest, "plot")),
        "learn": _learn,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"{PROGRAM} {advrl.__version__}")
        return 0
    if argv[0] not in commands:
        return _fail(f"unknown command {argv[0]!r}{_meant(argv[0], commands)} (one of: {', '.join(commands)})")
    return _guarded(lambda: commands[argv[0]](argv[1:]))


def _guarded(work: Callable[[], int]) -> int:
    """Turn the errors that a user can cause into one sentence and an exit code."""
    from advrl.agents.fit import Interrupted, WriteError
    from advrl.agents.meter import DivergedError

    try:
        return work()
    except Interrupted as stop:
        resume = f"; go on with: {PROGRAM} train RECIPE --resume {stop.checkpoint.parent}" if stop.checkpoint else ""
        print(f"\n{stop}{resume}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (DivergedError, WriteError) as error:
        return _fail(str(error), 1)
    except (ValueError, TypeError, FileNotFoundError) as error:  # training turns its own into RuntimeErrors
        return _fail(str(error))


def _parse(cls: type[Any], argv: list[str], command: str, default: Any = None) -> Any:
    return tyro.cli(cls, args=argv, prog=f"{PROGRAM} {command}", default=default)


def _train(argv: list[str]) -> int:
    from advrl.recipes import RECIPES
    from advrl.recipes.run import plain_command, recipe, saved_config, train

    if not argv or argv[0] in ("-h", "--help"):
        print(_train_help())
        return 0 if argv else 2
    name = argv[0]
    if ":" not in name and name not in RECIPES:
        return _fail(f"unknown recipe {name!r}{_meant(name, RECIPES)} (one of: {', '.join(RECIPES)}, or FILE.py:NAME)")
    cls = recipe(name)
    config = _parse(cls, argv[1:], f"train {name}")
    if config.resume is not None:  # what was saved is the default, so only what is given can differ
        saved = saved_config(config.resume)
        if type(saved) is not cls:
            return _fail(f"{config.resume} is a run of {type(saved).name}, not {name}")
        config = _parse(cls, argv[1:], f"train {name}", default=saved)
    say: Callable[[str], None] = (lambda text: None) if config.quiet else print
    command = plain_command(["train", *argv])
    if config.seeds == 1:
        train(config, command=command, say=say)
        return 0
    return _train_seeds(config, command, say)


def _train_seeds(config: Any, command: list[str], say: Callable[[str], None]) -> int:
    from advrl.recipes.run import RunError, next_folder, train, with_seed
    from advrl.recipes.summary import summary_of_seeds

    config.validate()
    if config.resume is not None:
        raise RunError(f"--resume goes on with one run: give {config.resume}/seed-N, and no --seeds")
    folder = config.out or next_folder(config.name)
    runs = []
    for seed in range(config.seed, config.seed + config.seeds):
        say(f"--- seed {seed} ({seed - config.seed + 1} of {config.seeds})")
        runs.append(train(with_seed(config, seed, folder / f"seed-{seed}"), command=command, say=say))
    say(f"\n{summary_of_seeds(runs)}\nNext:\n  advrl plot {folder}")
    return 0


def _sample(options: Sample) -> int:
    import numpy as np

    from advrl.checks import integer
    from advrl.plots import image_grid, save_png
    from advrl.recipes import load

    integer("-n", options.n)
    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    images = run.sample(options.n, seed=options.seed).cpu()
    path = options.out or _free_name(options.run / "samples")
    save_png(image_grid(images.clamp(-1, 1)), path)
    np.save(path.with_suffix(".npy"), images.numpy())
    print(f"{options.n} samples of {options.run} (step {run.step:,}, seed {options.seed})")
    print(f"Written:\n  {path}\n  {path.with_suffix('.npy')}  float32 {tuple(images.shape)} in [-1, 1]")
    print(f"Next:\n  advrl evaluate {options.run}")
    return 0


def _free_name(folder: Path) -> Path:
    number = 1
    while (folder / f"sample-{number}.png").exists():
        number += 1
    return folder / f"sample-{number}.png"


def _evaluate(options: Evaluate) -> int:
    from advrl.checks import integer
    from advrl.files import write_atomically
    from advrl.recipes import load
    from advrl.recipes.run import save_report_plot

    integer("--splits", options.splits)
    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    report = run.evaluate(options.splits)
    path = options.run / "evaluation.json"
    write_atomically(path, json.dumps({**report.as_dict(), "step": run.step}, indent=2).encode())
    save_report_plot(report, options.run)
    print(f"{options.run}, step {run.step:,}\n\n{report}\n\nWritten:\n  {path}\nNext:\n  advrl plot {options.run}")
    return 0


def _plot(options: Plot) -> int:
    from advrl.plots import curves, progress_plot

    if len(options.runs) == 1 and options.out is None and (options.runs[0] / "metrics.csv").exists():
        path = progress_plot(options.runs[0], options.metrics or None)
    else:
        path = options.out or Path("curves.png")
        curves(options.runs, options.metrics or None, path, smooth=options.smooth)
    print(f"Written:\n  {path}")
    return 0


def _learn(argv: list[str]) -> int:
    from advrl.learn import Learn, run

    return run(_parse(Learn, argv, "learn"))


def _overview() -> str:
    from advrl.recipes import RECIPES

    recipes = "\n".join(f"    {name:<14} {_first_line(cls)}" for name, cls in RECIPES.items())
    return f"""\
advrl {advrl.__version__}: a generator is a policy, rewarded by a function of the discriminator.

  advrl train RECIPE [options]     train a generator; leaves a folder with pictures, curves and checkpoints
{recipes}
  advrl sample RUN -n 64           draw from a trained generator
  advrl evaluate RUN               judge it against real data that it never saw
  advrl plot RUN...                curves of runs, seeds and experiments over each other
  advrl learn q-learning cliff     tabular agents by the thousand, held against the exact answer

Start with:  advrl train digits
Every command explains itself with --help."""


def _train_help() -> str:
    import torch

    from advrl.estimators import ESTIMATORS, fitting
    from advrl.nn import FAMILIES
    from advrl.recipes import RECIPES

    auto = {name: fitting(f.distribution(torch.zeros(1, f.numbers, 1, 1))) for name, f in FAMILIES.items()}
    policies = "\n".join(f"  {name:<12} {family.summary:<31} {auto[name]}" for name, family in FAMILIES.items())
    estimators = "\n".join(f"  {name:<12} {e.summary}; {e.samples} per z" for name, e in ESTIMATORS.items())
    recipes = "\n".join(
        f"  {name:<12} {_first_line(cls)}\n"
        f"               policy {cls().policy}, estimator {cls().estimator}, objective {cls().objective}, "
        f"{cls().steps:,} steps"
        for name, cls in RECIPES.items()
    )
    return f"""\
usage: advrl train RECIPE [options]

recipes (each explains its options: advrl train RECIPE --help)
{recipes}
  FILE.py:NAME a configuration class of your own

--policy       what the generator draws        --estimator auto
{policies}

--estimator    gradient of the policy; default number of samples
{estimators}

The generator is a policy: noise z in, a distribution over samples out. One flag changes one thing:
  advrl train digits --estimator gumbel
  advrl train digits --policy gaussian --objective hinge"""


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _fail(sentence: str, code: int = 2) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return code
