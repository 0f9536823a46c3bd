"""The tree of prefixes against the same problem written out as successor lists: a million leaves, one thread.

    python benchmarks/tree.py

Both give the optimal value of every prefix; the tree needs 8 bytes per node and reads each once. One JSON line per row.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import torch

from advrl.tabular import LayeredTree, q_from_v

ROUNDS = 15


def milliseconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Time both, interleaved, after checking that they agree."""
    torch.set_num_threads(1)
    for vocab, horizon in ((10, 6), (4, 10), (100, 3), (27, 4)):
        leaves = torch.rand(vocab**horizon, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        tree = LayeredTree(vocab, horizon, leaves)
        uniform = [torch.zeros(vocab**t, vocab, dtype=torch.float64) for t in range(horizon)]
        work: dict[str, Callable[[], object]] = {
            "max": tree.optimal,
            "expectation": lambda tree=tree, uniform=uniform: tree.evaluate(uniform),
            "soft": lambda tree=tree: tree.soft(1.0),
        }
        if vocab**horizon <= 1_100_000 and horizon > 3:
            mdp = tree.to_mdp()

            def lists(mdp=mdp, horizon=horizon) -> torch.Tensor:  # type: ignore[no-untyped-def]
                V = torch.zeros(mdp.num_states, dtype=mdp.dtype)
                for _ in range(horizon):
                    V = q_from_v(mdp, V).amax(-1)
                return V

            torch.testing.assert_close(lists(), torch.cat(tree.optimal().V[:horizon]))
            work["max by successor lists"] = lists
        for call in work.values():
            call()
        took: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, call in work.items():
                took[name].append(milliseconds(call))
        for name, times in took.items():
            times.sort()
            print(json.dumps({
                "bench": "tree", "vocab": vocab, "horizon": horizon, "leaves": vocab**horizon, "backup": name,
                "ms": round(statistics.median(times), 2), "low": round(times[1], 2), "high": round(times[-2], 2),
                "threads": torch.get_num_threads(), "torch": torch.__version__,
            }))  # fmt: skip


if __name__ == "__main__":
    main()
