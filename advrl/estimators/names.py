"""The estimators' names on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.distributions import Distribution

from advrl.checks import choice
from advrl.estimators.antithetic import Antithetic
from advrl.estimators.arm import Arm, DisArm
from advrl.estimators.base import Estimator
from advrl.estimators.baselines import Critic, grpo
from advrl.estimators.enumeration import Enumerate, RaoBlackwell
from advrl.estimators.evolution import EvolutionStrategy
from advrl.estimators.gumbel import GumbelRao
from advrl.estimators.kernels import leave_one_out
from advrl.estimators.lax import Lax
from advrl.estimators.measure import Measure
from advrl.estimators.muprop import MuProp
from advrl.estimators.path import Path
from advrl.estimators.rebar import Rebar, Relax
from advrl.estimators.reinmax import ReinMax
from advrl.estimators.relaxed import GumbelSoftmax, StraightThrough
from advrl.estimators.score import Baseline, MovingAverage, Score
from advrl.estimators.taylor import Taylor
from advrl.estimators.unordered import UnorderedSet

BASELINES = ("none", "constant", "moving-average", "loo")


@dataclass(frozen=True)
class Named:
    """An estimator as the command line knows it: how to make it, and how many samples it takes by default."""

    make: Callable[[int, float, Baseline], Estimator]
    samples: int
    summary: str


ESTIMATORS: dict[str, Named] = {
    "loo": Named(lambda n, t, b: Score(n, leave_one_out), 8, "REINFORCE, each sample against the mean of the others"),
    "score": Named(lambda n, t, b: Score(n, b), 1, "bare REINFORCE, or with --baseline"),
    "path": Named(lambda n, t, b: Path(n), 1, "reparameterised gradient (continuous policies)"),
    "gumbel": Named(lambda n, t, b: GumbelSoftmax(n, t), 1, "Gumbel-softmax / binary Concrete relaxation (biased)"),
    "nvil": Named(lambda n, t, b: Score(n, Critic()), 1, "REINFORCE with a learned baseline V(policy's mean)"),
    "grpo": Named(lambda n, t, b: Score(n, advantage=grpo), 8, "REINFORCE, costs standardised per z (biased)"),
    "antithetic": Named(lambda n, t, b: Antithetic(n), 1, "reparameterised gradient over mirrored pairs"),
    "taylor": Named(lambda n, t, b: Taylor(n), 1, "REINFORCE of what a parabola at the mean leaves over"),
    "lax": Named(lambda n, t, b: Lax(n), 1, "REINFORCE with a learned, reparameterised control variate"),
    "measure": Named(lambda n, t, b: Measure(n), 1, "weak derivative, coordinate by coordinate (many evaluations)"),
    "es": Named(lambda n, t, b: EvolutionStrategy(n), 8, "evolution strategy on the policy's numbers (biased)"),
    "st": Named(lambda n, t, b: StraightThrough(n), 1, "straight-through (biased)"),
    "st-gumbel": Named(lambda n, t, b: GumbelSoftmax(n, t, hard=True), 1, "straight-through Gumbel-softmax (biased)"),
    "gumbel-rao": Named(lambda n, t, b: GumbelRao(n, t), 1, "the same, averaged over its noise (biased)"),
    "reinmax": Named(lambda n, t, b: ReinMax(n, t), 1, "straight-through to second order (biased)"),
    "rebar": Named(lambda n, t, b: Rebar(n, t), 1, "REINFORCE with the relaxed cost as control variate"),
    "relax": Named(lambda n, t, b: Relax(n, t), 1, "REINFORCE with a network at relaxed samples as control variate"),
    "muprop": Named(lambda n, t, b: MuProp(n), 1, "REINFORCE of what the tangent at the mean leaves over"),
    "arm": Named(lambda n, t, b: Arm(n), 1, "antithetic pairs of coins (2 samples per pair)"),
    "disarm": Named(lambda n, t, b: DisArm(n), 1, "the same without its noise (2 samples per pair)"),
    "enumerate": Named(lambda n, t, b: Enumerate(n), 1, "exact sum over all outcomes (few variables)"),
    "rao-blackwell": Named(lambda n, t, b: RaoBlackwell(n), 1, "likeliest outcomes summed, REINFORCE for the rest"),
    "unordered-set": Named(lambda n, t, b: UnorderedSet(n), 4, "samples without replacement (few variables)"),
}


def fitting(distribution: Distribution) -> str:
    """What ``auto`` stands for: ``path`` where the distribution is reparameterised, else ``loo``."""
    return "path" if distribution.has_rsample else "loo"


def make_estimator(
    name: str,
    *,
    n: int | None = None,
    temperature: float = 1.0,
    baseline: str | None = None,
    constant: float = 0.0,
) -> Estimator:
    """The estimator called ``name``.

    Args:
        name: a key of ``ESTIMATORS``.
        n: samples per distribution; the name's own default if ``None``.
        temperature: for ``gumbel``.
        baseline: ``none``, ``constant``, ``moving-average`` or ``loo``, for ``score``; ``None`` is ``none`` there.
        constant: the value of the constant baseline.

    Raises:
        ValueError: for an unknown name (the close match is given), a baseline that the estimator cannot take, or
            leave-one-out with one sample.
    """
    entry = ESTIMATORS[choice("estimator", name, ESTIMATORS)]
    if baseline is not None:
        choice("baseline", baseline, BASELINES)
        if name != "score" and not (name == "loo" and baseline == "loo"):
            raise ValueError(f"--baseline {baseline} goes with --estimator score, not {name}")
    if n is None:
        n = 8 if baseline == "loo" else entry.samples
    value: Baseline = None
    if baseline == "constant":
        value = constant
    elif baseline == "moving-average":
        value = MovingAverage()
    elif baseline == "loo":
        value = leave_one_out
    return entry.make(n, temperature, value)
