r"""Walking in the space of noise: interpolation, arithmetic, truncation, and the noise of a given image.

Normal z in d dimensions lie near the sphere of radius sqrt(d); the straight way between two of them leaves it, the
great circle does not. White (2016). Shapes: B batch, d dimensions, T points on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from advrl.checks import integer, number


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Straight ways: start and end (*, d), t (T,), to (T, *, d)."""
    at = _along(start, end, t)
    return (1 - at) * start + at * end


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Great circles: start and end (*, d), t (T,), to (T, *, d). Shoemake (1985).

        slerp(t) = sin((1 - t) w) / sin w  start + sin(t w) / sin w  end,    w the angle between them

    Ends of one norm keep it on the way; otherwise directions turn evenly while the norm goes from one to the other
    in equal steps. Where the directions are (nearly) the same the way is straight; opposite ones have no single great
    circle, and the way is a straight one too.
    """
    at = _along(start, end, t)
    sizes = [x.norm(dim=-1, keepdim=True) for x in (start, end)]
    tiny = torch.finfo(start.dtype).tiny
    a, b = start / sizes[0].clamp_min(tiny), end / sizes[1].clamp_min(tiny)
    angle = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    straight = sine.abs() < 1e-6
    safe = torch.where(straight, torch.ones_like(sine), sine)
    direction = (((1 - at) * angle).sin() * a + (at * angle).sin() * b) / safe
    return torch.where(straight, lerp(start, end, t), direction * lerp(sizes[0], sizes[1], t))


def truncated_normal(shape: Sequence[int], limit: float, like: Tensor) -> Tensor:
    """z ~ N(0, 1) given |z| <= limit, by inversion: fewer and safer samples. Brock et al. (2019), section 3.1.

    Args:
        shape: of the result.
        limit: above 0; where it is large, z is normal.
        like: gives dtype and device.

    Raises:
        ValueError, TypeError: for a limit that is not above 0.
    """
    number("limit", limit, 0.0, exclusive=True)
    share = math.erf(limit / math.sqrt(2))
    u = torch.empty(*shape, dtype=like.dtype, device=like.device).uniform_(-share, share)
    return (math.sqrt(2) * torch.erfinv(u)).clamp(-limit, limit)


def class_means(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean noise (classes, d) of the z (B, d) whose samples have each label (B,).

    Raises:
        ValueError: if a class has none, naming it.
    """
    counts = torch.bincount(labels, minlength=integer("classes", classes))
    if int(counts.min()) == 0:
        raise ValueError(f"class {int(counts.argmin())} is not among the {len(z)} samples: draw more")
    return z.new_zeros(classes, z.shape[1]).index_add_(0, labels, z) / counts[:, None].to(z.dtype)


def arithmetic(expression: str, means: Tensor) -> Tensor:
    """The sum (d,) that ``expression``, as ``7-1+4``, makes of attribute means (K, d). Radford et al. (2016), 6.3.2.

    Raises:
        ValueError: if it is no sum of class numbers 0 .. K - 1.
    """
    total = torch.zeros_like(means[0])
    for sign, index in terms(expression, len(means)):
        total = total + sign * means[index]
    return total


def terms(expression: str, classes: int) -> list[tuple[int, int]]:
    """(sign, class) of every term of ``7-1+4``.

    Raises:
        ValueError: if it is no sum of class numbers 0 .. classes - 1.
    """
    text = expression.replace(" ", "")
    signed = (text if text[:1] in ("+", "-") else f"+{text}").replace("-", " -").replace("+", " +").split()
    bad = not signed or any(not term[1:].isdigit() or int(term[1:]) >= classes for term in signed)
    if bad:
        raise ValueError(f"expected a sum of classes 0 to {classes - 1}, such as 7-1+4, got {expression!r}")
    return [(-1 if term[0] == "-" else 1, int(term[1:])) for term in signed]


def project(
    decode: Callable[[Tensor], Tensor],
    target: Tensor,
    starts: Tensor,
    *,
    steps: int = 300,
    rate: float = 0.05,
    prior: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """Noise whose image is nearest to a target, by Adam from several starts at once. Zhu et al. (2016), section 3.

        minimise  mean |decode(z) - target|^2 + prior |z|^2 / d

    Args:
        decode: z (B, d) to images (B, *event), differentiable.
        target: (*event) an image.
        starts: (B, d), B places to start from; the best end is kept.
        steps: of Adam.
        rate: of Adam.
        prior: weight of the distance from the origin, where noise is likely.

    Returns:
        z (d,) and its mean squared error, ().

    Raises:
        ValueError: if images have another shape than the target.
    """
    integer("steps", steps), number("rate", rate, 0.0, exclusive=True), number("prior", prior, 0.0)
    z = starts.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr=rate)
    for step in range(steps + 1):
        images = decode(z)
        if images.shape[1:] != target.shape:
            raise ValueError(f"images have shape {tuple(images.shape[1:])}, the target {tuple(target.shape)}")
        errors = (images - target).square().flatten(1).mean(1)
        if step == steps:
            break
        (gradient,) = torch.autograd.grad((errors + prior * z.square().mean(1)).sum(), z)
        z.grad = gradient
        optimiser.step()
    best = errors.argmin()
    return z[best].detach(), errors[best].detach()


def _along(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    if start.shape != end.shape or start.dim() == 0 or t.dim() != 1:
        raise ValueError(
            f"need ends of one shape (*, d) and t (T,), got {tuple(start.shape)}, {tuple(end.shape)} and "
            f"{tuple(t.shape)}"
        )
    return t.reshape(-1, *[1] * start.dim())
