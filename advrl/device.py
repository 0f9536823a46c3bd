"""Which device a name means, and whether it is there; its own name, its clock, and a single thread."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from advrl.distributed import place


def resolve_device(name: str) -> torch.device:
    """``auto`` (cuda where there is one, else cpu), ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` as a device that exists.

    Of several ranks on a machine each has a cuda device of its own: ``cuda:LOCAL_RANK``, for ``auto`` and ``cuda``.

    Raises:
        ValueError: for another name, a device that this machine lacks, or more ranks than cuda devices.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {name!r}: give auto, cpu, cuda, cuda:N or mps")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[device.type]
    if (device.index or 0) >= count:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        there += ["mps"] * torch.backends.mps.is_available()
        raise ValueError(f"device {name!r} does not exist here; there is {', '.join(there)}")
    here = place()
    if device == torch.device("cuda") and here.locals > 1:
        if here.locals > count:
            raise ValueError(
                f"{here.locals} ranks on this machine need a cuda device each, there are {count}; or use cpu"
            )
        return torch.device("cuda", here.local)
    return device


def be_deterministic() -> None:
    """Let torch use deterministic algorithms only, for the rest of the process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def device_name(device: torch.device) -> str:
    """The card's name, or the device's type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def clock(device: torch.device) -> float:
    """Seconds: of this process, or of the wall once the GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
