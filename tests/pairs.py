"""Which class has which estimator's name, and which estimator treats which policy."""

from advrl.estimators import (
    ESTIMATORS,
    Antithetic,
    Arm,
    DisArm,
    Enumerate,
    EvolutionStrategy,
    GumbelRao,
    GumbelSoftmax,
    Lax,
    Measure,
    MuProp,
    Path,
    RaoBlackwell,
    Rebar,
    ReinMax,
    Relax,
    Score,
    StraightThrough,
    Taylor,
    UnorderedSet,
)
from advrl.nn import FAMILIES


def fits(family: str, estimator: str) -> bool:
    """Whether the estimator can treat the family's distribution."""
    return estimator in FITTING[family]


ANY = ["loo", "score", "nvil", "grpo"]
SMALL = ["taylor", "measure"]  # take an evaluation or more per coordinate, and refuse many
RELAXED = ["gumbel", "st", "st-gumbel", "gumbel-rao", "reinmax", "rebar", "relax", "muprop"]
DISCRETE = [*ANY, *RELAXED, "es"]
COINS = ["arm", "disarm"]
FITTING = {
    "binomial": [*DISCRETE, *COINS, *SMALL],
    "bernoulli": [*DISCRETE, *COINS, *SMALL],
    "categorical": DISCRETE,
    "gaussian": [*ANY, "path", "antithetic", "lax", "es", *SMALL],
    "implicit": ["path", "es"],
}
PAIRS = [(family, estimator) for family in FAMILIES for estimator in ESTIMATORS if fits(family, estimator)]
KINDS = {
    "loo": Score,
    "score": Score,
    "nvil": Score,
    "grpo": Score,
    "path": Path,
    "antithetic": Antithetic,
    "taylor": Taylor,
    "lax": Lax,
    "measure": Measure,
    "es": EvolutionStrategy,
    "gumbel": GumbelSoftmax,
    "st": StraightThrough,
    "st-gumbel": GumbelSoftmax,
    "gumbel-rao": GumbelRao,
    "reinmax": ReinMax,
    "rebar": Rebar,
    "relax": Relax,
    "muprop": MuProp,
    "arm": Arm,
    "disarm": DisArm,
    "enumerate": Enumerate,
    "rao-blackwell": RaoBlackwell,
    "unordered-set": UnorderedSet,
}
