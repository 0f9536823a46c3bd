"""Lesson: bandits. Which of ten arms pays best, and what does it cost to find out?

    python examples/lessons/bandits.py

An arm a pays q(a) + noise, both standard normal (Sutton & Barto, 2018, section 2.3). Thousands of bandits are played at
once, one to a row of every tensor, which shows what a method does on average. Shapes: N bandits, K arms.
"""

import torch
from matplotlib.figure import Figure

from advrl.plots import save_figure, style


def random_argmax(values):
    """(N,) the greatest entry of each row, ties at random."""
    best = (values == values.amax(1, keepdim=True)).double()
    return torch.multinomial(best, 1).squeeze(1)


def epsilon_greedy(Q, epsilon):
    """(N,) arms: with probability epsilon any arm alike, else one of the greatest of Q (N, K). epsilon may be (N,)."""
    # your turn: draw for every bandit whether it explores
    explore = torch.rand(len(Q)) < epsilon
    return torch.where(explore, torch.randint(Q.shape[1], (len(Q),)), random_argmax(Q))
    # done


def ucb(Q, count, t, c):
    """(N,) arms of greatest Q + c sqrt(ln t / count); an arm that was never tried comes before all others. (eq. 2.10)

    t is the number of this play, from 1 on; c may be (N, 1).
    """
    # your turn: a count of 0 is an infinite bonus
    bonus = torch.where(count > 0, c * (torch.tensor(float(t)).log() / count.clamp(min=1)).sqrt(), torch.inf)
    return random_argmax(Q + bonus)
    # done


def thompson(total, count):
    """(N,) arms, each as likely as it is to be the best, by what is known (Thompson, 1933).

    An arm's q is normal a priori with mean 0 and variance 1, and payments have variance 1. So after ``count`` payments
    of sum ``total`` it is normal with mean total / (count + 1) and variance 1 / (count + 1).
    """
    # your turn: draw every arm's q from what is known of it, and take the greatest
    known = count + 1
    return (total / known + torch.randn_like(total) / known.sqrt()).argmax(1)
    # done


def update(Q, count, arm, reward, alpha=None):
    """Take a payment in: Q[n, arm[n]] becomes the mean of its payments, or moves by alpha towards this one.

    Changes Q and count (N, K). alpha may be (N,).
    """
    # your turn: the mean moves by 1 / count towards the new payment; count it first
    here = torch.arange(len(Q)), arm
    count[here] += 1
    Q[here] += (reward - Q[here]) * (1 / count[here] if alpha is None else alpha)
    # done


def gradient_step(H, arm, reward, baseline, alpha):
    """Preferences H (N, K) of the gradient bandit, after a payment; alpha may be (N, 1). Changes H. (eq. 2.12)

    Arms are drawn by softmax(H). What was drawn and paid more than the baseline (N,) gains, the other arms lose.
    """
    # your turn: H += alpha (reward - baseline) (one_hot(arm) - softmax(H))
    one_hot = torch.nn.functional.one_hot(arm, H.shape[1])
    H += alpha * (reward - baseline)[:, None] * (one_hot - H.softmax(1))
    # done


def play(method, setting, bandits, steps, *, alpha=None, initial=0.0, baseline=True, offset=0.0, drift=0.0, arms=10):
    """(rewards, optimal), (N, steps) each: what is paid, and whether the best arm was played.

    ``drift``: standard deviation of a step of every q after every play, which makes the problem non-stationary.
    """
    q = torch.zeros(bandits, arms) if drift else torch.randn(bandits, arms) + offset
    Q, H, count, total = (torch.zeros(bandits, arms) for _ in range(4))
    Q += initial
    mean, rewards, optimal = torch.zeros(bandits), [], []
    for t in range(1, steps + 1):
        if method == "greedy":
            arm = epsilon_greedy(Q, setting)
        elif method == "ucb":
            arm = ucb(Q, count, t, setting)
        elif method == "thompson":
            arm = thompson(total, count)
        else:
            arm = torch.multinomial(H.softmax(1), 1).squeeze(1)
        paid = q.gather(1, arm[:, None]).squeeze(1)
        reward = paid + torch.randn(bandits)
        optimal.append(paid == q.amax(1))
        rewards.append(reward)
        if method == "gradient":
            gradient_step(H, arm, reward, mean if baseline else torch.zeros_like(mean), setting)
            mean += (reward - mean) / t
        update(Q, count, arm, reward, alpha)
        total[torch.arange(bandits), arm] += reward
        if drift:
            q += drift * torch.randn_like(q)
    return torch.stack(rewards, 1), torch.stack(optimal, 1).double()


def main(bandits=2000, steps=1000, study=100):
    torch.manual_seed(0)
    figures = {
        "ε-greedy (figure 2.2)": {
            "ε = 0, greedy": ("greedy", 0.0, {}),
            "ε = 0.01": ("greedy", 0.01, {}),
            "ε = 0.1": ("greedy", 0.1, {}),
        },
        "Optimism (figure 2.3)": {
            "Q starts at 5, ε = 0": ("greedy", 0.0, {"initial": 5.0, "alpha": 0.1}),
            "Q starts at 0, ε = 0.1": ("greedy", 0.1, {"alpha": 0.1}),
        },
        "UCB, Thompson (figure 2.4)": {
            "UCB, c = 2": ("ucb", 2.0, {}),
            "Thompson": ("thompson", None, {}),
            "ε = 0.1": ("greedy", 0.1, {}),
        },
        "Gradient, q around 4 (figure 2.5)": {
            "α = 0.1": ("gradient", 0.1, {"offset": 4.0}),
            "α = 0.4": ("gradient", 0.4, {"offset": 4.0}),
            "α = 0.1, no baseline": ("gradient", 0.1, {"offset": 4.0, "baseline": False}),
            "α = 0.4, no baseline": ("gradient", 0.4, {"offset": 4.0, "baseline": False}),
        },
        "q drifts (exercise 2.5)": {
            "α = 0.1": ("greedy", 0.1, {"alpha": 0.1, "drift": 0.03}),
            "mean of all": ("greedy", 0.1, {"drift": 0.03}),
        },
    }
    with style():
        figure = Figure(figsize=(7.2, 6.6))
        axes = figure.subplots(3, 2).flatten()
        for axis, (title, methods) in zip(axes, figures.items(), strict=False):
            print(f"{title}: mean payment, and share of plays of the best arm, over the last tenth of {steps:,} plays")
            for name, (method, setting, options) in methods.items():
                rewards, optimal = play(method, setting, bandits, steps, **options)
                tenth = max(1, steps // 10)
                print(f"  {name:<24}{float(rewards[:, -tenth:].mean()):6.2f}{float(optimal[:, -tenth:].mean()):7.0%}")
                axis.plot(range(2, steps + 1), 100 * optimal[:, 1:].mean(0), lw=1.0, label=name)
            axis.set(title=title, ylabel="best arm, %", ylim=(0, 100))
            axis.legend(fontsize=6.5, loc="lower right", ncols=1 + (len(methods) > 3))

        # Figure 2.6: each method over its setting. The settings share the tensors: ``study`` bandits for each.
        powers = torch.arange(-7.0, 3.0)
        setting = (2.0**powers).repeat_interleave(study)
        rows = {
            "ε": play("greedy", setting, len(setting), steps)[0],
            "c of UCB": play("ucb", setting[:, None], len(setting), steps)[0],
            "α of the gradient bandit": play("gradient", setting[:, None], len(setting), steps)[0],
            "first Q, α = 0.1, ε = 0": play("greedy", 0.0, len(setting), steps, initial=setting[:, None], alpha=0.1)[0],
        }
        for name, rewards in rows.items():
            means = rewards.mean(1).view(len(powers), study).mean(1)
            kept = powers <= (0 if name == "ε" else 2)  # a probability is at most 1
            axes[5].plot(powers[kept], means[kept], "o-", ms=2.5, lw=1.0, label=name)
        axes[5].set(title="Mean payment (figure 2.6)", xlabel="setting, as a power of 2")
        axes[5].legend(fontsize=6.5, loc="lower center")
        print(f"Written:\n  {save_figure(figure, 'runs/lessons/bandits.png')}")


if __name__ == "__main__":
    main()
