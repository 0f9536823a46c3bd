"""Which estimator treats which policy."""

from advrl.estimators import ESTIMATORS
from advrl.nn import FAMILIES


def fits(family: str, estimator: str) -> bool:
    """Whether the estimator can treat the family's distribution."""
    return estimator in {"implicit": ["path"], "gaussian": ["path", "score", "loo"]}.get(
        family, ["loo", "score", "gumbel", "st"]
    )


PAIRS = [(family, estimator) for family in FAMILIES for estimator in ESTIMATORS if fits(family, estimator)]
