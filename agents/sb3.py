"""Stable-Baselines3 agents as generators; the only modules that import it are this one and its parts, ``sb3_*``.

```
a batched environment (Gymnasium's VectorEnv)
  -> SB3VecEnv               as Stable-Baselines3 wants it
  -> DiscriminatorReward     finished samples are paid by the discriminator
  -> VecMonitor              outside, so that it logs those rewards
PPO(..., env).learn(..., callback=DiscriminatorCallback(...))    which trains the discriminator
```
"""

from stable_baselines3 import A2C, PPO

from advrl.agents.sb3_discriminator import DiscriminatorCallback, load_agent, save_agent
from advrl.agents.sb3_entropy import EntropyReward
from advrl.agents.sb3_env import SB3VecEnv
from advrl.agents.sb3_generate import generate
from advrl.agents.sb3_policy import GeneratorPolicy, TokenFeatures
from advrl.agents.sb3_replay import RelabelDictReplayBuffer, RelabelReplayBuffer
from advrl.agents.sb3_reward import DiscriminatorReward

ON_POLICY: dict[str, type[PPO] | type[A2C]] = {"ppo": PPO, "a2c": A2C}
"""Stable-Baselines3's own classes by name, for what may not import it."""

__all__ = [
    "ON_POLICY",
    "DiscriminatorCallback",
    "DiscriminatorReward",
    "EntropyReward",
    "GeneratorPolicy",
    "RelabelDictReplayBuffer",
    "RelabelReplayBuffer",
    "SB3VecEnv",
    "TokenFeatures",
    "generate",
    "load_agent",
    "save_agent",
]
