r"""Many gradient estimates at once: the replicate axis goes into the distribution's batch, and is never looped over.

The node, the distribution's parameters theta, is copied R times into one leaf (R, *shape). The estimator sees a
distribution of batch shape (R, *batch) and gives (R, *batch) surrogates; since no replicate depends on another's copy,
one backward of their sum gives R independent estimates at the node. Parameters w behind a network follow by the chain
rule,

    g_w = J' g_theta,    J = d theta / d w,

where J does not depend on the draws: one forward through the network, and one vector-Jacobian product batched over R.
Memory is bounded by drawing in chunks; each chunk has a random seed of its own, so that it does not matter which rank
of a distributed run draws it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from advrl.checks import integer
from advrl.distributed import rank, world_size
from advrl.estimators import Estimator, fit_loss, modules_of
from advrl.lab.moments import Moments, gather, summed
from advrl.lab.problem import Problem

CHUNK = 2**17  # numbers that one chunk makes the cost look at on a CPU: they stay in its cache
WIDE = 2**20  # and elsewhere, where a launch has to be worth it
PILOT = 32  # replicates whose mean is the centre of the moments


def gradients(estimator: Estimator, problem: Problem, replicates: int) -> Tensor:
    """``replicates`` independent estimates of the problem's gradient, (R, P), in one pass.

    Draws from the global generators, as everything here does. An estimator with state uses it, and may change it.
    """
    shape = problem.node.shape
    leaf = problem.node.detach().expand(replicates, *shape).clone().requires_grad_()
    surrogate = estimator(problem.distribution(leaf), problem.cost)
    weight = torch.full_like(
        surrogate, replicates / surrogate.numel()
    )  # the sum over replicates of the mean over the batch
    (at_node,) = torch.autograd.grad(surrogate, leaf, weight)
    if not problem.parameters:
        return at_node.flatten(1) if shape else at_node[:, None]
    found = torch.autograd.grad(
        problem.node,
        problem.parameters,
        at_node,
        is_grads_batched=True,
        retain_graph=True,
        materialize_grads=True,
    )
    return torch.cat([g.flatten(1) for g in found], 1)


def frozen(estimator: Estimator) -> Estimator:
    """A copy whose learned parts stay as they are: the estimator as it stands is what is measured."""
    if not modules_of(estimator):
        return estimator
    estimator = copy.deepcopy(estimator)
    for part in modules_of(estimator).values():
        part.eval().requires_grad_(False)
    return estimator


def fitted(estimator: Estimator, problem: Problem, steps: int, seed: int = 0, lr: float = 1e-2) -> Estimator:
    """A copy whose learned parts (critics, control variates, averages) have seen ``steps`` batches of the problem.

    Adam on what the parts leave in ``fit_loss``. Estimators without state come back as they are.
    """
    if not modules_of(estimator) or not steps:
        return estimator
    estimator = copy.deepcopy(estimator)
    optimiser = None
    reseed(problem, seed, 0)
    for _ in range(steps):
        leaf = problem.node.detach().expand(16, *problem.node.shape).clone().requires_grad_()
        estimator(problem.distribution(leaf), problem.cost)
        loss = fit_loss(estimator)
        if loss is None:
            continue
        if optimiser is None:  # some parts are made when they first see the problem
            learned = [p for part in modules_of(estimator).values() for p in part.parameters()]
            optimiser = torch.optim.Adam(learned, lr=lr)
        optimiser.zero_grad()
        loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
        optimiser.step()
    return estimator


def numbers_of(estimator: Estimator, problem: Problem) -> int:
    """How many numbers one estimate makes the cost look at: what it holds in memory, about.

    Raises:
        ValueError: if the estimator refuses the distribution, in its own words.
    """
    distribution = problem.single
    estimator.check(distribution)
    entries = distribution.batch_shape.numel() * distribution.event_shape.numel()
    return max(1, estimator.evaluations_of(distribution) * entries * problem.width)


@dataclass(frozen=True)
class Measured:
    """Moments of an estimator's gradients, and what goes with them.

    Args:
        moments: of the gradients.
        component: of their component along the direction.
        cosine: () mean cosine of one gradient with the direction; 0 for P = 1, where there is only a sign.
        draws: some of the components.
        evaluations: values of the cost that one estimate took, per entry of the batch, as they were counted.
        seconds: that the draws took, of all ranks together.
    """

    moments: Moments
    component: Moments
    cosine: Tensor
    draws: Tensor
    evaluations: float
    seconds: float


def measure(
    estimator: Estimator,
    problem: Problem,
    replicates: int,
    *,
    numbers: int,
    centre: Tensor,
    direction: Tensor,
    seed: int = 0,
    chunk: int | None = None,
    keep: int = 0,
    share: bool = True,
) -> Measured:
    """Moments of ``replicates`` gradient estimates, drawn in chunks, shared out over the ranks of a distributed run.

    Args:
        estimator: is measured as it stands; its state does not change.
        numbers: what one replicate makes the cost look at, from :func:`numbers_of`.
        centre: (P,) about which moments are taken, float64; the same on every rank.
        direction: (P,) unit vector, float64.
        seed: of the draws: chunk i of one seed is always the same.
        chunk: numbers per chunk, by default 2^17 on a CPU and 2^20 elsewhere; more replicates go into further chunks.
        keep: how many components along the direction to return, of this rank's.
        share: whether the ranks of a distributed run share the work; else each does all of it.
    """
    size = max(1, min(integer("replicates", replicates, 2), chunk_size(problem, chunk) // numbers))
    stateful = bool(modules_of(estimator))
    template = frozen(estimator) if stateful else estimator
    ranks = world_size() if share else 1
    scalar = len(direction) == 1  # then the component is the gradient
    total: Moments | None = None
    middle = centre if scalar else centre @ direction[:, None]
    along: Moments | None = None
    cosines = centre.new_zeros(())
    kept: list[Tensor] = []
    seen = 0

    def counting(x: Tensor) -> Tensor:
        nonlocal seen
        value = problem.cost(x)
        seen += value.numel()
        return value

    counted = replace(problem, cost=counting)
    _import_gradients()
    start = _now(problem)
    for index, count in _chunks(replicates, size):
        if ranks > 1 and index % ranks != rank():
            continue
        reseed(problem, seed, index)
        found = gradients(copy.deepcopy(template) if stateful else template, counted, count).double()
        part = Moments.of(found, centre)
        total = part if total is None else total.merge(part)
        component = found if scalar else found @ direction[:, None]
        if not scalar:
            part = Moments.of(component, middle)
            along = part if along is None else along.merge(part)
            cosines = cosines + (component[:, 0] / found.norm(dim=1).clamp(min=1e-300)).sum()
        if sum(map(len, kept)) < keep:
            kept.append(component[:keep, 0])
    seconds = _now(problem) - start
    total = Moments.empty(centre) if total is None else total  # a rank without a chunk
    along = total if scalar else Moments.empty(middle) if along is None else along
    draws = torch.cat(kept)[:keep] if kept else centre.new_zeros(0)
    if ranks > 1:
        total = gather(total)
        along = along if scalar else gather(along)
        cosines, spent, values = summed(torch.stack([cosines, *centre.new_tensor([seconds, seen])])).unbind()
        seconds, seen = float(spent), int(values)
    batch = problem.single.batch_shape.numel()
    return Measured(
        moments=total,
        component=total if scalar else along,
        cosine=cosines / total.count,
        draws=draws,
        evaluations=seen / (batch * total.count),
        seconds=seconds,
    )


def pilot(estimator: Estimator, problem: Problem, numbers: int, seed: int = 0, chunk: int | None = None) -> Tensor:
    """The mean of a few estimates, (P,) float64, the same on every rank."""
    estimator, pieces = frozen(estimator), []
    for index, count in _chunks(PILOT, max(1, min(PILOT, chunk_size(problem, chunk) // numbers))):
        reseed(problem, seed + 1, index)
        pieces.append(gradients(estimator, problem, count).double())
    return torch.cat(pieces).mean(0)


def chunk_size(problem: Problem, chunk: int | None) -> int:
    """The numbers of one chunk: as given, or what suits the problem's device."""
    if chunk is not None:
        return integer("chunk", chunk)
    return CHUNK if problem.node.device.type == "cpu" else WIDE


def reseed(problem: Problem, seed: int, index: int) -> None:
    """Seed the global generator of the problem's device; callers are inside :func:`advrl.seeding.isolated`."""
    device, value = problem.node.device, _seed(seed, index)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)
    torch.default_generator.manual_seed(value)


def _chunks(replicates: int, size: int) -> Iterator[tuple[int, int]]:
    for index, start in enumerate(range(0, replicates, size)):
        yield index, min(size, replicates - start)


def _seed(seed: int, index: int) -> int:
    """Far apart for neighbouring seeds and chunks: a 64-bit mixing function (Steele, Lea & Flood, 2014)."""
    mask = 2**64 - 1
    z = (seed * 0xD1342543DE82EF95 + (index + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


@cache
def _import_gradients() -> None:
    """The first gradient in a process makes torch import for a third of a second: that is no estimator's time."""
    zero = torch.zeros((), device="cpu", requires_grad=True)
    torch.autograd.grad(zero * 1, zero, torch.ones((), device="cpu"))


def _now(problem: Problem) -> float:
    if problem.node.device.type == "cuda":
        torch.cuda.synchronize(problem.node.device)
    return time.perf_counter()
