"""Every registered estimator against bare torch code of the same estimator, written as a user would by hand.

One estimate is: make the distribution, draw, cost, surrogate, backward; the gradient is left in a leaf. Both sides are
first checked to have the same expectation (a two-sample z-test per entry of the gradient), then interleaved on one
thread and timed by the process's own clock. One JSON line per estimator: the median ratio and its quartiles, and the
ratio of the fastest turns of either side, which other work on the machine disturbs least; where the formula can also be
written with ``torch.distributions`` (validation off), the ratio to that.

    OMP_NUM_THREADS=1 python benchmarks/estimators.py
    OMP_NUM_THREADS=1 python benchmarks/estimators.py --size digits --only rebar,relax --rounds 41

Sizes: 64, 10 and 32 hidden units of the cost, as in published timings of other libraries; or 128, 64 and 256-256, as in
``advrl train digits``. The bare code is in ``estimator_twins.py``; not timed: what has no twin there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from statistics import NormalDist

import torch
from estimator_twins import SIZE, TWINS, WITH_DISTRIBUTIONS, critic, leaf, sizes
from torch import Tensor, nn
from torch.distributions import Distribution

from advrl.estimators import ESTIMATORS, ControlVariate, Relax, fit_loss, make_estimator

Step = Callable[[], None]


def ours(name: str, make: Callable[[Tensor], Distribution], f: Callable[[Tensor], Tensor], n: int) -> Step:
    """One estimate by the library."""
    estimator = make_estimator(name, n=n)
    learned: list[nn.Parameter] = []
    if name == "rebar":
        estimator = type(estimator)(n, 0.5)
    if name == "relax":
        estimator = Relax(n, 0.5, ControlVariate(critic))
        learned = list(critic.parameters())

    def step() -> None:
        leaf.grad = None
        loss = estimator(make(leaf), f).mean()
        if learned:
            fitting = fit_loss(estimator)
            assert fitting is not None
            grads = torch.autograd.grad(fitting, learned, retain_graph=True, allow_unused=True)
            for parameter, grad in zip(learned, grads, strict=True):
                parameter.grad = grad
        loss.backward(inputs=[leaf] if learned else None)

    return step


def by_hand(function: Callable[[int], Tensor | None], n: int) -> Step:
    """One estimate by the twin."""

    def step() -> None:
        leaf.grad = None
        loss = function(n)
        if loss is not None:
            loss.backward()

    return step


def same_expectation(first: Step, second: Step, replicates: int = 150) -> None:
    """Raise an ``AssertionError`` if the two have different gradients on average: chance 1e-6 if they have not."""
    means, errors = [], []
    for step in (first, second):
        found = []
        for _ in range(replicates):
            step()
            assert leaf.grad is not None
            found.append(leaf.grad.clone())
        draws = torch.stack(found).double()
        means.append(draws.mean(0))
        errors.append(draws.var(0) / replicates)
    z = (means[0] - means[1]) / (errors[0] + errors[1]).clamp(min=1e-16).sqrt()
    bound = NormalDist().inv_cdf(1 - 1e-6 / (2 * z.numel()))
    assert z.abs().max() < bound, f"the twins differ: |z| = {z.abs().max():.1f} > {bound:.1f}"


def seconds(step: Step, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - start) / repeats


def against(first: Step, second: Step, rounds: int, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of the first, of the second, and sorted ratios first to second, of turns one after the other."""
    first(), second()
    pairs = [(seconds(first, repeats), seconds(second, repeats)) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs], sorted(a / b for a, b in pairs)


def quartiles(ratios: list[float]) -> list[float]:
    quarter = len(ratios) // 4
    return [round(ratios[quarter], 2), round(ratios[-1 - quarter], 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[sizes])
    parser.add_argument("--only", default=",".join(ESTIMATORS), help="names, with commas between them")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    only = arguments.only.split(",")
    for (name, problem), (make, f, n, function) in TWINS.items():
        if name not in only:
            continue
        library, bare = ours(name, make, f, n), by_hand(function, n)
        same_expectation(library, bare)
        mine, theirs, ratios = against(library, bare, arguments.rounds, arguments.repeats)
        row = {
            "bench": name,
            "problem": problem,
            "size": SIZE,
            "n": n,
            "us": round(statistics.median(mine) * 1e6),
            "bare_us": round(statistics.median(theirs) * 1e6),
            "ratio": round(statistics.median(ratios), 2),
            "quartiles": quartiles(ratios),
            "fastest": round(min(mine) / min(theirs), 2),
        }
        if (name, problem) in WITH_DISTRIBUTIONS:
            other = by_hand(WITH_DISTRIBUTIONS[name, problem], n)
            same_expectation(library, other)
            mine, theirs, ratios = against(library, other, arguments.rounds, arguments.repeats)
            row["with_distributions"] = round(statistics.median(ratios), 2)
            row["with_distributions_fastest"] = round(min(mine) / min(theirs), 2)
        print(json.dumps({**row, "torch": torch.__version__}), flush=True)
    print(json.dumps({"not timed": sorted(set(ESTIMATORS) - {name for name, _ in TWINS})}))


if __name__ == "__main__":
    main()
