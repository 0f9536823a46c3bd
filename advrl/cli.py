"""The command line: ``advrl train|sample|edit|evaluate|plot|compare|bench|exercise|grade|solve|learn``.

Bad input ends with one sentence and exit code 2, a run that cannot go on with 1, Ctrl-C with 130; a traceback means a
bug, here or in a user's own file.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import advrl
from advrl.memory import keep_freed_memory

PROGRAM = "advrl"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PATIENCE = 3.0  # seconds in which torchrun has ended the other processes


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if argv is None:  # the process is this program's own
        keep_freed_memory()
    argv = list(sys.argv[1:] if argv is None else argv)
    return _run(argv) if os.environ.get("LOCAL_RANK", "0") == "0" else _run_aside(argv)


def _run(argv: list[str]) -> int:
    try:
        return _main(argv)
    except SystemExit as error:  # tyro's way of ending after --help or a wrong flag
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 2


def _run_aside(argv: list[str]) -> int:
    """Run it as one of the processes of ``torchrun`` that do not print.

    What goes wrong mostly goes wrong on all, and the first says it. The first to end makes ``torchrun`` end the others,
    so that this one waits, and speaks only if it is still there then: its trouble was its own.
    """
    if argv[:1] not in (["train"], ["compare"]):
        return 0  # one process is enough
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(StringIO()) as said:
        code = _run(argv)
    if code not in (0, 130):
        time.sleep(PATIENCE)
        print(f"rank {os.environ.get('RANK')}: {said.getvalue().strip()}", file=sys.stderr)
    return code


def _main(argv: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sample": lambda rest: _sample(_parse(Sample, rest, "sample")),
        "edit": lambda rest: _edit(_parse(Edit, rest, "edit")),
        "evaluate": lambda rest: _evaluate(_parse(Evaluate, rest, "evaluate")),
        "plot": lambda rest: _plot(_parse(Plot, rest, "plot")),
        "compare": _compare,
        "bench": _bench,
        "exercise": _exercise,
        "solve": _solve,
        "learn": _learn,
        "grade": _grade,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"{PROGRAM} {advrl.__version__}")
        return 0
    if argv[0] not in commands:
        return _fail(f"unknown command {argv[0]!r}{_meant(argv[0], commands)} (one of: {', '.join(commands)})")
    return _guarded(lambda: commands[argv[0]](argv[1:]), argv)


def _guarded(work: Callable[[], int], argv: Sequence[str]) -> int:
    """Turn the errors that a user can cause into one sentence and an exit code."""
    from advrl.agents.fit import Interrupted, WriteError
    from advrl.agents.meter import DivergedError
    from advrl.distributed import RankError

    try:
        return work()
    except Interrupted as stop:
        again = f"{_program()} train {argv[1]} --resume {stop.checkpoint.parent}" if stop.checkpoint else ""
        resume = f"; go on with: {again}" if again else ""
        print(f"\n{stop}{resume}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except (DivergedError, WriteError, RankError) as error:
        return _fail(str(error), 1)
    except (ValueError, TypeError, FileNotFoundError) as error:  # training turns its own into RuntimeErrors
        return _fail(str(error))
    except OSError as error:  # a folder that was named is none, or the disk is full
        where = f" {error.filename}" if error.filename else ""
        return _fail(f"cannot read or write{where}: {error.strerror or error}", 1 if error.errno in FULL else 2)


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
        saved = replace(saved_config(config.resume), out=None)  # a folder may have moved since
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
    from advrl.device import resolve_device
    from advrl.distributed import first, process_group
    from advrl.recipes.run import RunError, next_folder, train, with_seed
    from advrl.recipes.summary import summary_of_seeds

    config.validate()
    if config.resume is not None:
        raise RunError(f"--resume goes on with one run: give {config.resume}/seed-N, and no --seeds")
    with process_group(resolve_device(config.device)):
        folder = first(lambda: config.out or next_folder(config.name))
        runs = []
        for seed in range(config.seed, config.seed + config.seeds):
            say(f"--- seed {seed} ({seed - config.seed + 1} of {config.seeds})")
            runs.append(train(with_seed(config, seed, folder / f"seed-{seed}"), command=command, say=say))
        say(first(lambda: f"\n{summary_of_seeds(runs)}\nNext:\n  {PROGRAM} plot {folder}"))
    return 0


def _sample(options: Sample) -> int:
    import numpy as np

    from advrl.checks import integer
    from advrl.recipes import load

    integer("-n", options.n)
    ways = (options.interpolate, options.arithmetic is not None, options.truncation is not None)
    if sum(ways) > 1:
        return _fail("--interpolate, --arithmetic and --truncation are three ways of drawing: give one")
    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    if hasattr(run.config, "lines"):
        return _write_text(run, options)
    if options.prompt or options.temperature != 1.0:
        return _fail("--prompt and --temperature are for runs that write text")
    path = options.out or _free_name(options.run / "samples")
    if options.interpolate or options.arithmetic is not None:
        return _walk(run, options, path)
    if options.truncation is not None:
        from advrl.recipes.walks import truncate

        samples = truncate(run, options.truncation, options.n, seed=options.seed).cpu()
    else:
        samples = run.sample(options.n, seed=options.seed).cpu()
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


def _edit(options: Edit) -> int:
    from advrl.recipes import load
    from advrl.recipes.run import read_config
    from advrl.recipes.walks import edit, read_image

    run = load(options.run, device=options.device, checkpoint=options.checkpoint)
    shape = tuple(read_config(options.run)["shape"])
    if len(shape) != 3:
        return _fail(f"{options.run} draws samples of shape {shape}, and images alone can be edited")
    image = read_image(options.image, shape, light_ink=options.light_ink).to(run.device)
    path = options.out or _free_name(options.run / "samples", "edit")
    found = edit(run, image, options.change, path, strength=options.strength, seed=options.seed)
    print(f"{options.image} found with a mean squared error of {float(found['error']):.3f} (pixels in [-1, 1])")
    print(f"Written:\n  {path}")
    return 0


def _free_name(folder: Path, stem: str = "sample") -> Path:
    number = 1
    while (folder / f"{stem}-{number}.png").exists():
        number += 1
    return folder / f"{stem}-{number}.png"


def _evaluate(options: Evaluate) -> int:
    from advrl.checks import integer
    from advrl.files import write_atomically
    from advrl.recipes import load
    from advrl.recipes.alarms import alarm_text, sequence_alarms
    from advrl.recipes.run import save_report_plot

    integer("--splits", options.splits)
    if options.against is not None and options.temperatures is None:
        return _fail("--against is for a sweep: give --temperatures as well, as 0.6:1.4:9")
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


def _plot(options: Plot) -> int:
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


def _compare(argv: list[str]) -> int:
    from advrl.lab import PROBLEMS
    from advrl.lab.command import options_for, overview, run
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help"):
        print(f"{_COMPARE}\n\n{overview()}")
        return 0 if argv else 2
    name = argv[0]
    if name == "--list":
        print(overview())
        return 0
    if name not in PROBLEMS:
        return _fail(f"unknown problem {name!r}{_meant(name, PROBLEMS)} (one of: {', '.join(PROBLEMS)})")
    options = _parse(options_for(PROBLEMS[name]), argv[1:], f"compare {name}")
    run(options, lambda: next_folder(f"compare-{name}"))
    return 0


_COMPARE = """\
usage: advrl compare PROBLEM [options]      (each explains its options: advrl compare PROBLEM --help)

Measures gradient estimators on a problem whose exact gradient is known: bias with its z-score, variance with its
standard error beside the closed form, evaluations of the cost and time. Prints a table, writes it and its figures.
  advrl compare normal-square                                    the lecture: score function against path derivative
  advrl compare categorical --estimators score,loo,gumbel,st --replicates 10000
  advrl compare tucker --t 0.499 --samples 2,8,32"""


def _bench(argv: list[str]) -> int:
    from advrl.lab.benches import BENCHES, bench
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help"):
        print(f"{_BENCH}\n\nstudies\n{_columns({name: about for name, (_, about) in BENCHES.items()})}")
        return 0 if argv else 2
    name = argv[0]
    if name not in BENCHES:
        return _fail(f"unknown study {name!r}{_meant(name, BENCHES)} (one of: {', '.join(BENCHES)})")
    study = bench(name)
    study.run(_parse(study.Options, argv[1:], f"bench {name}"), lambda: next_folder(f"bench-{name}"))
    return 0


_BENCH = """\
usage: advrl bench STUDY [options]      (each explains its options: advrl bench STUDY --help)

Trains and scores several methods on one task over seeds; prints a table, writes it as CSV, and draws it."""


def _exercise(argv: list[str]) -> int:
    from advrl.lab.exercises import exercise, overview, resolve, run
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help", "--list"):
        print(f"{_EXERCISE}\n\nexercises\n{overview()}")
        return 0
    name = resolve(argv[0])
    options = _parse(exercise(name).Options, argv[1:], f"exercise {name}")
    return run(name, options, lambda: next_folder(f"exercise-{name}"))


_EXERCISE = """\
usage: advrl exercise N|NAME [options]      (each explains its options: advrl exercise NAME --help)

Exercises on generators and discriminators, each done in numbers. Try the problem on paper first: the command states
it, goes through the steps, draws a figure, and says of every claim whether it holds. Exit code 1 if one does not.
  advrl exercise 1                       the best discriminator; the four stages of Goodfellow's figure, from a run
  advrl exercise xy --eta 0.3            the same game with larger steps"""


def _solve(argv: list[str]) -> int:
    from advrl.solve import Solve, run

    return run(_parse(Solve, argv, "solve"))


def _learn(argv: list[str]) -> int:
    from advrl.learn import Learn, run

    return run(_parse(Learn, argv, "learn"))


def _grade(argv: list[str]) -> int:
    from advrl.lab.grading import Options, run

    return run(_parse(Options, argv, "grade"))


def _overview() -> str:
    from advrl.recipes import RECIPES

    recipes = "\n".join(f"    {name:<14} {_first_line(cls)}" for name, cls in RECIPES.items())
    return f"""\
advrl {advrl.__version__}: a generator is a policy, rewarded by a function of the discriminator.

  advrl train RECIPE [options]     train a generator; leaves a folder with pictures, curves and checkpoints
{recipes}
  advrl sample RUN -n 64           draw from a trained generator
  advrl edit RUN --image x.png     find an image's noise, move it towards a class, draw what becomes of it
  advrl evaluate RUN               judge it against real data that it never saw
  advrl plot RUN...                curves of runs, seeds and experiments over each other
  advrl compare PROBLEM            gradient estimators: bias, variance and cost beside exact answers
  advrl bench STUDY                methods side by side over seeds: a table and figures
  advrl exercise N                 problems on paper, done in numbers: steps, a figure, claims that are checked
  advrl solve PROBLEM              solve a small decision problem exactly: values, all optimal actions, bounds
  advrl learn q-learning cliff     tabular agents by the thousand, held against the exact answer
  advrl grade LESSON FILE.py       your answers to a lesson's exercise, with points and what is wrong

Start with:  advrl train digits
Every command explains itself with --help."""


def _train_help() -> str:
    import torch

    from advrl.estimators import ESTIMATORS, fitting
    from advrl.nn import FAMILIES
    from advrl.recipes import RECIPES
    from advrl.recipes.sequence_defaults import ALGORITHMS

    auto = {name: fitting(f.distribution(torch.zeros(1, f.numbers, 1, 1))) for name, f in FAMILIES.items()}
    policies = "\n".join(f"  {name:<12} {family.summary:<31} {auto[name]}" for name, family in FAMILIES.items())
    estimators = _columns({name: f"{e.summary}; {e.samples} per z" for name, e in ESTIMATORS.items()})
    algorithms = _columns({name: usual.summary for name, usual in ALGORITHMS.items()})
    recipes = "\n".join(
        f"  {name}\n      {_first_line(cls)}\n      {_settings(cls())}" for name, cls in RECIPES.items()
    )
    return f"""\
usage: advrl train RECIPE [options]

recipes (each explains its options: advrl train RECIPE --help)
{recipes}
  FILE.py:NAME
      a configuration class of your own

--policy       what the generator draws        --estimator auto
{policies}

--estimator    gradient of the policy; default number of samples
{estimators}

--algorithm    how a sequence policy learns, in text and oracle
{algorithms}

The generator is a policy: noise z in, a distribution over samples out. One flag changes one thing:
  advrl train digits --estimator gumbel
  advrl train digits --policy gaussian --objective hinge"""


def _columns(lines: dict[str, str]) -> str:
    """Names, and what they mean in a column beside them."""
    width = max(map(len, lines))
    return "\n".join(f"  {name:<{width}} {about}" for name, about in lines.items())


def _settings(config: Any) -> str:
    if hasattr(config, "settings"):
        return str(config.settings)
    how = (
        f"agent {config.agent}" if hasattr(config, "agent") else f"policy {config.policy}, estimator {config.estimator}"
    )
    return f"{how}, objective {config.objective}, {config.steps:,} steps"


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _program() -> str:
    """What a user typed before ``train``."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return PROGRAM if ranks == "1" else f"torchrun --nproc-per-node {ranks} -m {PROGRAM}"


def _fail(sentence: str, code: int = 2) -> int:
    print(f"{PROGRAM}: {sentence}", file=sys.stderr)
    return code
