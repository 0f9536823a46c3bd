"""Trains the discriminator between the rollouts of a Stable-Baselines3 agent, and keeps it in the checkpoint.

Who goes first is a choice. ``stale``: the policy learns from what the discriminator said while the samples were made,
then the discriminator learns. ``relabel``: the discriminator learns first, and the rollout is paid anew, with
advantages computed again, for Stable-Baselines3 computes them before it calls back. A discriminator that has just been
fitted to the very samples that it judges pays them too little; so a part of them is held out of its training until
they have been paid, and older samples can be shown beside the new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor
from torch.optim import Adam, Optimizer

from advrl.agents.adversarial import _one_each, update
from advrl.agents.checkpoint import load_checkpoint, save_checkpoint
from advrl.agents.sb3_env import chain
from advrl.agents.sb3_replay import Relabelled
from advrl.agents.sb3_reward import DiscriminatorReward, Finished
from advrl.agents.switched import in_mode
from advrl.checks import choice, integer, number
from advrl.objectives import Penalty, clip_weights

RewardTiming = Literal["stale", "relabel"]
Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)


class DiscriminatorCallback(BaseCallback):
    """Updates a :class:`DiscriminatorReward`'s discriminator at the end of rollouts.

    Logs ``disc/loss``, ``disc/acc_real`` and ``disc/acc_fake`` (shares that it judges rightly, after its training and
    on samples that it did not train on where there are any), ``disc/reward_mean`` (unscaled, of those same samples),
    ``rollout/ep_rew_wrapped_mean`` (what the policy was paid) and ``rollout/ep_rew_env_mean`` (the environment's own
    reward). The discriminator's reward cannot be compared between rollouts; choose a model by the environment's own
    reward or a metric of the samples.

    Args:
        reward: the wrapper in the agent's environment.
        real: endless batches (B, *event) of real samples, as ``advrl.data.Batches``, in the form of finished samples.
        steps: discriminator updates per round.
        optimiser: of the discriminator; by default Adam with ``lr`` and beta (0.5, 0.99).
        lr: see above.
        penalties: (weight, penalty) pairs added to its loss, beside those of the game.
        reward_timing: ``stale`` or ``relabel``, see above. Off-policy algorithms relabel when they sample, with a
            :class:`RelabelReplayBuffer`.
        held_out: share of the new samples that the discriminator does not train on until they have been paid.
        history: how many older samples are kept to train on beside the new.
        min_samples: a round waits until so many have finished since the last.

    Raises:
        TypeError, ValueError: for numbers out of range; when training begins, if the agent's environment does not
            contain ``reward``, is normalised by ``VecNormalize``, or the algorithm cannot relabel.
    """

    def __init__(
        self,
        reward: DiscriminatorReward,
        real: Iterator[Tensor],
        *,
        steps: int = 8,
        optimiser: Optimizer | None = None,
        lr: float = 1e-3,
        penalties: Sequence[tuple[float, Penalty]] = (),
        reward_timing: RewardTiming = "stale",
        held_out: float = 0.5,
        history: int = 0,
        min_samples: int = 64,
    ) -> None:
        super().__init__()
        self.reward, self.real, self.steps = reward, real, integer("steps", steps)
        self.optimiser = optimiser or Adam(
            reward.discriminator.parameters(), lr=number("lr", lr, 0.0, exclusive=True), betas=(0.5, 0.99)
        )
        self.penalties = (*reward.game.penalties, *((number("penalty weight", w, 0.0), p) for w, p in penalties))
        self.reward_timing = choice("reward_timing", reward_timing, get_args(RewardTiming))
        self.held_out = number("held_out", held_out, 0.0, 1.0)
        self.capacity = integer("history", history, 0)
        if held_out == 1 and not history:
            raise ValueError(
                "with held_out=1 the discriminator trains on older samples alone: give history= their number"
            )
        self.min_samples = integer("min_samples", min_samples)
        self.history: Tensor | None = None
        self.fresh: list[Tensor] = []
        self.rounds = 0

    def _init_callback(self) -> None:
        env = self.model.get_env()
        if env is None or self.reward not in chain(env):
            raise ValueError("the agent's environment does not contain this DiscriminatorReward: pass it to the agent")
        scaler = self.model.get_vec_normalize_env()
        if scaler is not None and scaler.norm_reward:
            raise ValueError(
                "VecNormalize's reward statistics never forget, but a discriminator's scale drifts: give VecNormalize "
                "norm_reward=False and DiscriminatorReward normalise=0.99"
            )
        relabel = self.reward_timing == "relabel"
        buffer = getattr(self.model, "replay_buffer", None)
        if isinstance(buffer, Relabelled):
            buffer.reward = self.reward if relabel else None
        elif relabel and not isinstance(self.model, OnPolicyAlgorithm):
            raise ValueError(
                f"{type(self.model).__name__} relabels when it samples: give it "
                "replay_buffer_class=RelabelReplayBuffer (RelabelDictReplayBuffer with Dict observations)"
            )
        self.reward.frozen_scale = relabel and isinstance(self.model, OnPolicyAlgorithm)
        self.reward.take()

    def _on_rollout_start(self) -> None:
        self.reward.take()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        finished, returns = self.reward.take()
        if not finished:
            return
        self.fresh += [batch.samples for batch in finished]
        if sum(map(len, self.fresh)) >= self.min_samples:
            self._round(torch.cat(self.fresh))
            self.fresh = []
        relabel = self.reward_timing == "relabel" and isinstance(self.model, OnPolicyAlgorithm)
        paid = self._pay_again(finished) if relabel else np.concatenate([batch.paid for batch in finished])
        self.logger.record("rollout/ep_rew_wrapped_mean", float(paid.mean()))
        self.logger.record("rollout/ep_rew_env_mean", float(np.mean(returns)))

    def _round(self, new: Tensor) -> None:
        """Train on a part of the new samples (k, *event) and on older ones; look at how it judges the rest."""
        held = round(self.held_out * len(new))
        new = new[torch.randperm(len(new), device=new.device)]
        unseen, seen = new[:held], new[held:]
        pool = seen if self.history is None else torch.cat([self.history.to(seen.device), seen])
        if len(pool):
            losses = [self._update(pool) for _ in range(self.steps)]
            self.logger.record("disc/loss", float(torch.stack(losses).mean()))
            self.rounds += 1
        high = 1.0 if self.reward.game.objective.high_is_real else -1.0
        judged = unseen if held else new
        real = self.reward.logits(next(self.real).to(self.reward.device))
        self.logger.record("disc/acc_real", float((high * real > 0).float().mean()))
        self.logger.record("disc/acc_fake", float((high * self.reward.logits(judged) < 0).float().mean()))
        self.logger.record("disc/reward_mean", float(self.reward.score(judged).mean()))
        if self.capacity:
            old = new if self.history is None else torch.cat([self.history.to(new.device), new])
            self.history = old[-self.capacity :]

    def _update(self, pool: Tensor) -> Tensor:
        """One update on a batch of real samples and as many of the pool's."""
        discriminator = self.reward.discriminator

        def logits(x: Tensor) -> Tensor:
            return _one_each(discriminator(x), x)

        real = next(self.real).to(self.reward.device)
        fake = pool[torch.randint(len(pool), (len(real),), device=pool.device)]
        game = self.reward.game
        with in_mode(True, discriminator):
            a, b = logits(real), logits(fake)
            told = loss = game.objective.d_loss(a, b).mean()
            for weight, penalty in self.penalties:
                loss = loss + weight * penalty(logits, real, fake).mean()
            update(self.optimiser, loss)
        if game.clip is not None:
            clip_weights(discriminator.parameters(), game.clip)
        if game.controller is not None:
            game.controller.update(a, b)
        return told.detach()

    def _pay_again(self, finished: list[Finished]) -> np.ndarray:
        """Put the discriminator's present rewards into the rollout buffer, and compute advantages again."""
        paid = self.reward.pay(torch.cat([batch.samples for batch in finished]))
        sizes = [len(batch.envs) for batch in finished]
        steps = np.repeat([batch.step for batch in finished], sizes)
        assert isinstance(self.model, OnPolicyAlgorithm)
        buffer = self.model.rollout_buffer
        buffer.rewards[steps, np.concatenate([batch.envs for batch in finished])] = paid
        buffer.compute_returns_and_advantage(*bootstrap(self.model))
        return paid

    def state_dict(self) -> dict[str, Any]:
        """The discriminator, its optimiser, older samples, the reward's scale, and the real batches' state if any."""
        scale = self.reward.scale
        state: dict[str, Any] = {
            "discriminator": self.reward.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rounds": self.rounds,
            "history": self.history,
            "fresh": self.fresh,
        }
        if scale is not None:
            state["scale"] = torch.from_numpy(scale.moments.copy())
        if self.reward.game.controller is not None:
            state["controller"] = self.reward.game.controller.state_dict()
        if hasattr(self.real, "state_dict"):
            state["real"] = self.real.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            ValueError: if it has other parts than this callback.
        """
        expected = self.state_dict().keys()
        if state.keys() != expected:
            raise ValueError(f"the state has parts {sorted(state)}, this callback {sorted(expected)}")
        self.reward.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rounds, self.history, self.fresh = state["rounds"], state["history"], list(state["fresh"])
        if self.reward.scale is not None:
            self.reward.scale.moments = state["scale"].cpu().numpy()
        if self.reward.game.controller is not None:
            self.reward.game.controller.load_state_dict(state["controller"])
        if "real" in state:
            self.real.load_state_dict(state["real"])  # type: ignore[attr-defined]


def bootstrap(model: OnPolicyAlgorithm) -> tuple[Tensor, np.ndarray]:
    """Values (n, 1) of the states after the rollout, and which of them begin an episode (n,).

    From the model, not from the callback's locals, which in sb3-contrib are a step old at the rollout's end.
    """
    obs, starts = model._last_obs, model._last_episode_starts
    assert obs is not None and starts is not None
    with torch.no_grad():
        tensors = obs_as_tensor(obs, model.device)
        states = getattr(model, "_last_lstm_states", None)
        if states is None:
            return model.policy.predict_values(tensors), starts
        begins = torch.as_tensor(starts, dtype=torch.float32, device=model.device)
        return model.policy.predict_values(tensors, states.vf, begins), starts  # type: ignore[call-arg]


def save_agent(folder: Path | str, model: BaseAlgorithm, callback: DiscriminatorCallback) -> None:
    """Write a whole agent: Stable-Baselines3's ``agent.zip``, and ``discriminator.pt``, which the .zip has not.

    The .zip contains pickled objects, so load only what you trust; the discriminator's file holds tensors and plain
    values alone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "agent.zip")
    save_checkpoint(folder / "discriminator.pt", callback.state_dict())


def load_agent(
    folder: Path | str, algorithm: type[Algorithm], callback: DiscriminatorCallback, **options: Any
) -> Algorithm:
    """Read what :func:`save_agent` wrote.

    Args:
        folder: where.
        algorithm: the agent's class, for instance ``PPO``.
        callback: a new one, with a discriminator of the same form; it gets the saved state.
        options: for the algorithm's ``load``, first of all ``env``.

    Raises:
        FileNotFoundError, CheckpointError: if a file is missing or damaged.
    """
    state = load_checkpoint(Path(folder) / "discriminator.pt", callback.reward.device)
    callback.load_state_dict({name: state[name] for name in state.keys() - {"format", "others"}})
    return algorithm.load(Path(folder) / "agent.zip", **options)
