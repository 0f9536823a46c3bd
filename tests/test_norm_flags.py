"""--norm, --discriminator-norm and --real-label, from the command line's options to what is trained."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import advrl
from advrl.nn import ReferenceBatchNorm, Referenced, VirtualBatchNorm, coupled_samples
from advrl.recipes import Digits, DigitsConditional, Images, Ring
from advrl.recipes.run import train

SMALL = {"steps": 3, "batch_size": 16, "width": 8, "latent": 4, "quiet": True, "device": "cpu"}
CPU = torch.device("cpu")


@pytest.fixture
def pictures(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return tmp_path / "images.npy"


def kinds(net: nn.Module) -> set[type[nn.Module]]:
    known = (nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, ReferenceBatchNorm, VirtualBatchNorm)
    return {type(m) for m in net.modules() if type(m) in known}


@pytest.mark.parametrize(
    ("norm", "layer"),
    [("layer", nn.LayerNorm), ("batch", nn.BatchNorm1d), ("reference", ReferenceBatchNorm),
     ("virtual", VirtualBatchNorm)],
)  # fmt: skip
def test_norm_of_the_digits_generator(norm, layer, tmp_path):
    folder = train(Digits(norm=norm, policy="implicit", out=tmp_path / "run", **SMALL), say=lambda text: None)
    policy = advrl.load(folder, device="cpu").policy.train()
    assert kinds(policy) == {layer}
    z, mates = torch.randn(3, 4), torch.randn(2, 13, 4)
    with torch.no_grad():
        one, other = (policy.mean(torch.cat([z, m]))[:3] for m in mates)
    assert torch.equal(one, other) == (norm != "batch")  # batch-mates matter to batch norm alone


@pytest.mark.parametrize(("norm", "layer"), [("reference", ReferenceBatchNorm), ("virtual", VirtualBatchNorm)])
def test_norm_of_the_convolutional_pair(norm, layer, pictures):
    config = Images(data=pictures, norm=norm, discriminator_norm=norm, packing=2, **SMALL)
    config.validate()
    parts = config.build(CPU)
    generator, discriminator = parts.trainer.generator, parts.trainer.discriminator
    assert kinds(generator) == kinds(discriminator) == {layer}
    assert coupled_samples(discriminator) == 2  # packs, and nothing else: R1 and score functions may stay
    (seen,) = (m for m in discriminator.modules() if isinstance(m, Referenced))
    assert torch.equal(seen.reference.flatten(0, 1).flatten(), parts.real[:128].flatten())
    before = [p.clone() for p in generator.parameters()]
    parts.trainer.step(parts.real[:16])
    moved = [not torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True)]
    assert all(moved)


def test_batch_norm_in_the_discriminator_needs_no_penalty(pictures):
    with pytest.raises(ValueError, match="--discriminator-norm virtual"):
        Images(data=pictures, discriminator_norm="batch", **SMALL).validate()
    config = Images(data=pictures, discriminator_norm="batch", r1=0.0, **SMALL)
    config.validate()
    assert coupled_samples(config.build(CPU).trainer.discriminator) is None
    with pytest.raises(ValueError, match="together"):  # a score function cannot be paid for a whole batch
        replace(config, policy="gaussian", estimator="loo").build(CPU)


@pytest.mark.parametrize(
    ("config", "told"),
    [(Digits(norm="group"), "--norm"), (Digits(norm="virtual", dynamics="optimistic"), "--norm virtual"),
     (Digits(norm="reference", compile=True), "--norm reference"), (DigitsConditional(norm="batch"), "--norm batch"),
     (Ring(real_label=0.0), "--real-label"), (Ring(real_label=1.5), "--real-label")],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_flag(config, told):
    with pytest.raises(ValueError, match=told):
        config.validate()


def test_one_sided_smoothing_is_a_flag():
    """Against cross-entropy the best logit of a sample that only the data have is log(.9 / .1)."""
    objective = Ring(real_label=0.9).build(CPU).trainer.objective
    a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(40):  # Newton's method on the loss of real samples alone
        (slope,) = torch.autograd.grad(objective.d_loss.real(a).sum(), a, create_graph=True)
        (curve,) = torch.autograd.grad(slope.sum(), a)
        a = (a - slope / curve).detach().requires_grad_()
    assert a.item() == pytest.approx(math.log(9.0), abs=1e-10)
    assert Ring().build(CPU).trainer.objective.name == "non-saturating"


def test_smoothing_says_what_it_does_not_go_with():
    with pytest.warns(UserWarning, match="fake label"):
        Ring(real_label=0.9, fake_label=0.1).build(CPU)
    for objective in ("relativistic", "relativistic-average", "ebgan", "began"):
        with pytest.raises(ValueError, match="label"):
            Ring(real_label=0.9, objective=objective).build(CPU)


def test_instance_noise_is_a_flag_of_images_and_fades_out():
    config = Digits(policy="implicit", instance_noise=0.5, **{**SMALL, "steps": 10})
    trainer = config.build(CPU).trainer
    assert [trainer.instance_noise(step) for step in (0, 2, 4, 9)] == pytest.approx([0.5, 0.25, 0.0, 0.0])
    assert Digits(policy="implicit", **SMALL).build(CPU).trainer.instance_noise is None
    with pytest.raises(ValueError, match="--instance-noise"):
        DigitsConditional(instance_noise=0.1).validate()
