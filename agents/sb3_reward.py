r"""A discriminator as the reward of a Stable-Baselines3 agent.

An episode writes a sample, and its last step is paid what the generator's cost of the discriminator's logit says,

    r_T = -c(D(x)),    r_t = 0 for t < T,

with c of ``advrl.objectives``. All samples that finish in a step are scored in one call. Shapes: n environments, k
samples that have finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import Tensor, nn

from advrl.agents.adversarial import _one_each
from advrl.agents.sb3_env import SB3VecEnv
from advrl.agents.switched import evaluating
from advrl.checks import choice, number
from advrl.envs import CanvasGeneration, OneShotGeneration, SequenceGeneration
from advrl.objectives import Game, Objective, non_saturating

Sample = Callable[[Any, Tensor], Tensor]  # (last observations (k, *shape) or a dict of them, last actions (k, *shape))

SAMPLES: dict[str, Sample] = {"observation": lambda observation, _: observation, "action": lambda _, action: action}


def sample_of(venv: VecEnv, given: str | Sample | None) -> Sample:
    """The function that finds finished samples: the given one, by name, or what the environment's kind says.

    Raises:
        ValueError: for an unknown name.
    """
    if isinstance(given, str):
        return SAMPLES[choice("sample", given, SAMPLES)]
    if given is not None:
        return given
    inner = venv.unwrapped
    task = getattr(inner.env.unwrapped, "dynamics", None) if isinstance(inner, SB3VecEnv) else None
    if isinstance(task, OneShotGeneration):
        return lambda _, action: task.decode(action)
    if isinstance(task, SequenceGeneration) and task.contexts is not None:
        return lambda observation, _: observation["tokens"]
    if isinstance(task, CanvasGeneration):
        return lambda observation, _: task.sample({"canvas": observation[:, : task.size**2]})
    return SAMPLES["observation"]


class Finished(NamedTuple):
    """Samples that finished in one step of the rollout.

    Args:
        step: the step's number, from 0.
        envs: (k,) in which environments.
        samples: (k, *event).
        paid: (k,) what for.
    """

    step: int
    envs: np.ndarray
    samples: Tensor
    paid: np.ndarray


class RewardScale:
    """Rewards minus a running mean, over a running standard deviation; both forget, for a discriminator's scale drifts.

    Exponential averages of r and r^2, whose first values are not weighed too high (the debiasing of Adam).

    Args:
        decay: share that n earlier rewards keep when n new ones come; 0 looks at the newest batch alone.
        n: see above.
    """

    def __init__(self, decay: float, n: int) -> None:
        self.decay, self.n = number("normalise", decay, 0.0, 1.0), n
        self.moments = np.zeros(3)  # of 1, r, r^2

    def update(self, rewards: np.ndarray) -> None:
        """Take note of rewards (k,)."""
        keep = self.decay ** (len(rewards) / self.n)
        new = np.array([1.0, rewards.mean(), np.square(rewards).mean()])
        self.moments = keep * self.moments + (1 - keep) * new

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Scaled rewards, (k,); as they are while none has been seen."""
        weight, first, second = self.moments
        if weight == 0:
            return rewards
        mean = first / weight
        return (rewards - mean) / np.sqrt(max(second / weight - mean**2, 0.0) + 1e-8)


class DiscriminatorReward(VecEnvWrapper):
    """Pays finished samples what a discriminator says of them, and nothing else.

    The environment's own reward of an episode's last step stays in ``info["original_env_rew"]``. An episode that a time
    limit cut off has finished no sample and is not scored. The discriminator scores in evaluation mode and without
    gradient; :class:`DiscriminatorCallback` trains it. ``VecMonitor`` belongs outside, or it logs the wrong rewards.

    Args:
        venv: for instance an :class:`SB3VecEnv`.
        discriminator: maps samples (k, *event) to logits (k,) or (k, 1).
        objective: the game; its cost of the logit, negated, is the reward.
        sample: where the finished sample is found: the last ``observation``, the last ``action``, or a function of
            both, as tensors on the discriminator's device. By default what a reward of ``advrl.envs`` would see:
            tokens, decoded one-shot samples, pictures; the last observation in other environments.
        normalise: decay of :class:`RewardScale`, per n rewards; None pays what the objective says. A shift of
            all final rewards changes no policy as long as each episode ends once and is not discounted.

    Raises:
        ValueError: if the objective compares fakes with reals or with each other, or a name or number is out of range;
            when stepped, if a sample's reward is not finite.
        TypeError: if the objective couples a batch.
    """

    def __init__(
        self,
        venv: VecEnv,
        discriminator: nn.Module,
        objective: Objective | Game = non_saturating,
        *,
        sample: str | Sample | None = None,
        normalise: float | None = None,
    ) -> None:
        game = objective if isinstance(objective, Game) else Game(objective)
        if game.objective.needs_real:
            raise ValueError(
                f"{game.objective.name} compares each fake with a real one, but a reward is paid for one sample: take "
                "an objective without needs_real, for instance non_saturating"
            )
        if game.advantage is not None:
            raise ValueError(
                f"{game.objective.name} weighs several samples of one z, but a reward is paid for one: take a game "
                "without advantage"
            )
        super().__init__(venv)
        self.discriminator, self.game = discriminator, game
        self.sample = sample_of(venv, sample)
        self.scale = None if normalise is None else RewardScale(normalise, venv.num_envs)
        self.frozen_scale = False  # the callback relabels, and counts rewards then
        self.finished: list[Finished] | None = None  # the callback collects them
        self.steps = 0
        self.returns = np.zeros(venv.num_envs)
        self.episode_returns: list[float] = []
        self._last: np.ndarray = np.empty(0)

    @property
    def device(self) -> torch.device:
        """Where the discriminator's parameters live; the CPU if it has none."""
        parameter = next(self.discriminator.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def logits(self, samples: Tensor) -> Tensor:
        """The discriminator's logits (k,), in evaluation mode and without gradient."""
        with evaluating(self.discriminator), torch.no_grad():
            return _one_each(self.discriminator(samples), samples)

    def score(self, samples: Tensor) -> np.ndarray:
        """-c(D(x)), (k,), of samples (k, *event)."""
        rewards: np.ndarray = self.game.objective.reward(self.logits(samples)).cpu().numpy().astype(np.float64)
        if not np.isfinite(rewards).all():
            bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
            raise ValueError(f"rewards must be finite, but sample {bad} of {len(rewards)} is paid {rewards[bad]}")
        return rewards

    def pay(self, samples: Tensor, update: bool = True) -> np.ndarray:
        """What the agent gets for samples (k, *event): scores (k,), scaled if so wished.

        Args:
            samples: the finished ones.
            update: whether the scale takes note of them.
        """
        scores = self.score(samples)
        if self.scale is None:
            return scores
        if update:
            self.scale.update(scores)
        return self.scale(scores)

    def samples(self, observation: Any, action: Any) -> Tensor:
        """Samples (k, *event) from last observations and actions (k, *shape), arrays or tensors.

        Raises:
            TypeError: if ``sample`` gives no tensor, as with Dict observations.
        """
        if isinstance(observation, dict):
            observation = {key: torch.as_tensor(part, device=self.device) for key, part in observation.items()}
        else:
            observation = torch.as_tensor(observation, device=self.device)
        found = self.sample(observation, torch.as_tensor(action, device=self.device))
        if not isinstance(found, Tensor):
            raise TypeError(
                f"a sample must be a tensor, got {type(found).__name__}: with Dict observations give sample=, a "
                "function of the last observations and actions"
            )
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is collected and no scale changes: for evaluation in the training environment."""
        kept = self.finished, self.frozen_scale, self.steps
        self.finished, self.frozen_scale = None, True
        try:
            yield
        finally:
            self.finished, self.frozen_scale, self.steps = kept

    def take(self) -> tuple[list[Finished], list[float]]:
        """What finished since the last call, and the environment's own returns of those episodes."""
        finished, returns = self.finished or [], self.episode_returns
        self.finished, self.episode_returns, self.steps = [], [], 0
        return finished, returns

    def reset(self) -> Any:
        """First observations of new episodes."""
        self.returns[:] = 0
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions, of which some are the finished samples."""
        self._last = actions
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """As the environment's, with the discriminator's rewards."""
        obs, rewards, dones, infos = self.venv.step_wait()
        self.returns += rewards
        paid = np.zeros(self.num_envs, dtype=np.float32)
        ended = np.flatnonzero(dones)
        whole = np.array([i for i in ended if not infos[i].get("TimeLimit.truncated", False)], dtype=np.int64)
        if len(whole):
            samples = self.samples(stacked([infos[i]["terminal_observation"] for i in whole]), self._last[whole])
            paid[whole] = self.pay(samples, update=not self.frozen_scale)
            if self.finished is not None:
                self.finished.append(Finished(self.steps, whole, samples, paid[whole]))
                self.episode_returns += self.returns[whole].tolist()
        for i in ended:
            infos[i]["original_env_rew"] = float(rewards[i])
        self.returns[ended] = 0
        self.steps += 1
        return obs, paid, dones, infos


def stacked(observations: list[Any]) -> Any:
    """k observations as a tensor (k, *shape), or as a dict of them."""
    if isinstance(observations[0], dict):
        return {key: torch.from_numpy(np.stack([obs[key] for obs in observations])) for key in observations[0]}
    return torch.from_numpy(np.stack(observations))
