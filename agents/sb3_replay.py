"""Replay buffers whose rewards are never older than the discriminator.

An off-policy agent learns from transitions of long ago, paid by a discriminator that has changed since. These buffers
score the last transition of each episode when it is sampled, with the discriminator as it is now (as PEBBLE relabels
its replay, Lee, Smith & Abbeel, 2021). Only a sample's last step is paid, so this costs one call on a few samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

if TYPE_CHECKING:
    from advrl.agents.sb3_reward import DiscriminatorReward

    _Buffer = ReplayBuffer
else:
    _Buffer = object


class Relabelled(_Buffer):
    """What the two buffers share; ``reward`` is None until a callback gives it, and rewards stay what they were."""

    reward: DiscriminatorReward | None = None

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        batch: ReplayBufferSamples | DictReplayBufferSamples = super()._get_samples(batch_inds, env)
        last = batch.dones.flatten() > 0  # without time limits
        if self.reward is None or not bool(last.any()):
            return batch
        following = batch.next_observations
        obs = {key: part[last] for key, part in following.items()} if isinstance(following, dict) else following[last]
        paid = self.reward.pay(self.reward.samples(obs, self._action(batch.actions[last])), update=False)
        rewards = batch.rewards.clone()
        rewards[last, 0] = torch.as_tensor(paid, dtype=rewards.dtype, device=rewards.device)
        return batch._replace(rewards=rewards)

    def _action(self, stored: torch.Tensor) -> torch.Tensor:
        """Actions as the environment knows them, (k, *shape): stored ones are flat, and in [-1, 1] where they are real.

        Off-policy algorithms of Stable-Baselines3 keep every Box action that way.
        """
        space = self.action_space
        if isinstance(space, spaces.Box):
            low, high = (torch.as_tensor(b.ravel(), device=stored.device) for b in (space.low, space.high))
            stored = low + 0.5 * (stored + 1) * (high - low)
        return stored.reshape(len(stored), *(space.shape or ()))

    def __getstate__(self) -> dict[str, Any]:
        """Without the reward, which belongs to the environment."""
        return {**self.__dict__, "reward": None}


class RelabelReplayBuffer(Relabelled, ReplayBuffer):
    """``replay_buffer_class`` of DQN, SAC, TD3 and their like.

    :class:`DiscriminatorCallback` with ``reward_timing="relabel"`` tells it the discriminator.
    """


class RelabelDictReplayBuffer(Relabelled, DictReplayBuffer):
    """The same for Dict observations."""
