"""Metrics of sequences against NLTK, enumeration and closed forms."""

import itertools
import math
import random
import warnings
from collections import Counter

import pytest
import torch
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu
from nltk.translate.bleu_score import sentence_bleu as nltk_sentence_bleu
from torch.distributions import Categorical

from advrl.data import make_corpus, read_lines
from advrl.metrics import (
    Estimate,
    Tradeoff,
    corpus_bleu,
    diversity_at,
    duplicate_alarm,
    duplicates,
    entropy_alarm,
    floor_alarm,
    frechet_distance,
    interquartile_mean,
    kl,
    mean_diversity,
    mean_estimate,
    ngram_diversity,
    nll,
    novelty,
    oracle_scores,
    paired_summary,
    seed_summary,
    self_bleu,
    sentence_bleu,
    shared_quality,
    step_nll,
    tradeoff_gap,
)
from advrl.plots import tradeoff_plot
from tests.statistics import assert_unbiased

VOCAB = 7
WEIGHTS = [tuple([1 / k] * k) for k in range(1, 6)]
NLTK = {"none": SmoothingFunction().method0, "epsilon": SmoothingFunction().method1}


def drawn(seed: int, number: int, shortest: int, longest: int, vocab: int = VOCAB) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(vocab) for _ in range(draw.randint(shortest, longest))] for _ in range(number)]


def padded(rows: list[list[int]], width: int, vocab: int = VOCAB) -> torch.Tensor:
    """Tokens, the end where there is room, padding."""
    return torch.tensor([(row + [vocab] + [vocab + 1] * width)[:width] for row in rows])


def judged(hypothesis, references, smoothing):
    with warnings.catch_warnings():  # NLTK warns where nothing matches
        warnings.simplefilter("ignore")
        return nltk_sentence_bleu(references, hypothesis, WEIGHTS, NLTK[smoothing])


@pytest.mark.parametrize("smoothing", NLTK)
@pytest.mark.parametrize(("shortest", "longest"), [(0, 3), (1, 9), (8, 20)])
def test_bleu_is_nltk_s(shortest, longest, smoothing, device):
    hypotheses, references = drawn(0, 50, shortest, longest), drawn(1, 30, 2, 11)
    ids, others = padded(hypotheses, longest + 1).to(device), padded(references, 11).to(device)
    expected = torch.tensor([judged(row, references, smoothing) for row in hypotheses], dtype=torch.float64)
    torch.testing.assert_close(sentence_bleu(ids, others, VOCAB, 5, smoothing).cpu(), expected, rtol=1e-12, atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = nltk_corpus_bleu([references] * len(hypotheses), hypotheses, WEIGHTS, NLTK[smoothing])
    torch.testing.assert_close(corpus_bleu(ids, others, VOCAB, 5, smoothing).cpu(),
                               torch.tensor(whole, dtype=torch.float64), rtol=1e-12, atol=1e-12)  # fmt: skip


@pytest.mark.parametrize("smoothing", NLTK)
@pytest.mark.parametrize(("number", "shortest", "longest"), [(2, 1, 6), (40, 0, 9), (25, 7, 8)])
def test_self_bleu_is_nltk_s(number, shortest, longest, smoothing, device):
    rows = drawn(number, number, shortest, longest)
    rows[-1] = list(rows[0])  # a copy: the greatest count is then attained twice
    expected = torch.tensor([judged(row, rows[:i] + rows[i + 1 :], smoothing) for i, row in enumerate(rows)],
                            dtype=torch.float64)  # fmt: skip
    ours = self_bleu(padded(rows, longest).to(device), VOCAB, 5, smoothing).cpu()
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_self_bleu_is_bleu_against_the_others():
    rows = drawn(5, 30, 0, 12)
    ids = padded(rows, 13)
    expected = [sentence_bleu(ids[i : i + 1], ids[torch.arange(len(ids)) != i], VOCAB)[0] for i in range(len(ids))]
    torch.testing.assert_close(self_bleu(ids, VOCAB), torch.stack(expected), rtol=1e-14, atol=0)


def test_bleu_of_real_captions_is_nltk_s(data_dir):
    path = data_dir / "image_coco_test.txt"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the folder of real data")
    corpus = make_corpus(read_lines(path)[:600], test_share=0.0, validation_share=0.0)
    ids, vocab = corpus.train, len(corpus.vocabulary)
    rows = corpus.vocabulary.decode_tokens(ids)
    ours = sentence_bleu(ids[:12], ids[12:], vocab)
    expected = torch.tensor([judged(row, rows[12:], "epsilon") for row in rows[:12]], dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_bleu_of_a_copy_is_one_and_of_a_stranger_zero():
    ids = padded([[0, 1, 2, 3, 4], [5, 5, 6, 5, 6]], 6)
    torch.testing.assert_close(sentence_bleu(ids, ids, VOCAB), torch.ones(2, 5, dtype=torch.float64))
    assert (self_bleu(ids, VOCAB) == 0).all()
    assert (sentence_bleu(padded([[]], 3), ids, VOCAB) == 0).all()


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (torch.zeros(3, 4), TypeError, "must hold integer token ids, got torch.float32"),
        (torch.zeros(3, dtype=torch.int64), ValueError, "must have shape"),
        (torch.zeros(0, 4, dtype=torch.int64), ValueError, "must have shape"),
        (torch.tensor([[0, 1], [0, -1]]), ValueError, "at least 0, got -1"),
        (torch.tensor([[0, 1], [VOCAB, 1]]), ValueError, "token behind the end in row 1"),
    ],
)
def test_what_is_no_set_of_sequences_is_refused(ids, error, message):
    good = torch.zeros(2, 3, dtype=torch.int64)
    for call in (lambda: sentence_bleu(ids, good, VOCAB), lambda: corpus_bleu(good, ids, VOCAB),
                 lambda: self_bleu(ids, VOCAB), lambda: ngram_diversity(ids, VOCAB), lambda: duplicates(ids, VOCAB),
                 lambda: novelty(good, ids, VOCAB)):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_bleu_refuses_what_it_does_not_know():
    ids = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="did you mean 'epsilon'"):
        sentence_bleu(ids, ids, VOCAB, smoothing="epsilonn")
    with pytest.raises(ValueError, match="at least two sentences"):
        self_bleu(ids[:1], VOCAB)
    with pytest.raises(ValueError, match="n must be at least 1"):
        sentence_bleu(ids, ids, VOCAB, n=0)


def test_diversity_is_that_of_counters(device):
    rows = drawn(3, 60, 0, 9, 4)
    ids = padded(rows, 10, 4).to(device)
    grams = [Counter(tuple(r[i : i + k]) for r in rows for i in range(len(r) - k + 1)) for k in (1, 2, 3, 4)]
    totals = [sum(counter.values()) for counter in grams]
    told = ngram_diversity(ids, 4)
    assert told["distinct"].tolist() == pytest.approx([len(c) / n for c, n in zip(grams, totals, strict=True)])
    entropy = [-sum(v / n * math.log(v / n) for v in c.values()) for c, n in zip(grams, totals, strict=True)]
    assert told["entropy"].tolist() == pytest.approx(entropy, rel=1e-12)
    assert float(duplicates(ids, 4)) == pytest.approx(1 - len(set(map(tuple, rows))) / len(rows), rel=1e-12)


def test_diversity_of_what_is_too_short_is_zero():
    told = ngram_diversity(padded([[0], [1]], 2), VOCAB, 3)
    assert told["distinct"].tolist() == [1, 0, 0]
    assert told["entropy"].tolist() == pytest.approx([math.log(2), 0, 0])


def test_novelty_counts_what_training_does_not_have(device):
    rows, train = drawn(7, 40, 0, 5, 3), drawn(8, 25, 0, 7, 3)
    told = novelty(padded(rows, 6, 3).to(device), padded(train, 8, 3).to(device), 3, 3)
    known = set(map(tuple, train))
    assert float(told["sequences"]) == pytest.approx(sum(tuple(r) not in known for r in rows) / len(rows))
    for k in (1, 2, 3):
        seen = {tuple(r[i : i + k]) for r in train for i in range(len(r) - k + 1)}
        grams = [tuple(r[i : i + k]) for r in rows for i in range(len(r) - k + 1)]
        assert float(told["ngrams"][k - 1]) == pytest.approx(sum(g not in seen for g in grams) / len(grams))


def test_padding_ids_are_all_alike():
    ids = torch.tensor([[0, 1, VOCAB, VOCAB], [0, 1, VOCAB, VOCAB + 1]])
    assert float(duplicates(ids, VOCAB)) == 0.5
    assert float(novelty(ids, ids[:1, :2], VOCAB)["sequences"]) == 0


def chain(logits: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """(N,) log-probability of three independent tokens (N, 3)."""
    return logits.log_softmax(-1)[torch.arange(3), steps].sum(-1)


def test_divergences_are_unbiased_and_their_intervals_cover():
    torch.manual_seed(0)
    model, oracle = torch.randn(2, 3, 4, dtype=torch.float64)
    everything = torch.tensor(list(itertools.product(range(4), repeat=3)))
    log_g, log_o = chain(model, everything), chain(oracle, everything)
    exact = {
        "nll_oracle": -(log_g.exp() * log_o).sum(), "nll_test": -(log_o.exp() * log_g).sum(),
        "floor": -(log_o.exp() * log_o).sum(), "reverse_kl": (log_g.exp() * (log_g - log_o)).sum(),
        "forward_kl": (log_o.exp() * (log_o - log_g)).sum(),
    }  # fmt: skip
    repeats, size = 1500, 200
    draws = {name: torch.empty(repeats) for name in exact}
    covered = dict.fromkeys(exact, 0)
    ours, theirs = (Categorical(logits=part).sample((repeats, size)) for part in (model, oracle))
    for i in range(repeats):
        x, y = ours[i], theirs[i]
        told = oracle_scores(chain(model, x), chain(oracle, x), chain(model, y), chain(oracle, y), tokens=3)
        for name, value in exact.items():
            draws[name][i] = told[name].value
            covered[name] += told[name].low <= value / 3 <= told[name].high
    assert_unbiased(torch.stack(list(draws.values()), 1), torch.stack(list(exact.values())) / 3)
    # normal bound on 5 binomial counts, plus 2 % for values that are not normal, at 200 a mean
    bound = math.sqrt(repeats * 0.95 * 0.05) * 5.2 + 0.02 * repeats
    assert all(abs(count - 0.95 * repeats) < bound for count in covered.values()), covered
    assert abs(float(draws["nll_oracle"].mean() - draws["floor"].mean())) > 0.01  # the five are not one number


def test_mean_estimate_is_student_s():
    told = mean_estimate(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert told.value == 3
    assert told.error == pytest.approx(math.sqrt(14 / 3 / 4))
    assert told.high - told.value == pytest.approx(3.182446305284263 * told.error)
    assert str(told) == "3 [-0.4374, 6.437]"


def test_an_impossible_sample_makes_the_divergence_infinite():
    log_p = torch.tensor([-1.0, -2.0])
    told = kl(log_p, torch.tensor([-1.0, -torch.inf]))
    assert told.value == told.low == told.high == math.inf
    with pytest.raises(ValueError, match="1 of 2 are nan"):
        kl(log_p, torch.tensor([-1.0, torch.nan]))


def test_likelihood_per_token_weighs_every_token_alike():
    log_prob = torch.tensor([[-1.0, -3.0, torch.nan], [-2.0, -torch.inf, -5.0], [-1.0, -2.0, -3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    told = step_nll(log_prob, mask)
    assert told.value == pytest.approx(12 / 6)
    assert told == nll(torch.tensor([-4.0, -2.0, -6.0]), torch.tensor([2, 1, 3]))
    assert step_nll(log_prob[2:].repeat(2, 1)).value == 2
    assert nll(torch.tensor([-4.0, -2.0, 0.0]), torch.tensor([2, 1, 0])).value == 2  # an empty one weighs nothing
    constant = nll(torch.tensor([-4.0, -2.0, -6.0]), 2)
    assert constant == mean_estimate(torch.tensor([2.0, 1.0, 3.0]))


def test_the_ratio_s_interval_covers_at_its_level():
    torch.manual_seed(1)
    repeats = 2000
    tokens = torch.randint(1, 9, (repeats, 100))
    log_prob = -(tokens * (1 + 0.1 * tokens) + torch.randn(repeats, 100, dtype=torch.float64))
    lengths = torch.arange(1.0, 9.0, dtype=torch.float64)
    exact = float((lengths * (1 + 0.1 * lengths)).mean() / lengths.mean())
    estimates = [nll(log_prob[i], tokens[i]) for i in range(repeats)]
    covered = sum(told.low <= exact <= told.high for told in estimates)
    assert abs(covered - 0.95 * repeats) < math.sqrt(repeats * 0.95 * 0.05) * 4.9 + 0.015 * repeats
    wrong = sum(abs(-float((log_prob[i] / tokens[i]).mean()) - exact) < told.high - told.value
                for i, told in enumerate(estimates))  # fmt: skip
    assert wrong < 0.5 * repeats  # the mean of the sequences' means is another number


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_estimate(torch.zeros(1)), "at least 2 samples"),
        (lambda: mean_estimate(torch.zeros(3), level=1.0), "level must be below 1"),
        (lambda: nll(torch.zeros(3), torch.tensor([1, -1, 2])), "at least 0 and not all 0, got -1"),
        (lambda: nll(torch.zeros(3), torch.zeros(3)), "not all 0"),
        (lambda: nll(torch.zeros(3), torch.ones(2)), "shapes must agree"),
        (lambda: step_nll(torch.zeros(3)), r"must be \(N, T\)"),
        (lambda: step_nll(torch.zeros(3, 2), torch.ones(3)), "shapes must agree"),
        (lambda: kl(torch.zeros(3), torch.zeros(4)), "shapes must agree"),
        (lambda: seed_summary(torch.tensor([1.0, torch.inf])), "must be finite"),
        (lambda: paired_summary(torch.zeros(3), torch.zeros(4)), "shapes must agree"),
        (lambda: interquartile_mean(torch.zeros(0)), "at least one value"),
    ],
)
def test_figures_that_cannot_be_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_interquartile_mean_is_scipy_s_trimmed_mean():
    from scipy.stats import trim_mean

    torch.manual_seed(0)
    for size in (1, 2, 4, 5, 8, 11):
        values = torch.randn(3, size, dtype=torch.float64)
        assert interquartile_mean(values).tolist() == pytest.approx(trim_mean(values.numpy(), 0.25, axis=1))


def test_bootstrap_intervals_are_those_of_all_resamples():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], dtype=torch.float64)
    everything = values[torch.cartesian_prod(*[torch.arange(5)] * 5)]  # 3,125 resamples, each as likely
    told = seed_summary(values, level=0.8, resamples=40_000)
    assert told.mean == mean_estimate(values, 0.8)
    assert told.iqm == pytest.approx(14 / 3)
    # the share of resamples up to each bound is its level: binomial error of 40,000 draws, and the atoms of 3,125
    width = 5.3 * math.sqrt(0.1 * 0.9 / 40_000)
    for bounds, statistic in ((told.mean_bootstrap, everything.mean(-1)),
                              (told.iqm_bootstrap, interquartile_mean(everything))):  # fmt: skip
        for bound, level in zip(bounds, (0.1, 0.9), strict=True):
            assert float((statistic < bound - 1e-9).double().mean()) <= level + width
            assert float((statistic <= bound + 1e-9).double().mean()) >= level - width


def test_pairs_take_out_what_seeds_share():
    torch.manual_seed(0)
    luck, state = 10 * torch.randn(5), torch.get_rng_state()
    told = paired_summary(luck + torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2]), luck)
    assert torch.equal(torch.get_rng_state(), state)
    assert told.mean.low > 0.8
    assert told.mean_bootstrap[0] > 0.8
    assert seed_summary(luck + 1).mean.low < 0


def sweep(quality, diversity) -> Tradeoff:
    return Tradeoff(torch.arange(1.0, len(quality) + 1), torch.tensor(quality), torch.tensor(diversity))


def test_diversity_is_read_off_at_equal_quality():
    curve = sweep([5.0, 6.0, 8.0], [12.0, 9.0, 8.0])
    at = diversity_at(curve, torch.tensor([5.0, 5.5, 6.0, 7.0, 8.0, 4.9, 8.1]))
    assert at[:5].tolist() == [12, 10.5, 9, 8.5, 8]
    assert at[5:].isnan().all()
    back = sweep([5.0, 7.0, 6.0, 6.0], [9.0, 7.0, 8.0, 4.0])
    assert float(diversity_at(back, 6.0)) == 4  # the best of three crossings
    assert float(diversity_at(back, 6.5)) == 7.5


def test_areas_are_those_of_trapezoids():
    curve, better = sweep([5.0, 6.0, 8.0], [12.0, 9.0, 8.0]), sweep([5.5, 9.0], [8.5, 6.75])
    assert shared_quality(curve, better) == (5.5, 8.0)
    assert mean_diversity(curve, 5.0, 8.0) == pytest.approx((10.5 + 17) / 3)
    assert mean_diversity(curve, 5.5, 8.0) == pytest.approx((0.5 * 9.75 + 2 * 8.5) / 2.5)
    assert tradeoff_gap(better, curve) == pytest.approx((8.5 + 7.25) / 2 - (0.5 * 9.75 + 2 * 8.5) / 2.5)
    assert tradeoff_gap(curve, curve) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sweep([5.0], [1.0]), "at least 2"),
        (lambda: sweep([5.0, 6.0], [1.0]), "shapes must agree"),
        (lambda: sweep([5.0, math.nan], [1.0, 2.0]), "quality must be finite"),
        (lambda: Tradeoff(torch.tensor([1.0, 1.0]), torch.zeros(2), torch.zeros(2)), "temperatures must increase"),
        (lambda: tradeoff_gap(sweep([5.0, 6.0], [1.0, 2.0]), sweep([7.0, 8.0], [1.0, 2.0])), "share no range"),
        (lambda: mean_diversity(sweep([5.0, 6.0], [1.0, 2.0]), 5.0, 7.0), "covers qualities from 5 to 6, not 5 to 7"),
    ],
)
def test_a_sweep_that_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_alarms_ring_when_they_should():
    floor = Estimate(5.75, 0.01, 5.73, 5.77, 1000)
    low = Estimate(5.0, 0.01, 4.98, 5.02, 1000)
    alarm = floor_alarm(low, floor)
    assert alarm is not None
    assert "5 [4.98, 5.02] is below the floor 5.75" in str(alarm)
    assert floor_alarm(Estimate(5.7, 0.1, 5.5, 5.9, 10), floor) is None
    assert floor_alarm(Estimate(8.7, 0.1, 8.5, 8.9, 10), floor) is None
    alarm = entropy_alarm(5.0, 8.0)
    assert alarm is not None
    assert alarm.name == "entropy"
    assert entropy_alarm(7.9, 8.0) is None
    alarm = duplicate_alarm(0.5, 0.01)
    assert alarm is not None
    assert "50.0% of the samples repeat another one, against 1.0%" in alarm.finding
    assert duplicate_alarm(0.02, 0.01) is None
    with pytest.raises(ValueError, match="duplicates must be"):
        duplicate_alarm(50, 0.1)


def test_a_collapsed_generator_sets_off_the_alarms():
    torch.manual_seed(0)
    real = torch.randint(50, (500, 6))
    collapsed = real[:3].repeat(167, 1)[:500]
    ngrams = [
        float(ngram_diversity(part, 50, 2)["entropy"][1]) for part in (collapsed, real, real[torch.randperm(500)])
    ]
    assert entropy_alarm(ngrams[0], ngrams[1])
    assert entropy_alarm(ngrams[2], ngrams[1]) is None
    assert duplicate_alarm(float(duplicates(collapsed, 50)), float(duplicates(real, 50)))


def test_frechet_distance_takes_a_supplied_encoder_s_features():
    """Bags of words of two halves of one set are nearer than those of sets with other words."""
    torch.manual_seed(0)
    encode = torch.nn.functional.one_hot
    real, same = torch.randint(5, (2, 400, 8))
    other = torch.randint(2, (400, 8))
    bags = [encode(ids, 5).double().mean(1) for ids in (real, same, other)]
    # by the bags' means alone: 5 * 0.02 * 2 / 400 against 2 * 0.3^2 + 3 * 0.2^2
    assert float(frechet_distance(bags[0], bags[1])) < 0.1 * float(frechet_distance(bags[0], bags[2]))


def test_a_tradeoff_is_drawn(tmp_path):
    seeds = [sweep([5.0 + s, 6.0 + s, 8.0 + s], [90.0, 9.0, 8.0]) for s in (0.0, 0.1)]
    path = tmp_path / "plots" / "tradeoff.png"
    figure = tradeoff_plot({"MLE": seeds, "ours": seeds[0]}, {"theirs": (8.7, 12.0)}, (5.5, None), path)
    axis = figure.axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    assert lines["MLE (2 seeds)"] == pytest.approx(torch.tensor([[5.05, 90], [6.05, 9], [8.05, 8]]).numpy())
    assert lines["theirs"].tolist() == [[8.7, 12]]
    assert lines["floor"][:, 0].tolist() == [5.5, 5.5]
    assert {text.get_text() for text in axis.texts} == {"T=2", "T=3"}  # T = 1 is far above the picture
    assert 12 < axis.get_ylim()[1] < 90
    assert axis.get_xlim()[0] < 5.5
    assert path.stat().st_size > 5000
    far = tradeoff_plot({"MLE": seeds}, floor=1.0).axes[0]  # curves from 5 to 8: a line at 1 would take half the width
    assert far.get_xlim()[0] > 1 and far.get_xlabel().endswith("; floor 1.00")
    assert "floor" not in far.get_legend_handles_labels()[1] and far.get_ylim()[0] > 1


def test_a_tradeoff_that_cannot_be_drawn_says_why():
    with pytest.raises(ValueError, match="nothing to draw"):
        tradeoff_plot({})
    with pytest.raises(ValueError, match="'MLE' has no sweep"):
        tradeoff_plot({"MLE": []})
    with pytest.raises(ValueError, match="over different temperatures"):
        tradeoff_plot({"MLE": [sweep([1.0, 2.0], [1.0, 2.0]), sweep([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])]})
