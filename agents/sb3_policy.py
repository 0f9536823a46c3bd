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
        observation_space: of z (B, latent) for a one-shot generator; of tokens (B, L) for a sequence generator, or a
            dict of ``tokens`` and ``context`` (B, C).
        action_space: of the sample, or of the next token.
        lr_schedule: given by Stable-Baselines3.
        generator: a module with ``distribution(z)``; or, for sequences, with ``start(n, context) -> state`` and
            ``step(tokens, state) -> (logits, state)``, which is given padding first.
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
        self.ids = _ids(observation_space) if self.sequential else 1
        self.critic = _Critic(observation_space, self.ids) if critic is None else critic
        self.action_dist = PolicyDistribution(action_space)
        self._check()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _build(self, lr_schedule: Schedule) -> None:
        """No networks but the generator and the critic, which are not there yet."""

    def _check(self) -> None:
        like = next(self.generator.parameters())
        spaces_ = dict(self.observation_space.items()) if isinstance(self.observation_space, spaces.Dict) else {}
        blank: Any = {key: torch.zeros(1, *(part.shape or ()), device=like.device) for key, part in spaces_.items()}
        blank = blank or torch.zeros(1, *(self.observation_space.shape or ()), device=like.device)
        with torch.no_grad():
            distribution = self.distribution(blank)
        if isinstance(distribution, Implicit):
            raise ValueError("an implicit generator has no log-probability, which policy gradients need: take another")
        if isinstance(self.action_space, spaces.Discrete):
            given = distribution.param_shape[-1] if isinstance(distribution, Categorical) else "no"
            if given != self.action_space.n:
                raise ValueError(f"the generator has {given} tokens, but actions are {self.action_space}")
        event, size = distribution.event_shape.numel(), math.prod(self.action_space.shape or ())
        if event != size and (event % size or not isinstance(self.action_space, spaces.MultiDiscrete)):
            raise ValueError(
                f"the generator's samples have shape {tuple(distribution.event_shape)}, but actions are "
                f"{self.action_space}"
            )

    def distribution(self, obs: Any) -> Distribution:
        """The generator's own distribution given observations (B, *shape), a dict of them with a context."""
        seen, context = _parts(obs)
        if self.sequential:
            return Categorical(logits=prefix_logits(self.generator, seen.long(), self.ids - 1, context))
        found: Distribution = self.generator.distribution(seen.to(next(self.generator.parameters()).dtype))  # type: ignore[operator]
        return found

    def get_distribution(self, obs: Any) -> ActionDistribution:
        """The same over actions."""
        return PolicyDistribution(self.action_space).proba_distribution(self.distribution(obs))

    def predict_values(self, obs: Any) -> Tensor:
        """(B, 1)"""
        return self.critic(obs).reshape(-1, 1)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (B, *shape), values (B, 1) and log-probabilities (B,)."""
        distribution = self.get_distribution(obs)
        actions = distribution.get_actions(deterministic)
        return actions, self.predict_values(obs), distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (B, 1), log-probabilities (B,) and entropies (B,) or None."""
        distribution = self.get_distribution(obs)
        return self.predict_values(obs), distribution.log_prob(actions), distribution.entropy()


def prefix_logits(generator: nn.Module, tokens: Tensor, padding: int, context: Tensor | None = None) -> Tensor:
    """Logits (B, A) of the next token after each prefix, by running a sequence generator over it.

    Args:
        generator: with ``start(n, context) -> state`` and ``step(tokens, state) -> (logits, state)``, whose first
            step is given ``None``, since nothing has been written: the policies of ``advrl.nn``.
        tokens: (B, L), padded at the end.
        padding: its id.
        context: (B, C), what the samples are given, or None.
    """
    written = (tokens != padding).sum(1)
    state = generator.start(len(tokens), context)  # type: ignore[operator]
    logits, state = generator.step(None, state)  # type: ignore[operator]
    following = logits
    for t in range(min(int(written.max()), tokens.shape[1] - 1)):  # nothing follows a full row: any logits will do
        logits, state = generator.step(tokens[:, t], state)  # type: ignore[operator]
        following = torch.where((written == t + 1)[:, None], logits, following)
    return following


def _parts(obs: Any) -> tuple[Tensor, Tensor | None]:
    """Tokens (B, L) and context (B, C) if any; a one-shot generator's z is taken for tokens here."""
    return (obs["tokens"], obs["context"]) if isinstance(obs, dict) else (obs, None)


def _ids(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict) and "tokens" in space.spaces:
        space = space["tokens"]
    if not isinstance(space, spaces.Box) or np.dtype(space.dtype).kind not in "iu" or len(space.shape) != 1:
        raise ValueError(f"tokens are observed as Box(0, ids - 1, (L,), int64), got {space}")
    return int(space.high.max()) + 1


class _Critic(nn.Module):
    """Observations to values (B,): two layers of 64 on z, or on one-hot tokens with their context."""

    def __init__(self, space: spaces.Space[Any], ids: int) -> None:
        super().__init__()
        self.ids = ids
        sizes = (
            {key: math.prod(part.shape or ()) for key, part in space.items()} if isinstance(space, spaces.Dict) else {}
        )
        tokens = sizes.get("tokens", math.prod(space.shape or ()))
        self.net = MLP(tokens * ids + sizes.get("context", 0), (), (64, 64), "tanh")

    def forward(self, obs: Any) -> Tensor:
        x, context = _parts(obs)
        if self.ids > 1:
            x = one_hot(x.long(), self.ids).flatten(1)
        x = x.to(next(self.parameters()).dtype)
        values: Tensor = self.net(x if context is None else torch.cat([x, context], 1))
        return values
