"""One module under two names: in a checkout, ``import envs`` is ``import advrl.envs``, never a second copy.

Two copies of one file have two copies of each class, and ``isinstance`` between them fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(MetaPathFinder, Loader):
    """Finds ``alias.x`` as ``real.x``."""

    def __init__(self, alias: str, real: str) -> None:
        self.alias, self.real = alias, real
        self.specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.startswith(self.alias + ".") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.real + spec.name.removeprefix(self.alias))
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is executed again; the import system has put the alias's spec on the module, which is taken back."""
        alias = self.alias + module.__name__.removeprefix(self.real)
        module.__spec__ = self.specs.pop(alias)


class _Package(ModuleType):
    """A package that keeps ``fit`` the function when ``fit`` the submodule arrives under its other name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not isinstance(value, ModuleType) or isinstance(self.__dict__.get(name, value), ModuleType):
            super().__setattr__(name, value)


def alias(name: str) -> None:
    """Make the top-level module ``name``, which is being imported, ``advrl.name`` with all its submodules."""
    real = f"advrl.{name}"
    sys.meta_path.insert(0, _Finder(name, real))
    sys.modules[name] = package = importlib.import_module(real)
    package.__class__ = _Package  # the import system binds every submodule that it loads, whatever the name was before
