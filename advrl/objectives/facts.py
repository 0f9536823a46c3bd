"""What is known of every named objective, as a table: formulas, the reward's range and sign, and what is followed.

Formulas are in Python's notation, of a (the discriminator's output for a fake), r and f (its outputs for a real sample
and a fake); p is the data, q the generator. They can be evaluated, and the tests do: what is printed is what is played.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_CROSS_ENTROPY = "softplus(-r) + softplus(f)"
_PEARSON_ALIKE = "χ²(p + q‖2q), in value"


@dataclass(frozen=True)
class Facts:
    """One objective.

    Args:
        d_loss: of r and f.
        cost: of a (and r).
        slope: the cost's derivative in a.
        reward: least and greatest value of -cost.
        follows: the divergence whose gradient the generator's is, with the best discriminator frozen.
        source: author and year.
        exception: where the cost does not fall with a, and why; empty if it falls everywhere (or is flat).
    """

    d_loss: str
    cost: str
    slope: str
    reward: tuple[float, float]
    follows: str
    source: str
    exception: str = ""

    @property
    def sign(self) -> str:
        """Of the reward: "≥ 0", "≤ 0" or "both"."""
        low, high = self.reward
        return "≥ 0" if low >= 0 else "≤ 0" if high <= 0 else "both"


_ALL, _POSITIVE, _NEGATIVE = (-math.inf, math.inf), (0.0, math.inf), (-math.inf, 0.0)
_GOODFELLOW, _NOWOZIN, _MAO = "Goodfellow et al. (2014)", "Nowozin et al. (2016)", "Mao et al. (2017)"

FACTS: dict[str, Facts] = {
    "minimax": Facts(_CROSS_ENTROPY, "-softplus(a)", "-sigmoid(a)", _POSITIVE, "2 JS", _GOODFELLOW),
    "non-saturating": Facts(_CROSS_ENTROPY, "softplus(-a)", "-sigmoid(-a)", _NEGATIVE, "KL(q‖p) − 2 JS", _GOODFELLOW),
    "maximum-likelihood": Facts(_CROSS_ENTROPY, "-exp(a)", "-exp(a)", _POSITIVE, "KL(p‖q)", "Goodfellow (2014)"),
    "reverse-kl": Facts(_CROSS_ENTROPY, "-a", "-1", _ALL, "KL(q‖p)", "by the rule"),
    "jeffreys": Facts(_CROSS_ENTROPY, "-exp(a) - a", "-exp(a) - 1", _ALL, "KL(p‖q) + KL(q‖p)", "by the rule"),
    "pearson": Facts(_CROSS_ENTROPY, "1 - exp(2*a)", "-2*exp(2*a)", (-1.0, math.inf), "χ²(p‖q)", "by the rule"),
    "neyman": Facts(_CROSS_ENTROPY, "2*exp(-a) - 2", "-2*exp(-a)", (-math.inf, 2.0), "χ²(q‖p)", "by the rule"),
    "hellinger": Facts(
        _CROSS_ENTROPY, "1 - exp(a/2)", "-exp(a/2)/2", (-1.0, math.inf), "squared Hellinger", "by the rule"
    ),
    "total-variation": Facts(_CROSS_ENTROPY, "-sign(a)/2", "0", (-0.5, 0.5), "total variation", "by the rule"),
    "least-squares": Facts(
        "(r - 1)**2/2 + f**2/2", "(a - 1)**2/2", "a - 1", _NEGATIVE, "", _MAO, "least at a = 1: too good costs too"
    ),
    "least-squares-pearson": Facts(
        "(r - 1)**2/2 + (f + 1)**2/2", "a**2/2", "a", _NEGATIVE, _PEARSON_ALIKE, _MAO, "least at a = 0"
    ),
    "hinge": Facts("relu(1 - r) + relu(1 + f)", "-a", "-1", _ALL, "2 × total variation", "Lim & Ye (2017)"),
    "wasserstein-clip": Facts(
        "f - r", "-a", "-1", _ALL, "Wasserstein-1, up to the bound on the slope", "Arjovsky et al. (2017)"
    ),
    "wasserstein-gp": Facts("f - r", "-a", "-1", _ALL, "Wasserstein-1", "Gulrajani et al. (2017)"),
    "relativistic": Facts(
        "softplus(f - r)", "softplus(r - a)", "-sigmoid(r - a)", _NEGATIVE, "", "Jolicoeur-Martineau (2019)"
    ),
    "r3gan": Facts("softplus(f - r)", "softplus(r - a)", "-sigmoid(r - a)", _NEGATIVE, "", "Huang et al. (2024)"),
    "boundary-seeking": Facts(
        _CROSS_ENTROPY, "a**2/2", "a", _NEGATIVE, "", "Hjelm et al. (2018)", "least at a = 0, on the boundary"
    ),
    "gail": Facts(_CROSS_ENTROPY, "-softplus(a)", "-sigmoid(a)", _POSITIVE, "2 JS", "Ho & Ermon (2016)"),
    "gail-log-d": Facts(
        _CROSS_ENTROPY, "softplus(-a)", "-sigmoid(-a)", _NEGATIVE, "KL(q‖p) − 2 JS", "used for GAIL"
    ),
    "airl": Facts(_CROSS_ENTROPY, "-a", "-1", _ALL, "KL(q‖p)", "Fu et al. (2018)"),
    "fairl": Facts(
        _CROSS_ENTROPY, "a*exp(a)", "(1 + a)*exp(a)", (-math.inf, 1 / math.e), "KL(p‖q), in value alone",
        "Ghasemipour et al. (2020)", "least at a = −1: more real is worse",
    ),
    "f-gan-kl": Facts("-r + exp(f - 1)", "-exp(a - 1)", "-exp(a - 1)", _POSITIVE, "KL(p‖q)", _NOWOZIN),
    "f-gan-reverse-kl": Facts("exp(-r) + f - 1", "1 - a", "-1", _ALL, "KL(q‖p)", _NOWOZIN),
    "f-gan-jeffreys": Facts(
        "-r + omega(1 - f) + 1/omega(1 - f) + f - 2", "2 - a - omega(1 - a) - 1/omega(1 - a)", "-1/omega(1 - a)", _ALL,
        "KL(p‖q) + KL(q‖p)", _NOWOZIN,
    ),
    "f-gan-pearson": Facts(
        "-r + f**2/4 + f", "-a**2/4 - a", "-a/2 - 1", (-1.0, math.inf), "χ²(p‖q)", _NOWOZIN,
        "rises below a = −2, which no best output is",
    ),
    "f-gan-neyman": Facts(
        "exp(-r) + 1 - 2*exp(-f/2)", "2*exp(-a/2) - 2", "-exp(-a/2)", (-math.inf, 2.0), "χ²(q‖p)", _NOWOZIN
    ),
    "f-gan-hellinger": Facts(
        "exp(-r) + exp(f) - 2", "1 - exp(a)", "-exp(a)", (-1.0, math.inf), "squared Hellinger", _NOWOZIN
    ),
    "f-gan-total-variation": Facts(
        "tanh(f)/2 - tanh(r)/2", "-tanh(a)/2", "tanh(a)**2/2 - 1/2", (-0.5, 0.5), "total variation", _NOWOZIN
    ),
    "f-gan-jensen-shannon": Facts(
        "softplus(-r) + softplus(f) - 2*log(2)", "log(2) - softplus(a)", "-sigmoid(a)", (-math.log(2), math.inf),
        "2 JS", _NOWOZIN,
    ),
    "ebgan": Facts("r + relu(1 - f)", "a", "1", _NEGATIVE, "", "Zhao et al. (2017)", "an energy: low is real"),
    "began": Facts("r - k*f", "a", "1", _NEGATIVE, "", "Berthelot et al. (2017)", "an energy: low is real"),
}  # fmt: skip
"""Objectives that pay each sample by itself, by name."""

TOGETHER: dict[str, tuple[str, str, str]] = {
    "bs-gan": (
        "softmax(a) over the M samples of one z, in place of a cost; baseline 1/M",
        "an advantage of the score function", "Hjelm et al. (2018)",
    ),
    "relativistic-average": (
        "cross-entropy of each logit less the mean of the other batch's", "`CoupledTrainer`",
        "Jolicoeur-Martineau (2019)",
    ),
    "catgan": (
        "entropies of K class probabilities: of each sample, and of their mean", "`CoupledTrainer`, in Python",
        "Springenberg (2016)",
    ),
    "k+1": (
        "any objective on a = logsumexp of K class logits, and cross-entropy on labels", "`class_logit`, in Python",
        "Salimans et al. (2016)",
    ),
}  # fmt: skip
"""What has no cost of one sample: what is paid, where it is played, and the source."""


def _number(x: float) -> str:
    named = {math.inf: "∞", -math.inf: "−∞", 1 / math.e: "1/e", -math.log(2): "−log 2", 0.5: "½", -0.5: "−½"}
    return named.get(x, f"{x:g}".replace("-", "−"))


def facts_table() -> str:
    """Both tables as Markdown: what docs/objectives.md holds."""
    rows = [
        "| `--objective` | the discriminator minimises | the generator pays c | dc/da | reward −c | c falls with a "
        "| follows | source |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, x in FACTS.items():
        low, high = map(_number, x.reward)
        falls = f"no: {x.exception}" if x.exception else "yes"
        rows.append(
            f"| `{name}` | `{x.d_loss}` | `{x.cost}` | `{x.slope}` | {x.sign}, {low} to {high} | {falls} | {x.follows} "
            f"| {x.source} |"
        )
    rows += ["", "| name | what is paid | where | source |", "| --- | --- | --- | --- |"]
    rows += [f"| `{name}` | {' | '.join(x)} |" for name, x in TOGETHER.items()]
    return "\n".join(rows)
