"""Eight coins on a ring learn to show heads in adjacent pairs: a policy of one's own, by REINFORCE."""

import torch
from torch.distributions import Bernoulli, Independent

from advrl.agents import AdversarialTrainer, fit
from advrl.estimators import Score, leave_one_out
from advrl.nn import MLP
from advrl.objectives import r1


class Coins(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = MLP(16, 8)

    def distribution(self, z):
        return Independent(Bernoulli(logits=self.logits(z)), 1)


torch.manual_seed(0)
pairs = torch.eye(8) + torch.eye(8).roll(1, 1)  # the data: a tensor (N, 8), or a DataLoader
reinforce = Score(8, leave_one_out)  # eight samples per z, each with the mean of the others as its baseline
trainer = AdversarialTrainer(
    Coins(), MLP(8, ()), latent=16, estimator=reinforce, penalties=[(0.3, r1)], lr_generator=5e-3, lr_discriminator=5e-3
)
fit(trainer, pairs, steps=2000, batch_size=128, out="runs/coins")

samples = trainer.average.distribution(torch.randn(1000, 16)).sample()
right = (samples[:, None] == pairs).all(-1)
print(f"{right.any(1).float().mean():.0%} of samples are pairs; {int(right.any(0).sum())} of 8 pairs are drawn")
