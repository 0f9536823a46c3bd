"""Metrics against closed forms, another library, slow loops, and what identical distributions must score."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import scipy.linalg
import torch
from torch import Tensor

from advrl.metrics import class_shares, confident_share, frechet_distance, memorisation_ratio, precision_recall

FALSE_ALARM = 1e-6
BOUND = NormalDist().inv_cdf(1 - FALSE_ALARM / 2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_moments(mean: Tensor, covariance: Tensor, number: int, seed: int) -> Tensor:
    """Rows whose sample mean and covariance are exactly these: random ones, whitened and mapped."""
    rows = normal(number, len(mean), seed=seed)
    rows = rows - rows.mean(0)
    rows = torch.linalg.solve_triangular(torch.linalg.cholesky(rows.T @ rows / (number - 1)), rows.T, upper=False).T
    return rows @ torch.linalg.cholesky(covariance).T + mean


def covariance(size: int, seed: int) -> Tensor:
    root = normal(size, size, seed=seed)
    return root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64)


def test_frechet_distance_of_known_gaussians():
    # In one dimension, and where covariances commute: |m1 - m2|^2 + |s1 - s2|^2.
    mean, other = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    scale, wide = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.1, 0.5]).double()
    real = with_moments(mean, torch.diag(scale**2), 50, seed=0)
    fake = with_moments(other, torch.diag(wide**2), 80, seed=1)
    exact = (mean - other).square().sum() + (scale - wide).square().sum()
    torch.testing.assert_close(frechet_distance(real, fake), exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_agrees_with_scipy(seed):
    first, second = covariance(6, seed), covariance(6, seed + 10)
    real = with_moments(normal(6, seed=seed), first, 40, seed)
    fake = with_moments(torch.zeros(6).double(), second, 30, seed + 1)
    root = torch.from_numpy(scipy.linalg.sqrtm((first @ second).numpy()).real)
    exact = real.mean(0).square().sum() + first.trace() + second.trace() - 2 * root.trace()
    torch.testing.assert_close(frechet_distance(real, fake), exact, rtol=1e-9, atol=1e-9)


def test_frechet_distance_is_symmetric_and_unmoved_by_rotation_shift_and_order():
    real, fake = normal(40, 5), normal(60, 5, seed=1) * 1.5 + 0.3
    distance = frechet_distance(real, fake)
    turn = torch.linalg.qr(normal(5, 5, seed=2)).Q
    torch.testing.assert_close(frechet_distance(fake, real), distance)
    torch.testing.assert_close(frechet_distance(real @ turn + 7, fake @ turn + 7), distance)
    torch.testing.assert_close(frechet_distance(3 * real, 3 * fake), 9 * distance)
    torch.testing.assert_close(frechet_distance(real.flip(0), fake), distance)
    assert 0 <= frechet_distance(real, real) < 1e-9


def test_frechet_distance_where_covariances_are_singular():
    few = normal(4, 20)  # rank 3
    assert 0 <= frechet_distance(few, few) < 1e-6
    flat = torch.zeros(10, 3)
    torch.testing.assert_close(frechet_distance(flat, flat + 2), torch.tensor(12.0).double())
    assert frechet_distance(few.float(), few.float()).dtype == torch.float64


def loops(real: Tensor, fake: Tensor, k: int) -> dict[str, float]:
    """The four definitions, word by word."""

    def radius(points: Tensor, i: int) -> float:
        return sorted(math.dist(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    in_real = [[math.dist(x, y) <= radius(real, i) for i, x in enumerate(real)] for y in fake]
    in_fake = [[math.dist(x, y) <= radius(fake, j) for j, y in enumerate(fake)] for x in real]
    return {
        "precision": sum(map(any, in_real)) / len(fake),
        "recall": sum(map(any, in_fake)) / len(real),
        "density": sum(map(sum, in_real)) / (k * len(fake)),
        "coverage": sum(any(row[i] for row in in_real) for i in range(len(real))) / len(real),
    }


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", [1, 50, 10_000])
def test_neighbour_metrics_agree_with_loops(k, block, monkeypatch):
    monkeypatch.setattr("advrl.metrics.neighbours.BLOCK", block)
    real, fake = normal(14, 2), 0.8 * normal(11, 2, seed=1) + 0.5
    for a, b in ((real, fake), (real.round(), fake.round()), (real, real[:9])):  # rounded: ties and copies
        result = {name: value.item() for name, value in precision_recall(a, b, k).items()}
        assert result == pytest.approx(loops(a, b, k), abs=1e-12)


def test_neighbour_metrics_of_one_distribution():
    """Naeem et al. (2020): density 1; coverage 1 - prod_{i=1..k} (N - i) / (2 N - i), for any distribution.

    The second is exact: a real x_i is missed if its k nearest of the N - 1 + N other points are all real ones.
    """
    number, k, rounds = 60, 5, 300
    results = []
    for seed in range(rounds):
        both = normal(2 * number, 3, seed=seed).exp()
        results.append(
            torch.stack([precision_recall(both[:number], both[number:], k)[m] for m in ("density", "coverage")])
        )
    draws = torch.stack(results)
    exact = torch.tensor([1.0, 1 - math.prod((number - i) / (2 * number - i) for i in range(1, k + 1))]).double()
    z = (draws.mean(0) - exact) / (draws.std(0) / math.sqrt(rounds))
    assert z.abs().max() < NormalDist().inv_cdf(1 - FALSE_ALARM / 4)
    assert exact[1] == pytest.approx(1 - 2**-k, abs=0.01)


def test_neighbour_metrics_tell_fidelity_from_diversity():
    real = torch.cat([normal(100, 2), normal(100, 2, seed=1) + 20])
    dropped = precision_recall(real, normal(200, 2, seed=2))
    assert dropped["precision"] > 0.9 and dropped["recall"] < 0.55 and dropped["coverage"] < 0.55
    far = precision_recall(real, real + 1e3)
    assert all(value == 0 for value in far.values())
    copies = precision_recall(real, real)
    assert copies["precision"] == copies["recall"] == copies["coverage"] == 1


def test_the_ratio_is_one_for_fresh_samples_and_zero_for_copies():
    rounds = 200
    draws = torch.stack(
        [memorisation_ratio(*normal(3, 40, 4, seed=seed).unbind()).log() for seed in range(rounds)]
    )  # the halves can be swapped, which flips the logarithm's sign: its mean is 0
    assert (draws.mean() / (draws.std() / math.sqrt(rounds))).abs() < BOUND
    train, held_out = normal(30, 1, 4, 4), normal(30, 1, 4, 4, seed=1)
    assert memorisation_ratio(train[:7], train, held_out) == 0
    assert memorisation_ratio(held_out, train, held_out) == math.inf
    assert memorisation_ratio(train, train, train) == 1
    near = memorisation_ratio(train + 0.01 * normal(30, 1, 4, 4, seed=2), train, held_out)
    assert 0 < near < 0.05


def test_the_ratio_agrees_with_all_distances_in_blocks_too(monkeypatch):
    fake, train, held_out = normal(50, 6, seed=3) + 100, normal(20, 6) + 100, normal(20, 6, seed=1) + 100
    exact = torch.cdist(fake, train).amin(1).mean() / torch.cdist(fake, held_out).amin(1).mean()
    for block in (1, 130, 10**6):
        monkeypatch.setattr("advrl.metrics.neighbours.BLOCK", block)
        torch.testing.assert_close(memorisation_ratio(fake, train, held_out), exact, rtol=1e-9, atol=0)


def test_class_figures():
    shares = class_shares(torch.tensor([0, 2, 2, 3]), 5)
    torch.testing.assert_close(shares, torch.tensor([0.25, 0, 0.5, 0.25, 0], dtype=torch.float64))
    probs = torch.tensor([[0.95, 0.05], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]], dtype=torch.float64)
    assert confident_share(probs) == 0.5
    assert confident_share(probs, threshold=0.8) == 0.75
    assert confident_share(probs, threshold=0) == 1


ROWS = torch.zeros(8, 3)
BAD = ROWS.clone()
BAD[2, 1] = math.nan


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: frechet_distance(ROWS, ROWS[:1]), "fake must have at least 2 rows, got 1"),
        (lambda: frechet_distance(ROWS, ROWS[:, :2]), r"one shape, got real \(3,\), fake \(2,\)"),
        (lambda: frechet_distance(BAD, ROWS), r"real must be finite, but entry \(2, 1\) is nan"),
        (lambda: frechet_distance(ROWS[0], ROWS), r"real must have shape \(number, features\), got \(3,\)"),
        (lambda: frechet_distance(ROWS[:, :0], ROWS[:, :0]), "real must have shape"),
        (lambda: frechet_distance(ROWS, ROWS.to("meta")), "on one device, got real on cpu, fake on meta"),
        (lambda: precision_recall(ROWS, ROWS, k=8), "k must be below both numbers of rows, got k=8 for 8 real"),
        (lambda: precision_recall(ROWS, ROWS, k=0), "k must be at least 1"),
        (lambda: precision_recall(ROWS, BAD), "fake must be finite"),
        (lambda: memorisation_ratio(ROWS, ROWS, ROWS[:7]), "equally many rows, got 8 and 7"),
        (lambda: memorisation_ratio(ROWS[:0], ROWS, ROWS), "fake must have at least 1 rows"),
        (lambda: memorisation_ratio(BAD, ROWS, ROWS), "fake must be finite"),
        (lambda: memorisation_ratio(ROWS[:, None], ROWS, ROWS), r"one shape, got fake \(1, 3\)"),
        (lambda: class_shares(torch.tensor([0, 3]), 3), r"in \[0, 3\), got values from 0 to 3"),
        (lambda: class_shares(torch.tensor([-1]), 3), "from -1"),
        (lambda: class_shares(torch.tensor([0.0]), 3), "must be integers"),
        (lambda: class_shares(torch.zeros(0, dtype=torch.int64), 3), "at least one"),
        (lambda: confident_share(torch.tensor([[2.0, -1.0]])), "take a softmax"),
        (lambda: confident_share(torch.tensor([[2.0, 1.0]])), "take a softmax"),
        (lambda: confident_share(torch.tensor([[math.nan, 1.0]])), "probs must be finite"),
        (lambda: confident_share(torch.tensor([0.5, 0.5])), r"shape \(number, classes\)"),
        (lambda: confident_share(torch.tensor([[0.5, 0.5]]), threshold=2), "threshold must be"),
    ],
)
def test_metrics_refuse(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.usefixtures("meta")
def test_metrics_make_their_tensors_where_the_input_is():
    rows = torch.linspace(0, 1, 60, device="cpu").sin().view(20, 3)
    assert frechet_distance(rows, rows + 1) > 0
    assert precision_recall(rows, rows)["coverage"] == 1
    assert memorisation_ratio(rows, rows, rows) == 1
    assert class_shares(torch.tensor([0, 1], device="cpu"), 2).sum() == 1
    assert confident_share(torch.tensor([[1.0, 0.0]], device="cpu")) == 1
