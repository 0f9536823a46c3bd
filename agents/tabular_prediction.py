"""Prediction by temporal differences: the values of a given policy from its experience.

To follow a policy is a process with one action, on which SARSA is TD(0), n-step SARSA is n-step TD and SARSA(lambda) is
TD(lambda): one learner serves both. Sutton & Barto (2018), sections 6.1, 7.1, 12.2 and 12.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from advrl.agents.tabular_control import one_step
from advrl.agents.tabular_loop import Common, Learned, Loop, Rate
from advrl.agents.tabular_nstep import NStepSarsa
from advrl.agents.tabular_traces import Traces
from advrl.tabular.evaluation import check_policy
from advrl.tabular.mdp import MDP
from advrl.tabular.simulate import Simulator

if TYPE_CHECKING:
    from typing_extensions import Unpack


def td_prediction(
    mdp: MDP,
    policy: Tensor,
    *,
    n: int = 1,
    lam: float | None = None,
    trace: str = "accumulating",
    alpha: Rate = 0.1,
    **common: Unpack[Common],
) -> Learned:
    """TD(0), n-step TD or TD(lambda) of a policy's state values.

    Args:
        policy: (S,) actions or (S, A) probabilities.
        n: steps before bootstrapping.
        lam: lambda in [0, 1] for TD(lambda), with n = 1.
        trace: "accumulating", "replacing", or "dutch" for the true online TD(lambda).
        alpha: step size: a number, one for each agent (N,), or a schedule of episodes done.
        common: see :class:`Common`; ``initial`` is a number, or values (S, 1).

    Returns:
        V (N, S); Q (N, S, 1) is the same, ``policy`` all 0: the action is to follow the policy.
    """
    process = following(mdp, policy, common.pop("rewards", None))
    if lam is not None:
        if n != 1:
            raise ValueError(f"give n or lam, not both: got n={n} and lam={lam}")
        loop = Loop(process, **common)
        return loop.run(Traces(loop, lam, trace, alpha, 0.0, watkins=False))
    if n == 1:
        return one_step(process, "sarsa", alpha, 0.0, 0.0, common)
    loop = Loop(process, **common)
    return loop.run(NStepSarsa(loop, n, alpha, 0.0))


def following(mdp: MDP, policy: Tensor, rewards: Tensor | None = None) -> Simulator:
    """The simulator of a policy: one action."""
    return Simulator.of(mdp, rewards).under(probabilities(mdp, policy))


def probabilities(mdp: MDP, policy: Tensor) -> Tensor:
    """(S, A) probabilities of a policy given as those or as actions (S,)."""
    policy = check_policy(mdp, policy)
    if policy.is_floating_point():
        return policy
    return torch.zeros_like(mdp.R).scatter_(-1, policy[..., None], 1.0)
