r"""Label smoothing, as a change of the discriminator's loss alone.

Targets 1 - alpha for real and beta for fake samples weigh the two losses of every sample:

    (1 - alpha) l_real(a) + alpha l_fake(a)        for a real one,
    (1 - beta) l_fake(a) + beta l_real(a)          for a fake one,

so that the best discriminator is that of the mixtures (1 - alpha) p + beta q and alpha p + (1 - beta) q. Against
cross-entropy D* = ((1 - alpha) p + beta q) / (p + q): Goodfellow's 2016 tutorial, section 4.2; Salimans et al. (2016),
section 3.4.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import Tensor

from advrl.checks import number
from advrl.objectives.objective import Objective, Separable


def smooth_labels(objective: Objective, real: float = 0.9, fake: float = 0.0) -> Objective:
    """The objective with targets ``real`` and ``fake`` in place of 1 and 0; the generator's cost stays as it is.

    One-sided, D* = (1 - alpha) p / (p + q): nowhere surer than ``real``, a logit of log(.9 / .1) = 2.197 at .9. That is
    all it changes: the order of samples is kept, and where q is large and p is not, D* still says fake. The logit is
    then no log-ratio any more, and costs that take it for one (``maximum-likelihood``, ``pearson``) follow another
    divergence.

    Smoothing the fakes' label too puts beta q / (p + q) on top, which has q's shape: where the data are not, D* no
    longer sinks to 0 but stays at beta, and a generator is drawn to what it already does. It warns.

    Args:
        objective: one whose ``d_loss`` is :class:`Separable`.
        real: target 1 - alpha of real samples.
        fake: target beta of fakes.

    Raises:
        ValueError, TypeError: for targets outside [0, 1] or real <= fake, and for losses of pairs.
    """
    kept, beta = number("real label", real, 0.0, 1.0), number("fake label", fake, 0.0, 1.0)
    if kept <= beta:
        raise ValueError(f"the real label must be above the fake one, got {real} and {fake}")
    loss = objective.d_loss
    if not isinstance(loss, Separable):
        raise ValueError(f"{objective.name} judges pairs, so that a single sample has no label to smooth")
    if beta:
        warnings.warn(
            f"a fake label of {fake} keeps the discriminator from rejecting samples far from the data: "
            "D* = ((1 - alpha) p + beta q) / (p + q) is at least beta wherever only the generator is; use 0",
            stacklevel=2,
        )
    alpha, l_real, l_fake, best = 1 - kept, loss.real, loss.fake, loss.best

    def on_real(a: Tensor) -> Tensor:
        return kept * l_real(a) + alpha * l_fake(a)

    def on_fake(a: Tensor) -> Tensor:
        return (1 - beta) * l_fake(a) + beta * l_real(a) if beta else l_fake(a)

    def of_mixtures(p: Tensor, q: Tensor) -> Tensor:
        assert best is not None
        return best(kept * p + beta * q, alpha * p + (1 - beta) * q)

    smoothed = Separable(on_real, on_fake, of_mixtures if best is not None else None)
    return replace(objective, name=f"{objective.name}, labels {kept:g} and {beta:g}", d_loss=smoothed)
