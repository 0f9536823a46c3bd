"""Lesson: REINFORCE writes whole words, paid by a discriminator that learns beside it; nothing leaves the device.

    python examples/reinforce.py

The source is that of examples/sb3_ppo.py: words of five letters, in which a table of chances says what follows what.
Here a recurrent generator writes a thousand words at a time, each is held against the mean of the others, and a little
entropy keeps it from writing one good word again and again. All 7,776 words are few enough to add up, so its
divergence from the source is exact.
"""

import torch
from torch import nn
from torch.nn.functional import one_hot

from advrl.agents import Adversary, ReinforceTrainer
from advrl.envs import DiscriminatorScore, SequenceGeneration
from advrl.estimators import leave_one_out
from advrl.nn import GRUPolicy
from advrl.objectives import reverse_kl
from advrl.tabular import jensen_shannon

VOCAB, LENGTH, WORDS, STEPS = 6, 5, 1024, 150
torch.manual_seed(0)
torch.set_num_threads(1)  # small networks

# The source: the first letter is any, each next one by a row of the table.
follows = (1.5 * torch.randn(VOCAB, VOCAB)).log_softmax(-1)


def log_prob(words):  # (N, 5) -> (N,)
    return follows[words[:, :-1], words[:, 1:]].sum(1) - torch.tensor(float(VOCAB)).log()


def draw(n):
    words = torch.randint(VOCAB, (n, 1))
    while words.shape[1] < LENGTH:
        words = torch.cat([words, torch.multinomial(follows[words[:, -1]].exp(), 1)], 1)
    return words


class Discriminator(nn.Module):
    """Words (N, 5) to logits (N,): which letter is where, and which follows which."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear((VOCAB + VOCAB**2) * LENGTH - VOCAB**2, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, words):
        pairs = words[:, :-1] * VOCAB + words[:, 1:]
        seen = [one_hot(words, VOCAB).flatten(1), one_hot(pairs, VOCAB**2).flatten(1)]
        return self.net(torch.cat(seen, 1).float()).squeeze(1)


# The reward is the discriminator's logit, log p_data / p_generator where it is right: on average, minus a reverse KL.
score = DiscriminatorScore(Discriminator(), reverse_kl)
task = SequenceGeneration(VOCAB, LENGTH, reward=score)
policy = GRUPolicy(VOCAB, LENGTH, hidden=32)
trainer = ReinforceTrainer(
    policy,
    task,
    adversary=Adversary(score, lr=3e-3, updates=2),
    baseline=leave_one_out,
    entropy=0.05,
    lr=5e-3,
    schedule=lambda step: 1 - step / STEPS,  # the game has no rest: smaller and smaller steps
)

law = policy.distribution()
every = law.enumerate_support()  # (7776, 5)
data = log_prob(every).exp()
for step in range(STEPS + 1):
    if step % 50 == 0:
        with torch.no_grad():
            now = law.log_prob(every).exp()
        likely = (now * log_prob(every)).sum()
        apart = jensen_shannon(data, now)
        print(f"after {step:3d} steps: log-probability of its words {likely:.2f}, divergence {apart:.3f}")
    real = draw(trainer.batches_per_step * WORDS)
    trainer.step(real)

best = (data * log_prob(every)).sum()
print(f"the source itself: {best:.2f}, 0; the largest divergence there is: {torch.tensor(2.0).log():.3f}")
