"""How long a call takes, so that other work on the machine favours no one."""

from __future__ import annotations

from collections.abc import Callable

import torch

from advrl.device import clock


def seconds(work: Callable[[], object], device: torch.device | str = "cpu", repeats: int = 1) -> float:
    """Of one call: this process's own time on a CPU, the clock's on another device, which is waited for."""
    device = torch.device(device)
    start = clock(device)
    for _ in range(repeats):
        work()
    return (clock(device) - start) / repeats
