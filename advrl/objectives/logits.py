r"""Objectives by name: what the generator pays for a logit a, and against which discriminator. c' = dc/da."""

from __future__ import annotations

from torch.nn.functional import relu, softplus

from advrl.checks import number
from advrl.objectives.objective import Objective, Paired, Separable, cross_entropy, log_ratio, safe_exp

minimax = Objective("minimax", cross_entropy, lambda fake, real=None: -softplus(fake))
r"""Goodfellow et al. (2014), eq. 1: c = log(1 - D) = -softplus(a), c' = -D, flat where the discriminator wins.

With D optimal its expected gradient is that of 2 JS(p_data, p_G).
"""

non_saturating = Objective("non-saturating", cross_entropy, lambda fake, real=None: softplus(-fake))
r"""Goodfellow et al. (2014), section 3: c = -log D = softplus(-a), c' = -(1 - D), steep where the discriminator wins.

With D optimal its expected gradient is that of KL(p_G || p_data) - 2 JS(p_data, p_G).
"""

maximum_likelihood = Objective("maximum-likelihood", cross_entropy, lambda fake, real=None: -safe_exp(fake))
r"""Goodfellow (2014), "On distinguishability criteria", and his 2016 tutorial, section 3.2.4: c = -e^a.

With D optimal its expected gradient is that of KL(p_data || p_G). E_pG[e^a] = 1 exactly, so 1 is the baseline, and the
variance is chi^2(p_data || p_G): a few samples carry all the weight.
"""

reverse_kl = Objective("reverse-kl", cross_entropy, lambda fake, real=None: -fake)
r"""c = -a, linear both ways: minus the reward of AIRL, Fu, Luo & Levine (2018).

With D optimal its expected gradient is that of KL(p_G || p_data).
"""

jeffreys = Objective("jeffreys", cross_entropy, lambda fake, real=None: -safe_exp(fake) - fake)
r"""c = -e^a - a: both Kullback-Leibler divergences at once. As maximum likelihood for large a."""

pearson = Objective("pearson", cross_entropy, lambda fake, real=None: 1 - safe_exp(2 * fake))
r"""c = 1 - e^2a: chi^2(p_data || p_G) = E_pG[(p_data / p_G - 1)^2]. Explodes for samples that are judged well."""

neyman = Objective("neyman", cross_entropy, lambda fake, real=None: 2 * safe_exp(-fake) - 2)
r"""c = 2 e^-a - 2: chi^2(p_G || p_data). Explodes for samples that are judged badly."""

hellinger = Objective("hellinger", cross_entropy, lambda fake, real=None: 1 - safe_exp(fake / 2))
r"""c = 1 - e^(a/2): the squared Hellinger distance sum (sqrt p_data - sqrt p_G)^2. At most 1, with a mild tail."""

total_variation = Objective("total-variation", cross_entropy, lambda fake, real=None: -0.5 * fake.sign())
r"""c = -sign(a) / 2: total variation. Its slope is 0 almost everywhere, so that only the score function can use it."""

boundary_seeking = Objective("boundary-seeking", cross_entropy, lambda fake, real=None: 0.5 * fake**2)
r"""Hjelm et al. (2018), for continuous data: c = (log D - log(1 - D))^2 / 2 = a^2 / 2, c' = a.

Not monotone: the least cost is on the boundary a = 0, and a sample judged too real pays as well.
"""


def least_squares_targets(fake: float, real: float, goal: float, name: str = "least-squares") -> Objective:
    """Mao et al. (2017): d_loss (a_real - b)^2 / 2 + (a_fake - a)^2 / 2, cost (a_fake - c)^2 / 2.

    The best output is (b p + a q) / (p + q). There, with b - c = 1 and b - a = 2, the costs of fakes *and* reals are
    half the Pearson divergence chi^2(p_data + p_G || 2 p_G) in value; what a frozen discriminator passes on is another
    gradient. Not decreasing above c: too good costs too.

    Args:
        fake, real, goal: the targets a, b and c.
        name: for tables and messages.

    Raises:
        ValueError, TypeError: for targets that are no finite numbers, or a = b, which would tell nothing apart.
    """
    a, b, c = number("fake target", fake), number("real target", real), number("goal", goal)
    if a == b:
        raise ValueError(f"the targets of fake and real samples must differ, got {a} for both")
    loss = Separable(lambda d: 0.5 * (d - b) ** 2, lambda d: 0.5 * (d - a) ** 2, lambda p, q: (b * p + a * q) / (p + q))
    return Objective(name, loss, lambda fake, real=None: 0.5 * (fake - c) ** 2)


least_squares = least_squares_targets(0.0, 1.0, 1.0)
r"""Mao et al. (2017), eq. 9, targets 0 and 1: c = (a - 1)^2 / 2. Not decreasing above a = 1: too good costs too."""

least_squares_pearson = least_squares_targets(-1.0, 1.0, 0.0, "least-squares-pearson")
r"""Mao et al. (2017), targets -1, 1 and 0: c = a^2 / 2; summed over reals too it is, at the best
output, half of chi^2(p_data + p_G || 2 p_G)."""

hinge = Objective(
    "hinge",
    Separable(lambda a: relu(1 - a), lambda a: relu(1 + a), lambda p, q: (p - q).sign()),
    lambda fake, real=None: -fake,
)
r"""Geometric GAN, Lim & Ye (2017); Miyato et al. (2018), eq. 16 and 17: c = -a against margins of 1.

The best output is sign(p - q), and the discriminator's loss there 2 - 2 TV(p_data, p_G).
"""

wasserstein = Objective("wasserstein", Separable(lambda a: -a, lambda a: a), lambda fake, real=None: -fake)
r"""Arjovsky, Chintala & Bottou (2017): c = -a. Needs a discriminator of bounded slope, see ``gradient_penalty``.

The value's zero is arbitrary (a and a + 5 are the same discriminator), so that the score function needs a baseline.
"""


relativistic = Objective(
    "relativistic",
    Paired(softplus, log_ratio),
    lambda fake, real: softplus(real - fake),
    needs_real=True,
)
r"""Relativistic pairing: c = softplus(a_real - a_fake), c' = -D(real - fake), against the real sample beside the fake.

Jolicoeur-Martineau (2019); R3GAN (Huang et al., 2024) adds R1 and R2. Only differences count:
the best logit is log p/q up to a constant.
"""
