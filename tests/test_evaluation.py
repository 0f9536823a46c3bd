"""Evaluation: what each kind of bad generator scores, and that looking at one changes nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advrl import seeding
from advrl.agents.evaluation import Evaluator
from advrl.agents.report import Estimate, Report
from advrl.data import ImageData, digits

DATA = digits()


def sixteenths(images: Tensor) -> Tensor:
    return (images * 16).round() / 8 - 1


TRAIN, HELD_OUT = sixteenths(DATA.train), sixteenths(DATA.held_out)


def copies(n: int) -> Tensor:
    return TRAIN[torch.randint(len(TRAIN), (n,))]


def noisy_copies(n: int) -> Tensor:
    return (copies(n) + 0.1 * torch.randn(n, 1, 8, 8)).clamp(-1, 1)


def noise(n: int) -> Tensor:
    return 2 * torch.rand(n, 1, 8, 8) - 1


def independent(n: int) -> Tensor:
    """Binomial pixels with the right marginals and nothing between them."""
    return torch.distributions.Binomial(16, DATA.train.mean(0)).sample((n,)) / 8 - 1


def dropping(n: int) -> Tensor:
    """Real held-out images, blurred into new ones, of four classes only."""
    assert DATA.held_out_labels is not None
    some = HELD_OUT[DATA.held_out_labels < 4]
    return some[torch.randint(len(some), (n,))] * 0.99


SAMPLERS = {f.__name__: f for f in (copies, noisy_copies, noise, independent, dropping)}


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory) -> Evaluator:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVRL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return Evaluator(DATA, sixteenths, classifier_steps=250)


@pytest.fixture(scope="module")
def reports(evaluator) -> dict[str, Report]:
    return {name: evaluator.evaluate(sampler, splits=3) for name, sampler in SAMPLERS.items()}


def figures(report: Report, row: str = "generated") -> dict[str, float]:
    return {name: estimate.mean for name, estimate in report.rows[row].items()}


def test_the_setting_is_as_promised(reports):
    report = reports["copies"]
    assert (report.n, report.splits, report.k, report.real) == (898, 3, 5, (899, 898))
    assert report.accuracy is not None and report.accuracy >= 0.96
    assert list(report.rows) == ["generated", "real halves", "training half", "held-out half"]
    assert set(report.rows["generated"]) == set(report.rows["training half"])
    assert "memorisation" not in report.rows["real halves"] and list(report.rows["held-out half"]) == ["confident"]
    for shares in report.class_shares.values():
        assert len(shares) == 10 and sum(shares) == pytest.approx(1)
    assert report.rows["training half"]["precision"].error is None
    assert 0 < report.rows["generated"]["precision"].error < 0.02


def test_real_rows_are_the_same_beside_every_sampler(reports):
    first = reports["copies"]
    for report in reports.values():
        for row in ("real halves", "training half", "held-out half"):
            assert report.rows[row] == first.rows[row]


def test_real_images_score_like_real_images(reports):
    real = figures(reports["copies"], "real halves")
    expected = 1 - math.prod((898 - i) / (2 * 898 - i) for i in range(1, 6))  # Naeem et al. (2020), for any features
    # A halving's coverage is a mean over 898 reals, each missed or not; three times the error of independent ones.
    assert abs(real["coverage"] - expected) < 3 * math.sqrt(expected * (1 - expected) / 898)
    assert real["precision"] > 0.9 and real["recall"] > 0.9 and abs(real["density"] - 1) < 0.1


def test_only_the_ratio_catches_a_memoriser(reports):
    by_heart, real = figures(reports["copies"], "training half"), figures(reports["copies"], "real halves")
    assert by_heart["memorisation"] == 0 and by_heart["precision"] > 0.9 and by_heart["coverage"] > 0.9
    assert by_heart["frechet"] < 2 * real["frechet"]  # so well it scores on everything else
    assert figures(reports["copies"])["memorisation"] < 0.01  # 898 of 899 images were compared with
    assert 0.01 < figures(reports["noisy_copies"])["memorisation"] < 0.5
    for fresh in ("noise", "independent"):
        assert figures(reports[fresh])["memorisation"] == pytest.approx(1, abs=0.05)


def test_noise_is_caught_by_all_but_the_ratio(reports):
    for name in ("noise", "independent"):
        bad, real = figures(reports[name]), figures(reports[name], "real halves")
        assert bad["coverage"] < 0.1 and bad["recall"] < 0.2 and bad["frechet"] > 20 * real["frechet"]
        assert min(reports[name].class_shares["generated"]) < 0.02
    assert figures(reports["noise"])["density"] < 0.2
    held_out = figures(reports["noise"], "held-out half")["confident"]
    assert figures(reports["noise"])["confident"] < held_out - 0.2


def test_a_dropped_class_is_caught_by_diversity_and_shares(reports):
    bad, real = figures(reports["dropping"]), figures(reports["dropping"], "real halves")
    assert bad["precision"] > 0.9  # fidelity alone would not see it
    assert bad["recall"] < real["recall"] - 0.2 and bad["coverage"] < 0.6 and bad["frechet"] > 10 * real["frechet"]
    shares = reports["dropping"].class_shares["generated"]
    assert min(shares[:4]) > 0.2 and max(shares[4:]) < 0.02


def test_the_quick_figure_agrees_and_holds_no_held_out_image(evaluator, reports):
    quick = {name: evaluator.fast(sampler) for name, sampler in SAMPLERS.items()}
    assert quick["copies"]["frechet"] < quick["noisy_copies"]["frechet"] < quick["dropping"]["frechet"]
    assert quick["dropping"]["frechet"] < quick["noise"]["frechet"]
    assert quick["dropping"]["share_min"] < 0.01 and 0.2 < quick["dropping"]["share_max"] < 0.3
    kept = evaluator._held_out_features
    try:
        evaluator._held_out_features = torch.full_like(kept, math.nan)
        assert evaluator.fast(copies) == quick["copies"]
    finally:
        evaluator._held_out_features = kept


def test_looking_changes_no_generator_and_repeats_itself(evaluator, reports):
    torch.manual_seed(7)
    before = seeding.rng_state()
    first = evaluator.evaluate(copies, splits=1)
    quick = evaluator.fast(copies)
    Evaluator(DATA, sixteenths, classifier_steps=1)
    after = seeding.rng_state()
    assert torch.equal(before["torch"], after["torch"]) and before["python"] == after["python"]
    assert torch.equal(before["numpy"]["keys"], after["numpy"]["keys"])
    torch.manual_seed(8)
    assert evaluator.fast(copies) == quick and evaluator.evaluate(copies, splits=1) == first


def test_a_report_can_be_stored_and_read(reports):
    for report in reports.values():
        assert json.loads(json.dumps(report.as_dict(), allow_nan=False)) == report.as_dict()
    content = reports["copies"].as_dict()
    assert content["n"] == 898 and content["rows"]["generated"]["frechet"]["standard_error"] > 0
    text = str(reports["dropping"])
    for word in (
        "898",
        "3 draws",
        "k = 5",
        "real halves",
        "held-out half",
        "±",
        "copy ratio",
        "% right",
        "least class",
    ):
        assert word in text
    assert max(map(len, text.splitlines())) <= 100 and not any(line.endswith(" ") for line in text.splitlines())


def test_a_report_aligns_its_columns():
    rows = {"generated": {"frechet": Estimate(123.4, 0.5), "precision": Estimate(0.5)}, "held-out half": {}}
    report = Report("x", 4, 2, 5, (4, 4), "pixels", None, rows, {}, 10_000)
    table = str(report).split("\n\n")[0].splitlines()
    assert table[0].split() == ["generated", "held-out", "half"]
    assert table[1] == "Fréchet     123.400 ± 0.500               -"
    assert table[2] == "precision     0.500                       -"


def test_without_labels_pixels_judge(cache_off):
    data = ImageData("bare", DATA.train, DATA.held_out)
    evaluator = Evaluator(data, sixteenths)
    assert evaluator.classifier is None and set(evaluator.fast(copies)) == {"frechet"}
    report = evaluator.evaluate(copies, splits=2)
    assert report.accuracy is None and report.class_shares == {} and "held-out half" not in report.rows
    assert "confident" not in report.rows["generated"] and "principal components" in str(report)
    assert report.rows["generated"]["precision"].mean > 0.9 > 0.1 > report.rows["generated"]["memorisation"].mean
    assert evaluator.evaluate(noise, splits=2).rows["generated"]["precision"].mean < 0.01


@pytest.fixture
def cache_off(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ADVRL_CACHE", str(tmp_path))


def test_bad_samples_and_numbers_are_refused(evaluator, cache_off):
    with pytest.raises(ValueError, match=r"sample\(1000\) must have shape \(1000, 1, 8, 8\), got \(1000, 64\)"):
        evaluator.evaluate(lambda n: torch.zeros(n, 64))
    with pytest.raises(ValueError, match="sample must be finite"):
        evaluator.fast(lambda n: torch.full((n, 1, 8, 8), math.nan))
    with pytest.raises(ValueError, match="splits must be at least 1"):
        evaluator.evaluate(noise, splits=0)
    with pytest.raises(ValueError, match="more than 5 images in each half, got 5"):
        Evaluator(ImageData("few", DATA.train[:5], DATA.held_out), sixteenths)


def test_a_default_device_is_not_used_for_anything(cache_off):
    small = ImageData("s", DATA.train[:40], DATA.held_out[:40], DATA.train_labels[:40], DATA.held_out_labels[:40])
    torch.set_default_device("meta")
    try:
        evaluator = Evaluator(small, sixteenths, classifier_steps=2)
        report = evaluator.evaluate(lambda n: torch.zeros(n, 1, 8, 8, device="cpu"), splits=1)
        assert report.rows["generated"]["precision"].mean <= 1
    finally:
        torch.set_default_device(None)
