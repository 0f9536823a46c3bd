"""One-step control agent by agent in plain Python: for a few agents on a CPU a tensor operation costs more than a step.

The same learners as :mod:`advrl.agents.tabular_control`, equal in distribution, with random numbers of their own.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advrl.agents.tabular_loop import Learned, Loop, Rate, progress_bar

PLAIN_BELOW = 50
"""Fewer agents than this take turns on a CPU."""


def run_plain(loop: Loop, target: str, alpha: Rate, epsilon: Rate, bonus: float) -> Learned:
    """All episodes of all agents, for the targets "max", "sarsa", "expected" and "double"."""
    N, E = loop.agents, loop.episodes
    outcomes = _outcomes(loop)
    starts = loop.simulator.start.double().cumsum(0).tolist()
    choices = [c[:n] for c, n in zip(loop.choices.tolist(), loop.num_choices.tolist(), strict=True)]
    epsilons = _schedule(loop, "epsilon", epsilon, E)
    seeds = torch.randint(2**62, (N,), generator=loop.generator, device=loop.device).tolist()
    tables, returns, lengths, kept = [], [], [], []
    bar = progress_bar(N * E) if loop.progress else None
    gammas = loop.gamma.tolist()
    first_table = loop.new_table().view(N, loop.states, loop.actions)
    for n in range(N):
        agent = _Agent(
            loop, target, first_table[n], _per_visit(loop, alpha, n), gammas[n], bonus, choices, random.Random(seeds[n])
        )
        total, length, history = agent.run(outcomes, starts, epsilons[n], E, bar)
        tables.append(agent.result())
        returns.append(total)
        lengths.append(length)
        kept.append(history)
    if bar is not None:
        bar.close()
    like: dict[str, Any] = {"dtype": loop.dtype, "device": loop.device}
    table = torch.tensor(tables, **like).view(-1, loop.actions)
    history_all = torch.tensor(kept, **like) if loop.keep else None
    return loop.learned(
        table, torch.tensor(returns, **like), torch.tensor(lengths, dtype=torch.int64, device=loop.device), history_all
    )


class _Agent:
    """One agent: its tables as lists of rows."""

    def __init__(
        self, loop: Loop, target: str, table: Tensor, alpha: Callable[[int], float] | float,
        gamma: float, bonus: float, choices: list[list[int]], rng: random.Random,
    ) -> None:  # fmt: skip
        self.target, self.bonus, self.gamma, self.rng, self.choices = target, bonus, gamma, rng, choices
        self.limit, self.keep, self.alpha, self.task = loop.max_steps, loop.keep, alpha, loop.simulator.gamma
        # -inf where not feasible, so that max passes it by
        self.Q: list[list[float]] = table.masked_fill(~loop.allowed, -torch.inf).tolist()
        self.other: list[list[float]] = [list(row) for row in self.Q]
        self.count = [[0] * loop.actions for _ in self.Q]

    def result(self) -> list[list[float]]:
        if self.target != "double":
            return self.Q
        return [[(a + b) / 2 for a, b in zip(x, y, strict=True)] for x, y in zip(self.Q, self.other, strict=True)]

    def pick(self, state: int, epsilon: float) -> int:
        """Epsilon-greedy, ties at random."""
        draw = self.rng.random
        choices = self.choices[state]
        if len(choices) == 1:
            return choices[0]
        if draw() < epsilon:
            return choices[int(draw() * len(choices))]
        row = self.Q[state]
        if self.target == "double":
            row = [a + b for a, b in zip(row, self.other[state], strict=True)]
        best = max(row)
        if row.count(best) == 1:
            return row.index(best)
        tied = [a for a, q in enumerate(row) if q == best]
        return tied[int(draw() * len(tied))]

    def run(
        self, outcomes: list[list[_Outcomes]], starts: list[float], epsilons: list[float], episodes: int, bar: object
    ) -> tuple[list[float], list[int], list[list[float]]]:
        """Returns and lengths of the episodes, and the values after each."""
        draw, gamma, limit, target = self.rng.random, self.gamma, self.limit, self.target
        Q, count, alpha, bonus = self.Q, self.count, self.alpha, self.bonus
        returns, lengths, history = [], [], []
        varying = callable(alpha)
        step_size = 0.0 if callable(alpha) else alpha
        counted = varying or bonus > 0
        last = len(starts) - 1
        for episode in range(episodes):
            epsilon = epsilons[episode]
            state = min(bisect_right(starts, draw() * starts[-1]), last)
            action = self.pick(state, epsilon) if target == "sarsa" else -1
            total, discount, age, ended = 0.0, 1.0, 0, False
            while not ended and age < limit:
                if target != "sarsa":
                    action = self.pick(state, epsilon)
                cdf, results = outcomes[state][action]
                following, reward, ended = results[bisect_right(cdf, draw())] if cdf else results[0]
                total += discount * reward
                discount *= self.task
                age += 1
                if counted:
                    seen = count[state][action]
                    count[state][action] = seen + 1
                    if callable(alpha):
                        step_size = alpha(seen // 2 if target == "double" else seen)
                    if bonus:
                        reward += bonus / (seen + 1) ** 0.5
                if target == "max":
                    row = Q[state]
                    goal = reward if ended else reward + gamma * max(Q[following])
                    row[action] += step_size * (goal - row[action])
                elif target == "sarsa":
                    row = Q[state]
                    then = self.pick(following, epsilon)
                    goal = reward if ended else reward + gamma * Q[following][then]
                    row[action] += step_size * (goal - row[action])
                    action = then
                elif target == "expected":
                    row = Q[state]
                    goal = reward if ended else reward + gamma * self._expected(following, epsilon)
                    row[action] += step_size * (goal - row[action])
                else:
                    one, two = (Q, self.other) if draw() < 0.5 else (self.other, Q)
                    best = one[following]
                    goal = reward if ended else reward + gamma * two[following][best.index(max(best))]
                    one[state][action] += step_size * (goal - one[state][action])
                state = following
            returns.append(total)
            lengths.append(age)
            if self.keep:
                history.append([max(row) for row in self.result()])
            if bar is not None:
                bar.update(1)  # type: ignore[attr-defined]
        return returns, lengths, history

    def _expected(self, state: int, epsilon: float) -> float:
        row, choices = self.Q[state], self.choices[state]
        return (1 - epsilon) * max(row) + epsilon * sum(row[a] for a in choices) / len(choices)


_Outcomes = tuple[list[float], list[tuple[int, float, bool]]]


def _outcomes(loop: Loop) -> list[list[_Outcomes]]:
    """For each state and action the running sums of all probabilities but the last, and what each outcome is."""
    table = []
    sim = loop.simulator
    for probs, nexts, rewards, ends in zip(
        sim.prob.tolist(), sim.next.tolist(), sim.reward.tolist(), sim.ended.tolist(), strict=True
    ):
        rows: list[_Outcomes] = []
        for p, s, r, e in zip(probs, nexts, rewards, ends, strict=True):
            kept = [(q, outcome) for q, *outcome in zip(p, s, r, e, strict=True) if q > 0] or [(1.0, [s[0], 0.0, True])]
            total, cdf = 0.0, []
            for q, _ in kept:
                total += q
                cdf.append(total)
            rows.append(([c / total for c in cdf[:-1]], [(s, r, e) for _, (s, r, e) in kept]))
        table.append(rows)
    return table


def _schedule(loop: Loop, name: str, value: Rate, count: int) -> list[list[float]]:
    """A rate of each agent for counts 0, 1, .. (N, count)."""
    if callable(value) and not isinstance(value, Tensor):
        episodes = torch.arange(count, dtype=loop.dtype, device=loop.device)
        per_agent = torch.stack([value(e.expand(loop.agents)) for e in episodes], 1)
        return per_agent.tolist()
    fixed: Tensor = loop.rate(name, value)(loop.finished)
    return [[v] * count for v in fixed.tolist()]


def _per_visit(loop: Loop, alpha: Rate, agent: int) -> Callable[[int], float] | float:
    """A number, or a function of how often a pair has been updated that looks up what it has worked out before."""
    if not callable(alpha) or isinstance(alpha, Tensor):
        return float(loop.rate("alpha", alpha)(loop.finished)[agent])
    known: list[float] = []

    def look_up(n: int) -> float:
        while n >= len(known):
            more = torch.arange(len(known), 2 * len(known) + 64, dtype=loop.dtype, device=loop.device)
            found = alpha(more[:, None].expand(-1, loop.agents))[:, agent]
            known.extend(found.tolist())
        return known[n]

    return look_up
