"""advrl: adversarial generation as reinforcement learning. A generator is a policy, rewarded by the discriminator."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advrl.recipes import load as load

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "agents",
    "data",
    "distributions",
    "envs",
    "estimators",
    "games",
    "lab",
    "load",
    "metrics",
    "nn",
    "objectives",
    "plots",
    "recipes",
    "tabular",
]

_here = Path(__file__).parent
if not (_here / "envs").is_dir() and (_here.parent / "envs" / "__init__.py").is_file():
    __path__.append(str(_here.parent))  # a checkout whose links were not made: its envs and agents lie beside advrl


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for, so that ``import advrl`` stays light."""
    if name == "load":
        from advrl.recipes import load

        return load
    if name in __all__:
        return import_module(f"advrl.{name}")
    raise AttributeError(f"module 'advrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
