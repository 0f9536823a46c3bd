"""The algorithms that train writers of sequences, and what each takes where nothing is said: one table."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

AlgorithmName = Literal[
    "mle", "seqgan", "reinforce", "scratchgan", "maligan", "gumbel", "bsgan", "embedding", "actor-critic", "constant"
]
DiscriminatorName = Literal["cnn", "cnn-small", "recurrent", "transformer"]


class Defaults(NamedTuple):
    """What an algorithm takes where nothing is said; ``pretrain`` and ``warmup`` are shares of the steps."""

    summary: str
    batch_size: int = 64
    steps: int = 1000
    pretrain: float = 0.5
    warmup: float = 0.05
    discriminator: DiscriminatorName = "cnn-small"
    discriminator_steps: int = 5
    objective: str = "non-saturating"
    reward: str = "d"
    baseline: str = "loo"
    discount: float = 1.0
    lr_generator: float = 1e-3
    lr_discriminator: float = 1e-3
    ema: float = 0.0


ALGORITHMS: dict[str, Defaults] = {
    "mle": Defaults("maximum likelihood", steps=2000, pretrain=0.0, warmup=0.0, ema=0.99),
    "seqgan": Defaults("Monte-Carlo rollouts value every prefix"),
    "reinforce": Defaults("the finished sentence's reward at each of its steps"),
    "scratchgan": Defaults(
        "a reward at every step from a discriminator of prefixes, large batches, no pretraining",
        batch_size=512,
        steps=3000,
        pretrain=0.0,
        warmup=0.0,
        discriminator="recurrent",
        discriminator_steps=1,
        reward="2d-1",
        baseline="ewma",
        discount=0.23,
        lr_discriminator=5e-3,
    ),
    "maligan": Defaults("likelihood weighted by D / (1 - D) over the batch", batch_size=128),
    "gumbel": Defaults(
        "straight-through Gumbel-softmax against a relativistic discriminator",
        objective="relativistic",
        reward="objective",
    ),
    "bsgan": Defaults("likelihood weighted by D / (1 - D) over groups of samples", batch_size=128),
    "embedding": Defaults(
        "continuous vectors, read as the nearest tokens; path gradient",
        steps=3000,
        pretrain=0.0,
        warmup=0.0,
        reward="objective",
        discriminator_steps=1,
    ),
    "actor-critic": Defaults(
        "a reward at every step, a learned critic, generalised advantages",
        batch_size=256,
        discriminator="recurrent",
        reward="2d-1",
        lr_discriminator=5e-3,
    ),
    "constant": Defaults("a control: every step is paid 1, and nobody judges", warmup=0.0, baseline="none"),
}
assert set(get_args(AlgorithmName)) == set(ALGORITHMS)
