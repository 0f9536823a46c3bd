"""Right on a GPU, tested without one: no tensor is on the wrong device by accident, no step waits for the device."""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, Normal, Poisson
from torch.utils._python_dispatch import TorchDispatchMode

from advrl.agents import AdversarialTrainer, Every, fit
from advrl.agents.meter import Meter
from advrl.data import Batches, make_corpus
from advrl.device import clock, device_name, one_thread, resolve_device
from advrl.distributions import (
    Binomial,
    MixtureSameFamily,
    OneHotCategorical,
    VonMises,
    inverse_transform,
    relaxed_rsample,
)
from advrl.estimators import (
    AntitheticScore,
    Critic,
    Enumerate,
    Importance,
    Learned,
    Measure,
    MovingAverage,
    Path,
    RaoBlackwell,
    Rebar,
    Score,
    StickingTheLanding,
    Tape,
    Taylor,
    UnorderedSet,
    VarianceNormalised,
    conditional_gumbel,
    gae,
    leave_one_out,
    make_estimator,
    optimal_baseline,
    ppo_clip,
    reinmax,
    reward_to_go,
)
from advrl.metrics import (
    Tradeoff,
    class_shares,
    confident_share,
    corpus_bleu,
    diversity_at,
    duplicates,
    frechet_distance,
    interquartile_mean,
    mean_diversity,
    memorisation_ratio,
    ngram_diversity,
    novelty,
    oracle_scores,
    precision_recall,
    seed_summary,
    self_bleu,
    sentence_bleu,
    step_nll,
)
from advrl.nn import FAMILIES, MLP, DCGANDiscriminator, DCGANGenerator, Policy
from advrl.objectives import (
    DIVERGENCES,
    GAMES,
    VALUE_MATCHING,
    boundary_weights,
    calibration,
    catgan,
    class_logit,
    consistency,
    dragan,
    effective_sample_size,
    importance_weights,
    labelled_loss,
    make_game,
    optimal_logit,
    r1,
    r2,
    relativistic_average,
    smooth_labels,
)
from advrl.plots import image_grid
from advrl.seeding import isolated
from tests.pairs import PAIRS

SHAPE = (1, 8, 8)


def trainer_for(family: str, estimator: str, device: torch.device | str = "cpu", **options) -> AdversarialTrainer:
    with torch.device(device):
        policy = Policy(MLP(4, (FAMILIES[family].numbers, 8, 8), (8,)), FAMILIES[family], 4)
        discriminator = MLP(SHAPE, (), (8,))
    made = None if estimator == "auto" else make_estimator(estimator)
    return AdversarialTrainer(policy, discriminator, estimator=made, **options)


@pytest.mark.parametrize(("family", "estimator"), PAIRS)
@pytest.mark.usefixtures("meta")
def test_training_makes_nothing_on_the_default_device(family, estimator, tmp_path):
    images = torch.rand(20, *SHAPE, device="cpu") * 2 - 1
    trainer = trainer_for(family, estimator, penalties=[(1.0, r1)])
    fit(trainer, images, 3, batch_size=4, out=tmp_path, progress=False, callbacks=[Every(2, lambda step: {"v": 1.0})])
    again = trainer_for(family, estimator, penalties=[(1.0, r1)])
    fit(again, images, 5, batch_size=4, out=tmp_path, progress=False, resume=True)
    assert {p.device.type for p in again.generator.parameters()} == {"cpu"}
    with isolated(0):
        assert again.average.sample(3).device.type == "cpu"
        assert image_grid(again.average.mean(again.average.noise(2)).clamp(-1, 1)).dtype == np.uint8


@pytest.mark.parametrize("game", [*GAMES, "began", "bs-gan"])
@pytest.mark.usefixtures("meta")
def test_objectives_make_nothing_on_the_default_device(game):
    estimator = "auto" if game == "bs-gan" else "loo"
    trainer_for("binomial", estimator, objective=make_game(game)).step(torch.zeros(4, *SHAPE, device="cpu"))


@pytest.mark.usefixtures("meta")
def test_objectives_as_functions_make_nothing_on_the_default_device():
    a, p = torch.randn(4, device="cpu"), torch.full((4,), 0.25, device="cpu")
    x = torch.randn(4, 2, device="cpu")
    judge = lambda x: x.sum(1)  # noqa: E731
    for value in (
        *(d.between(p, p) for d in DIVERGENCES.values()),
        *(d.cost(a) for d in DIVERGENCES.values()),
        *(objective.cost(a) for objective in VALUE_MATCHING.values()),
        *(optimal_logit(p, p, GAMES[name].objective) for name in ("minimax", "hinge", "ebgan", "f-gan-jeffreys")),
        *calibration(a, a).values(),
        smooth_labels(GAMES["minimax"].objective).d_loss(a, a),
        relativistic_average.d_loss(a, a),
        relativistic_average.g_loss(a, a),
        catgan(2).d_loss(x, x),
        catgan(2).g_loss(x, x),
        class_logit(x),
        labelled_loss(x, torch.zeros(4, dtype=torch.int64, device="cpu")),
        effective_sample_size(importance_weights(x)),
        boundary_weights(x, x),
        dragan(judge, x, x),
        r2(judge, x, x),
        consistency(torch.tanh)(judge, x, x),
    ):
        assert value.device.type == "cpu"


def all_on_a_tape(logits: torch.Tensor) -> torch.Tensor:
    with Tape() as tape:
        coins = tape.sample(Bernoulli(logits=logits), Score(2, leave_one_out))
        x = tape.sample(Normal(coins, torch.ones_like(coins)), Path())
        tape.cost(coins, after=[coins])
        tape.cost(x * coins)
    return tape.loss()


def sequence_metrics(ids: torch.Tensor) -> list[torch.Tensor]:
    seed_summary(ids[:, 0].double(), resamples=10)
    oracle_scores(*ids.T.float())
    step_nll(ids.float(), ids > 0)
    corpus = make_corpus(["a b", "c", "a"])
    assert corpus.vocabulary.decode(corpus.train)
    curve = Tradeoff(torch.arange(4.0, device="cpu"), torch.arange(4.0, device="cpu"), ids[0].float())
    mean_diversity(curve, 0.5, 2.5)
    return [
        sentence_bleu(ids, ids, 2),
        corpus_bleu(ids, ids, 2),
        self_bleu(ids, 2),
        *ngram_diversity(ids, 3).values(),
        *novelty(ids, ids, 3).values(),
        duplicates(ids, 3),
        diversity_at(curve, 1.5),
        interquartile_mean(ids.float()),
        corpus.train,
    ]


@pytest.mark.usefixtures("meta")
def test_functions_make_nothing_on_the_default_device():
    logits = torch.zeros(3, 4, device="cpu")
    for value in (
        inverse_transform(logits.exp(), 2),
        Binomial(3, logits).sample((2,)),
        OneHotCategorical(logits=logits).sample((2,)),
        relaxed_rsample(Binomial(3, logits), 2, 0.5, hard=True),
        Score(4, leave_one_out)(Binomial(3, logits), lambda x: x),
        Score(4, MovingAverage())(Binomial(3, logits), lambda x: x),
        all_on_a_tape(logits),
        *(
            estimator(Independent(Normal(logits, logits.exp()), 1), lambda x: x.sum(-1))
            for estimator in (
                AntitheticScore(2),
                StickingTheLanding(2),
                Score(2, optimal_baseline),
                Importance(2, lambda q: q),
                Score(2, advantage=VarianceNormalised(Critic())),
                Taylor(1, order=1),
            )
        ),
        Measure(1)(OneHotCategorical(logits=logits.clone().requires_grad_()), lambda x: x.sum(-1)),
        Measure(1)(Poisson(logits.exp().requires_grad_()), lambda x: x),
        *(
            estimator(OneHotCategorical(logits=logits), lambda x: x.sum(-1))
            for estimator in (Enumerate(), RaoBlackwell(), UnorderedSet(2), Rebar(2, Learned(0.5), Learned(1.0)))
        ),
        conditional_gumbel(logits, logits.new_ones(2, 3, 4), binary=True),
        reinmax(logits),
        gae(logits, logits, logits.bool()),
        reward_to_go(logits, gamma=0.9),
        ppo_clip(logits, logits, logits),
        VonMises(logits, logits.exp()).rsample((2,)),
        MixtureSameFamily(Categorical(logits=logits), Normal(logits, logits.exp())).rsample((2,)),
        MixtureSameFamily(
            Categorical(logits=logits),
            Independent(Normal(logits[..., None].expand(3, 4, 2), logits.new_ones(3, 4, 2)), 1),
        ).rsample(),
        next(Batches(logits, 2)),
        frechet_distance(torch.rand(9, 2, device="cpu"), torch.rand(9, 2, device="cpu")),
        precision_recall(torch.rand(9, 2, device="cpu"), torch.rand(9, 2, device="cpu"), k=2)["coverage"],
        memorisation_ratio(*(torch.rand(9, 2, device="cpu") for _ in range(3))),
        *sequence_metrics(torch.randint(3, (9, 4), device="cpu").sort(1).values),
        class_shares(torch.zeros(4, dtype=torch.int64, device="cpu"), 3),
        confident_share(logits.softmax(-1)),
        DCGANDiscriminator(1, 8, 2).to_empty(device="cpu")(torch.rand(2, 1, 8, 8, device="cpu")),
        DCGANGenerator(3, 1, 8, 2).to_empty(device="cpu")(torch.rand(2, 3, device="cpu")),
    ):
        assert value.device.type == "cpu"


def test_mistakes_of_this_kind_are_caught(meta):
    with pytest.raises((RuntimeError, NotImplementedError)):
        (torch.zeros(2) + torch.zeros(2, device="cpu")).sum().item()


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU would have to be waited for: reading a value, or copying one made from Python numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.lift_fresh,
            torch.ops.aten.nonzero,
        ):
            raise AssertionError(f"{func} makes the host wait for the device, or copies from it")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("family", "estimator", "objective"),
    [(*pair, "non-saturating") for pair in PAIRS] + [("binomial", "loo", name) for name in GAMES]
    + [("implicit", "path", "began"), ("binomial", "auto", "bs-gan")],
)  # fmt: skip
def test_a_step_reads_no_value_and_copies_none(family, estimator, objective):
    trainer = trainer_for(family, estimator, objective=make_game(objective), penalties=[(1.0, r1)])
    batches, meter = Batches(torch.zeros(20, *SHAPE), 4), Meter()
    with NoWaiting():
        for step in range(2):
            meter.add(step, trainer.step(next(batches)))


@pytest.mark.parametrize("name", ["enumerate", "rao-blackwell", "unordered-set"])
@pytest.mark.parametrize(
    "make",
    [
        lambda t: Independent(Bernoulli(logits=t, validate_args=False), 1, validate_args=False),
        lambda t: OneHotCategorical(logits=t, validate_args=False),
    ],
    ids=["bernoulli", "one-hot"],
)
def test_sums_over_outcomes_read_no_value_and_copy_none(name, make):
    with NoWaiting():
        theta = torch.zeros(4, 3, requires_grad=True)
        estimator = make_estimator(name, n=3)  # by halves, as a trainer calls it: the whole looks for nans on a CPU
        estimator.surrogate(estimator.draw(make(theta)), lambda x: x.sum(-1)).sum().backward()


@pytest.mark.parametrize(
    "wait", [lambda x: x.sum().item(), lambda x: x + torch.tensor([1.0, 2.0]), lambda x: x.nonzero()]
)
def test_waiting_is_caught(wait):
    with NoWaiting(), pytest.raises(AssertionError, match="wait"):
        wait(torch.ones(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("family", "estimator"), PAIRS)
def test_a_step_never_waits_for_the_gpu(family, estimator):
    trainer = trainer_for(family, estimator, "cuda", penalties=[(1.0, r1)])
    batches = Batches(torch.zeros(20, *SHAPE), 4, device="cuda")
    trainer.step(next(batches))  # the first step may allocate and choose kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.step(next(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_device_names():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    for name in ("meta", "gpu", "cuda:99", "cpu:1"):
        with pytest.raises(ValueError, match="device"):
            resolve_device(name)


def test_a_clock_counts_work_and_one_thread_is_given_back(device):
    before, threads = clock(device), torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
        torch.ones(10**5, device=device).sum()
    assert clock(device) > before and torch.get_num_threads() == threads
    assert device_name(torch.device("cpu")) == "cpu"
