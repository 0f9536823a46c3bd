r"""Rewards of adversarial imitation, as costs of the logit a = log D - log(1 - D), D the probability of the *expert*.

A reward is minus the cost. Over episodes of varying length its sign matters as much as its shape: a reward that is
never negative is larger the longer the episode lasts, one that is never positive the sooner it ends, whatever the
expert does (Kostrikov et al., 2019, "Discriminator-Actor-Critic"). Generators of one sample per episode
are not concerned.

| | reward | sign | bias |
| --- | --- | --- | --- |
| ``gail`` | -log(1 - D) = softplus(a) | >= 0 | survive |
| ``gail-log-d`` | log D = -softplus(-a) | <= 0 | end |
| ``airl`` | log D - log(1 - D) = a | both | neutral where D = 1/2 |
| ``fairl`` | -a e^a | at most 1/e | ends where a > 0, and prefers a = -1 to a = 0 |
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from advrl.objectives.logits import minimax, non_saturating, reverse_kl
from advrl.objectives.objective import Objective, cross_entropy, safe_exp

gail = replace(minimax, name="gail")
"""Ho & Ermon (2016), algorithm 1: reward softplus(a) = -log(1 - D). Their D is the probability of the *agent*, so that
they write it -log D. Survival bias."""

gail_log_d = replace(non_saturating, name="gail-log-d")
"""The other form in use, reward log D = -softplus(-a): never positive, so that it pays to end the episode."""

airl = replace(reverse_kl, name="airl")
"""Fu, Luo & Levine (2018): reward log D - log(1 - D) = a. Both signs; 0 where D cannot tell."""


def _weighted(fake: Tensor, real: Tensor | None = None) -> Tensor:
    return fake * safe_exp(fake)


fairl = Objective("fairl", cross_entropy, _weighted)
r"""Ghasemipour, Zemel & Gu (2020), f-MAX with the forward KL: reward -a e^a, as in the first author's code (rl_swiss).

c = a e^a = r log r is f(r) of KL: E_pG[c] = KL(p_data || p_G) in *value*. It is value matching: with the discriminator
frozen its gradient is not that of KL, and on random categoricals points the other way (measured in the tests);
``maximum-likelihood``, c = -e^a, is the cost that descends KL. Not monotone: c' = (1 + a) e^a, least at a = -1, so that
a sample judged real is paid less than one judged slightly fake.
"""
