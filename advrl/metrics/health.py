r"""Signs in a run's own curves that the game has gone wrong, each with a remedy.

With an objective whose best logit is a = log p_data - log p_G, two things are known of a healthy discriminator:

    E_data[a] - E_G[a] = KL(p_data || p_G) + KL(p_G || p_data)     the gap of the logits is Jeffreys' divergence
    E_G[e^a] = E_data[e^-a] = 1                                    it is calibrated

A gap of ten nats means that one look tells real from fake: the generator gets no useful slope. Calibration far above 1
means that the discriminator calls fakes real: it lags behind. Collapse cannot be read off losses, and is judged by the
shares of classes or modes among samples, or by recall.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from advrl.metrics.alarms import Alarm

LATE = 0.25  # share of the rows that is looked at, from the end: how it began matters to nobody
GAP = 10.0  # nats between logits of real samples and of fakes
CALIBRATION = 3.0
MISSED = 0.2  # of its real share, below which a class is all but missed
RECALL = 0.25  # of that between two halves of the real data
AGAINST_COLLAPSE = "Show the discriminator several samples at once (--packing 2), add --r1, or raise --batch-size."


def curve_alarms(metrics: Mapping[str, Sequence[float]]) -> list[Alarm]:
    """What the last quarter of a run's ``metrics.csv`` says; nothing of objectives whose logits are no log ratio.

    Args:
        metrics: columns as :func:`advrl.plots.read_metrics` gives them, NaN where a cell is empty.
    """
    late = {name: _late(metrics[name]) for name in metrics if name not in ("step", "seconds")}
    gap = late.get("logit_real", math.nan) - late.get("logit_fake", math.nan)
    fake, real = late.get("calibration_fake", math.nan), late.get("calibration_real", math.nan)
    found = []
    if not math.isnan(fake) and gap > GAP:
        found.append(
            Alarm(
                "discriminator wins",
                f"The discriminator wins: logits of real samples and of fakes are {gap:.1f} apart, when above {GAP:g} "
                "hardly a sample is in doubt.",
                "Add --r1 or raise it, blur both with --instance-noise, or lower --lr-discriminator.",
            )
        )
    if max(fake, real, 0.0) > CALIBRATION:  # NaN, of other objectives, is never larger
        found.append(
            Alarm(
                "calibration off",
                f"Calibration is off: E[e^a] of fakes is {fake:.3g} and E[e^-a] of real samples {real:.3g}, when both "
                "are 1 at the best discriminator: it lags behind the generator.",
                "Train it more (--discriminator-steps 2) or faster (--lr-discriminator), or the generator more slowly.",
            )
        )
    return found


def collapse_alarm(generated: Sequence[float], real: Sequence[float], kind: str = "class") -> Alarm | None:
    """Some classes (or modes) are all but missing: below a fifth of their share among real samples.

    Args:
        generated: share of each class among samples.
        real: among real ones.
        kind: what the shares are of.

    Raises:
        ValueError: if there are not as many.
    """
    if len(generated) != len(real):
        raise ValueError(f"shares must be of as many classes, got {len(generated)} and {len(real)}")
    missed = [k for k, (mine, theirs) in enumerate(zip(generated, real, strict=True)) if mine < MISSED * theirs]
    if not missed:
        return None
    named = ", ".join(map(str, missed[:8])) + ", ..." * (len(missed) > 8)
    return Alarm(
        "collapse",
        f"Collapse: {len(missed)} of {len(real)} {kind}s ({named}) have less than a fifth of their share.",
        AGAINST_COLLAPSE,
    )


def quick_alarm(figures: Mapping[str, float], modes: int | None = None, share: float | None = None) -> Alarm | None:
    """Collapse, by the figures of a quick evaluation in mid-run: ``modes`` found, or ``share_min`` of the classes.

    Args:
        figures: what the evaluation told; others than these two are passed over.
        modes: how many there are.
        share: of the rarest class among real samples.
    """
    found, least = figures.get("modes", math.nan), figures.get("share_min", math.nan)
    if modes is not None and found < modes:  # NaN is never less
        told = f"{found:.0f} of {modes} modes are found"
    elif share is not None and least < MISSED * share:
        told = f"a class has {least:.1%} of the samples, less than a fifth of the {share:.1%} of the rarest real one"
    else:
        return None
    return Alarm("collapse", f"Collapse: {told}.", AGAINST_COLLAPSE)


def recall_alarm(recall: float, real: float) -> Alarm | None:
    """Samples reach less than a quarter of what real data reach of each other: collapse where nobody labelled.

    Args:
        recall: of samples.
        real: of one half of the real data with respect to the other.
    """
    if not recall < RECALL * real:
        return None
    return Alarm(
        "collapse",
        f"Collapse: recall is {recall:.3f}, against {real:.3f} between two halves of the real data.",
        AGAINST_COLLAPSE,
    )


def _late(values: Sequence[float]) -> float:
    """Mean of the last quarter of the cells that are not empty; NaN if all are."""
    told = [value for value in values if not math.isnan(value)]
    return statistics.fmean(told[-math.ceil(LATE * len(told)) :]) if told else math.nan
