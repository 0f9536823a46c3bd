"""``advrl solve PROBLEM``: a textbook problem or a toy-text environment, solved: as text, JSON and pictures."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from advrl.checks import number

if TYPE_CHECKING:
    from advrl.tabular import MDP, Solution

METHODS = ("auto", "value-iteration", "policy-iteration", "modified-policy-iteration", "linear-program")


@dataclass(frozen=True)
class Solve:
    """Solve a small Markov decision process: values, every optimal action, and what is certain about them."""

    problem: Annotated[str | None, tyro.conf.Positional] = None
    """A name of --list, or a Gymnasium environment with a table of transitions, such as FrozenLake-v1."""
    list: bool = False
    """Show the problems there are."""
    gamma: float | None = None
    """Discount in [0, 1]. Default: the problem's own; 1 for environments."""
    method: Literal["auto", "value-iteration", "policy-iteration", "modified-policy-iteration", "linear-program"] = (
        "auto"
    )
    """How to solve it."""
    tol: float = 1e-8
    """Error to reach."""
    map: str | None = None
    """Map of FrozenLake (4x4, 8x8) or of advrl/GridWorld-v0 (open, rooms, pits)."""
    slippery: bool | None = None
    """Whether moves may slip, for FrozenLake and cliff walking."""
    plot: bool = False
    """Draw values with arrows for all optimal actions, action values, occupancy, bounds and an animation."""
    out: Path | None = None
    """Folder for what is written. Default: runs/solve-PROBLEM."""
    json: bool = False
    """Print JSON in place of text, for programs."""


def run(options: Solve) -> int:
    """Solve, print, draw.

    Raises:
        ValueError: for a problem that is unknown, has no table of transitions or no answer; or wrong options.
    """
    if options.list or options.problem is None:
        print(_listing())
        return 0 if options.list else 2
    from advrl.tabular import render_solution, solve

    number("--tol", options.tol, 0.0)
    mdp = load(options)
    found = solve(mdp, options.method, tol=options.tol)
    written = draw(mdp, found, options) if options.plot else []
    if options.out is not None or options.plot:
        folder = _folder(options)
        written.append(_save(folder / "solution.json", _report(mdp, found, options)))
    if options.json:
        print(json.dumps(_report(mdp, found, options)))
        return 0
    sizes = f"{mdp.num_states} states, {mdp.num_actions} actions, gamma {float(mdp.discount):g}"
    print(f"{options.problem}: {sizes}\n\n{render_solution(mdp, found)}")
    if mdp.p0 is not None:
        print(f"\nValue of the start: {float((mdp.p0 * found.V).sum()):.6f}")
    if written:
        print("\nWritten:\n" + "\n".join(f"  {path}" for path in written))
    else:
        print("\nNext:\n  the same with --plot draws values, actions, visits and bounds")
    return 0


def load(options: Any) -> MDP:
    """The problem by its name, with ``gamma``, ``map`` and ``slippery``: what Solve and Learn have in common."""
    from advrl.tabular.problems import PROBLEMS

    name = options.problem or ""
    if name in PROBLEMS:
        known = inspect.signature(PROBLEMS[name]).parameters
        given = {"gamma": options.gamma, "slippery": options.slippery, "map": options.map}
        for option, value in given.items():
            if value is not None and option not in known:
                raise ValueError(f"{name} takes no --{option}")
        return PROBLEMS[name](**{option: value for option, value in given.items() if value is not None})
    return _environment(name, options)


def _environment(name: str, options: Any) -> MDP:
    import gymnasium as gym

    import advrl.envs
    from advrl.tabular import from_gymnasium
    from advrl.tabular.problems import PROBLEMS

    gym.register_envs(advrl.envs)
    settings: dict[str, Any] = {}
    if options.map is not None:
        settings["map" if name.startswith("advrl/") else "map_name"] = options.map
    if options.slippery is not None:
        settings["is_slippery"] = options.slippery
    if name not in gym.registry:
        known = [*PROBLEMS, *toy_text()]
        folded = {k.lower(): k for k in known}
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        meant = f"; did you mean {folded[close[0]]!r}?" if close else ""
        raise ValueError(f"unknown problem {name!r}{meant} (advrl solve --list shows all)")
    try:
        env = gym.make(name, **settings)
    except (TypeError, KeyError, gym.error.Error) as error:
        given = " ".join(f"{option}={value!r}" for option, value in settings.items())
        raise ValueError(f"{name} cannot be made with {given or 'its defaults'}: {error}") from error
    try:
        return from_gymnasium(env, 1.0 if options.gamma is None else options.gamma)
    finally:
        env.close()


def toy_text() -> list[str]:
    """Ids of Gymnasium's and advrl's environments that have a table of transitions."""
    import gymnasium as gym

    import advrl.envs

    gym.register_envs(advrl.envs)
    tables = ("FrozenLake", "CliffWalking", "Taxi", "advrl/GridWorld")
    return sorted(i for i in gym.registry if i.startswith(tables))


def draw(mdp: MDP, found: Solution, options: Solve) -> list[Path]:
    """Every picture that the problem allows, into the folder."""
    import torch

    from advrl import plots
    from advrl.tabular import bounds_by_sweep, ended_states, greedy, occupancy, q_from_v, value_iteration

    folder, over, labels = _folder(options), ended_states(mdp), mdp.action_labels
    arrows = labels is not None and any(label in plots.DIRECTIONS for label in labels)
    figures = {}
    history: list[torch.Tensor] = []
    if options.problem == "gambler":
        figures["gambler"] = plots.gambler_plot(found.V, found.optimal_set)
    elif mdp.shape is None:
        figures["values"] = plots.value_bars(found.V, mdp.state_labels)
    else:
        best = found.optimal_set
        figures["values"] = plots.value_map(found.V, mdp.shape, optimal_set=best, action_labels=labels, ended=over)
        if arrows and labels is not None:
            figures["q"] = plots.q_triangles(found.Q, mdp.shape, labels, ended=over)
        else:
            figures["policy"] = plots.action_map(found.policy, mdp.shape, labels)
        if mdp.p0 is not None:
            figures["occupancy"] = plots.occupancy_map(occupancy(mdp, found.policy), mdp.shape)
    if mdp.num_states <= 1000:
        history = value_iteration(mdp, history=True, stop="max", tol=1e-6).history
    if history and mdp.contracts:
        figures["bounds"] = plots.bounds_plot(*bounds_by_sweep(mdp, history), found.V)
    written = [plots.save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()]
    if history and mdp.shape is not None and mdp.num_states <= 200:
        changing = _until_still(history)
        sets = [greedy(q_from_v(mdp, V), 1e-9)[1] for V in changing] if arrows else None
        film = folder / "sweeps.gif"
        written.append(plots.animate_values(
            changing, mdp.shape, film, optimal_sets=sets, action_labels=labels, ended=over, frames=20))  # fmt: skip
    return written


def _until_still(history: list[Any]) -> list[Any]:
    """The sweeps up to where a picture no longer changes."""
    size = float(history[-1].abs().max())
    for k, V in enumerate(history):
        if float((V - history[-1]).abs().max()) <= 0.005 * size:
            return history[: k + 1]
    return history


def _report(mdp: MDP, found: Solution, options: Solve) -> dict[str, Any]:
    """What ``--json`` prints: every number, with ties as lists of actions."""

    def numbers(value: Any) -> Any:
        return None if value is None else value.tolist()

    Q = [[None if q == float("-inf") else q for q in row] for row in found.Q.tolist()]
    return {
        "problem": options.problem, "states": mdp.num_states, "actions": mdp.num_actions, "gamma": float(mdp.discount),
        "method": options.method, "status": found.status, "iterations": found.iterations, "seconds": found.seconds,
        "error_bound": numbers(found.error_bound), "reason": found.reason, "V": numbers(found.V), "Q": Q,
        "policy": numbers(found.policy), "optimal_actions": [[a for a, on in enumerate(row) if on] for row in
        found.optimal_set.tolist()], "lower": numbers(found.lower), "upper": numbers(found.upper),
        "shape": mdp.shape, "action_labels": None if mdp.action_labels is None else [*mdp.action_labels],
    }  # fmt: skip


def _save(path: Path, report: dict[str, Any]) -> Path:
    from advrl.files import write_atomically

    return write_atomically(path, json.dumps(report, indent=1).encode())


def _folder(options: Solve) -> Path:
    return options.out or Path("runs") / f"solve-{(options.problem or '').replace('/', '-')}"


def _listing() -> str:
    from advrl.tabular.problems import PROBLEMS

    def first(make: Callable[..., Any]) -> str:
        return (make.__doc__ or "").strip().splitlines()[0].rstrip(".")

    rows = "\n".join(f"  {name:<16} {first(make)}" for name, make in PROBLEMS.items())
    environments = "\n".join(f"  {name}" for name in toy_text())
    return f"""\
problems
{rows}

environments with a table of transitions (any of your own that has env.P works too)
{environments}

  advrl solve cliff
  advrl solve FrozenLake-v1 --map 8x8 --gamma 0.99 --plot"""
