"""Checks of the lessons that plan or enumerate: evaluation, iteration, gradient, sequences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from advrl.lab.grading import check, expect
from advrl.tabular import (
    MDP,
    LayeredTree,
    assert_policy_optimal,
    policy_evaluation,
    q_from_v,
    solve,
)
from advrl.tabular.problems import corner_grid, gridworld, random_mdp, special_grid


def _arrays(mdp: MDP) -> tuple[np.ndarray, np.ndarray]:
    return mdp.dense().P.numpy(), mdp.R.numpy()  # type: ignore[union-attr]


def _policy(states: int, actions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(actions), states)


def _process(mdp: MDP, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    P, R = _arrays(mdp)
    return (policy[:, :, None] * P).sum(1), (policy * R).sum(1)


def _walk() -> tuple[np.ndarray, np.ndarray]:
    return _process(corner_grid(), np.full((16, 4), 0.25))


@check("evaluation", 2)
def under_policy(answer: Any) -> None:
    mdp = random_mdp(5, 3, seed=1)
    policy = _policy(5, 3)
    P_pi, R_pi = answer.under_policy(*_arrays(mdp), policy)
    right = _process(mdp, policy)
    expect(P_pi, right[0], "P_pi of a random problem")
    expect(R_pi, right[1], "R_pi of a random problem")


@check("evaluation", 1)
def sweep(answer: Any) -> None:
    V, (P_pi, R_pi) = np.zeros(16), _walk()
    for right in (-1.0, -1.75, -2.4375):
        before = V.copy()
        V = answer.sweep(P_pi, R_pi, V, 1.0)
        expect(before[1], before[1] if V is not before else np.nan, "the old value")
        expect(np.shape(V), (16,), "the shape of the values")
        expect(V[1], right, "the value of state 1 of the 4 x 4 grid after a sweep")
    expect(answer.sweep(P_pi, R_pi, np.ones(16), 0.5)[5], -0.5, "R + gamma V where V = 1, R = -1 and gamma = 0.5")


@check("evaluation", 2)
def sweep_in_place(answer: Any) -> None:
    (P_pi, R_pi), V = _walk(), np.zeros(16)
    answer.sweep_in_place(P_pi, R_pi, V, 1.0)
    expect(V[1], -1.0, "the value of state 1 after one sweep in place")
    expect(V[2], -1.25, "the value of state 2, which sees the new value of state 1")
    V, change, sweeps = np.zeros(16), 1.0, 0
    while change >= 1e-4:
        before = V.copy()
        answer.sweep_in_place(P_pi, R_pi, V, 1.0)
        change, sweeps = float(np.abs(V - before).max()), sweeps + 1
    expect(sweeps, 114, "the number of sweeps in place until the change is below 0.0001")


@check("evaluation", 3)
def evaluate(answer: Any) -> None:
    V, sweeps = answer.evaluate(*_walk(), 1.0, 1e-4)
    expect(V[3], -22.0, "the value of the corner of the 4 x 4 grid", tol=1e-3)
    expect(sweeps, 173, "the number of sweeps until the change is below 0.0001")
    mdp = special_grid()
    policy = np.full((25, 4), 0.25)
    V, _ = answer.evaluate(*_process(mdp, policy), 0.9, 1e-10)
    expect(V, policy_evaluation(mdp, policy).V, "the values of example 3.5, gamma = 0.9")


@check("evaluation", 2)
def solve_exactly(answer: Any) -> None:
    row = [0, -14, -20, -22]
    expect(answer.solve_exactly(*_walk(), 1.0)[:4], row, "the first row of the 4 x 4 grid", tol=1e-9)
    mdp, policy = random_mdp(6, 3, gamma=0.9, seed=2), _policy(6, 3)
    V = policy_evaluation(mdp, policy).V
    expect(answer.solve_exactly(*_process(mdp, policy), 0.9), V, "the values of a random problem, gamma = 0.9")


def _maze() -> MDP:
    return gridworld("S...\n.#H.\n...G", gamma=0.9, slip=0.2)


@check("iteration", 1)
def action_values(answer: Any) -> None:
    mdp = random_mdp(6, 3, gamma=0.9, seed=3)
    V = np.random.default_rng(0).standard_normal(6)
    expect(answer.action_values(*_arrays(mdp), V, 0.9), q_from_v(mdp, torch.as_tensor(V, device="cpu")), "Q")


@check("iteration", 2)
def best_actions(answer: Any) -> None:
    Q = np.array([[1.0, 2.0, 2.0], [0.0, -1.0, 0.0], [3.0, 3.0, 3.0], [0.1 + 0.2, 0.3, 0.0]])
    right = [[False, True, True], [True, False, True], [True, True, True], [True, True, False]]
    expect(answer.best_actions(Q), right, "whether an action is a best one")


@check("iteration", 3)
def value_iteration(answer: Any) -> None:
    mdp = _maze()
    history = answer.value_iteration(*_arrays(mdp), 0.9, 1e-10)
    expect(history[0], np.zeros(12), "the first values")
    expect(history[1], mdp.R.amax(1), "the values after one sweep")
    expect(history[-1], solve(mdp).V, "the last values")
    changes = [float(np.abs(b - a).max()) for a, b in itertools.pairwise(history)]
    assert changes[-1] < 1e-10, f"the last sweep changed {changes[-1]:.2g}, which is not below theta"
    assert min(changes[:-1]) >= 1e-10, "there are sweeps after the one that changed less than theta"


@check("iteration", 2)
def evaluate_policy(answer: Any) -> None:
    mdp = random_mdp(7, 3, gamma=0.95, seed=4)
    policy = np.random.default_rng(0).integers(0, 3, 7)
    V = answer.evaluate_policy(*_arrays(mdp), policy, 0.95)
    expect(V, policy_evaluation(mdp, policy).V, "the values of a policy")


@check("iteration", 2)
def improve(answer: Any) -> None:
    Q = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [0.3, 0.1 + 0.2]])
    found = answer.improve(Q, np.array([0, 0, 1, 0]))
    expect(found[:2], [1, 0], "the best action")
    expect(found[2:], [1, 0], "the old action, which is as good as the other up to rounding")


@check("iteration", 3)
def policy_iteration(answer: Any) -> None:
    for mdp, gamma in ((_maze(), 0.9), (special_grid(), 0.9)):
        policy, history = answer.policy_iteration(*_arrays(mdp), gamma, np.zeros(mdp.num_states, dtype=int))
        assert_policy_optimal(mdp, policy)  # whatever its tie-break
        expect(history[-1], solve(mdp).V, "the last values")
        first = policy_evaluation(mdp, np.zeros(mdp.num_states, dtype=int)).V
        expect(history[0], first, "the values of the first policy")


def _softmax(theta: np.ndarray) -> np.ndarray:
    weights = np.exp(theta)
    right: np.ndarray = weights / weights.sum()
    return right


THETA, REWARD = np.array([0.3, -0.2, 0.8, 0.0]), np.array([1.0, -2.0, 3.0, 0.5])


def _scores() -> np.ndarray:
    return np.eye(4) - _softmax(THETA)


@check("gradient", 1)
def scores(answer: Any) -> None:
    h = 1e-6
    steps = h * np.eye(4)
    right = np.stack([(np.log(_softmax(THETA + e)) - np.log(_softmax(THETA - e))) / (2 * h) for e in steps], 1)
    expect(answer.scores(THETA), right, "the gradient of log pi, by finite differences")


@check("gradient", 2)
def exact_gradient(answer: Any) -> None:
    h = 1e-6
    right = [(_softmax(THETA + e) - _softmax(THETA - e)) @ REWARD / (2 * h) for e in h * np.eye(4)]
    expect(answer.exact_gradient(THETA, REWARD), right, "the gradient, by finite differences")


def _variance(baseline: float) -> float:
    g, pi = (REWARD - baseline)[:, None] * _scores(), _softmax(THETA)
    mean = pi @ g
    return float((pi[:, None] * (g - mean) ** 2).sum())


@check("gradient", 2)
def variance(answer: Any) -> None:
    for b in (0.0, 1.5, -3.0):
        expect(answer.variance(THETA, REWARD, b), _variance(b), f"the variance with baseline {b:g}")


@check("gradient", 2)
def best_baseline(answer: Any) -> None:
    one, two, three = (_variance(b) for b in (-1.0, 0.0, 1.0))  # a parabola is known by three points
    expect(answer.best_baseline(THETA, REWARD), (one - three) / (2 * (one + three - 2 * two)), "the best baseline")


@check("gradient", 2)
def reinforce(answer: Any) -> None:
    n = 20_000
    g = answer.reinforce(THETA, REWARD, 1.0, n, np.random.default_rng(0))
    expect(np.shape(g), (n, 4), "the shape of the estimates")
    right, spread = _softmax(THETA) * REWARD @ _scores(), np.std(g, 0) / n**0.5
    far = np.abs(np.mean(g, 0) - right) > 5 * spread
    assert not far.any(), f"the mean of {n:,} estimates is {np.mean(g, 0).round(3)}, the gradient {right.round(3)}"
    total, known = float(np.var(g, 0).sum()), _variance(1.0)
    assert abs(total / known - 1) < 0.1, f"the variance of {n:,} estimates is {total:.4g}, it should be {known:.4g}"


@check("gradient", 3)
def variance_of_sequences(answer: Any) -> None:
    rewards = np.random.default_rng(0).standard_normal((3, 4))
    pi, score = _softmax(THETA), _scores()
    words = list(itertools.product(range(4), repeat=3))
    chances = np.array([pi[list(w)].prod() for w in words])
    for to_go in (False, True):
        g = np.array([
            sum(sum(rewards[u, w[u]] for u in range(t if to_go else 0, 3)) * score[w[t]] for t in range(3))
            for w in words
        ])  # fmt: skip
        right = chances @ (g**2).sum(1) - ((chances @ g) ** 2).sum()
        what = f"the variance for three actions, to_go={to_go}"
        expect(answer.variance_of_sequences(THETA, rewards, to_go), right, what)


def _tree() -> tuple[LayeredTree, torch.Tensor, torch.Tensor]:
    """(tree of 3^4 words, rewards of the leaves, logits of a policy by the last letter)."""
    generator = torch.Generator("cpu").manual_seed(0)
    leaves = torch.rand(81, generator=generator, dtype=torch.float64, device="cpu")
    theta = torch.randn(3, 3, generator=generator, dtype=torch.float64, device="cpu")
    return LayeredTree(3, 4, leaves), leaves, theta


def _probabilities(tree: LayeredTree, theta: torch.Tensor) -> list[torch.Tensor]:
    layers = [tree.prefixes(t) for t in range(4)]
    return [theta[x[:, -1] if x.shape[1] else x.new_zeros(1)].softmax(-1) for x in layers]


@check("sequences", 3)
def best_values(answer: Any) -> None:
    tree, leaves, _ = _tree()
    layers = answer.best_values(leaves, 3, 4)
    expect(len(layers), 5, "the number of layers of words of four letters")
    for t, V in enumerate(layers):
        right = leaves.view(3**t, -1).amax(1)
        expect(V, right, f"the values of layer {t}")
    expect(layers[0][0], float(tree.optimal().value), "the best reward")


@check("sequences", 3)
def policy_values(answer: Any) -> None:
    tree, leaves, theta = _tree()
    theta.requires_grad_()
    layers = answer.policy_values(leaves, _probabilities(tree, theta))
    expect(len(layers), 5, "the number of layers of words of four letters")

    def logits(x: torch.Tensor) -> torch.Tensor:
        return theta[x[:, -1]] if x.shape[1] else theta[:1].expand(len(x), 3)

    known = tree.evaluate(logits)
    for t, V in enumerate(layers[:4]):
        expect(V, known.V[t].detach(), f"the values of layer {t}")
    assert layers[0].requires_grad, "gradients do not flow through V_0: keep to operations of torch"
    (gradient,) = torch.autograd.grad(layers[0].sum(), theta)
    expect(gradient, tree.gradient(logits, [theta])[0], "the gradient of the expected reward")


@check("sequences", 2)
def best_word(answer: Any) -> None:
    _, leaves, _ = _tree()
    layers = [leaves.view(3**t, -1).amax(1) for t in range(5)]
    word = list(answer.best_word(layers, 3))
    expect(len(word), 4, "the length of the word")
    number = sum(letter * 3 ** (3 - t) for t, letter in enumerate(word))
    expect(float(leaves[number]), float(leaves.max()), f"the reward of {word}")


@check("sequences", 2)
def law(answer: Any) -> None:
    tree, _, theta = _tree()
    p = _probabilities(tree, theta)
    words = tree.prefixes(4)
    right = p[0][0][words[:, 0]]
    for t in range(1, 4):
        right = right * theta.softmax(-1)[words[:, t - 1], words[:, t]]
    expect(answer.law(p), right, "the probability of a word")
