"""Lesson: generating a sequence is an MDP. Solve it exactly, then see what sampling adds.

    python examples/sequences.py

Words of five letters from an alphabet of four; a word is paid for every letter that follows its predecessor. The prefix
is the state, the next letter the action, and the tree of all prefixes is small enough to know everything.
"""

import torch

from advrl.estimators import leave_one_out
from advrl.objectives import non_saturating
from advrl.tabular import LayeredTree, jensen_shannon, optimal_logit

LETTERS, LENGTH = 4, 5
torch.manual_seed(0)


def reward(words):  # (N, 5) -> (N,)
    return (words[:, 1:] == (words[:, :-1] + 1) % LETTERS).double().sum(1)


def policy(prefix):  # (N, t) -> (N, 4) logits: a table for the first letter, one for what follows which
    return theta[prefix[:, -1]] if prefix.shape[1] else first.expand(len(prefix), LETTERS)


def draw(n, prefix):
    """n words that begin with a prefix, letter by letter."""
    words = prefix.expand(n, -1)
    while words.shape[1] < LENGTH:
        words = torch.cat([words, torch.multinomial(policy(words).softmax(-1).detach(), 1)], 1)
    return words


first = torch.zeros(LETTERS, dtype=torch.float64, requires_grad=True)
theta = torch.zeros(LETTERS, LETTERS, dtype=torch.float64, requires_grad=True)
tree = LayeredTree(LETTERS, LENGTH, reward)

# 1. The best word and its value, by backward induction: V(prefix) = max over the next letter of V(longer prefix).
best = tree.optimal()
print(f"best word {best.best().tolist()}, value {best.value:.3f}; a random one: {tree.expected_reward(policy):.3f}")

# 2. What is each letter worth after the prefix 0, if the policy goes on? Exactly, and by roll-outs as in SeqGAN.
Q = tree.evaluate(policy).Q(1)[0].detach()
rolled = torch.stack([reward(draw(400, torch.tensor([[0, letter]]))).mean() for letter in range(LETTERS)])
print(f"exact Q    {Q.numpy().round(3)}\nroll-outs  {rolled.numpy().round(3)}  (400 words each)")

# 3. The gradient, exactly and by REINFORCE.
exact = tree.gradient(policy, [theta])[0]
words = draw(4000, torch.zeros(1, 0, dtype=torch.int64))
paid = reward(words)
log_prob = sum(policy(words[:, :t]).log_softmax(-1).gather(1, words[:, t : t + 1]).squeeze(1) for t in range(LENGTH))
estimate = torch.autograd.grad(((paid - leave_one_out(paid[:, None])[:, 0]) * log_prob).mean(), theta)[0]
print(f"REINFORCE is {float((estimate - exact).norm() / exact.norm()):.1%} off the exact gradient, with 4,000 words")

# 4. Climb the exact gradient: what learning would do without noise.
for step in range(101):
    for parameter, gradient in zip((first, theta), tree.gradient(policy, [first, theta]), strict=True):
        parameter.data += gradient
    if step % 25 == 0:
        print(f"step {step:3d}: expected reward {tree.expected_reward(policy):.3f} of {best.value:.3f}")

# 5. Now nobody pays: a discriminator does, always the best there is, and the words are to look like the data.
data = (reward(tree.prefixes(LENGTH)) * 1.5).softmax(0)
first.data.zero_(), theta.data.zero_()
for step in range(41):
    law = tree.occupancy(policy)[-1].detach()
    game = LayeredTree(LETTERS, LENGTH, non_saturating.reward(optimal_logit(data, law)))
    for parameter, gradient in zip((first, theta), game.gradient(policy, [first, theta]), strict=True):
        parameter.data += gradient
    if step % 8 == 0:
        print(f"GAN step {step:2d}: Jensen-Shannon divergence to the data {jensen_shannon(data, law):.1e}")
