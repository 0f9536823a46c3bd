r"""A generator of ours as a policy of Stable-Baselines3, with the very log-probabilities of its distribution.

A one-shot generator (``advrl.nn.Policy``) takes the observation for its z, and its action is the whole sample. A
sequence generator takes the tokens written so far, and its action is the next: it is run over the prefix again at each
step, since Stable-Baselines3 keeps no state for it, O(L^2) steps a sample. Shapes: B batch, L length, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution as ActionDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torch.nn.functional import one_hot

from advrl.distributions import Implicit
from advrl.nn import MLP

Schedule = Callable[[float], float]


class TokenFeatures(BaseFeaturesExtractor):
    """Tokens (B, L) as one-hot vectors, (B, L * ids): ``features_extractor_class`` for networks of Stable-Baselines3.

    Without it they see a token's number as a magnitude. Observations are ``Box(0, ids - 1, (L,), int64)``, which reach
    the network as floats.

    Raises:
        ValueError: for another space.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        self.ids = _ids(observation_space)
        super().__init__(observation_space, math.prod(observation_space.shape or ()) * self.ids)

    def forward(self, observations: Tensor) -> Tensor:
        """(B, L) numbers of tokens to (B, L * ids)."""
        return one_hot(observations.long(), self.ids).flatten(1).to(torch.get_default_dtype())


class PolicyDistribution(ActionDistribution):
    """A torch distribution over samples (B, *event) as one over actions (B, *shape) for Stable-Baselines3.

    Args:
        action_space: whose shape actions have; a one-hot event of K values is the action's number below K.
    """

    distribution: Distribution

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shape = tuple(action_space.shape or ())
        self.real = isinstance(action_space, spaces.Box)

    def proba_distribution_net(self) -> nn.Module:
        """Nothing stands between the generator and its distribution."""
        return nn.Identity()

    def proba_distribution(self, distribution: Distribution) -> PolicyDistribution:
        """Take this distribution."""
        self.distribution = distribution
        return self

    @property
    def classes(self) -> int:
        """K for one-hot events, else 1."""
        return self.distribution.event_shape.numel() // math.prod(self.shape)

    def action(self, x: Tensor) -> Tensor:
        """Values (B, *event) as actions (B, *shape)."""
        if self.classes > 1:
            x = x.argmax(-1)
        return (x if self.real else x.long()).reshape(len(x), *self.shape)

    def value(self, actions: Tensor) -> Tensor:
        """Actions (B, *shape), or flat, as values (B, *event)."""
        event = self.distribution.event_shape
        if self.classes > 1:
            actions = one_hot(actions.long(), self.classes)
        if not isinstance(self.distribution, Categorical):
            actions = actions.to(torch.get_default_dtype())
        return actions.reshape(len(actions), *event)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(B,)"""
        return self.distribution.log_prob(self.value(actions))

    def entropy(self) -> Tensor | None:
        """(B,), or None where there is no closed form: Stable-Baselines3 then estimates it."""
        try:
            return self.distribution.entropy()
        except NotImplementedError:
            return None

    def sample(self) -> Tensor:
        """Actions (B, *shape)."""
        return self.action(self.distribution.sample())

    def mode(self) -> Tensor:
        """The likeliest actions (B, *shape)."""
        return self.action(self.distribution.mode)

    def actions_from_params(self, distribution: Distribution, deterministic: bool = False) -> Tensor:
        """Actions (B, *shape) of this distribution."""
        return self.proba_distribution(distribution).get_actions(deterministic)

    def log_prob_from_params(self, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """Actions (B, *shape) of this distribution and their log-probabilities (B,)."""
        actions = self.actions_from_params(distribution)
        return actions, self.log_prob(actions)


class GeneratorPolicy(ActorCriticPolicy):
    """``PPO(GeneratorPolicy, env, policy_kwargs={"generator": generator})``, or A2C; the generator itself is trained.

    Args:
        observation_space: of z (B, latent) for a one-shot generator, of tokens (B, L) for a sequence generator.
        action_space: of the sample, or of the next token.
        lr_schedule: given by Stable-Baselines3.
        generator: a module with ``distribution(z)``, or one with ``start`` and ``step`` for sequences.
        critic: observations (B, *shape) to values (B,) or (B, 1); by default an MLP of two layers of 64 on z or on
            one-hot tokens.
        options: the optimiser's, as for ``ActorCriticPolicy``.

    Raises:
        ValueError: if the generator's samples do not fit the action space, or have no log-probability, or gSDE is
            asked for.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        generator: nn.Module,
        critic: nn.Module | None = None,
        use_sde: bool = False,
        **options: Any,
    ) -> None:
        if use_sde:
            raise ValueError("the generator has a distribution of its own: use_sde must be False")
        super().__init__(observation_space, action_space, lr_schedule, net_arch=[], **options)
        self.generator = generator
        self.sequential = hasattr(generator, "step")
        self.critic = _critic(observation_space, self.sequential) if critic is None else critic
        self.action_dist = PolicyDistribution(action_space)
        self._check()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _build(self, lr_schedule: Schedule) -> None:
        """No networks but the generator and the critic, which are not there yet."""

    def _check(self) -> None:
        like = next(self.generator.parameters())
        shape = self.observation_space.shape
        blank = torch.zeros(1, *(shape or ()), device=like.device)
        with torch.no_grad():
            distribution = self.distribution(blank)
        if isinstance(distribution, Implicit):
            raise ValueError("an implicit generator has no log-probability, which policy gradients need: take another")
        event, size = distribution.event_shape.numel(), math.prod(self.action_space.shape or ())
        if event != size and (event % size or not isinstance(self.action_space, spaces.MultiDiscrete)):
            raise ValueError(
                f"the generator's samples have shape {tuple(distribution.event_shape)}, but actions are "
                f"{self.action_space}"
            )

    def distribution(self, obs: Tensor) -> Distribution:
        """The generator's own distribution given observations (B, *shape)."""
        if self.sequential:
            return Categorical(logits=prefix_logits(self.generator, obs.long(), _ids(self.observation_space) - 1))
        found: Distribution = self.generator.distribution(obs.to(next(self.generator.parameters()).dtype))  # type: ignore[operator]
        return found

    def get_distribution(self, obs: Any) -> ActionDistribution:
        """The same over actions."""
        return PolicyDistribution(self.action_space).proba_distribution(self.distribution(obs))

    def predict_values(self, obs: Any) -> Tensor:
        """(B, 1)"""
        return self.critic(obs).reshape(len(obs), 1)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, *shape), values (B, 1) and log-probabilities (B,)."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log-probabilities (B,) and entropies (B,) or None."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


def prefix_logits(generator: nn.Module, tokens: Tensor, padding: int) -> Tensor:
    """Logits (B, V) of the next token after each prefix, from the cached-state form of a sequence generator.

    Args:
        generator: with ``start(n)`` and ``step(tokens, state)``.
        tokens: (B, L), padded at the end.
        padding: the id of padding.
    """
    written = (tokens != padding).sum(1)
    logits, state = generator.start(len(tokens))  # type: ignore[operator]
    following = logits
    for t in range(int(written.max())):
        logits, state = generator.step(tokens[:, t].clamp(max=logits.shape[1] - 1), state)  # type: ignore[operator]
        following = torch.where((written == t + 1)[:, None], logits, following)
    return following


def _ids(space: spaces.Space[Any]) -> int:
    if not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind not in "iu" or len(space.shape) != 1:
        raise ValueError(f"tokens are observed as Box(0, ids - 1, (L,), int64), got {space}")
    return int(space.high.max()) + 1


class _Critic(nn.Module):
    def __init__(self, space: spaces.Space[Any], tokens: bool) -> None:
        super().__init__()
        self.ids = _ids(space) if tokens else 1
        self.net = MLP(math.prod(space.shape or ()) * self.ids, (), (64, 64), "tanh")

    def forward(self, obs: Tensor) -> Tensor:
        x = one_hot(obs.long(), self.ids) if self.ids > 1 else obs
        values: Tensor = self.net(x.flatten(1).to(next(self.parameters()).dtype))
        return values


def _critic(space: spaces.Space[Any], tokens: bool) -> nn.Module:
    return _Critic(space, tokens)
