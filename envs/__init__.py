"""Gymnasium environments in which generating a sample is an episode; installed as ``advrl.envs``."""

if __name__ == "envs":  # imported by its folder's name, in a checkout
    from advrl._alias import alias

    alias(__name__)
else:
    __all__: list[str] = []
