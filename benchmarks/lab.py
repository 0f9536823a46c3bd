"""The laboratory against a loop of one backward per replicate, and against the cost of the random numbers alone.

    python benchmarks/lab.py

One thread, interleaved, medians of several rounds, and the ratio of the fastest turns, which other work on the machine
disturbs least; a JSON line per figure. Both ways measure the same variances, which
is checked before anything is timed. The loop is what a user would write first: a torch.distributions object, a
surrogate, a backward, the gradient taken down, with torch's defaults (which validate arguments).
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable

import torch
from timing import seconds
from torch.distributions import Normal

from advrl.distributions import OneHotCategorical
from advrl.estimators import Estimator, Path, Score, leave_one_out
from advrl.lab import Moments, NormalSquare, Problem, compare
from advrl.lab.harness import gradients
from advrl.nn import MLP

REPLICATES = 100
SMALL, ALL = (10, 100, 1_000), (10, 100, 1_000, 10_000, 100_000)


def against(name: str, fast: Callable[[], object], slow: Callable[[], object], rounds: int, **more: object) -> None:
    """Print how many times faster ``fast`` is, interleaved, in turns of the same length.

    A loop of many milliseconds pays once for finding the caches full of another process's data, after which its own
    thousands of passes find theirs; so do the calls that take its turn.
    """
    fast(), slow()
    repeats = max(1, round(seconds(slow) / seconds(fast)))
    pairs = [(seconds(fast, repeats=repeats), seconds(slow)) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in pairs)
    print(
        json.dumps(
            {
                "bench": name,
                "times": round(statistics.median(ratios), 1),
                "low": round(ratios[0], 1),
                "high": round(ratios[-1], 1),
                "fastest": round(min(b for _, b in pairs) / min(a for a, _ in pairs), 1),
                "ms": round(1e3 * statistics.median(a for a, _ in pairs), 2),
                "other ms": round(1e3 * statistics.median(b for _, b in pairs), 2),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                **more,
            }
        ),
        flush=True,
    )


def score_loop(n: int) -> torch.Tensor:
    """REPLICATES score-function gradients of E x^2 under N(2, 1), one backward each."""
    found = []
    for _ in range(REPLICATES):
        theta = torch.tensor(2.0, requires_grad=True)
        normal = Normal(theta, 1.0)
        x = normal.sample((n,))
        (normal.log_prob(x) * x**2).mean().backward()
        found.append(theta.grad)
    return torch.stack(found)


def path_loop(n: int) -> torch.Tensor:
    """The same by the path derivative."""
    found = []
    for _ in range(REPLICATES):
        theta = torch.tensor(2.0, requires_grad=True)
        x = Normal(theta, 1.0).rsample((n,))
        (x**2).mean().backward()
        found.append(theta.grad)
    return torch.stack(found)


def lecture(sizes: tuple[int, ...]) -> dict[str, list[Estimator]]:
    """Both estimators at each size."""
    return {"score": [Score(n) for n in sizes], "path": [Path(n) for n in sizes]}


def the_lecture() -> None:
    """The lecture's experiment, for few samples and for all."""
    problem = NormalSquare()
    for loop, exact in ((score_loop, 8.7), (path_loop, 0.4)):
        for _ in range(3):
            assert abs(float(loop(10).var()) / exact - 1) < 5 * (2 / (REPLICATES - 1)) ** 0.5 * 2
    for sizes, rounds in ((SMALL, 31), (ALL, 3)):

        def loops(sizes: tuple[int, ...] = sizes) -> None:
            for n in sizes:
                score_loop(n), path_loop(n)

        def lab(sizes: tuple[int, ...] = sizes) -> None:
            compare(lecture(sizes), problem, replicates=REPLICATES)

        against(f"normal-square, N up to {sizes[-1]:,}, against a loop", lab, loops, rounds)
    ready = problem.on()

    def bare() -> None:
        for n in SMALL:
            gradients(Score(n), ready, REPLICATES), gradients(Path(n), ready, REPLICATES)

    def both() -> None:
        for n in SMALL:
            score_loop(n), path_loop(n)

    against("estimates alone, N up to 1,000", bare, both, 31)

    def draws() -> None:
        for n in ALL:
            for _ in range(2):
                for rows in torch.empty(REPLICATES).split(max(1, 2**16 // n)):
                    torch.randn(n, len(rows))

    against("drawing the normals of all N, against comparing", draws, lambda: lab(ALL), 3)


def mlp_policy() -> None:
    """All 1,226 parameters of an 8-64-10 policy: batch 16, 4 draws, 512 replicates."""
    torch.manual_seed(0)
    net, contexts, weights = MLP(8, 10, (64,)), torch.randn(16, 8), torch.randn(10)

    def cost(x: torch.Tensor) -> torch.Tensor:
        return (x @ weights).square()

    parameters = tuple(net.parameters())
    problem = Problem(
        "policy", net(contexts), lambda node: OneHotCategorical(logits=node, validate_args=False), cost,
        parameters=parameters,
    )  # fmt: skip
    estimator = Score(4, leave_one_out)

    def loop() -> torch.Tensor:
        found = []
        for _ in range(512):
            q = torch.distributions.OneHotCategorical(logits=net(contexts))
            x = q.sample((4,))
            c = cost(x)
            baseline = (c.sum(0) - c) / 3
            loss = ((c - baseline) * q.log_prob(x)).mean()
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
        return torch.stack(found)

    def lab() -> torch.Tensor:
        return gradients(estimator, problem, 512)

    centre = lab().double().mean(0)
    one, other = Moments.of(loop(), centre), Moments.of(lab(), centre)
    assert abs(one.total - other.total) < 5 * (one.total_error**2 + other.total_error**2) ** 0.5
    size = {"parameters": len(centre), "total variance": round(other.total, 4), "of the loop": round(one.total, 4)}
    against("MLP policy, all parameters, 512 replicates, against a loop", lab, loop, 9, **size)
    node = Problem("policy", problem.node.detach(), problem.distribution, cost)
    against("MLP policy, at the node", lambda: gradients(estimator, node, 512), loop, 5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    the_lecture()
    mlp_policy()
