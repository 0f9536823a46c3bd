"""The command line: ``advrl train|sample|edit|evaluate|plot|compare|bench|exercise|grade|solve|learn``.

Bad input ends with one sentence and exit code 2, a run that cannot go on with 1, Ctrl-C with 130; a traceback means a
bug, here or in a user's own file.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

import tyro

import advrl
from advrl.cli_help import BENCH, COMPARE, EXERCISE, explained, front_page, train_help
from advrl.cli_runs import Edit, Evaluate, Plot, Sample, edit, evaluate, plot, sample
from advrl.memory import keep_freed_memory

PROGRAM = "advrl"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PATIENCE = 3.0  # seconds in which torchrun has ended the other processes


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
        "sample": lambda rest: sample(_parse(Sample, rest, "sample")),
        "edit": lambda rest: edit(_parse(Edit, rest, "edit")),
        "evaluate": lambda rest: evaluate(_parse(Evaluate, rest, "evaluate")),
        "plot": lambda rest: plot(_parse(Plot, rest, "plot")),
        "compare": _compare,
        "bench": _bench,
        "exercise": _exercise,
        "solve": _solve,
        "learn": _learn,
        "grade": _grade,
    }
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(front_page())
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
        print(train_help())
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


def _compare(argv: list[str]) -> int:
    from advrl.lab import PROBLEMS
    from advrl.lab.command import options_for, overview, run
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help"):
        print(f"{COMPARE}\n\n{overview()}")
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


def _bench(argv: list[str]) -> int:
    from advrl.lab.benches import BENCHES, bench
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help"):
        print(f"{BENCH}\n\nstudies\n{explained({name: about for name, (_, about) in BENCHES.items()})}")
        return 0 if argv else 2
    name = argv[0]
    if name not in BENCHES:
        return _fail(f"unknown study {name!r}{_meant(name, BENCHES)} (one of: {', '.join(BENCHES)})")
    study = bench(name)
    study.run(_parse(study.Options, argv[1:], f"bench {name}"), lambda: next_folder(f"bench-{name}"))
    return 0


def _exercise(argv: list[str]) -> int:
    from advrl.lab.exercises import exercise, overview, resolve, run
    from advrl.recipes.run import next_folder

    if not argv or argv[0] in ("-h", "--help", "--list"):
        print(f"{EXERCISE}\n\nexercises\n{overview()}")
        return 0
    name = resolve(argv[0])
    options = _parse(exercise(name).Options, argv[1:], f"exercise {name}")
    return run(name, options, lambda: next_folder(f"exercise-{name}"))


def _solve(argv: list[str]) -> int:
    from advrl.solve import Solve, run

    return run(_parse(Solve, argv, "solve"))


def _learn(argv: list[str]) -> int:
    from advrl.learn import Learn, run

    return run(_parse(Learn, argv, "learn"))


def _grade(argv: list[str]) -> int:
    from advrl.lab.grading import Options, run

    return run(_parse(Options, argv, "grade"))


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
