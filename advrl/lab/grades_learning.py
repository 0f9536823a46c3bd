"""Checks of the lessons that draw samples: loop, bandits, walk, cliff."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from advrl.lab.grading import check, expect, expect_share
from advrl.tabular import assert_policy_optimal
from advrl.tabular.problems import cliff


class _Corridor:
    """An environment of five states in a row, from 0 to 4: action 1 goes on and pays the state, 0 stays and pays -1.

    It is over in state 4, or cut off after ten steps.
    """

    def reset(self, seed: int | None = None) -> tuple[int, dict[str, Any]]:
        self.state, self.age = 0, 0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        assert self.age < 10 and self.state < 4, "the environment was asked for a step after the episode was over"
        reward = float(self.state) if action else -1.0
        self.state, self.age = self.state + int(action), self.age + 1
        return self.state, reward, self.state == 4, self.age == 10, {}


@check("loop", 4)
def play(answer: Any) -> None:
    rng = np.random.default_rng(0)
    steps = [tuple(s) for s in answer.play(_Corridor(), np.tile([0.0, 1.0], (5, 1)), rng)]
    right = [(0, 1, 0.0), (1, 1, 1.0), (2, 1, 2.0), (3, 1, 3.0)]
    assert steps == right, f"the steps of an episode that always goes on should be {right}, got {steps}"
    steps = answer.play(_Corridor(), np.tile([1.0, 0.0], (5, 1)), rng)
    assert len(steps) == 10, f"an episode that never ends is cut off after 10 steps: it has {len(steps)}"
    policy, n, stays = np.tile([0.3, 0.7], (5, 1)), 400, 0
    for _ in range(n):
        stays += answer.play(_Corridor(), policy, rng)[0][1] == 0
    expect_share(stays, n, 0.3, "an action of probability 0.3")


@check("loop", 2)
def returns(answer: Any) -> None:
    expect(answer.returns([1.0, 2.0, 4.0], 0.5), [3.0, 4.0, 4.0], "the returns of the rewards 1, 2, 4 at gamma 0.5")
    expect(answer.returns([1.0, 2.0, 4.0], 1.0), [7.0, 6.0, 4.0], "the returns of the rewards 1, 2, 4 at gamma 1")


@check("loop", 2)
def mean_and_error(answer: Any) -> None:
    mean, error = answer.mean_and_error([1.0, 2.0, 3.0, 4.0])
    expect(mean, 2.5, "the mean of 1, 2, 3, 4")
    expect(error, (5 / 12) ** 0.5, "the standard error of the mean of 1, 2, 3, 4")


def _rows(values: list[float], n: int = 20_000) -> torch.Tensor:
    return torch.tensor(values, device="cpu").expand(n, -1).clone()


def _shares(arms: torch.Tensor, right: list[float], what: str) -> None:
    n = len(arms)
    for arm, share in enumerate(right):
        expect_share(int((arms == arm).sum()), n, share, f"{what}: arm {arm}")


@check("bandits", 2)
def epsilon_greedy(answer: Any) -> None:
    torch.manual_seed(0)
    _shares(answer.epsilon_greedy(_rows([0.0, 1.0, 0.5, -1.0]), 0.2), [0.05, 0.85, 0.05, 0.05], "epsilon 0.2")
    _shares(answer.epsilon_greedy(_rows([1.0, 1.0, 0.0]), 0.0), [0.5, 0.5, 0.0], "two arms alike, epsilon 0")


@check("bandits", 3)
def ucb(answer: Any) -> None:
    torch.manual_seed(0)
    Q, count = torch.tensor([[1.0, 0.5, 0.9]], device="cpu"), torch.tensor([[50.0, 10.0, 40.0]], device="cpu")
    for c in (0.1, 2.0):
        right = int((Q + c * (np.log(100.0) / count).sqrt()).argmax())
        expect(answer.ucb(Q, count, 100, c), [right], f"the arm at c = {c:g}, after 100 plays")
    never = torch.tensor([[50.0, 0.0, 40.0]], device="cpu")
    expect(answer.ucb(Q, never, 90, 0.1), [1], "the arm where one was never tried")


@check("bandits", 3)
def thompson(answer: Any) -> None:
    torch.manual_seed(0)
    n, total, count = 20_000, [8.0, 0.0], [9.0, 0.0]  # posteriors N(0.8, 1 / 10) and N(0, 1)
    arms = answer.thompson(_rows(total, n), _rows(count, n))
    share = float(torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(0.8 / 1.1**0.5, device="cpu")))
    _shares(arms, [share, 1 - share], "probability of being the best")


@check("bandits", 2)
def update(answer: Any) -> None:
    Q, count = torch.zeros(2, 3, device="cpu"), torch.zeros(2, 3, device="cpu")
    for arms, paid in (([0, 1], [1.0, 5.0]), ([0, 2], [2.0, 7.0]), ([0, 1], [6.0, 6.0])):
        answer.update(Q, count, torch.tensor(arms, device="cpu"), torch.tensor(paid, device="cpu"))
    expect(Q, [[3.0, 0.0, 0.0], [0.0, 5.5, 7.0]], "the mean payments")
    expect(count, [[3.0, 0.0, 0.0], [0.0, 2.0, 1.0]], "the counts")
    answer.update(Q, count, torch.tensor([0, 0], device="cpu"), torch.tensor([4.0, 4.0], device="cpu"), alpha=0.1)
    expect(Q[:, 0], [3.1, 0.4], "the values with a step size of 0.1")


@check("bandits", 3)
def gradient_step(answer: Any) -> None:
    start = torch.tensor([[0.2, -0.5, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64, device="cpu")
    H, arm = start.clone(), torch.tensor([2, 0], device="cpu")
    gain = torch.tensor([2.0, -1.0], dtype=torch.float64, device="cpu")
    leaf = start.clone().requires_grad_()
    chosen = leaf.log_softmax(1)[torch.arange(2, device="cpu"), arm]
    (right,) = torch.autograd.grad((gain * chosen).sum(), leaf)  # ascent on log pi(arm), by autograd
    answer.gradient_step(H, arm, gain + 1.5, torch.full_like(gain, 1.5), 0.1)
    expect(H, start + 0.1 * right, "the preferences after a payment")


@check("walk", 2)
def walk(answer: Any) -> None:
    rng, n, right, length = np.random.default_rng(0), 4000, 0, []
    for _ in range(n):
        states, rewards = answer.walk(rng)
        assert states[0] == 3, f"a walk begins in state 3, this one in {states[0]}"
        assert len(rewards) == len(states) - 1, f"{len(states)} states have a reward after each but the last"
        assert states[-1] in (0, 6) and not {0, 6} & set(states[:-1]), f"a walk stops at 0 or 6: {states}"
        assert set(np.abs(np.diff(states))) == {1}, f"every step goes to a neighbour: {states}"
        expect(rewards[-1], float(states[-1] == 6), f"the last reward of a walk to {states[-1]}")
        assert not any(rewards[:-1]), f"only the last step can be paid: {rewards}"
        right += states[-1] == 6
        length.append(len(rewards))
    expect_share(right, n, 0.5, "an end on the right")
    far = abs(np.mean(length) - 9.0) / (np.std(length) / n**0.5)
    assert far < 5, f"a walk has 9 steps on average, these have {np.mean(length):.2f}"


@check("walk", 2)
def td_update(answer: Any) -> None:
    V = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0])
    answer.td_update(V, 5, 1.0, 6, 0.1)
    expect(V[5], 0.55, "V(5) after a step to the right that pays 1, alpha = 0.1")
    answer.td_update(V, 4, 0.0, 5, 0.1)
    expect(V, [0, 0.5, 0.5, 0.5, 0.505, 0.55, 0], "the values after a step from 4 to 5")


@check("walk", 3)
def mc_update(answer: Any) -> None:
    V = np.array([0, 0.5, 0.5, 0.5, 0.5, 0.5, 0])
    answer.mc_update(V, [3, 4, 3, 4, 5, 6], [0.0, 0.0, 0.0, 0.0, 1.0], 0.1)
    expect(V, [0, 0.5, 0.5, 0.595, 0.595, 0.55, 0], "the values after 3, 4, 3, 4, 5, 6, each visit counted")
    V = np.zeros(7)
    answer.mc_update(V, [3, 2, 1, 0], [1.0, 2.0, 4.0], 0.5)
    expect(V, [0, 2, 3, 3.5, 0, 0, 0], "the values after the rewards 1, 2, 4, alpha = 0.5")


@check("walk", 1)
def rms(answer: Any) -> None:
    expect(answer.rms(np.array([9, 0.5, 0.5, 0.5, 0.5, 0.5, 9])), (1 / 18) ** 0.5, "the error of values of one half")


Q_TABLE = np.array([[1.0, 2.0, 3.0, 6.0], [0.0, -4.0, 8.0, 4.0]])


@check("cliff", 1)
def choose(answer: Any) -> None:
    _greedy(answer, [0.0, 3.0, 1.0, -1.0], 0.2, [0.05, 0.85, 0.05, 0.05])
    _greedy(answer, [1.0, 0.0, 1.0, -1.0], 0.0, [0.5, 0.0, 0.5, 0.0])


def _greedy(answer: Any, q: list[float], epsilon: float, right: list[float]) -> None:
    rng, n = np.random.default_rng(0), 8000
    arms = torch.tensor([answer.choose(np.array(q), rng, epsilon) for _ in range(n)], device="cpu")
    _shares(arms, right, f"values {q}, epsilon {epsilon:g}")


def _target(answer: Any, name: str, right: float) -> None:
    rule = getattr(answer, name)
    expect(rule(Q_TABLE, -1.0, 1, 3, False), right, "the target after reward -1, with next values 0, -4, 8, 4")
    expect(rule(Q_TABLE, -1.0, 1, 3, True), -1.0, "the target where the episode ended")


@check("cliff", 2)
def q_learning_target(answer: Any) -> None:
    _target(answer, "q_learning_target", 7.0)


@check("cliff", 2)
def sarsa_target(answer: Any) -> None:
    _target(answer, "sarsa_target", 3.0)


@check("cliff", 2)
def expected_sarsa_target(answer: Any) -> None:
    _target(answer, "expected_sarsa_target", -1 + 0.9 * 8 + 0.1 * 2)
    expect(answer.expected_sarsa_target(Q_TABLE, 0.0, 0, 0, False, 1.0), 3.0, "the target at epsilon 1")


@check("cliff", 4)
def learn(answer: Any) -> None:
    paid, gaps = {}, []
    for name in ("q_learning_target", "sarsa_target"):
        Q, returns = answer.learn(getattr(answer, name), _cliff_step, 400, np.random.default_rng(1))
        expect(np.shape(Q), (48, 4), "the shape of Q")
        assert len(returns) == 400, f"there should be a return for each of 400 episodes, got {len(returns)}"
        expect(Q[47], np.zeros(4), "the values of the goal")
        paid[name] = float(np.mean(returns[-100:]))
        gaps.append(Q)
    way = _way(gaps[0])
    assert way[-1] == 47 and len(way) == 14, f"Q-learning's greedy way should take 13 steps to state 47: {way[:16]}"
    mdp = cliff()
    policy = gaps[0].argmax(1)
    known = np.isin(np.arange(48), way)
    assert_policy_optimal(mdp, np.where(known, policy, _shortest()))
    good, bad = paid["sarsa_target"], paid["q_learning_target"]
    assert good > bad + 5, f"SARSA should be paid more while it learns than Q-learning: {good:.1f} and {bad:.1f}"


def _cliff_step(state: int, action: int) -> tuple[int, float, bool]:
    row, column = divmod(int(state), 12)
    up, across = ((-1, 0), (0, 1), (1, 0), (0, -1))[int(action)]
    row, column = min(max(row + up, 0), 3), min(max(column + across, 0), 11)
    if row == 3 and 0 < column < 11:
        return 36, -100.0, False
    return 12 * row + column, -1.0, (row, column) == (3, 11)


def _way(Q: np.ndarray) -> list[int]:
    states = [36]
    while states[-1] != 47 and len(states) < 50:
        states.append(_cliff_step(states[-1], int(Q[states[-1]].argmax()))[0])
    return states


def _shortest() -> np.ndarray:
    """An optimal action of every state: along to the last column, then down; up from the start."""
    row, column = np.divmod(np.arange(48), 12)
    actions: np.ndarray = np.where(column == 11, 2, np.where((row == 3) & (column < 10), 0, 1))
    return actions
