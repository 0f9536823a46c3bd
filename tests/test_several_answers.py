"""Several right answers: squared error gives their mean, which is wrong; an adversary lets a generator draw either.

Goodfellow's 2016 tutorial, section 1: a frame that may move left or right, of which squared error draws both, blurred.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advrl.agents import AdversarialTrainer
from advrl.nn import MLP
from advrl.objectives import r1

FUTURES, STD = 1.0, 0.1


def futures(n: int) -> Tensor:
    """(n, 1): left or right, equally often."""
    return FUTURES * (2.0 * torch.randint(2, (n, 1)) - 1.0) + STD * torch.randn(n, 1)


def test_squared_error_answers_the_mean_and_an_adversary_either():
    torch.manual_seed(0)
    generator = MLP(2, (1,), (32, 32), "relu")
    optimiser = torch.optim.Adam(generator.parameters(), lr=5e-3)
    for _ in range(300):
        loss = (generator(torch.randn(128, 2)) - futures(128)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    means = generator(torch.randn(1000, 2)).detach()
    assert float(means.abs().mean()) < 0.2  # no future is there: the nearest begins at .7

    trainer = AdversarialTrainer(
        generator, MLP((1,), (), (32, 32)), latent=2, penalties=[(0.05, r1)], lr_generator=2e-3, ema=0.99
    )
    for _ in range(500):
        trainer.step(futures(128))
    drawn = trainer.average(torch.randn(1000, 2)).detach().flatten()
    near = (drawn.abs() - FUTURES).abs() < 0.3
    assert float(near.double().mean()) > 0.8
    assert 0.25 < float((drawn[near] > 0).double().mean()) < 0.75  # both, and not one of them alone
