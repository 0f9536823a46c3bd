"""Lesson: generating a sequence is an MDP. Solve it exactly, then see what sampling adds.

    python examples/lessons/sequences.py

Words of five letters from an alphabet of four; a word is paid for every letter that follows its predecessor. The prefix
is the state, the next letter the action, and the tree of all prefixes is small enough to know everything. Layer t holds
the prefixes of length t in the order of counting, so the children of prefix i are 4 i, 4 i + 1, 4 i + 2, 4 i + 3.
"""

import torch
from matplotlib.figure import Figure

from advrl.estimators import leave_one_out
from advrl.objectives import non_saturating
from advrl.plots import save_figure, style
from advrl.tabular import LayeredTree, jensen_shannon, optimal_logit

LETTERS, LENGTH = 4, 5


def reward(words):
    """(N, 5) -> (N,)."""
    return (words[:, 1:] == (words[:, :-1] + 1) % LETTERS).double().sum(1)


def best_values(leaves, vocab, horizon):
    """[V_0, ..., V_T]: the best that can still be had from every prefix; V_T (vocab^T,) are the leaves' rewards."""
    raise NotImplementedError("your turn: backward induction, V(prefix) = max over the next letter; view a layer as (prefixes, vocab)")


def policy_values(leaves, probabilities):
    """[V_0, ..., V_T] under a policy: probabilities[t] (vocab^t, vocab) are those of the next letter after each prefix.

    V_0 (1,) is the expected reward; gradients flow through it.
    """
    raise NotImplementedError("your turn: the same induction with the expected value of the next letter")


def best_word(layers, vocab):
    """A word of greatest reward, as a list: from the root always to a child of greatest value."""
    raise NotImplementedError("your turn: the children of prefix i are i * vocab + letter")


def law(probabilities):
    """(vocab^T,) the probability of every word under the policy."""
    raise NotImplementedError("your turn: forward through the layers, each prefix shares its probability among its children")


def main():
    torch.manual_seed(0)
    tree = LayeredTree(LETTERS, LENGTH, reward)
    first = torch.zeros(LETTERS, dtype=torch.float64, requires_grad=True)
    theta = torch.zeros(LETTERS, LETTERS, dtype=torch.float64, requires_grad=True)

    def policy(prefix):  # (N, t) -> (N, 4) logits: a table for the first letter, one for what follows which
        return theta[prefix[:, -1]] if prefix.shape[1] else first.expand(len(prefix), LETTERS)

    def draw(n, prefix):  # n words that begin with a prefix, letter by letter
        words = prefix.expand(n, -1)
        while words.shape[1] < LENGTH:
            words = torch.cat([words, torch.multinomial(policy(words).softmax(-1).detach(), 1)], 1)
        return words

    # 1. The best word and its value, by backward induction; by hand, and by advrl.
    leaves = reward(tree.prefixes(LENGTH))
    layers = best_values(leaves, LETTERS, LENGTH)
    best = tree.optimal()
    print(f"best word {best_word(layers, LETTERS)}, value {float(layers[0]):.3f}; advrl's {best.value:.3f}")
    probabilities = [policy(tree.prefixes(t)).softmax(-1) for t in range(LENGTH)]
    values = policy_values(leaves, probabilities)
    print(f"a random word {values[0].item():.3f}; advrl's {tree.expected_reward(policy).item():.3f}")

    # 2. What is each letter worth after the prefix 0, if the policy goes on? Exactly, and by roll-outs as in SeqGAN.
    Q = values[2][:LETTERS].detach()
    rolled = torch.stack([reward(draw(400, torch.tensor([[0, letter]]))).mean() for letter in range(LETTERS)])
    print(f"exact Q    {Q.numpy().round(3)}\nroll-outs  {rolled.numpy().round(3)}  (400 words each)")

    # 3. The gradient, exactly and by REINFORCE.
    (exact,) = torch.autograd.grad(values[0].sum(), theta)
    words = draw(4000, torch.zeros(1, 0, dtype=torch.int64))
    paid = reward(words)
    log_prob = sum(
        policy(words[:, :t]).log_softmax(-1).gather(1, words[:, t : t + 1]).squeeze(1) for t in range(LENGTH)
    )
    estimate = torch.autograd.grad(((paid - leave_one_out(paid[:, None])[:, 0]) * log_prob).mean(), theta)[0]
    print(
        f"REINFORCE is {float((estimate - exact).norm() / exact.norm()):.1%} off the exact gradient, with 4,000 words"
    )

    # 4. Climb the exact gradient: what learning would do without noise.
    climb = []
    for step in range(101):
        climb.append(tree.expected_reward(policy).item())
        for parameter, gradient in zip((first, theta), tree.gradient(policy, [first, theta]), strict=True):
            parameter.data += gradient
        if step % 25 == 0:
            print(f"step {step:3d}: expected reward {climb[-1]:.3f} of {best.value:.3f}")

    # 5. Now nobody pays: a discriminator does, always the best there is, and the words are to look like the data.
    data = (leaves * 1.5).softmax(0)
    first.data.zero_(), theta.data.zero_()
    distance = []
    for step in range(41):
        q = law([policy(tree.prefixes(t)).softmax(-1).detach() for t in range(LENGTH)])
        distance.append(float(jensen_shannon(data, q)))
        game = LayeredTree(LETTERS, LENGTH, non_saturating.reward(optimal_logit(data, q)))
        for parameter, gradient in zip((first, theta), game.gradient(policy, [first, theta]), strict=True):
            parameter.data += gradient
        if step % 8 == 0:
            print(f"GAN step {step:2d}: Jensen-Shannon divergence to the data {distance[-1]:.1e}")

    with style():
        figure = Figure(figsize=(7.2, 2.6))
        left, right = figure.subplots(1, 2)
        left.plot(climb)
        left.axhline(float(best.value), ls="--", color="#666666", lw=1.0)
        left.set(title="Expected reward, exact gradient", xlabel="step")
        right.semilogy(distance, color="#D55E00")
        right.set(title="A GAN without noise: divergence", xlabel="step")
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/sequences.png')}")


if __name__ == "__main__":
    main()
