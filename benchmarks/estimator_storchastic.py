"""The estimators against storchastic, interleaved in one process: how many times faster is the library?

    OMP_NUM_THREADS=1 python benchmarks/estimator_storchastic.py

By itself, since importing storchastic replaces functions of torch and turns its validation of arguments off. Its REBAR
and RELAX run on coins given by probabilities alone; RELAX's critic is its own. What it cannot do, or does with an
exception on these problems (DisARM; REBAR and RELAX on dice), has no row.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import storch
import storch.method as methods
import torch
from estimator_twins import SIZE, TWINS, K, cost, leaf, sizes
from estimators import Step, against, ours, quartiles
from torch import nn
from torch.distributions import Bernoulli, Distribution, Normal

from advrl.estimators import ESTIMATORS


def step_of(method: Any, make: Callable[[Any], Distribution]) -> Step:
    """One estimate by storchastic: the batch is declared, the cost goes into its list, backward is its own."""
    learned = list(method.parameters()) if isinstance(method, nn.Module) else []

    def step() -> None:
        leaf.grad = None
        for parameter in learned:
            parameter.grad = None
        x = method(make(storch.denote_independent(leaf, 0, "batch")))
        storch.add_cost(cost(x), "cost")
        storch.backward()

    return step


def probabilities(theta: Any) -> Distribution:
    return Bernoulli(probs=theta.sigmoid())


def logits(theta: Any) -> Distribution:
    return Bernoulli(logits=theta)


def one_hot(theta: Any) -> Distribution:
    return torch.distributions.OneHotCategorical(logits=theta)


def normal(theta: Any) -> Distribution:
    return Normal(theta, 1.0)


LOO = {"baseline_factory": "batch_average"}
ROWS: dict[tuple[str, str], tuple[Any, Callable[[Any], Distribution]]] = {
    ("loo", "coins"): (methods.ScoreFunction("z", n_samples=16, **LOO), logits),
    ("loo", "dice"): (methods.ScoreFunction("z", n_samples=16, **LOO), one_hot),
    ("score", "coins"): (methods.ScoreFunction("z", n_samples=16), logits),
    ("path", "normals"): (methods.Reparameterization("z", n_samples=16), normal),
    ("gumbel", "coins"): (methods.GumbelSoftmax("z", n_samples=16), logits),
    ("gumbel", "dice"): (methods.GumbelSoftmax("z", n_samples=16), one_hot),
    ("st-gumbel", "dice"): (methods.GumbelSoftmax("z", n_samples=16, straight_through=True), one_hot),
    ("rebar", "coins"): (methods.REBAR("z", n_samples=16), probabilities),
    ("relax", "coins"): (methods.RELAX("z", n_samples=16, in_dim=K), probabilities),
    ("arm", "coins"): (methods.ARM("z", n_samples=8), logits),
    ("unordered-set", "dice"): (methods.UnorderedSetEstimator("z", k=3), one_hot),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[sizes])
    parser.add_argument("--only", default=",".join(ESTIMATORS), help="names, with commas between them")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for (name, problem), (method, distribution) in ROWS.items():
        if name not in arguments.only.split(","):
            continue
        make, f, n, _ = TWINS[name, problem]
        theirs, mine, ratios = against(
            step_of(method, distribution), ours(name, make, f, n), arguments.rounds, arguments.repeats
        )
        row = {
            "bench": f"{name} against storchastic",
            "problem": problem,
            "size": SIZE,
            "n": n,
            "us": round(statistics.median(mine) * 1e6),
            "storchastic_us": round(statistics.median(theirs) * 1e6),
            "times": round(statistics.median(ratios), 2),
            "quartiles": quartiles(ratios),
            "fastest": round(min(theirs) / min(mine), 2),
            "storchastic": version("storchastic"),
            "torch": torch.__version__,
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
