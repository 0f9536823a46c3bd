"""What can be done with a trained generator's noise: walks, sums of classes, truncation, edits of a given image.

Each leaves a picture and returns what it shows. Everything is drawn in ``isolated(seed)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advrl.checks import integer, number
from advrl.nn import ConditionalPolicy, arithmetic, class_means, lerp, project, slerp, truncated_normal
from advrl.nn.latent import terms
from advrl.plots import sample_sheet, save_png
from advrl.recipes.run import Run, RunError
from advrl.seeding import isolated

ON_THE_WAY = 10  # images from one end of a walk to the other
ROWS = 8
LOOKED_AT = 4_000  # samples behind the mean noise of a class
STARTS = 16
SPREAD = 0.5  # noise around a sum of classes, as a share of the usual


def interpolate(run: Run, path: Path, *, rows: int = ROWS, seed: int = 0) -> Tensor:
    """Walks between random pairs of noise: great circles and straight ways side by side, by the policy's mean.

    What a conditional policy is asked for goes straight from one end's to the other's in both.

    Returns:
        (rows, 10, C, H, W) images of the great circles.

    Raises:
        ValueError: if the run draws no images.
    """
    policy = run.policy
    with isolated(seed), torch.no_grad():
        start, end = (_noise(run, integer("-n", rows)) for _ in range(2))
        t = torch.linspace(0, 1, ON_THE_WAY, dtype=start.dtype, device=start.device)
        cut = policy.latent
        straight = lerp(start, end, t)
        circles = torch.cat([slerp(start[:, :cut], end[:, :cut], t), straight[..., cut:]], -1)
        panels = [policy.mean(way.transpose(0, 1).flatten(0, 1)) for way in (circles, straight)]
    _check_images(run, panels[0])
    titled = dict(zip(("great circles (slerp)", "straight ways (lerp)"), panels, strict=True))
    _draw(titled, f"{run.folder.name}: from one z to another", path, ON_THE_WAY)
    return panels[0].unflatten(0, (rows, ON_THE_WAY))


def truncate(run: Run, limit: float, n: int, *, seed: int = 0) -> Tensor:
    """``n`` samples (n, *event) whose normal noise stays within ``limit``: better ones, less various."""
    with isolated(seed), torch.no_grad():
        z = _noise(run, integer("-n", n))
        z[:, : run.policy.latent] = truncated_normal((n, run.policy.latent), number("--truncation", limit), z)
        return run.policy.sample(n, z)


def sum_of_classes(run: Run, expression: str, path: Path, *, n: int = 32, seed: int = 0) -> dict[str, Any]:
    """What lies around mean(z_a) - mean(z_b) + mean(z_c), where z_a are those whose samples are of class a.

    Classes are told by the evaluator's classifier, of :data:`LOOKED_AT` samples.

    Returns:
        ``shares``: of each class among ``n`` samples around the sum; ``images``: those samples.

    Raises:
        ValueError: for an expression that is no sum of classes, or a run whose data have no labels.
    """
    policy = run.policy
    classifier = classifier_of(run)
    known = classifier.head.out_features
    named = terms(expression, known)
    with isolated(seed), torch.no_grad():
        means = means_of_classes(run, classifier)
        total = arithmetic(expression, means)
        noise = SPREAD * torch.randn(integer("-n", n), *total.shape, dtype=total.dtype, device=total.device)
        images = policy.sample(n, total + noise)
        panels = {
            f"around the mean of {label}": policy.sample(n, means[label] + noise)
            for label in dict.fromkeys(label for _, label in named)
        }
        seen = classifier(images).argmax(1)
        shares = torch.bincount(seen, minlength=known) / n
    _draw({**panels, f"around {expression}": images}, f"{run.folder.name}: {expression}", path, 4)
    return {"shares": shares, "images": images}


def edit(run: Run, image: Tensor, change: str, path: Path, *, strength: float = 1.0, seed: int = 0) -> dict[str, Any]:
    """Find an image's noise, move it by a sum of classes, decode.

    Args:
        run: a run on images.
        image: (C, H, W) in [-1, 1].
        change: classes to go to and from, as ``8-3``; empty for the projection alone.
        path: of the picture.
        strength: how many times the sum is added in the end.
        seed: of the starts.

    Returns:
        ``error``: mean squared error of the projection; ``z`` (d,); ``images`` (10, C, H, W) from the projection to the
        end, by the policy's mean.

    Raises:
        ValueError: for an image of another shape, a conditional run (its class would have to be found too), or a
            change that is no sum of classes.
    """
    policy = run.policy
    if isinstance(policy, ConditionalPolicy):
        raise ValueError(f"{run.folder} draws what it is asked for, so that nothing is to be edited: ask for another")
    number("--strength", strength)
    with isolated(seed):
        starts = policy.noise(STARTS)
        z, error = project(lambda at: policy.decode(policy.distribution(at).mean), image, starts)
        direction = torch.zeros_like(z)
        if change:
            direction = arithmetic(change, means_of_classes(run, classifier_of(run)))
        with torch.no_grad():
            t = torch.linspace(0, strength, ON_THE_WAY, dtype=z.dtype, device=z.device)
            images = policy.mean(z + t[:, None] * direction)
    _check_images(run, images)
    panels = {"image": image[None], "found": images[:1]}
    if change:
        panels[f"plus 0 to {strength:g} times {change}"] = images
    _draw(panels, f"{run.folder.name}: mean squared error {float(error):.3f}", path, ON_THE_WAY)
    return {"error": error, "z": z, "images": images}


def read_image(path: Path, shape: tuple[int, ...], *, light_ink: bool = False) -> Tensor:
    """A picture as (C, H, W) in [-1, 1], resized; of one channel, dark is ink (+1) as in the pictures of this package.

    Raises:
        RunError: if the file is no picture.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    channels, height, width = shape
    try:
        with Image.open(path) as file:
            picture = file.convert("L" if channels == 1 else "RGB").resize((width, height), Image.Resampling.BOX)
    except UnidentifiedImageError as error:
        raise RunError(f"{path} is no picture") from error
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 127.5 - 1)
    pixels = pixels[None] if channels == 1 else pixels.movedim(-1, 0)
    return -pixels if channels == 1 and not light_ink else pixels


def classifier_of(run: Run) -> Any:
    """The evaluator's classifier.

    Raises:
        ValueError: if there is none.
    """
    classifier = getattr(run.config.build(run.device).evaluator, "classifier", None)
    if classifier is None:
        raise ValueError(f"{run.folder} has no classes to compute with: its data have no labels")
    return classifier


@torch.no_grad()
def means_of_classes(run: Run, classifier: Any, number: int = LOOKED_AT) -> Tensor:
    """Mean noise (classes, d) of samples that the classifier puts in each class.

    Raises:
        ValueError: if no sample is of some class.
    """
    z = run.policy.noise(number)
    labels = torch.cat([classifier(run.policy.mean(part)).argmax(1) for part in z.split(500)])
    return class_means(z, labels, classifier.head.out_features)


def _noise(run: Run, n: int) -> Tensor:
    policy = run.policy
    return policy.ask(policy.asked(n)) if isinstance(policy, ConditionalPolicy) else policy.noise(n)


def _check_images(run: Run, samples: Tensor) -> None:
    if samples.dim() != 4:
        raise ValueError(f"{run.folder} draws samples of shape {tuple(samples.shape[1:])}, and this needs images")


def _draw(panels: dict[str, Tensor], title: str, path: Path, columns: int) -> None:
    save_png(sample_sheet({k: v.clamp(-1, 1) for k, v in panels.items()}, title=title, columns=columns), path)
