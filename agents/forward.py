"""How a trainer's networks are run: in which precision, compiled or as they are.

A network is never changed for it: a twin that shares its parameters, its buffers and its submodules runs in its place,
so that checkpoints, averages and copies do not know of it. Only the networks run in bfloat16, by ``torch.autocast``;
what they return is float32 again, and so are the distributions, logits, losses and gradients made from it.
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from advrl.checks import choice

Precision = Literal["fp32", "bf16"]


def twin(module: nn.Module, precision: Precision, compiled: bool, device: torch.device) -> nn.Module:
    """A stand-in for a policy, or for a network.

    Of a policy, a module with a method ``distribution``, the networks inside run as told, and what it makes of their
    numbers stays as it is: float32 and eager.

    Args:
        module: stays as it is.
        precision: ``bf16`` for ``torch.autocast``.
        compiled: by ``torch.compile`` for the shapes that come (each new one costs a compilation), on CUDA with
            ``mode="reduce-overhead"``: recorded as CUDA graphs.
        device: where it runs.
    """
    if not hasattr(module, "distribution") and type(module).forward is not nn.Module.forward:
        return _Run(module, precision, compiled, device)
    other = copy.copy(module)
    other._modules = {
        name: child and twin(child, precision, compiled, device) for name, child in module._modules.items()
    }
    return other


class _Run(nn.Module):
    def __init__(self, module: nn.Module, precision: Precision, compiled: bool, device: torch.device) -> None:
        super().__init__()
        self.module, self.lower, self.device_type = module, precision == "bf16", device.type
        mode = "reduce-overhead" if device.type == "cuda" else None
        self.call = torch.compile(module, dynamic=False, mode=mode) if compiled else module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.lower):
            return _full(self.call(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        """A policy may look at its network's own attributes."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _full(value: Any) -> Any:
    """The same in float32 where it is bfloat16."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype == torch.bfloat16 else value
    return type(value)(map(_full, value)) if type(value) in (tuple, list) else value


def check_precision(precision: Precision, *modules: nn.Module) -> None:
    """Raise a ``ValueError`` for an unknown precision, or bf16 for networks whose parameters are not float32."""
    choice("precision", precision, get_args(Precision))
    others = {p.dtype for module in modules for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if precision == "bf16" and others:
        found = ", ".join(sorted(map(str, others)))
        raise ValueError(f"precision 'bf16' runs networks whose parameters are torch.float32, got {found}")


def check_compiler(device: torch.device) -> None:
    """Raise a ``ValueError`` if ``torch.compile`` cannot compile for the device.

    Compiles a function of one line: what is missing (a C++ compiler, Python's headers, Triton) shows nowhere else.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except RuntimeError as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())
        raise ValueError(
            f"torch.compile does not work here for {device.type}: {reason}; install what is missing "
            "(a C++ compiler such as g++, on CUDA also Triton), or train without compile"
        ) from error
