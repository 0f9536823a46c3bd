"""Ranks of a distributed run: how they find, and wait for, each other, and what they add up.

Gradients are averaged by hand before each optimiser step, because a GAN step has double backward, sampling and unequal
numbers of backward passes per network, which the hooks of ``DistributedDataParallel`` do not follow. With one rank
everything here does nothing.

There are two groups. Tensors of the run travel over nccl or gloo; small Python values (a stop request, a checkpoint's
parts, "rank 0 has drawn its picture") over a gloo group between the hosts, whose waiting keeps no device busy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(days=1)  # rank 0 may judge for hours; a rank that dies is noticed at once, by its connection
_hosts: dist.ProcessGroup | None = None
_store: Any = None  # where ranks leave their addresses
_opened = 0


class RankError(RuntimeError):
    """Another rank failed, or is gone; what went wrong is said there."""


class Place(NamedTuple):
    """Where the launcher has put this process: its rank of ``ranks``, ``local`` of ``locals`` on this machine."""

    rank: int = 0
    ranks: int = 1
    local: int = 0
    locals: int = 1


def place() -> Place:
    """What ``torchrun`` says in the environment; the only rank where RANK, WORLD_SIZE and MASTER_ADDR are not all set.

    Raises:
        ValueError: if they make no sense.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return Place()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    given = [os.environ.get(name, default) for name, default in zip(names, ("", "", "0", "1"), strict=True)]
    if not all(text.isdecimal() for text in given) or not int(given[0]) < int(given[1]):
        raise ValueError(
            f"RANK {given[0]} of WORLD_SIZE {given[1]}, LOCAL_RANK {given[2]} of LOCAL_WORLD_SIZE {given[3]} in the "
            "environment make no place in a distributed run: start it with torchrun, or unset RANK"
        )
    return Place(*map(int, given))


def rank() -> int:
    """This process's rank, 0 outside a distributed run."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """The number of ranks, 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Inside, this process is one of those that ``torchrun`` started: nccl on cuda, gloo on the CPU.

    Does nothing for a process that was started alone, nor inside another ``process_group``. A group that is there
    already is used, and left.

    Raises:
        RankError: if the others cannot be reached.
        ValueError: for a device that ranks cannot train on together.
    """
    global _hosts, _store, _opened
    found = dist.is_available() and dist.is_initialized()
    if _hosts is not None or (not found and place().ranks == 1):
        yield
        return
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"several ranks train on cpu or cuda, not on {device.type}")
    with _peers():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        if not found:
            if _store is None:
                _store, _, _ = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
            _opened += 1  # a prefix each, or a second group would find the addresses of the first
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=dist.PrefixStore(f"advrl-{_opened}", _store),  # type: ignore[attr-defined]
                rank=place().rank,
                world_size=place().ranks,
                device_id=device if device.type == "cuda" else None,
            )
        _hosts = dist.new_group(backend="gloo", timeout=PATIENCE)
    lost = False
    try:
        yield
    except RankError:
        lost = device.type == "cuda"  # nccl would wait for the rank that is gone: leave it to the end of the process
        raise
    finally:
        if not lost:
            dist.destroy_process_group(_hosts if found else None)
        _hosts = None


@contextmanager
def _peers() -> Iterator[None]:
    """Turn what a backend says of a broken connection into a RankError."""
    try:
        yield
    except RuntimeError as error:
        me = rank() or place().rank
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RankError(f"rank {me} lost the other ranks ({reason})") from error


def share(total: int, name: str = "batch_size") -> int:
    """Each rank's part of ``total``.

    Raises:
        ValueError: if it does not divide by the number of ranks.
    """
    if total % world_size():
        raise ValueError(
            f"{name} is of all ranks together and must divide by their number, got {total} for {world_size()} ranks"
        )
    return total // world_size()


def rank_seed(seed: int) -> int:
    """A seed for this rank's own random numbers: rank 0's is ``seed``, the others' are hashes of it and the rank."""
    return seed if rank() == 0 else int(np.random.SeedSequence((seed, rank())).generate_state(1)[0])


def all_reduce_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over the ranks; nothing with one rank."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return
    flat = _average_(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean(value: Tensor) -> Tensor:
    """The mean of a tensor over the ranks, the same to the last bit on each; the tensor itself with one rank."""
    return value if world_size() == 1 else _average_(value.detach().clone())


def _average_(value: Tensor) -> Tensor:
    with _peers():
        dist.all_reduce(value)
    return value.div_(world_size())


def anywhere(flag: bool) -> bool:
    """Whether ``flag`` is true on any rank. The hosts wait for each other, their devices go on."""
    if world_size() == 1:
        return flag
    with _peers():
        raised = torch.tensor(int(flag), device="cpu")
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=_hosts)
    return bool(raised)


def everyones(value: T) -> list[T]:
    """What each rank gives, in the order of ranks; tensors in it must be on the CPU."""
    if world_size() == 1:
        return [value]
    with _peers():
        values: list[Any] = [None] * world_size()
        dist.all_gather_object(values, value, group=_hosts)
    return values


def gathered(value: T) -> list[T]:
    """What each rank gives, on rank 0; nothing elsewhere. Tensors in it must be on the CPU."""
    if world_size() == 1:
        return [value]
    with _peers():
        values: list[Any] | None = [None] * world_size() if rank() == 0 else None
        dist.gather_object(value, values, group=_hosts)
    return values or []


def first(work: Callable[[], T]) -> T:
    """Let rank 0 do ``work`` alone while the others wait, and give its result to all; tensors in it are on the CPU.

    Raises:
        RankError: on the others, if it fails on rank 0.
    """
    if world_size() == 1:
        return work()
    told: list[Any] = [False, None]
    if rank() == 0:
        try:
            told = [True, work()]
        except BaseException:
            with suppress(RankError):  # they are told, if they are there; what went wrong is said here
                _broadcast(told)
            raise
    _broadcast(told)
    if not told[0]:
        raise RankError(f"rank {rank()} ends, since rank 0 failed")
    result: T = told[1]
    return result


def _broadcast(values: list[Any]) -> None:
    with _peers():
        dist.broadcast_object_list(values, src=0, group=_hosts)
