r"""What estimators for discrete variables share: the elementary variables of a distribution, and its support.

A Bernoulli is a coin, a Binomial(N) the sum of N coins with the same log-odds, a one-hot categorical a die;
``Independent`` makes several of them one sample. Shapes: n samples, *batch, *event; K categories, M outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Categorical, Distribution, OneHotCategorical
from torch.distributions.utils import clamp_probs
from torch.nn.functional import logsigmoid, softplus

from advrl.distributions.inverse import one_hot_transform
from advrl.distributions.relaxed import cooled, softmax, trials_of
from advrl.estimators.base import base_of, name_of
from advrl.estimators.laws import Coins, Dice


@dataclass(frozen=True)
class Parts:
    """A discrete distribution as independent coins (``binary``) or dice.

    Args:
        node: the distribution's logits: (*batch, *event) log-odds, or (*batch, *event) with K normalised ones last.
        binary: whether the parts are coins.
        trials: coins per entry of the event, 0 where the entry is the coin itself.
        batch_dim: dimensions of *batch.
    """

    node: Tensor
    binary: bool
    trials: int
    batch_dim: int

    @property
    def logits(self) -> Tensor:
        """``node``, once for each coin: (*node, trials) for a Binomial."""
        return self.node.unsqueeze(-1).expand(*self.node.shape, self.trials) if self.trials else self.node

    def sample(self, n: int) -> Tensor:
        """``n`` draws of all parts, (n, *logits), without gradient."""
        logits = self.logits.detach()
        if self.binary:
            return (torch.rand(n, *logits.shape, dtype=logits.dtype, device=logits.device) < logits.sigmoid()).to(
                logits.dtype
            )
        return one_hot_transform(logits.exp(), n)

    def perturb(self, n: int) -> tuple[Tensor, Tensor]:
        """z = logits + logistic or Gumbel noise and the draw that it makes, both (n, *logits)."""
        logits = self.logits
        if self.binary:
            u = clamp_probs(torch.rand(n, *logits.shape, dtype=logits.dtype, device=logits.device))
            z = logits + u.logit()
            return z, (z > 0).to(z.dtype)
        z = logits - exponential(n, logits).log()
        return z, _one_hot(z.detach().argmax(-1), z)

    def relax(self, z: Tensor, temperature: float | Tensor) -> Tensor:
        """Relaxed samples (n, *batch, *event) from perturbed logits (n, *logits)."""
        scaled = cooled(z, temperature)
        if self.binary:
            return self.decode(scaled.sigmoid())
        return softmax(scaled)

    def decode(self, x: Tensor) -> Tensor:
        """Samples (n, *batch, *event) from those of the parts (n, *logits)."""
        return x.sum(-1) if self.trials else x

    @property
    def law(self) -> Coins | Dice:
        """Whose parameter is ``node``."""
        event = self.node.dim() - self.batch_dim
        return Coins(event, self.trials or 1) if self.binary else Dice(event)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p of samples (n, *batch, *event), up to the binomial coefficient, (n, *batch)."""
        return self.law.log_prob(x, self.node)

    def none(self) -> Tensor:
        """-log p(0) of coins, (*batch)."""
        each = softplus(self.node)
        whole = each.flatten(self.batch_dim).sum(-1) if each.dim() > self.batch_dim else each
        return whole * self.trials if self.trials else whole

    def mean(self) -> Tensor:
        """E[x], (*batch, *event), differentiable."""
        if not self.binary:
            return self.node.exp()
        return self.node.sigmoid() * self.trials if self.trials else self.node.sigmoid()

    def total(self, x: Tensor) -> Tensor:
        """Sum (n, *batch, *event) over the event, (n, *batch)."""
        return x.flatten(1 + self.batch_dim).sum(-1) if x.dim() > 1 + self.batch_dim else x

    def spread(self, cost: Tensor) -> Tensor:
        """Costs (n, *batch) with a dimension of 1 for each of the event's."""
        return cost.reshape(*cost.shape, *[1] * (self.node.dim() - self.batch_dim))


def parts_of(estimator: str, distribution: Distribution, *, binary: bool = False) -> Parts:
    """The parts of a Bernoulli, Binomial or (unless ``binary``) OneHotCategorical, possibly inside ``Independent``.

    Raises:
        ValueError: for any other distribution, naming an estimator for it.
    """
    base = base_of(distribution)
    batch_dim = len(distribution.batch_shape)
    if isinstance(base, Bernoulli):
        return Parts(base.logits, True, 0, batch_dim)
    if isinstance(base, Binomial):
        return Parts(base.logits, True, trials_of(base), batch_dim)
    if isinstance(base, OneHotCategorical) and not binary:
        lowest = torch.finfo(base.logits.dtype).min / 4  # for masked logits of -inf, which differ by nan
        return Parts(base.logits.clamp(min=lowest), False, 0, batch_dim)
    better = "path" if distribution.has_rsample else "loo"
    if isinstance(base, OneHotCategorical):
        better += ", rebar or reinmax"
    elif isinstance(base, Categorical) and not binary:
        better += ", or a OneHotCategorical"
    kinds = "Bernoulli and Binomial" if binary else "Bernoulli, Binomial and OneHotCategorical"
    raise ValueError(f"{estimator} treats {kinds} variables, not {name_of(distribution)}: use {better}")


@dataclass(frozen=True)
class Support:
    """All M outcomes of a distribution (M, *event) and their log-probabilities (M, *batch), differentiable."""

    outcomes: Tensor
    log_prob: Tensor

    def __getitem__(self, index: Tensor) -> Tensor:
        """Outcomes (k, *batch, *event) by index (k, *batch)."""
        return self.outcomes[index]


def support_size(estimator: str, distribution: Distribution, limit: int) -> int:
    """How many outcomes a distribution has.

    Raises:
        ValueError: if they are not finitely many, or more than ``limit``, naming an estimator that does not mind.
    """
    base = base_of(distribution)
    better = "path" if distribution.has_rsample else "loo"
    if isinstance(base, Bernoulli):
        each = 2
    elif isinstance(base, Binomial):
        each = trials_of(base) + 1
    elif isinstance(base, (Categorical, OneHotCategorical)):
        each = base.logits.shape[-1]
    else:
        raise ValueError(
            f"{estimator} treats Bernoulli, Binomial, Categorical and OneHotCategorical variables, not "
            f"{name_of(distribution)}: use {better}"
        )
    variables = math.prod(base.batch_shape[len(distribution.batch_shape) :])
    if variables * math.log(each) > math.log(limit) + 1e-9:
        raise ValueError(
            f"{estimator} lists the outcomes, and {variables} variables of {each} values have {each}^{variables}, "
            f"above its limit of {limit:,}: use {better}"
        )
    return int(each**variables)


def support_of(estimator: str, distribution: Distribution, limit: int) -> Support:
    """Every outcome with its log-probability.

    Raises:
        ValueError: as :func:`support_size`.
    """
    size = support_size(estimator, distribution, limit)
    base, batch = base_of(distribution), distribution.batch_shape
    table = _log_probs(base)
    table = table.reshape(*batch, -1, table.shape[-1])  # (*batch, variables, K)
    variables, each = table.shape[-2:]
    digits, chosen = _combinations(each, variables, table.dtype, table.device)
    if variables == 1:
        log_prob = table[..., 0, :].movedim(-1, 0)
    else:  # one product with zeros and ones, so that what is impossible has to be finite
        rows = table.clamp(min=torch.finfo(table.dtype).min / (2 * variables)).flatten(-2).reshape(-1, variables * each)
        log_prob = (chosen @ rows.t()).reshape(size, *batch)
    if isinstance(base, OneHotCategorical):
        outcomes = chosen
    else:
        outcomes = digits if isinstance(base, Categorical) else digits.to(table.dtype)
    return Support(outcomes.reshape(size, *distribution.event_shape), log_prob)


def _log_probs(base: Distribution) -> Tensor:
    """Every variable's log-probabilities of its K values, (*variables, K)."""
    if isinstance(base, Binomial):
        trials, logits = trials_of(base), base.logits
        k = torch.arange(trials + 1, dtype=logits.dtype, device=logits.device)
        choose = math.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(trials - k + 1)
        return choose + k * logits.unsqueeze(-1) - trials * softplus(logits).unsqueeze(-1)
    assert isinstance(base, (Bernoulli, Categorical, OneHotCategorical))
    if isinstance(base, Bernoulli):
        return logsigmoid(torch.stack([-base.logits, base.logits], -1))  # exact in the tails, unlike log-odds - log
    return base.logits


@lru_cache(maxsize=16)
def _combinations(each: int, variables: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """All combinations of the variables' values as digits (M, variables), the last of which changes fastest, and as
    zeros and ones (M, variables * K)."""
    with torch.inference_mode(False):  # they are kept, and tensors of that mode would be refused elsewhere
        number = torch.arange(each**variables, device=device).unsqueeze(-1)
        power = each ** torch.arange(variables - 1, -1, -1, device=device)
        digits = number // power % each
        return digits, (digits.unsqueeze(-1) == torch.arange(each, device=device)).to(dtype).flatten(1)


def exponential(n: int, like: Tensor) -> Tensor:
    """(n, *like.shape) draws of Exp(1), above 0; several times faster than ``exponential_`` on a CPU."""
    return -clamp_probs(torch.rand(n, *like.shape, dtype=like.dtype, device=like.device)).log()


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    shape = (*index.shape, like.shape[-1])
    return torch.zeros(shape, dtype=like.dtype, device=like.device).scatter_(-1, index.unsqueeze(-1), 1.0)
