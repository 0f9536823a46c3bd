"""Gymnasium environments in which generating a sample is an episode; installed as ``advrl.envs``."""

if __name__ == "envs":  # imported by its folder's name, in a checkout
    from advrl._alias import alias

    alias(__name__)
else:
    import gymnasium as _gymnasium

    from advrl.envs.bridge import to_mdp
    from advrl.envs.canvas import CanvasEnv, CanvasGeneration, CanvasVectorEnv
    from advrl.envs.checker import check_vector_env
    from advrl.envs.generation import Generation
    from advrl.envs.gridworld import MAPS, GridWorldEnv, GridWorldVectorEnv
    from advrl.envs.oneshot import OneShotEnv, OneShotGeneration, OneShotVectorEnv
    from advrl.envs.rewards import REWARDS, DiscriminatorScore
    from advrl.envs.sequence import SequenceEnv, SequenceGeneration, SequenceVectorEnv
    from advrl.envs.tabular import Dynamics, TabularEnv, TabularVectorEnv
    from advrl.envs.views import GenerationEnv, GenerationVectorEnv

    _gymnasium.register(
        "advrl/GridWorld-v0",
        entry_point="advrl.envs.gridworld:GridWorldEnv",
        vector_entry_point="advrl.envs.gridworld:GridWorldVectorEnv",
        max_episode_steps=200,
    )
    for _name, _where, _options in (
        ("Sequence", "sequence:Sequence", {}),
        ("Canvas", "canvas:Canvas", {}),
        ("OneShot", "oneshot:OneShot", {}),
        ("GAN1D", "oneshot:OneShot", {"latent": 1, "shape": [1], "reward": "two-modes"}),
        (
            "DigitsOneShot",
            "oneshot:OneShot",
            {"latent": 16, "shape": [1, 8, 8], "kind": "levels", "levels": 17, "reward": "nearest-digit"},
        ),
    ):
        _gymnasium.register(
            f"advrl/{_name}-v0",
            entry_point=f"advrl.envs.{_where}Env",
            vector_entry_point=f"advrl.envs.{_where}VectorEnv",
            kwargs=_options,
        )

    __all__ = [
        "MAPS",
        "REWARDS",
        "CanvasEnv",
        "CanvasGeneration",
        "CanvasVectorEnv",
        "DiscriminatorScore",
        "Dynamics",
        "Generation",
        "GenerationEnv",
        "GenerationVectorEnv",
        "GridWorldEnv",
        "GridWorldVectorEnv",
        "OneShotEnv",
        "OneShotGeneration",
        "OneShotVectorEnv",
        "SequenceEnv",
        "SequenceGeneration",
        "SequenceVectorEnv",
        "TabularEnv",
        "TabularVectorEnv",
        "check_vector_env",
        "to_mdp",
    ]
