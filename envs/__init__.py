"""Gymnasium environments in which generating a sample is an episode; installed as ``advrl.envs``."""

if __name__ == "envs":  # imported by its folder's name, in a checkout
    from advrl._alias import alias

    alias(__name__)
else:
    import gymnasium as _gymnasium

    from advrl.envs.gridworld import MAPS, GridWorldEnv, GridWorldVectorEnv
    from advrl.envs.tabular import Dynamics, TabularEnv, TabularVectorEnv

    _gymnasium.register(
        "advrl/GridWorld-v0",
        entry_point="advrl.envs.gridworld:GridWorldEnv",
        vector_entry_point="advrl.envs.gridworld:GridWorldVectorEnv",
        max_episode_steps=200,
    )

    __all__ = ["MAPS", "Dynamics", "GridWorldEnv", "GridWorldVectorEnv", "TabularEnv", "TabularVectorEnv"]
