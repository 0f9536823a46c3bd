"""Lesson: the policy gradient, and exactly how noisy its estimates are.

    python examples/lessons/gradient.py

A policy draws action a with probability softmax(theta)_a and is paid r(a). REINFORCE (Williams, 1992) estimates the
gradient of the expected reward by (r(a) - b) grad log pi(a): right on average for every baseline b, but not equally
noisy. With few actions, mean and variance are sums over all of them, so nothing need be guessed. Variance here is
the trace of the covariance. Shapes: A actions.
"""

import itertools

import numpy as np
from matplotlib.figure import Figure

from advrl.plots import save_figure, style


def softmax(theta):
    """(A,) probabilities."""
    weights = np.exp(theta - theta.max())
    return weights / weights.sum()


def scores(theta):
    """(A, A): row a is grad log pi(a), the gradient with respect to theta."""
    # your turn: d log pi(a) / d theta_k = 1{a = k} - pi(k)
    return np.eye(len(theta)) - softmax(theta)
    # done


def exact_gradient(theta, reward):
    """(A,) gradient of the expected reward sum_a pi(a) r(a), exactly."""
    # your turn: sum pi(a) r(a) grad log pi(a) over all actions
    return (softmax(theta) * reward) @ scores(theta)
    # done


def variance(theta, reward, baseline):
    """The variance of (r(a) - b) grad log pi(a), exactly: a number."""
    # your turn: E |g|^2 - |E g|^2, where E is the sum over actions with their probabilities
    g = (reward - baseline)[:, None] * scores(theta)
    pi = softmax(theta)
    return float(pi @ (g**2).sum(1) - ((pi @ g) ** 2).sum())
    # done


def best_baseline(theta, reward):
    """The baseline of least variance: it weighs each reward with the squared length of its score."""
    # your turn: the variance is a parabola in b, with its minimum at E[|score|^2 r] / E[|score|^2]
    weight = softmax(theta) * (scores(theta) ** 2).sum(1)
    return float(weight @ reward / weight.sum())
    # done


def reinforce(theta, reward, baseline, samples, rng):
    """(samples, A): so many independent estimates of the gradient, one action each."""
    # your turn: draw actions with rng.choice
    actions = rng.choice(len(theta), samples, p=softmax(theta))
    return (reward[actions] - baseline)[:, None] * scores(theta)[actions]
    # done


def variance_of_sequences(theta, rewards, to_go):
    """The variance of REINFORCE for T actions drawn alike one after the other, exactly: a sum over all A^T sequences.

    rewards[t, a] is paid for action a at time t. The estimate is sum_t w_t grad log pi(a_t), where w_t is the whole
    return, or with ``to_go`` only what is paid from t on: what was paid before, a_t cannot have changed.
    """
    mean, square = np.zeros(len(theta)), 0.0
    pi, score = softmax(theta), scores(theta)
    for actions in itertools.product(range(len(theta)), repeat=len(rewards)):
        paid = np.array([rewards[t, a] for t, a in enumerate(actions)])
        # your turn: the estimate g for this sequence, and its probability
        weight = paid[::-1].cumsum()[::-1] if to_go else np.full(len(paid), paid.sum())
        g = weight @ score[list(actions)]
        probability = pi[list(actions)].prod()
        # done
        mean += probability * g
        square += probability * (g @ g)
    return float(square - mean @ mean)


def main(samples=100_000):
    rng = np.random.default_rng(0)
    theta, reward = np.array([0.5, 0.0, -0.5]), np.array([1.0, 2.0, 4.0])
    exact = exact_gradient(theta, reward)
    value, best = float(softmax(theta) @ reward), best_baseline(theta, reward)
    print(f"exact gradient {exact.round(4)}\n")
    print(f"baseline                  mean of {samples:,} estimates    variance   exactly")
    for name, b in (("none", 0.0), ("expected reward", value), ("best", best)):
        g = reinforce(theta, reward, b, samples, rng)
        print(f"{name:<16}{b:7.4f}   {g.mean(0).round(4)!s:<28}{g.var(0).sum():9.4f} {variance(theta, reward, b):9.4f}")

    print("\nT actions        variance of the whole return   of rewards to go")
    horizons = range(1, 7)
    table = []
    for T in horizons:
        rewards = np.tile(reward, (T, 1))
        table.append([variance_of_sequences(theta, rewards, to_go) for to_go in (False, True)])
        print(f"{T:<17}{table[-1][0]:9.2f}{table[-1][1]:30.2f}")

    with style():
        figure = Figure(figsize=(7.2, 2.9))
        left, right = figure.subplots(1, 2)
        at = np.linspace(-1, 5, 61)
        left.plot(at, [variance(theta, reward, b) for b in at], label="exactly")
        some = at[::6]
        drawn = [reinforce(theta, reward, b, 2000, rng).var(0).sum() for b in some]
        left.plot(some, drawn, "o", ms=3, label="2,000 samples")
        left.axvline(best, ls="--", color="#666666", lw=1.0)
        left.axvline(value, ls=":", color="#666666", lw=1.0)
        left.text(best + 0.06, left.get_ylim()[1] * 0.93, "best", fontsize=7)
        left.text(value - 0.06, left.get_ylim()[1] * 0.93, "E r", fontsize=7, ha="right")
        left.set(title="Variance by baseline", xlabel="baseline b", ylim=(0, None))
        left.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9))
        right.plot(horizons, [row[0] for row in table], "o-", ms=3, label="whole return")
        right.plot(horizons, [row[1] for row in table], "o-", ms=3, label="rewards to go")
        right.set(title="Variance by length, no baseline", xlabel="actions T")
        right.legend()
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/gradient.png')}")


if __name__ == "__main__":
    main()
