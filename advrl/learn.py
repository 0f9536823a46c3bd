"""``advrl learn LEARNER PROBLEM``: many agents learn a small decision problem, beside the exact answer."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from advrl.checks import choice, integer, number

if TYPE_CHECKING:
    from torch import Tensor

    from advrl.agents import Learned
    from advrl.tabular import MDP


@dataclass(frozen=True)
class Learn:
    """Let many agents learn a small Markov decision process, and hold them against its exact solution."""

    learner: tyro.conf.Positional[str]
    """q-learning, sarsa, expected-sarsa, double-q-learning, n-step-sarsa, tree-backup, sarsa-lambda, q-lambda,
    monte-carlo, dyna-q, prioritized-sweeping, model-learning, posterior-sampling, reinforce or
    actor-critic."""
    problem: tyro.conf.Positional[str]
    """A textbook problem, such as cliff, or a Gymnasium environment with a table, such as FrozenLake-v1."""
    agents: int = 100
    """Independent agents, each with draws of its own."""
    episodes: int = 500
    """Episodes of each agent."""
    alpha: float | None = None
    """Step size. Default: the learner's."""
    epsilon: float | None = None
    """Probability of a random action. Default: the learner's."""
    gamma: float | None = None
    """Discount in [0, 1]. Default: the problem's own; 1 for environments."""
    n: int | None = None
    """Steps before bootstrapping, for the n-step learners."""
    lam: float | None = None
    """Decay of traces, for those that have them."""
    planning: int | None = None
    """Remembered steps per real one, for Dyna-Q and prioritised sweeping."""
    bonus: float | None = None
    """Optimism c / sqrt(n) about pairs seen n times, for q-learning and model-learning."""
    max_steps: int = 10_000
    """Time limit of an episode."""
    last: int = 100
    """Episodes at the end whose mean return is told."""
    map: str | None = None
    """Map of FrozenLake: 4x4 or 8x8."""
    slippery: bool | None = None
    """Whether moves may slip, for FrozenLake and cliff walking."""
    seed: int = 0
    """Of all draws."""
    device: str = "cpu"
    """auto, cpu, cuda, cuda:N or mps."""
    out: Path | None = None
    """Write the learning curves there, as a picture (.png, .svg, .pdf)."""


def run(options: Learn) -> int:
    """Learn, print a table, draw.

    Raises:
        ValueError: for an unknown learner or problem, or options that do not fit them.
    """
    import torch

    from advrl.agents import exact_values
    from advrl.device import resolve_device
    from advrl.solve import load
    from advrl.tabular import solve

    learners = _learners()
    learner = learners[choice("learner", options.learner, learners)]
    settings = _settings(options, learner)
    for name in ("agents", "episodes", "max_steps", "last"):
        integer(f"--{name.replace('_', '-')}", getattr(options, name))
    mdp = load(options).to(resolve_device(options.device))
    began = time.perf_counter()
    found: Learned = learner(
        mdp, agents=options.agents, episodes=options.episodes, max_steps=options.max_steps, seed=options.seed,
        progress=True, **settings,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    start = _start(mdp)
    best = float(solve(mdp).V @ start)
    horizon = None if float(mdp.discount) < 1 else options.max_steps
    achieved = exact_values(mdp, found.policy, horizon=horizon) @ start
    print(_table(options, mdp, found, seconds, best, achieved, found.V @ start if found.Q is not None else None))
    if options.out is not None:
        title = f"{options.learner} on {options.problem}"
        print(f"\nWritten:\n  {curves(found.returns, best, options.out, title=title)}")
    else:
        print("\nNext:\n  the same with --out curves.png draws the learning curves")
    assert torch.isfinite(found.returns).all()
    return 0


def curves(returns: Tensor, best: float, path: Path, *, title: str) -> Path:
    """Write the mean return (N, E) over agents, episode by episode, with its 95 % interval and V* of the start."""
    import numpy as np
    from matplotlib.figure import Figure

    from advrl.plots import save_figure, style
    from advrl.plots.runs import t_interval
    from advrl.plots.style import BLUE, MUTED

    values = returns.cpu().double().numpy()
    episodes = np.arange(1, values.shape[1] + 1)
    with style():
        figure = Figure(figsize=(5.6, 3.4))
        axis = figure.subplots()
        if len(values) > 1:
            mean, low, high = t_interval(values)
            axis.fill_between(episodes, low, high, color=BLUE, alpha=0.25, lw=0, label="95 % interval of the mean")
        else:
            mean = values[0]
        axis.plot(episodes, mean, color=BLUE, lw=1.0, label=f"mean of {len(values):,} agents")
        axis.axhline(best, color=MUTED, ls="--", lw=1.0, label=f"V* of the start, {best:.4g}")
        bottom = float(np.percentile(mean, 5))  # first episodes may be worse by orders of magnitude
        top = max(best, float(mean.max()))
        room = top - bottom or 1.0
        axis.set_ylim(bottom - 0.15 * room, top + 0.08 * room)
        axis.set_xlabel("episode")
        axis.set_title(f"{title}: return of an episode, discounted")
        figure.legend(loc="outside lower center", ncols=3)
        return save_figure(figure, path)


def _learners() -> dict[str, Callable[..., Learned]]:
    from advrl import agents

    return {
        "q-learning": agents.q_learning,
        "sarsa": agents.sarsa,
        "expected-sarsa": agents.expected_sarsa,
        "double-q-learning": agents.double_q_learning,
        "n-step-sarsa": agents.n_step_sarsa,
        "tree-backup": agents.tree_backup,
        "sarsa-lambda": agents.sarsa_lambda,
        "q-lambda": agents.q_lambda,
        "monte-carlo": agents.mc_control,
        "dyna-q": agents.dyna_q,
        "prioritized-sweeping": agents.prioritized_sweeping,
        "model-learning": agents.model_learning,
        "posterior-sampling": agents.posterior_sampling,
        "reinforce": agents.reinforce,
        "actor-critic": agents.actor_critic,
    }


def _settings(options: Learn, learner: Callable[..., Learned]) -> dict[str, Any]:
    """What was said of the learner, if it has it."""
    known = inspect.signature(learner).parameters
    given = {f.name: getattr(options, f.name) for f in fields(options)}
    own = ("alpha", "epsilon", "n", "lam", "planning", "bonus")
    given = {name: given[name] for name in own if given[name] is not None}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{options.learner} has no --{name}")
        number(f"--{name}", value, 0.0)
    return given


def _start(mdp: MDP) -> Tensor:
    from advrl.tabular import Simulator

    return Simulator.of(mdp).start


def _table(
    options: Learn, mdp: MDP, found: Learned, seconds: float, best: float, achieved: Tensor, believed: Tensor | None
) -> str:
    """What a student reads: one figure a line, with standard errors over agents."""
    last = min(options.last, options.episodes)
    scale = max(1.0, abs(best))
    optimal = int(((best - achieved) <= 1e-6 * scale).sum())
    rows = [
        ("V* of the start", f"{best:.4f}"),
        ("greedy policy, exact value" if found.Q is not None else "policy, exact value", _mean(achieved)),
        ("  best, median and worst agent", _spread(achieved)),
        ("  agents without loss", f"{optimal:,} of {len(achieved):,}"),
    ]
    if believed is not None:
        rows.append(("  what the agents take it for", _mean(believed)))
    rows.append((f"return, last {last} episodes", _mean(found.returns[:, -last:].mean(1))))
    rows.append((f"steps, last {last} episodes", _mean(found.lengths[:, -last:].double().mean(1))))
    limit = "" if float(mdp.discount) < 1 else f" Exact values are those within {options.max_steps:,} steps."
    lines = "\n".join(f"  {name:<34}{value}" for name, value in rows)
    return (
        f"{options.learner} on {options.problem}: {mdp.num_states} states, {mdp.num_actions} actions, gamma "
        f"{float(mdp.discount):g}\n{options.agents:,} agents, {options.episodes:,} episodes each; {found.steps:,} "
        f"steps in {seconds:.1f} s\n\n{lines}\n\nMeans over agents ± standard error; returns are discounted.{limit}"
    )


def _spread(values: Tensor) -> str:
    return ", ".join(f"{float(v):.4f}" for v in (values.max(), values.median(), values.min()))


def _mean(values: Tensor) -> str:
    values = values.double()
    error = f" ± {float(values.std()) / math.sqrt(len(values)):.4f}" if len(values) > 1 else ""
    return f"{float(values.mean()):.4f}{error}"
