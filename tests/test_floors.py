"""Imports go down only: every import in the package's source against the floors of docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. What stands on one floor does not see each other, but for the pairs in BESIDE.
FLOORS = [
    {"_alias", "checks", "columns", "device", "distributed", "files", "memory", "plots", "seeding"},
    {"distributions", "estimators", "games", "metrics", "objectives", "tabular"},
    {"data", "nn"},
    {"envs"},
    {"agents"},
    {"lab"},
    {"learn", "recipes", "solve"},
    {"__init__", "__main__", "cli", "cli_help", "cli_runs"},
]
BESIDE = {
    ("device", "distributed"),
    ("estimators", "distributions"),
    ("tabular", "objectives"),
    ("games", "objectives"),
    ("games", "tabular"),
    ("data", "nn"),
    ("plots", "checks"),
    ("plots", "files"),
    ("__init__", "recipes"),
    ("__main__", "cli"),
    ("cli", "__init__"),
    ("cli", "cli_help"),
    ("cli", "cli_runs"),
    ("cli_help", "__init__"),
    ("recipes", "__init__"),
    ("lab", "__init__"),
}
# Here an import inside a function may go anywhere.
LAZY = {"__init__", "cli", "cli_help", "cli_runs", "learn", "recipes", "lab"}
HEIGHT = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
GYMNASIUM = HEIGHT["envs"]  # the lowest floor that may import it
HEAVY = {
    "PIL",
    "matplotlib",
    "scipy",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
}  # wait until they are called


def part_of(module: str) -> str:
    """``advrl.nn.policies`` is of ``nn``, ``advrl`` itself of ``__init__``."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, int, bool]]:
    """(imported module, line, whether it waits for a call or serves types alone) for every import in the file."""
    waiting = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno, id(node) in waiting
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: None if is_package else -1]
            base = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:
                if source == "advrl" and name.name != "__version__":  # a part, or what advrl/__init__.py offers
                    yield f"advrl.{name.name}" if name.name in HEIGHT else "advrl", node.lineno, id(node) in waiting
                elif source != "advrl":
                    module_too = f"{source}.{name.name}" in HEAVY
                    yield f"{source}.{name.name}" if module_too else source, node.lineno, id(node) in waiting


def complaints(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of one file."""
    own, wrong = part_of(module), []
    if own not in HEIGHT:
        return [f"{module} stands on no floor: give {own!r} its place in FLOORS and in docs/architecture.md"]
    for target, line, waits in imports(ast.parse(source), module, is_package):
        where, root = f"{module}, line {line}: ", target.split(".")[0]
        if root in ("envs", "agents"):
            wrong.append(f"{where}import {target} by its installed name, advrl.{target}")
        elif root in ("stable_baselines3", "sb3_contrib") and not module.startswith("advrl.agents.sb3"):
            wrong.append(f"{where}{root} is for agents/sb3.py and its parts alone")
        elif not waits and any(target == heavy or target.startswith(heavy + ".") for heavy in HEAVY):
            wrong.append(f"{where}{target} takes long to load: import it inside the function that needs it")
        elif target.startswith("advrl.agents.sb3") and not (waits or module.startswith("advrl.agents.sb3")):
            wrong.append(f"{where}{target} loads stable_baselines3: import it inside the function that needs it")
        elif root == "gymnasium" and HEIGHT[own] < GYMNASIUM:
            wrong.append(f"{where}gymnasium is for envs and above")
        elif root == "advrl" and not (waits and own in LAZY):
            other = part_of(target)
            if other not in HEIGHT:
                wrong.append(f"{where}{target} stands on no floor")
            elif other != own and HEIGHT[other] >= HEIGHT[own] and (own, other) not in BESIDE:
                wrong.append(f"{where}{own} may not look up at {other}")
    return wrong


def sources() -> Iterator[tuple[Path, str, bool]]:
    """(path, module, whether it is a package) of every file, whether the links are there or not."""
    for folder, package in (("advrl", "advrl"), ("envs", "advrl.envs"), ("agents", "advrl.agents")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder)
            if package == "advrl" and inside.parts[0] in ("envs", "agents"):
                continue  # through the link
            name = ".".join([package, *inside.with_suffix("").parts])
            yield path, name.removesuffix(".__init__"), inside.name == "__init__.py"


def test_imports_go_down_only():
    found = list(sources())
    assert {"advrl", "advrl.agents.fit", "advrl.envs", "advrl.nn.policies"} <= {module for _, module, _ in found}
    wrong = [line for path, *module in found for line in complaints(path.read_text(encoding="utf-8"), *module)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("advrl.estimators.score", "from advrl.nn import Policy"),
        ("advrl.estimators.score", "import advrl.agents.fit"),
        ("advrl.estimators.score", "def f():\n    from advrl.data import digits"),
        ("advrl.estimators.score", "if TYPE_CHECKING:\n    from advrl.data import ImageData"),
        ("advrl.estimators.score", "from ..agents import fit"),
        ("advrl.estimators.score", "from .. import agents"),
        ("advrl.estimators.score", "from advrl import load"),
        ("advrl.estimators.score", "import advrl"),
        ("advrl.distributions.binomial", "from advrl.estimators import Score"),
        ("advrl.nn.policies", "from advrl.data import digits"),
        ("advrl.checks", "from advrl.metrics import frechet_distance"),
        ("advrl.agents.fit", "from agents.meter import Meter"),
        ("advrl.agents.fit", "import stable_baselines3"),
        ("advrl.agents.fit", "from advrl.agents.sb3_env import SB3VecEnv"),
        ("advrl.agents.fit", "from advrl.recipes import load"),
        ("advrl.recipes.run", "from advrl.cli import main"),
        ("advrl.cli", "def f():\n    import stable_baselines3"),
        ("advrl.tabular.mdp", "import gymnasium as gym"),
        ("advrl.plots.style", "from matplotlib.figure import Figure"),
        ("advrl.agents.logs", "from torch.utils.tensorboard import SummaryWriter"),
        ("advrl.agents.logs", "from torch.utils import tensorboard"),
        ("advrl.cli", "import PIL.Image"),
        ("advrl.cellar", "import math"),
        ("advrl.agents.fit", "from advrl.cellar import wine"),
    ],
)
def test_a_wrong_import_is_found(module, source):
    assert len(complaints(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("advrl.estimators.score", "from advrl import checks, __version__\nfrom .base import Draw\nimport torch"),
        ("advrl.estimators.relaxed", "from advrl.distributions import Binomial"),
        ("advrl.agents.sb3", "import stable_baselines3, gymnasium\nfrom advrl.envs import x"),
        ("advrl.agents.sb3_env", "import stable_baselines3\nfrom advrl.agents.sb3_reward import DiscriminatorReward"),
        ("advrl.recipes.run", "def f():\n    from advrl.agents.sb3 import SB3VecEnv"),
        ("advrl.envs.sequence", "import gymnasium"),
        ("advrl.plots.style", "def f():\n    import matplotlib.style"),
        ("advrl.plots.style", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("advrl.recipes.run", "import advrl\ndef f():\n    from advrl.cli import main"),
    ],
)
def test_a_right_import_is_let_through(module, source):
    assert complaints(source, module) == []
