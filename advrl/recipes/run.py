"""A run and its folder: train it, resume it, load it again."""

from __future__ import annotations

import inspect
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

import advrl
from advrl.agents.checkpoint import CheckpointError, load_checkpoint
from advrl.agents.dynamics import DYNAMICS
from advrl.agents.fit import Every, fit
from advrl.agents.modes import ModeReport
from advrl.agents.report import Report
from advrl.data import PictureError
from advrl.device import be_deterministic, device_name, resolve_device
from advrl.distributed import everyones, first, place, process_group, rank, share, world_size
from advrl.files import write_atomically
from advrl.lab import GradientProbe, SpectrumProbe, probe_plot, spectrum_plot
from advrl.metrics import Alarm, collapse_alarm, curve_alarms, quick_alarm, recall_alarm
from advrl.nn import ConditionalPolicy, Policy
from advrl.plots import class_share_plot, progress_plot, read_metrics, save_figure
from advrl.recipes.alarms import alarm_text, sequence_alarms
from advrl.recipes.config import differences, from_dict, probed, to_dict
from advrl.recipes.language_judge import LEAST, LanguageJudge
from advrl.recipes.parts import gradient_probe, spectrum_probe
from advrl.recipes.userfile import load_object
from advrl.recipes.watch import watch
from advrl.seeding import isolated, seed_everything

Probes = list[GradientProbe | SpectrumProbe]


class RunError(ValueError):
    """A folder that is no run, or that already holds one."""


def recipe(name: str) -> type[Any]:
    """The configuration class of a recipe: a built-in name, or ``FILE.py:NAME``.

    Raises:
        RunError, ValueError, TypeError: if there is none of that name, or it is no recipe.
    """
    from advrl.recipes import RECIPES

    cls = load_object(name) if ":" in name else RECIPES.get(name)
    if cls is None:
        raise RunError(f"unknown recipe {name!r} (one of: {', '.join(RECIPES)}, or FILE.py:NAME)")
    if not (isinstance(cls, type) and is_dataclass(cls) and hasattr(cls, "build") and hasattr(cls, "policy_for")):
        raise TypeError(f"{name} is no recipe: a recipe is a dataclass of options with build and policy_for")
    return cls


def recipe_name(cls: type[Any]) -> str:
    """What :func:`recipe` finds a class by."""
    from advrl.recipes import RECIPES

    if cls in RECIPES.values():
        return str(cls.name)
    return f"{Path(inspect.getfile(cls)).resolve()}:{cls.__name__}"


def next_folder(name: str) -> Path:
    """The first ``runs/NAME-N`` that does not exist yet."""
    n = 1
    while Path("runs", f"{name}-{n}").exists():
        n += 1
    return Path("runs", f"{name}-{n}")


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a run folder says.

    Raises:
        RunError: if the folder is no run folder.
    """
    path = folder / "config.json"
    if not path.is_file():
        inside = sorted(p.parent.name for p in folder.glob("*/config.json")) if folder.is_dir() else []
        hint = f"; it holds the runs {', '.join(inside)}" if inside else ""
        raise RunError(f"{folder} is no run folder: it has no config.json{hint}")
    try:
        config = json.loads(path.read_text())
        return {**config, "config": dict(config["config"]), "recipe": str(config["recipe"])}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not a run's configuration: {error}") from error


def saved_config(folder: Path) -> Any:
    """The recipe's configuration that a run was started with."""
    saved = read_config(folder)
    return from_dict(recipe(saved["recipe"]), saved["config"])


def train(config: Any, *, command: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Train one configuration and leave a run folder.

    Args:
        config: a recipe's configuration; with ``resume``, the run to go on with.
        command: the command line, for ``config.json``.
        say: where the report goes.

    Returns:
        The run's folder.

    Raises:
        ValueError, TypeError: for options that cannot be, before any work is done.
        CheckpointError, DivergedError, WriteError, Interrupted, RankError: as :func:`advrl.agents.fit.fit`.
    """
    config.validate()
    device = resolve_device(config.device)
    if place().locals > 1 and config.device.startswith("cuda:"):
        raise ValueError(f"the ranks cannot share --device {config.device}: give cuda, and each takes one of its own")
    with process_group(device):
        share(config.batch_size, "--batch-size")
        return _train(config, device, command, say if rank() == 0 else _nothing)


def _nothing(_: object) -> None:
    """What ranks but the first say, and do when rank 0 probes."""


def _train(config: Any, device: torch.device, command: Sequence[str], say: Callable[[str], None]) -> Path:
    folder = first(partial(_folder, config))
    if config.deterministic:
        be_deterministic()
    try:
        parts, probes = _build(config, device, folder)
    except BaseException:
        if rank() == 0:
            with suppress(OSError):  # nothing is in it, unless an earlier run is
                folder.rmdir()
        raise
    first(partial(_begin, folder, config, device, parts.data.shape, command))
    say(_announcement(config, parts, device, folder))
    try:
        say(_run(folder, config, parts, probes, say))
    except (CheckpointError, PictureError):  # a picture is decoded in mid-run, and may be damaged
        raise
    except (ValueError, TypeError) as error:  # options were checked above: this is a bug, here or in a user's file
        raise RuntimeError(f"the run in {folder} failed: {error}") from error
    return folder


def _build(config: Any, device: torch.device, folder: Path) -> tuple[Any, Probes]:
    """The parts, and on rank 0 the probes; there first, for what it leaves in the cache, as the judge's classifier."""
    built: list[Any] = []

    def build() -> None:
        seed_everything(config.seed)
        parts = config.build(device)
        made = (probe(config, parts, folder) for probe in (gradient_probe, spectrum_probe)) if rank() == 0 else ()
        built.extend((parts, [probe for probe in made if probe is not None]))

    first(build)
    if rank():
        build()
    parts, probes = built
    return parts, probes


def _run(folder: Path, config: Any, parts: Any, probes: Probes, say: Callable[[str], None]) -> str:
    """Train on all ranks; judge and draw on one; returns the report."""
    started, cpu = time.perf_counter(), time.process_time()
    watching = watch(folder, config, parts, say)
    callbacks = [watching.beside(callback) for callback in parts.callbacks(folder, config.picture_every)]
    callbacks.append(Every(config.picture_every, watching))
    wanted = bool(probed(config)) + config.probe_spectrum  # on all ranks, which have to agree on what is due
    calls: list[Any] = [*probes] if rank() == 0 else [_nothing] * wanted  # rank 0 alone calls it
    callbacks = [*callbacks, *(Every(config.probe_every, call) for call in calls)]
    fit(
        parts.trainer,
        parts.real,
        config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        out=folder,
        resume=config.resume is not None,
        callbacks=callbacks,
        monitor=parts.monitor,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        progress=not config.quiet,
    )
    seconds, cpu_seconds = time.perf_counter() - started, sum(everyones(time.process_time() - cpu))
    return first(partial(_report, folder, config, parts, probes, seconds, cpu_seconds))


def _report(folder: Path, config: Any, parts: Any, probes: Probes, seconds: float, cpu_seconds: float) -> str:
    """Judge and draw what was trained."""
    run = load(folder, device=str(parts.trainer.device))
    weights = {name: value.contiguous() for name, value in run.policy.state_dict().items()}
    write_atomically(folder / "generator.safetensors", safetensors.torch.save(weights))
    report = judged(parts, run.policy)
    alarms = health(report, folder)
    measured = {**report.as_dict(), "step": run.step, "seconds": seconds, "cpu_seconds": cpu_seconds,
                "alarms": [alarm._asdict() for alarm in alarms]}  # fmt: skip
    write_atomically(folder / "evaluation.json", json.dumps(measured, indent=2).encode())
    progress_plot(folder)
    for probe in probes:
        probe.close()
        (probe_plot if isinstance(probe, GradientProbe) else spectrum_plot)(folder)
    save_report_plot(report, folder)
    averaged = "averaged " * (getattr(parts.trainer, "average", None) is not parts.trainer.generator)
    return (
        f"\nTrained to step {config.steps:,} in {seconds:.0f} s ({cpu_seconds:.0f} CPU-seconds). Judged are the "
        f"{averaged}weights of step {run.step:,}, the best by the quick {parts.chosen_by}.\n\n"
        f"{report}\n\n{alarm_text(alarms)}{_written(folder, parts.pictured)}"
    )


def judged(parts: Any, policy: Any, **options: int) -> Report | ModeReport:
    """What the judge says of a policy's samples, or of the policy, where it looks at its probabilities too."""
    judge = parts.evaluator
    report: Report | ModeReport = (
        judge.of(policy, **options) if hasattr(judge, "of") else judge.evaluate(policy.sample, **options)
    )
    return report


def health(report: Report | ModeReport, folder: Path) -> list[Alarm]:
    """What a run's curves and its samples say is wrong (docs/health.md)."""
    found = curve_alarms(read_metrics(folder / "metrics.csv"))
    rows, collapsed = report.rows, None
    if report.class_shares:
        generated, real = report.class_shares.values()
        collapsed = collapse_alarm(generated, real, report.kind)
    elif "perfect sampler" in rows:  # not one good sample, and so no shares
        reached, all_modes = (rows[name]["modes"].mean for name in ("generated", "perfect sampler"))
        collapsed = quick_alarm({"modes": reached}, round(all_modes))
    elif "real halves" in rows:
        collapsed = recall_alarm(rows["generated"]["recall"].mean, rows["real halves"]["recall"].mean)
    found += sequence_alarms(report.rows)
    return found if collapsed is None else [*found, collapsed]


def save_report_plot(report: Report | ModeReport, folder: Path) -> None:
    """The bar chart of the shares of classes or modes, for data that have them."""
    if report.class_shares:
        generated, real = report.class_shares.values()
        figure = class_share_plot(generated, real, title=f"Share of each {report.kind} among the samples")
        save_figure(figure, folder / "plots" / "class_shares.png")


@dataclass(frozen=True)
class Run:
    """A trained policy and where it came from."""

    folder: Path
    config: Any
    policy: Policy
    device: torch.device
    step: int

    def sample(self, n: int, seed: int = 0, label: int | None = None) -> Tensor:
        """``n`` samples (n, *event), images in [-1, 1] or points; the same seed gives the same ones.

        No generator is disturbed. A conditional policy draws the classes that it is ``asked`` for, or ``label`` alone.

        Raises:
            RunError: for a ``label`` that the policy cannot be asked for.
        """
        with isolated(seed):
            return self.policy.sample(n) if label is None else self.policy.sample(n, self._asked(n, label))

    def _asked(self, n: int, label: int) -> Tensor:
        if not isinstance(self.policy, ConditionalPolicy):
            raise RunError(f"{self.folder} is no conditional run, so that no class can be asked for")
        if not 0 <= label < self.policy.classes:
            raise RunError(f"the classes of {self.folder} are 0 to {self.policy.classes - 1}, got {label}")
        return self.policy.ask(torch.full((n,), label, device=self.device))

    def evaluate(self, splits: int = 10) -> Report | ModeReport:
        """The policy against real data that it never saw."""
        config = replace(self.config, compile=False) if getattr(self.config, "compile", False) else self.config
        if getattr(config, "init", None) is not None:  # where it began is of no account any more
            config = replace(config, init=None)
        parts = config.build(self.device)
        if hasattr(parts, "remember"):  # what is judged beside the policy
            parts.remember(self.folder)
        report: Any = judged(parts, self.policy, splits=splits)
        text = hasattr(parts.evaluator, "vocab") and len(parts.evaluator.train) >= LEAST
        if text:  # language models take training
            report = LanguageJudge(parts.evaluator, len(parts.evaluator.train)).extended(report, self.policy)
        told: Report | ModeReport = report
        return told


def load(folder: str | Path, *, device: str = "auto", checkpoint: str = "best") -> Run:
    """The averaged policy of a run.

    Args:
        folder: the run's folder.
        device: where to put it.
        checkpoint: ``best`` by the quick evaluation (of images: Fréchet distance to the training half) or ``last``.

    Raises:
        RunError, CheckpointError, FileNotFoundError: if it is no run folder, or its checkpoint cannot be read.
        ValueError: for another device or checkpoint.
    """
    folder = Path(folder)
    where = resolve_device(device)
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last', got {checkpoint!r}")
    saved = read_config(folder)
    config = from_dict(recipe(saved["recipe"]), saved["config"])
    path = folder / ("best.pt" if checkpoint == "best" else "checkpoint.pt")
    if checkpoint == "best" and not path.exists():
        path = folder / "checkpoint.pt"  # nothing was judged yet
    state = load_checkpoint(path, where)
    with isolated(0):  # the initial weights, which are replaced, are drawn
        policy = config.policy_for(tuple(saved["shape"]))
    try:
        trained = state["trainer"]
        policy.load_state_dict(trained["average"] if "average" in trained else trained["generator"])
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"{path} does not hold the policy that {folder / 'config.json'} describes") from error
    return Run(folder, config, policy.to(where).eval(), where, int(state["step"]))


def _folder(config: Any) -> Path:
    """Where the run goes; refuses what is taken or cannot be written."""
    if config.resume is not None:
        saved = saved_config(config.resume)
        different = differences(saved, config)
        if different:
            raise RunError(f"cannot resume {config.resume} with another configuration: {'; '.join(different)}")
        reached = load_checkpoint(config.resume / "checkpoint.pt", ranks=world_size())["step"]
        if config.steps < reached:
            raise RunError(f"{config.resume} has {reached:,} steps already: give --steps {reached} or more")
        if config.out is None or Path(config.out) == config.resume:
            return Path(config.resume)
        _copy_run(Path(config.resume), Path(config.out))
        return Path(config.out)
    folder = Path(config.out) if config.out is not None else next_folder(config.name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "already holds a run" if (folder / "config.json").exists() else "exists and is not empty"
        raise RunError(f"--out {folder} {what}: choose another folder, or --resume it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / ".writable", b"")
        (folder / ".writable").unlink()
    except OSError as error:
        raise RunError(f"--out {folder} cannot be written: {error.strerror}") from error
    return folder


def _copy_run(source: Path, target: Path) -> None:
    import shutil

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"--out {target} exists and is not empty: choose another folder")
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except OSError as error:  # of a whole tree, shutil.Error has no strerror
        raise RunError(f"--out {target} cannot be written: {error.strerror or error}") from error


def _begin(folder: Path, config: Any, device: torch.device, shape: Sequence[int], command: Sequence[str]) -> None:
    """Write ``config.json``."""
    about = {
        "advrl": advrl.__version__,
        "recipe": recipe_name(type(config)),
        "command": list(command),
        "config": {**to_dict(config), "resume": None, "out": str(folder)},
        "shape": list(shape),
        "device": f"{device} ({device_name(device)})" if device.type == "cuda" else str(device),
        "ranks": world_size(),
        "threads": torch.get_num_threads(),
        "git": _git_hash(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
    }  # fmt: skip
    path = folder / "config.json"
    if config.resume is not None:
        history = read_config(folder)
        about["resumed"] = [*history.get("resumed", []), list(command)]
        about["command"] = history.get("command", [])
    write_atomically(path, json.dumps(about, indent=2).encode())


def _git_hash() -> str | None:
    """The commit of the checkout that advrl runs from, if it does; with ``+`` where files differ from it."""
    try:
        call = ["git", "-C", str(Path(advrl.__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=40"]
        out = subprocess.run(call, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return out.stdout.strip() or None


def _announcement(config: Any, parts: Any, device: torch.device, folder: Path) -> str:
    trainer = parts.trainer
    if hasattr(config, "announcement"):  # an agent's, which is no game of two networks alone
        return (
            f"{config.name}: {parts.about}\n{config.announcement()}{_ranks(config, trainer)}"
            f"{'resuming' if config.resume else 'writing'}    {folder}, on {device}\n"
        )
    return (
        f"{config.name}: {parts.about}\n"
        f"policy     {config.policy} ({trainer.generator.family.summary}), z of {config.latent} numbers\n"
        f"gradient   {trainer.estimator}\n"
        f"objective  {config.objective}; discriminator updates a step: {config.discriminator_steps}, "
        f"generator updates: {config.generator_steps}\n"
        f"{_moves(config)}{_ranks(config, trainer)}"
        f"{'resuming' if config.resume else 'writing'}    {folder}, on {device}\n"
    )


def _moves(config: Any) -> str:
    """How the players move, if not as usual."""
    usual = config.dynamics == "alternating"
    return "" if usual else f"dynamics   {config.dynamics}: {DYNAMICS[config.dynamics].summary}\n"


def _ranks(config: Any, trainer: Any) -> str:
    """How many ranks there are, and what they do not do together."""
    if world_size() == 1:
        return ""
    nets = [trainer.generator, getattr(trainer, "discriminator", None)]
    layers = [layer for net in nets if net is not None for layer in net.modules()]
    alone = any(isinstance(layer, _BatchNorm) for layer in layers)
    return (
        f"ranks      {world_size()}, each with {share(config.batch_size)} of a batch of {config.batch_size}"
        f"{'; batch norm sees those alone' * alone}\n"
    )


def _written(folder: Path, pictured: str) -> str:
    pictures = sorted((folder / "samples").glob("step-*"))
    lines = ["Written:"]
    if pictures:
        lines.append(f"  {pictures[-1]}  {pictured}")
    lines += [
        f"  {folder / 'plots'}/  {', '.join(path.name for path in sorted((folder / 'plots').glob('*.png')))}",
        f"  {folder / 'metrics.csv'}, {folder / 'tensorboard'}/, {folder / 'evaluation.json'}",
        *[
            f"  {folder / f'{name}.csv'}, {folder / 'plots' / f'{name}.png'}"
            for name in ("probe", "spectrum")
            if (folder / f"{name}.csv").exists()
        ],
        f"  {folder / 'generator.safetensors'}, {folder / 'checkpoint.pt'}",
        "Next:",
        f"  advrl sample {folder} -n 64",
        f"  advrl plot {folder}",
    ]
    return "\n".join(lines)


def plain_command(argv: Sequence[str]) -> list[str]:
    """The command line as a user would type it."""
    return ["advrl", *argv] if argv else [Path(sys.argv[0]).name, *sys.argv[1:]]


def with_seed(config: Any, seed: int, out: Path) -> Any:
    """The configuration of one of several seeds."""
    return replace(config, seed=seed, seeds=1, out=out)
