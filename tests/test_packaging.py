"""The package as it is found: in a checkout, in a clone without links, as a wheel, from a source archive."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import advrl

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LINKED = ("envs", "agents")  # folders at the top that are installed inside advrl
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
VERSION = advrl.__version__


def python(code: str, cwd: Path, path: Path | None = None) -> str:
    """What a fresh interpreter in ``cwd`` prints; only ``path`` is added to where it looks for modules."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))}
    env |= {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def copy(target: Path, links: bool = True) -> Path:
    """What a build needs of the repository. Where git could make no links, each is a text file with the path in it."""
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, target)
    for name in ("advrl", *LINKED):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in () if links else LINKED:
        link = target / "advrl" / name
        text = link.readlink().as_posix()
        link.unlink()
        link.write_text(text, encoding="utf-8")
    return target


def build(kind: str, source: Path) -> Path:
    """Build a ``wheel`` or ``sdist`` of ``source`` with the installed setuptools, so that nothing is fetched."""
    code = f"import setuptools.build_meta as b; print(); print(b.build_{kind}('dist'))"
    return source / "dist" / python(code, source).splitlines()[-1]


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("advrl/")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", copy(tmp_path_factory.mktemp("wheel") / "advrl-source"))


def test_the_list_of_packages_is_what_the_folders_hold():
    on_disk = set()
    for folder, package in (("advrl", "advrl"), *((name, f"advrl.{name}") for name in LINKED)):
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT / folder).parts
            if package != "advrl" or inside[:1] not in ((name,) for name in LINKED):
                on_disk.add(".".join([package, *inside]))
    assert SETUPTOOLS["packages"] == sorted(on_disk)
    assert SETUPTOOLS["package-dir"] == {"advrl": "advrl"} | {f"advrl.{name}": name for name in LINKED}


def test_every_folder_of_modules_is_a_package():
    for name in ("advrl", *LINKED):
        for module in (ROOT / name).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} needs an __init__.py"


@pytest.mark.parametrize("name", LINKED)
def test_links_are_relative(name):
    assert (ROOT / "advrl" / name).readlink() == Path("..", name)


def test_the_names_of_folders_give_the_installed_modules():
    """One module, one set of classes, whichever name comes first, and the module still knows its own name."""
    code = """
import pickle, sys
import {first}, {second}
import envs, advrl.envs, agents, advrl.agents
from agents.fit import Interrupted as short
import agents.checkpoint
from advrl.agents.fit import Interrupted as full
import advrl.agents.checkpoint
assert envs is advrl.envs and agents is advrl.agents and short is full
assert agents.checkpoint is advrl.agents.checkpoint is sys.modules["agents.checkpoint"]
assert callable(agents.fit) and agents.fit is advrl.agents.fit, "a public name was replaced by its namesake"
for module in (envs, agents, sys.modules["agents.fit"], agents.checkpoint):
    assert module.__name__ == module.__spec__.name and module.__name__.startswith("advrl."), module.__spec__
    assert module.__spec__.loader is module.__loader__ and module.__file__ == module.__spec__.origin
from agents.fit import Every
assert pickle.loads(pickle.dumps(Every(3, print))) == Every(3, print)
assert Every.__module__ == "advrl.agents.record" and pickle.loads(pickle.dumps(short)) is full
try:
    import agents.missing
except ModuleNotFoundError as error:
    assert "missing" in str(error)
else:
    raise AssertionError
try:
    from agents import missing
except ImportError:
    print("same")
"""
    for first, second in (("agents.fit", "advrl.agents.fit"), ("advrl.agents.fit", "agents.fit")):
        assert python(code.format(first=first, second=second), ROOT) == "same"


def test_import_is_light():
    """``import advrl`` loads no heavy library; neither do its parts, which wait with that until they are called."""
    heavy = {"PIL", "matplotlib", "scipy", "sklearn", "stable_baselines3", "tensorboard", "tyro"}
    code = "import sys, advrl; {}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = set(python(code.format("pass"), ROOT).split())
    assert "advrl" in loaded
    assert not loaded & (heavy | {"gymnasium", "torch"})
    parts = set(python(code.format("[getattr(advrl, name) for name in advrl.__all__]"), ROOT).split())
    assert "torch" in parts
    assert not parts & heavy


def test_what_advrl_offers_is_there():
    assert set(advrl.__all__) <= set(dir(advrl))
    for name in advrl.__all__:
        assert getattr(advrl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'gan'"):
        _ = advrl.gan
    packages = {name.removeprefix("advrl.") for name in SETUPTOOLS["packages"] if name.count(".") == 1}
    assert packages <= set(advrl.__all__)


def test_a_wheel_is_whole_and_works_elsewhere(wheel, tmp_path):
    sources = {f"advrl/{path.relative_to(ROOT / 'advrl').as_posix()}" for path in (ROOT / "advrl").rglob("*.py")}
    for name in LINKED:
        sources |= {f"advrl/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / name).rglob("*.py")}
    assert members(wheel) == sources | {"advrl/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {
            "advrl",
            wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info",
        }
        archive.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    code = "import advrl.envs, advrl.agents, advrl.cli; print(advrl.agents.__file__, advrl.__path__)"
    printed = python(code, tmp_path / "elsewhere", tmp_path / "site")
    assert printed == f"{tmp_path}/site/advrl/agents/__init__.py ['{tmp_path}/site/advrl']"


def test_a_source_archive_builds_the_same_wheel(wheel, tmp_path):
    archive = build("sdist", copy(tmp_path / "advrl-source"))
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
        opened.extractall(tmp_path / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = (tmp_path / "out").iterdir()
    assert {f"{source.name}/{name}" for name in ("LICENSE", "README.md", "envs/__init__.py")} <= names
    assert members(build("wheel", source)) == members(wheel)


def test_a_clone_without_links_runs_and_builds(wheel, tmp_path):
    clone = copy(tmp_path / "clone", links=False)
    code = "import envs, agents, advrl.agents.fit, agents.fit, advrl.envs; print(agents is advrl.agents)"
    assert python(code, clone) == "True"
    code = "import advrl.agents, advrl.envs; print(advrl.agents.__file__)"
    assert python(code, clone) == f"{clone}/agents/__init__.py"
    run = "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('advrl', run_name='__main__')"
    assert python(run, clone) == python(run, ROOT) == f"advrl {VERSION}"
    assert members(build("wheel", clone)) == members(wheel)


def test_the_version_is_one_literal():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert f'__version__ = "{VERSION}"' in (ROOT / "advrl" / "__init__.py").read_text(encoding="utf-8")
    assert f"version: {VERSION}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"[{VERSION}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if not readme.strip():
        pytest.skip("README.md is empty: it says how the tests are run")
    command = "pip install -e '.[test]' && python -m pytest"
    for text in (readme, (ROOT / ".ci" / "run").read_text(encoding="utf-8")):
        assert [line.strip() for line in text.splitlines() if "python -m pytest" in line] == [command]
    assert os.access(ROOT / ".ci" / "run", os.X_OK) or os.name == "nt"
