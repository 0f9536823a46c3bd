"""Entropy of a whole sample as part of what a Stable-Baselines3 agent is paid."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from advrl.agents.sb3_discriminator import bootstrap
from advrl.checks import number


class EntropyReward(BaseCallback):
    """Pays each step -beta log pi(a_t | s_t) beside the environment's reward, and computes the advantages again.

    The mean of the sum is beta H(pi), so the agent climbs E[r] + beta H(pi): with r = log p and beta = 1 that is
    -KL(pi || p), whose best policy is p. ``ent_coef`` is another thing: it raises the entropy of each step in the
    states that were seen, as if a step did not change what can follow. Put it behind a :class:`DiscriminatorCallback`
    that relabels, which sets rewards anew.

    Args:
        beta: at least 0.

    Raises:
        ValueError, TypeError: for another beta; when training begins, for an off-policy algorithm, which does not keep
            the log-probabilities of what it did.
    """

    def __init__(self, beta: float = 1.0) -> None:
        super().__init__()
        self.beta = number("beta", beta, 0.0)

    def _init_callback(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise ValueError(f"{type(self.model).__name__} keeps no log-probabilities of its actions: take PPO or A2C")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert isinstance(self.model, OnPolicyAlgorithm)
        buffer = self.model.rollout_buffer
        self.logger.record("rollout/entropy_per_step", float(-buffer.log_probs.mean()))
        buffer.rewards -= self.beta * buffer.log_probs
        buffer.compute_returns_and_advantage(*bootstrap(self.model))
