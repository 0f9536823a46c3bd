"""What every metric asks of its inputs: rows of finite numbers, of one width, enough of them."""

from __future__ import annotations

import torch
from torch import Tensor

from advrl import checks


def rows(minimum: int = 1, **sets: Tensor) -> list[Tensor]:
    """The named sets (N, *event) as (N, features) in float64, checked to be finite, of one width and on one device.

    Raises:
        ValueError: if one is no such set, has fewer than ``minimum`` rows, or differs from the others.
    """
    for name, values in sets.items():
        if values.ndim < 2 or 0 in values.shape[1:]:
            raise ValueError(f"{name} must have shape (number, features), got {tuple(values.shape)}")
        if len(values) < minimum:
            raise ValueError(f"{name} must have at least {minimum} rows, got {len(values)}")
    widths = {name: tuple(values.shape[1:]) for name, values in sets.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"all rows must have one shape, got {', '.join(f'{n} {w}' for n, w in widths.items())}")
    devices = {name: str(values.device) for name, values in sets.items()}
    if len(set(devices.values())) > 1:
        raise ValueError(f"all sets must be on one device, got {', '.join(f'{n} on {d}' for n, d in devices.items())}")
    return [double(checks.finite(name, values.detach())).flatten(1) for name, values in sets.items()]


def double(values: Tensor) -> Tensor:
    """``values`` in float64, on the CPU where their device has none (MPS)."""
    return values.to("cpu" if values.device.type == "mps" else values.device).to(torch.float64)
