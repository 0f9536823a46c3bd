"""Path derivative (reparameterised gradient): Kingma & Welling (2014); Rezende, Mohamed & Wierstra (2014)."""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributions import Distribution

from advrl.estimators.base import Draw, Estimator, name_of
from advrl.estimators.quick import rsample_of


@dataclass(frozen=True)
class Path(Estimator):
    """grad E[c(x)] = E[grad c(g(eps, theta))] with x = g(eps, theta): needs ``rsample`` and a differentiable cost.

    Unbiased. Evaluates the cost and its gradient n times.
    """

    unbiased = True
    needs_gradient = True
    variables = "any with rsample"

    def check(self, distribution: Distribution) -> None:
        if not distribution.has_rsample:
            raise ValueError(
                f"path needs a reparameterised distribution, and {name_of(distribution)} is none: "
                "use loo (unbiased), gumbel or st"
            )

    def draw(self, distribution: Distribution) -> Draw:
        self.check(distribution)
        return Draw(rsample_of(distribution, self.n), distribution)
