r"""Sticking the landing: the path derivative of a cost that holds log q itself.

For J = E_q[c(x) + log q(x)], with c = -log p~ a Kullback-Leibler divergence up to a constant, the derivative of log q
through its own parameters is the score, whose expectation is 0. Left out, the estimate has no variance at all once
q is proportional to exp(-c). Roeder, Wu & Duvenaud (2017), eq. 7.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Distribution

from advrl.estimators.base import Cost, Draw, _cost_of
from advrl.estimators.kernels import dice
from advrl.estimators.path import Path
from advrl.estimators.score import check_log_prob


@dataclass(frozen=True)
class StickingTheLanding(Path):
    """E[cost(x) + log q(x)]: the cost with the policy's negative entropy, without the score of log q.

    Unbiased, to any order: the score is taken out as box - 1, whose derivatives all have expectation 0. Evaluates the
    cost and its gradient n times. Give the cost alone; log q is added here.
    """

    variables = "any with rsample and a log_prob"

    def check(self, distribution: Distribution) -> None:
        super().check(distribution)
        check_log_prob("sticking the landing", distribution)

    def surrogate(self, draw: Draw, cost: Cost) -> Tensor:
        """(*batch) of value mean cost(x) + log q(x)."""
        log_q = draw.distribution.log_prob
        score_part = dice(log_q(draw.x.detach())) - 1
        return (_cost_of(draw, cost) + log_q(draw.x) - score_part).mean(0)
