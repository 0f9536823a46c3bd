"""Solving Markov decision processes: seconds beside quantecon, mdpsolver and pymdptoolbox, to the same measured error.

    pip install 'advrl[fast]' quantecon mdpsolver pymdptoolbox
    python benchmarks/tabular.py                      all tasks but the million states
    python benchmarks/tabular.py garnet --gamma 0.99 --rounds 9

One thread. Every solver is asked for an error of 1e-6, and what it returned is measured against a reference that has
1e-11; a solver that misses 1e-6 says so in its row. The solvers take turns, and what is told is the median of the
process's own seconds with the least and the greatest, as JSON. Building a solver's form of the problem is timed apart
("setup"). Peers that cannot be imported are left out; pymdptoolbox and mdpsolver are run where they end in seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import seconds

from advrl.files import read_csv, write_csv
from advrl.tabular import MDP, Successors, from_gymnasium, solve
from advrl.tabular.problems import garnet

TOL = 1e-6
Solver = Callable[[], Any]


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def dense(gamma: float) -> MDP:
    """1,000 states, 10 actions: every state can follow every other."""
    generator = torch.Generator().manual_seed(0)
    P = torch.rand(1000, 10, 1000, generator=generator, dtype=torch.float64)
    R = torch.rand(1000, 10, generator=generator, dtype=torch.float64)
    return MDP(P / P.sum(-1, keepdim=True), R, gamma)


def grid(gamma: float, side: int = 316, slip: float = 1 / 3) -> MDP:
    """A slippery square: one goal in the far corner pays 1 and ends, one state in twenty is a pit."""
    rng = np.random.default_rng(0)
    states = side * side
    here = np.arange(states)
    row, column, last = here // side, here % side, side - 1
    moves = np.stack([row * side + np.maximum(column - 1, 0), np.minimum(row + 1, last) * side + column,
                      row * side + np.minimum(column + 1, last), np.maximum(row - 1, 0) * side + column])  # fmt: skip
    over = rng.random(states) < 0.05
    over[0], over[-1] = False, True
    following = np.stack([np.stack([moves[(a + k) % 4] for k in (-1, 0, 1)], -1) for a in range(4)], 1)
    prob = np.broadcast_to(np.array([slip, 1 - 2 * slip, slip]), following.shape).copy()
    R = (prob * (following == states - 1)).sum(-1)
    P = Successors(torch.as_tensor(following.astype(np.int32)), torch.as_tensor(prob))
    return MDP(P, torch.as_tensor(R), gamma, terminal=torch.as_tensor(over))


def frozen(gamma: float) -> MDP:
    import gymnasium as gym

    return from_gymnasium(gym.make("FrozenLake-v1", map_name="8x8"), gamma)


def many(gamma: float) -> MDP:
    """1,000 MDPs of 25 states and 4 actions."""
    generator = torch.Generator().manual_seed(0)
    P = torch.rand(1000, 25, 4, 25, generator=generator, dtype=torch.float64) ** 6
    return MDP(P / P.sum(-1, keepdim=True), torch.rand(1000, 25, 4, generator=generator, dtype=torch.float64), gamma)


TASKS: dict[str, tuple[Callable[[float], MDP], float, float]] = {
    "dense": (dense, 0.95, 1.0),
    "garnet": (lambda gamma: garnet(100_000, 8, 5, gamma), 0.99, 0.7),
    "grid": (grid, 0.99, 0.35),
    "frozen": (frozen, 0.99, 1.2),
    "many": (many, 0.95, 1 / 3),
    "million": (lambda gamma: garnet(1_000_000, 8, 5, gamma), 0.95, 0.6),
}
"""Name to (problem, gamma, the share of quantecon's time that we aim at)."""


def closed(mdp: MDP) -> tuple[np.ndarray, np.ndarray]:
    """(S + 1, A, S + 1) and (S + 1, A) with a last state, where ended episodes stay, for solvers that know no end."""
    P, R = mdp.dense().P, mdp.R
    assert isinstance(P, torch.Tensor)
    states, actions = R.shape
    whole = np.zeros((states + 1, actions, states + 1))
    whole[:-1, :, :-1] = P
    whole[:, :, -1] = np.maximum(0.0, 1 - whole[:, :, :-1].sum(-1))
    return whole, np.vstack([R, np.zeros((1, actions))])


def quantecon(mdp: MDP) -> Iterator[tuple[str, Solver]]:
    from quantecon.markov import DiscreteDP

    gamma, (states, actions) = mdp.gamma, mdp.R.shape[-2:]
    if mdp.batch_shape:
        assert isinstance(mdp.P, torch.Tensor)
        every = [DiscreteDP(R, P, gamma) for R, P in zip(mdp.R.numpy(), mdp.P.numpy(), strict=True)]
        for method in ("policy_iteration", "modified_policy_iteration"):
            yield method, lambda m=method: np.stack([d.solve(m, **_limits(m)).v for d in every])
        return
    if isinstance(mdp.P, torch.Tensor) and not mdp.P.is_sparse_csr and mdp.terminal is None:
        problem = DiscreteDP(mdp.R.numpy(), mdp.P.numpy(), gamma)
    elif states <= 500:
        P, R = closed(mdp)
        problem = DiscreteDP(R, P, gamma)
    else:
        import scipy.sparse as sp

        csr = mdp.sparse().P
        parts = csr.values().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy()
        matrix = sp.csr_matrix(parts, shape=(states * actions, states))
        if mdp.terminal is not None:  # a row has to sum to one: where an episode has ended it stays, unpaid
            ended = np.flatnonzero(mdp.terminal.numpy())
            rows = (ended[:, None] * actions + np.arange(actions)).ravel()
            loops = sp.csr_matrix((np.ones(len(rows)), (rows, rows // actions)), shape=matrix.shape)
            matrix = (matrix + loops).tocsr()
        pairs = np.repeat(np.arange(states), actions), np.tile(np.arange(actions), states)
        problem = DiscreteDP(mdp.R.numpy().ravel(), matrix, gamma, *pairs)
    for method in ("modified_policy_iteration", *["policy_iteration"] * (states <= 1000)):
        yield method, lambda m=method: problem.solve(m, **_limits(m)).v[:states]


def _limits(method: str) -> dict[str, Any]:
    return {} if method == "policy_iteration" else {"epsilon": TOL, "max_iter": 10**6}


def mdpsolver(mdp: MDP) -> Iterator[tuple[str, Solver]]:
    import mdpsolver as peer

    if mdp.batch_shape or mdp.num_states > 1000:
        return
    P, R = closed(mdp)
    model = peer.model()
    model.mdp(rewards=R.tolist(), discount=mdp.gamma, tranMatWithZeros=P.tolist())

    def run(algorithm: str) -> np.ndarray:
        model.solve(algorithm=algorithm, tolerance=TOL, parallel=False)
        return np.array(model.getValueVector())[: mdp.num_states]

    for algorithm in ("mpi", "pi"):
        yield algorithm, lambda a=algorithm: run(a)


def pymdptoolbox(mdp: MDP) -> Iterator[tuple[str, Solver]]:
    import mdptoolbox.mdp as peer

    if mdp.batch_shape or mdp.num_states > 1000:
        return
    P, R = closed(mdp)
    P = np.ascontiguousarray(P.transpose(1, 0, 2))
    for name, more in (("PolicyIteration", {}), ("PolicyIterationModified", {"epsilon": TOL})):

        def run(name: str = name, more: dict[str, Any] = more) -> np.ndarray:
            solver = getattr(peer, name)(P, R, mdp.gamma, **more)
            solver.run()
            return np.array(solver.V)[: mdp.num_states]

        yield name, run


PEERS = {"quantecon": quantecon, "mdpsolver": mdpsolver, "pymdptoolbox": pymdptoolbox}
MODULES = {"pymdptoolbox": "mdptoolbox"}


def measure(task: str, gamma: float | None, rounds: int, device: str) -> dict[str, Any]:
    build, usual, aim = TASKS[task]
    gamma = usual if gamma is None else gamma
    mdp = build(gamma)
    here = mdp.to(device)
    solvers: dict[str, Solver] = {"advrl": lambda: solve(here, tol=TOL).V.cpu().numpy()}
    setup = {}
    for name, peer in PEERS.items():
        if has(MODULES.get(name, name)):
            began = time.process_time()
            found = list(peer(mdp))
            if found:
                setup[name] = round(time.process_time() - began, 3)
            solvers |= {f"{name} {method}": run for method, run in found}
    torch.set_num_threads(1)  # numba, which quantecon imports, has set it to all
    reference = solve(replace(mdp), tol=1e-11).V.numpy()
    error = {name: float(np.abs(run() - reference).max()) for name, run in solvers.items()}  # and the warming up
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(rounds):
        for name, run in solvers.items():
            times[name].append(seconds(run, device))
    rows = {
        name: {"ms": _ms(statistics.median(t)), "low": _ms(min(t)), "high": _ms(max(t)), "error": f"{error[name]:.1e}"}
        | ({"missed": "1e-6"} if error[name] > 2 * TOL else {})
        for name, t in times.items()
    }
    theirs = [name for name in times if name.startswith("quantecon")]
    told: dict[str, Any] = {"task": task, "gamma": gamma, "device": device, "solvers": rows, "setup": setup}
    if theirs:
        best = min(theirs, key=lambda name: statistics.median(times[name]))
        ratio = statistics.median(a / b for a, b in zip(times["advrl"], times[best], strict=True))
        told["advrl / quantecon"] = {"ratio": round(ratio, 2), "aim": round(aim, 2), "its best": best}
    return told


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--gamma", type=float, help="another discount than the task's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of advrl's solver")
    parser.add_argument("--out", type=Path, help="a CSV file to add the rows to")
    args = parser.parse_args()
    unknown = set(args.tasks) - set(TASKS)
    if unknown:
        parser.error(f"unknown task {sorted(unknown)[0]!r} (one of: {', '.join(TASKS)})")
    for task in args.tasks or [name for name in TASKS if name != "million"]:
        told = measure(task, args.gamma, args.rounds, args.device)
        print(json.dumps(told), flush=True)
        if args.out is not None:
            write(told, args.out)


def write(told: dict[str, Any], path: Path) -> None:
    """Add a row for each solver of a task."""
    ratio = told.get("advrl / quantecon", {}).get("ratio", "")
    more = [
        {"task": told["task"], "gamma": told["gamma"], "solver": name}
        | {column: row[column] for column in ("ms", "low", "high", "error")}
        | {"advrl / quantecon": ratio if name == "advrl" else ""}
        for name, row in told["solvers"].items()
    ]
    write_csv(path, [*read_csv(path), *more])


if __name__ == "__main__":
    main()
