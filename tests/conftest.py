"""What the tests share: one thread, every device there is, real data where it is at hand, a cache of their own."""

import os
from pathlib import Path

import pytest
import torch

os.environ["MPLBACKEND"] = "Agg"
torch.set_num_threads(1)

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available(), *["mps"] * torch.backends.mps.is_available()]


@pytest.fixture(params=DEVICES)
def device(request) -> torch.device:
    """Every device of this machine, in turn."""
    return torch.device(request.param)


@pytest.fixture
def meta():
    """torch's default device is ``meta``: a tensor made without ``device=`` has no data, and mixing it fails."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """An empty folder, and a judge who looks at less."""
    from advrl.agents import evaluation

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "SHARES_FROM", 500)
    monkeypatch.setattr(evaluation, "FAST_FROM", 100)
    monkeypatch.setattr(evaluation.Evaluator.evaluate, "__defaults__", (1,))
    return tmp_path


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets, named by ADVRL_DATA."""
    folder = os.environ.get("ADVRL_DATA")
    if not folder:
        pytest.skip("ADVRL_DATA is not set: it names a folder with mnist_5k.npz")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Keep evaluation classifiers of the tests out of the user's cache, shared by the workers of one run."""
    before = os.environ.get("ADVRL_CACHE")
    base = tmp_path_factory.getbasetemp()
    os.environ["ADVRL_CACHE"] = str((base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "cache")
    yield
    os.environ.pop("ADVRL_CACHE")
    if before is not None:
        os.environ["ADVRL_CACHE"] = before
