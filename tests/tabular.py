"""Small problems and comparisons that the tests of tabular learners share."""

import torch

from advrl.tabular import MDP
from advrl.tabular.problems import random_walk

ROOM = "S..\n.#.\n..G"


def layered(gamma: float = 0.9) -> tuple[MDP, torch.Tensor]:
    """Start, three states, three states, two ends: no state comes twice. With it the rewards of single transitions."""
    g = torch.Generator().manual_seed(3)
    P, r = torch.zeros(9, 2, 9, dtype=torch.float64), torch.randn(9, 2, 9, generator=g, dtype=torch.float64)
    for layer, onward in (([0], [1, 2, 3]), ([1, 2, 3], [4, 5, 6]), ([4, 5, 6], [7, 8])):
        for s in layer:
            P[s][:, onward] = torch.rand(2, len(onward), generator=g, dtype=torch.float64)
    P[7:, :, 7] = 1
    P /= P.sum(-1, keepdim=True)
    first = torch.zeros(9, dtype=torch.float64)
    first[0] = 1
    return MDP(P, r, gamma, terminal=torch.arange(9) >= 7, p0=first), r


def uniform(mdp: MDP) -> torch.Tensor:
    return torch.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions, dtype=torch.float64)


def close(actual, expected, atol=1e-8):
    torch.testing.assert_close(actual, torch.as_tensor(expected).to(actual).expand_as(actual), rtol=0, atol=atol)


def walk(states: int, left: float, right: float):
    rewards = torch.zeros(states + 2, 1, 2, dtype=torch.float64)
    rewards[1, 0, 0], rewards[states, 0, 1] = left, right
    truth = left + (right - left) * torch.arange(1, states + 1) / (states + 1)
    return random_walk(states, left=left, right=right), rewards, truth
