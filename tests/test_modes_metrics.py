"""Distances and scores of samples against closed forms and plain loops; toys and stacked images against their maths."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from advrl.data import TOYS, ImageData, Stacked, checkerboard, stacked, swiss_roll, two_moons
from advrl.metrics import (
    class_coverage,
    diluted_log_likelihood,
    energy_distance,
    inception_score,
    median_bandwidth,
    mmd,
    parzen_log_likelihood,
    sliced_wasserstein,
)
from tests.statistics import assert_unbiased

FALSE_ALARM = 1e-6


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bandwidth", [0.7, (0.5, 2.0)])
def test_mmd_and_energy_are_what_the_loops_say(bandwidth):
    x, y = normal(7, 3), normal(5, 3, seed=1) + 1
    widths = bandwidth if isinstance(bandwidth, tuple) else (bandwidth,)

    def kernel(a: Tensor, b: Tensor) -> float:
        return sum(math.exp(-(math.dist(a, b) ** 2) / (2 * h * h)) for h in widths) / len(widths)

    def distance(a: Tensor, b: Tensor) -> float:
        return -2 * math.dist(a, b)

    for measured, k, times in ((mmd(x, y, bandwidth), kernel, 1), (energy_distance(x, y), distance, 0.5)):
        within = [
            sum(k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) / (len(s) * (len(s) - 1))
            for s in (x, y)
        ]
        across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
        assert float(measured) == pytest.approx(times * (sum(within) - 2 * across), abs=1e-12)


def test_mmd_and_energy_are_unbiased_for_known_gaussians():
    # E k(x, y) for x - y ~ N(m, s^2): h / sqrt(h^2 + s^2) exp(-m^2 / (2 (h^2 + s^2))); E|x - y| is the folded normal's.
    shift, h, draws = 0.8, 1.3, 2_000
    x, y = normal(draws, 6, 1), normal(draws, 8, 1, seed=1) + shift

    def kernel(m: float) -> float:
        return h / math.sqrt(h * h + 2) * math.exp(-m * m / (2 * (h * h + 2)))

    def folded(m: float) -> float:
        return 2 / math.sqrt(math.pi) * math.exp(-m * m / 4) + m * math.erf(m / 2)

    found = torch.stack([torch.stack([mmd(a, b, h), energy_distance(a, b)]) for a, b in zip(x, y, strict=True)])
    exact = torch.tensor([2 * kernel(0) - 2 * kernel(shift), 2 * folded(shift) - 2 * folded(0)], dtype=torch.float64)
    assert_unbiased(found, exact)


def test_median_bandwidth_and_what_has_none():
    assert median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]])) == 2.0
    with pytest.raises(ValueError, match="give a bandwidth"):
        median_bandwidth(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="bandwidth must be"):
        mmd(normal(3, 2), normal(3, 2), 0.0)


@pytest.mark.parametrize("power", [1, 2])
def test_sliced_wasserstein_of_a_shift(power):
    # In one dimension: exactly the shift. In E, mean |u.m|^2 = |m|^2 / E over directions, here to their sampling error.
    x = normal(50, 1)
    assert float(sliced_wasserstein(x, x.flip(0) + 0.7, power=power)) == pytest.approx(0.7)
    assert float(sliced_wasserstein(x, x.flip(0), power=power)) == 0
    y, shift, lines = normal(40, 4), torch.tensor([1.0, 2.0, 0.0, -1.0]).double(), 4_000
    squared = float(sliced_wasserstein(y, y + shift, lines)) ** 2
    # (u.m)^2 / |m|^2 is Beta(1/2, 3/2), of mean 1/4 and variance 1/16.
    bound = NormalDist().inv_cdf(1 - FALSE_ALARM / 2) * 6 * math.sqrt(1 / 16 / lines)
    assert abs(squared - 6 / 4) < bound


def test_sliced_wasserstein_needs_equal_numbers():
    with pytest.raises(ValueError, match="equally many"):
        sliced_wasserstein(normal(3, 2), normal(4, 2))


def test_inception_score_of_known_probabilities():
    assert float(inception_score(torch.eye(7).repeat(3, 1))) == pytest.approx(7)
    assert float(inception_score(torch.tensor([[0.2, 0.5, 0.3]]).repeat(9, 1))) == pytest.approx(1)
    assert float(inception_score(torch.eye(7)[[0, 1, 0, 1]])) == pytest.approx(2)
    probs = normal(6, 4).softmax(1)
    mean = probs.mean(0)
    kl = sum(float(p) * math.log(float(p / q)) for row in probs for p, q in zip(row, mean, strict=True)) / 6
    assert float(inception_score(probs)) == pytest.approx(math.exp(kl))
    with pytest.raises(ValueError, match="softmax"):
        inception_score(normal(6, 4))


def test_class_coverage_counts_and_both_directions():
    found = class_coverage(torch.tensor([0, 0, 0, 2]), 3)
    assert float(found.modes) == 2 and math.isinf(found.kl)
    assert float(found.reverse_kl) == pytest.approx(0.75 * math.log(2.25) + 0.25 * math.log(0.75))
    even = class_coverage(torch.arange(12) % 3, 3)
    assert (float(even.modes), float(even.kl), float(even.reverse_kl)) == pytest.approx((3, 0, 0), abs=1e-15)
    one = class_coverage(torch.zeros(5, dtype=torch.int64), 1000)
    assert float(one.reverse_kl) == pytest.approx(math.log(1000))


def test_parzen_is_the_mean_of_gaussians():
    x, y, h = normal(4, 3), normal(5, 3, seed=1), 0.6
    exact = torch.stack([
        torch.stack([torch.distributions.Normal(b, h).log_prob(a).sum() for b in y]).exp().mean().log() for a in x
    ])  # fmt: skip
    torch.testing.assert_close(parzen_log_likelihood(x, y, h), exact)


def test_theis_noise_that_costs_log_100():
    # In 3,072 dimensions: p a narrow Gaussian, q a wide one. The diluted model draws noise 99 times of 100, and loses
    # log 100 of thousands of nats; never more, whatever the noise.
    p = torch.distributions.Normal(torch.zeros(3072).double(), 0.1)
    q = torch.distributions.Normal(torch.zeros(3072).double(), 5.0)
    x = 0.1 * normal(20, 3072)
    model, noise = p.log_prob(x).sum(1), q.log_prob(x).sum(1)
    lost = model - diluted_log_likelihood(model, noise)
    assert (model - noise).min() > 5_000
    assert (lost <= math.log(100) + 1e-9).all() and (lost > math.log(100) - 1e-9).all()
    assert diluted_log_likelihood(model, model).allclose(model)


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_fresh_finite_and_repeatable(name):
    first, again = (TOYS[name](500, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.shape == (500, 2) and first.isfinite().all() and first.equal(again)
    assert not first.equal(TOYS[name](500, generator=torch.Generator().manual_seed(4)))
    with pytest.raises(ValueError, match="n must be"):
        TOYS[name](0)


def test_toys_lie_where_they_should():
    generator = torch.Generator().manual_seed(0)
    roll = swiss_roll(2_000, 0.0, generator) * 1.5 * math.pi
    t = roll.norm(dim=1)
    torch.testing.assert_close(torch.stack([t * t.cos(), t * t.sin()], 1), roll, atol=1e-4, rtol=0)
    moons = two_moons(2_000, 0.0, generator)
    upper, lower = moons.norm(dim=1), (moons - torch.tensor([1.0, 0.5])).norm(dim=1)
    assert torch.minimum((upper - 1).abs(), (lower - 1).abs()).max() < 1e-5
    board = checkerboard(16_000, 4, generator)
    column, row = (board + 2).floor().long().unbind(1)
    assert ((column + row) % 2 == 0).all() and board.abs().max() <= 2
    counts = (4 * row + column).bincount(minlength=16)[[0, 2, 5, 7, 8, 10, 13, 15]].double()  # eight black squares
    bound = NormalDist().inv_cdf(1 - FALSE_ALARM / 16) * math.sqrt(16_000 * 1 / 8 * 7 / 8)
    assert (counts - 2_000).abs().max() < bound


def test_stacked_images_are_three_of_the_data():
    images = torch.arange(6.0).div(6).reshape(6, 1, 1, 1).expand(6, 1, 2, 2)
    data = Stacked("toy", images, torch.tensor([0, 1, 2, 0, 1, 2]), 3)
    assert (data.shape, data.modes) == ((3, 2, 2), 27)
    drawn = data.sample(9_000, torch.Generator().manual_seed(0))
    which = drawn[:, :, 0, 0].mul(6).round().long()
    assert drawn.shape == (9_000, 3, 2, 2) and (drawn == drawn[:, :, :1, :1]).all()
    mode = data.mode(data.labels[which])
    assert mode.equal(sum(data.labels[which[:, c]] * 3 ** (2 - c) for c in range(3)))
    counts = mode.bincount(minlength=27).double()
    bound = NormalDist().inv_cdf(1 - FALSE_ALARM / 54) * math.sqrt(9_000 / 27)
    assert (counts - 9_000 / 27).abs().max() < bound
    with pytest.raises(ValueError, match="labels"):
        stacked(ImageData("bare", images, images))
