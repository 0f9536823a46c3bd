"""Conditional models against closed forms, and their recipes in small."""

import copy
import json
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from torch.nn.functional import cross_entropy, softplus

from advrl.agents import AdversarialTrainer, Augmentation, Guessing, Labelled
from advrl.agents.evaluation_conditional import ConditionalEvaluator, held_out_error
from advrl.cli import main
from advrl.data import ImageData, digits
from advrl.estimators import ESTIMATORS, Path, Score, leave_one_out, make_estimator
from advrl.nn import (
    FAMILIES,
    MLP,
    AuxiliaryDiscriminator,
    ClassDiscriminator,
    ConcatDiscriminator,
    ConditionalPolicy,
    GaussianNoise,
    ProjectionDiscriminator,
    class_rows,
    noisy_mlp,
    paired,
    standardise,
    unpaired,
)
from advrl.objectives import class_logit, labelled_loss, non_saturating, r1
from advrl.recipes import DigitsConditional, DigitsInfoGAN, DigitsSemiSupervised, load
from advrl.recipes.pairs import rows_by_class
from advrl.recipes.semisupervised import labelled_rows
from tests.statistics import assert_unbiased

SHAPE = (1, 4, 4)
CONTINUOUS = ("path", "antithetic", "taylor", "lax", "measure")  # es takes either


def policy(family="implicit", classes=3, codes=0):
    net = MLP(5 + classes + codes, (FAMILIES[family].numbers, 4, 4), (8,))
    return ConditionalPolicy(net, FAMILIES[family], 5, classes, codes)


def trunk(features=6):
    return nn.Sequential(MLP(SHAPE, features, (7,)), nn.Tanh())


def discriminators(classes=3, codes=0):
    k = classes + codes
    return {
        "concat": ConcatDiscriminator(MLP((1 + k, 4, 4), (), (8,)), k),
        "projection": ProjectionDiscriminator(trunk(), 6, k),
        "auxiliary": AuxiliaryDiscriminator(trunk(), 6, classes, codes),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_hold_the_image_and_what_was_asked_for(family, device):
    torch.manual_seed(0)
    pi = policy(family, codes=2).to(device)
    z = pi.noise(7)
    x = pi.distribution(z).sample((2,))
    pairs = pi.pair(pi.decode(x), z)
    assert pairs.shape == (2, 7, 1 + 1, 4, 4)  # five numbers in a channel of sixteen
    images, side = unpaired(pairs[0], pi.sides)
    assert torch.equal(side, z[:, 5:]) and torch.equal(images, pi.decode(x)[0])
    assert torch.equal(paired(images, side), pairs[0])
    assert pi.sample(7).shape == (7, 1, 4, 4) and pi.mean(z).shape == (7, 1, 4, 4)


def test_samples_ask_for_the_classes_in_turn():
    pi = policy(classes=3)
    assert pi.asked(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    z = pi.ask(torch.tensor([2, 2]), torch.zeros(2, 5))
    assert z[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_noise_draws_every_class_equally_often():
    torch.manual_seed(0)
    draws = policy(classes=3, codes=1).noise(6000)[:, 5:].double()
    assert_unbiased(draws, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64))
    assert draws[:, 3].abs().max() <= 1


def test_classes_are_drawn_by_their_shares():
    shares = torch.tensor([0.7, 0.1, 0.2])
    drawing = ConditionalPolicy(policy().net, FAMILIES["implicit"], 5, 3, shares=shares)
    torch.manual_seed(0)
    counts = drawing.noise(10_000)[:, 5:].sum(0)
    deviation = (10_000 * shares * (1 - shares)).sqrt()
    assert ((counts - 10_000 * shares).abs() < 4.5 * deviation).all()
    assert torch.bincount(drawing.asked(10)).tolist() == [7, 1, 2]  # of samples: exactly, and evenly spread
    for start in range(0, 870, 130):
        found = torch.bincount(drawing.asked(1000)[start : start + 130], minlength=3)
        assert ((found - 130 * shares).abs() <= 2).all()  # the ends of the part may each be one off
    equal = ConditionalPolicy(policy().net, FAMILIES["implicit"], 5, 3, shares=torch.full((3,), 1 / 3))
    assert equal.asked(100).tolist() == [i % 3 for i in range(100)]
    again = ConditionalPolicy(policy().net, FAMILIES["implicit"], 5, 3, shares=torch.full((3,), 1 / 3))
    again.load_state_dict(drawing.state_dict())
    assert again.asked(10).tolist() == drawing.asked(10).tolist()
    for wrong in (torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.6, -0.1])):
        with pytest.raises(ValueError, match="3 probabilities"):
            ConditionalPolicy(policy().net, FAMILIES["implicit"], 5, 3, shares=wrong)


def test_augmentation_leaves_what_stands_beside_an_image():
    trainer = AdversarialTrainer(
        policy(), discriminators()["projection"], stabilisers=[Augmentation(["colour", "shift", "affine", "cutout"])]
    )
    side = class_rows(torch.tensor([0, 2, 1]), 3)
    images = torch.rand(3, 1, 4, 4) - 0.5
    shown = trainer.shown(paired(images, side))
    assert torch.equal(unpaired(shown, 3)[1], side) and not torch.equal(shown[:, :1], images)
    many = class_rows(torch.tensor([0, 39]), 40)  # more than a channel holds
    assert paired(images[:2], many).shape == (2, 4, 4, 4) and torch.equal(
        unpaired(paired(images[:2], many), 40)[1], many
    )


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_pays_for_pairs(name):
    """The cost is that of the samples with the classes that they were asked for, and it has a gradient."""
    torch.manual_seed(0)
    family = FAMILIES["gaussian" if name in CONTINUOUS else "bernoulli"]
    pi = ConditionalPolicy(MLP(8, (family.numbers, 2, 2), (8,)), family, 5, 3)
    net = ProjectionDiscriminator(nn.Sequential(MLP((1, 2, 2), 6, (7,)), nn.Tanh()), 6, 3)
    trainer = AdversarialTrainer(pi, net, estimator=make_estimator(name), ema=0.0, lr_generator=0.0)
    z, real = pi.noise(6), paired(torch.randn(6, 1, 2, 2), class_rows(torch.arange(6) % 3, 3))
    draw = trainer.draw(z)
    told = trainer._generator_step(real, draw, z)
    if name in ("path", "antithetic", "st", "gumbel", "loo", "arm"):  # whose value is the mean cost of the draw
        fake = pi.pair(pi.decode(draw.x), z).flatten(0, 1)
        assert torch.equal(unpaired(fake[:6], 3)[1], z[:, 5:])
        torch.testing.assert_close(told["g_cost"], softplus(-net(fake)).mean())
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in pi.parameters())


@pytest.mark.parametrize("kind", ["concat", "projection", "auxiliary"])
def test_a_slope_is_taken_in_the_image_alone(kind):
    """A class has no neighbours, so that its channels have no slope; and a conditional logit depends on the class."""
    torch.manual_seed(0)
    net = discriminators()[kind]
    pairs = paired(torch.randn(5, *SHAPE), class_rows(torch.tensor([0, 1, 2, 0, 1]), 3)).requires_grad_()
    (slope,) = torch.autograd.grad(net(pairs).sum(), pairs)
    assert slope[:, :1].abs().max() > 0 and (slope[:, 1:] == 0).all()
    assert r1(net, pairs.detach(), pairs.detach()).shape in (torch.Size([]), torch.Size([5]))
    other = paired(pairs.detach()[:, :1], class_rows(torch.tensor([1, 2, 0, 1, 2]), 3))
    changed = (net(other) - net(pairs)).abs().max() > 1e-4
    assert bool(changed) == (kind != "auxiliary")


def test_projection_is_its_formula():
    torch.manual_seed(0)
    net = ProjectionDiscriminator(trunk(), 6, 3)
    x, labels = torch.randn(4, *SHAPE), torch.tensor([2, 0, 1, 2])
    phi = net.trunk(x)
    expected = phi @ net.logit.weight[0] + net.logit.bias + (phi * net.embed.weight.T[labels]).sum(1)
    torch.testing.assert_close(net(paired(x, class_rows(labels, 3))), expected)


def test_projection_is_the_optimal_logit_of_gaussian_classes():
    """p(x | y) = N(m_y, 1), q(x | y) = N(0, 1): log p - log q = <m_y, x> - |m_y|^2 / 2, which phi = (x, 1) can say."""
    means = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    net = ProjectionDiscriminator(nn.Sequential(nn.Flatten(), nn.ConstantPad1d((0, 1), 1.0)), 3, 3)
    with torch.no_grad():
        net.logit.weight.zero_(), net.logit.bias.zero_()
        net.embed.weight.copy_(torch.cat([means, -0.5 * means.square().sum(1, keepdim=True)], 1).T)
    x, labels = torch.randn(8, 1, 1, 2), torch.arange(8) % 3
    exact = Normal(means[labels], 1.0).log_prob(x.flatten(1)) - Normal(0.0, 1.0).log_prob(x.flatten(1))
    torch.testing.assert_close(net(paired(x, class_rows(labels, 3))), exact.sum(1))


def test_surprise_is_cross_entropy_and_a_normal_density():
    torch.manual_seed(0)
    net = AuxiliaryDiscriminator(trunk(), 6, 3, 2)
    net.log_std.data = torch.tensor([0.3, -0.6])
    x, labels, codes = torch.randn(4, *SHAPE), torch.tensor([2, 0, 1, 2]), torch.rand(4, 2) * 2 - 1
    classes, numbers = net.surprise(paired(x, torch.cat([class_rows(labels, 3), codes], 1)))
    guess = net.guess(net.trunk(x))
    torch.testing.assert_close(classes, cross_entropy(guess[:, :3], labels, reduction="none"))
    torch.testing.assert_close(numbers, -Normal(guess[:, 3:], net.log_std.exp()).log_prob(codes).sum(1))


def test_the_information_is_bounded_by_the_entropy_of_the_code_and_reaches_it():
    """I(y; x) >= H(y) + E log q(y | x), which is log K where q is sure and right, and below it everywhere else."""

    class Shown(nn.Module):  # an image that is its class, and features that are the image
        def forward(self, x):
            return x.flatten(1)

    net = AuxiliaryDiscriminator(Shown(), 16, 10)
    hook = Guessing(1.0, real=False)
    hook._net = [net]
    labels = torch.arange(10)
    x = torch.zeros(10, 1, 4, 4).flatten(1).scatter(1, labels[:, None], 1.0).reshape(10, 1, 4, 4)
    fake = paired(x, class_rows(labels, 10))
    found = []
    for scale in (0.0, 1.0, 5.0, 40.0):
        with torch.no_grad():
            net.guess.weight.zero_(), net.guess.bias.zero_()
            net.guess.weight[:, :10] = scale * torch.eye(10)
        metrics: dict = {}
        hook.lesson(fake, fake, metrics)
        found.append(metrics["information_class"].item())
    assert found == sorted(found) and max(found) <= math.log(10) + 1e-6
    assert found[0] == pytest.approx(0.0, abs=1e-6) and found[-1] == pytest.approx(math.log(10), abs=1e-5)


def test_a_charge_is_paid_per_sample_so_that_the_score_function_is_right():
    """With a discriminator that is blind to the game, the generator's loss is the charge, and its gradient exact."""
    torch.manual_seed(0)
    pi, net = policy("bernoulli"), AuxiliaryDiscriminator(trunk(), 6, 3)
    with torch.no_grad():
        net.logit.weight.zero_(), net.logit.bias.zero_()
    trainer = AdversarialTrainer(
        pi, net, estimator=Score(4, leave_one_out), stabilisers=[Guessing(0.7, real=True)], ema=0.0, lr_generator=0.0
    )
    real = paired(torch.randn(6, *SHAPE).sign(), class_rows(torch.arange(6) % 3, 3))
    z = pi.noise(6)
    draw = trainer.draw(z)
    told = trainer._generator_step(real, draw, z)
    fake = pi.pair(pi.decode(draw.x), z).flatten(0, 1)
    expected = 0.7 * net.surprise(fake)[0].mean() + math.log(2)
    torch.testing.assert_close(told["g_cost"], expected)


def test_a_lesson_is_added_to_the_discriminator_s_loss():
    torch.manual_seed(0)
    pi, net = policy(codes=1), AuxiliaryDiscriminator(trunk(), 6, 3, 1)
    trainer = AdversarialTrainer(pi, net, estimator=Path(), stabilisers=[Guessing(0.5)], lr_discriminator=0.0)
    real = paired(torch.randn(6, *SHAPE), torch.cat([class_rows(torch.arange(6) % 3, 3), torch.zeros(6, 1)], 1))
    metrics: dict = {}
    z = pi.noise(6)
    fake = pi.pair(pi.decode(pi.distribution(z).sample()), z)
    loss = trainer.stabilisers[0].lesson(real, fake, metrics)
    parts = [s.mean() for pairs in (fake, real) for s in net.surprise(pairs)]
    torch.testing.assert_close(loss, 0.5 * sum(parts))
    assert metrics.keys() == {"information_class", "information_codes", "guess_error"}
    before = [p.clone() for p in net.guess.parameters()]
    trainer.rates = (trainer.rates[0], 1e-2)
    for group in trainer.d_opt.param_groups:
        group["lr"] = 1e-2
    trainer.step(real)
    assert all(not torch.equal(a, b) for a, b in zip(before, net.guess.parameters(), strict=True))


def test_k_plus_one_classes_are_one_logit():
    """D = Z / (Z + 1) is the softmax over K + 1 classes whose last logit is 0."""
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float64) * 3
    net = ClassDiscriminator(nn.Identity())
    z = logits.exp().sum(1)
    torch.testing.assert_close(net(logits).sigmoid(), z / (z + 1))
    torch.testing.assert_close(torch.cat([logits, torch.zeros(6, 1)], 1).softmax(1)[:, -1], 1 - net(logits).sigmoid())
    torch.testing.assert_close(net(logits), class_logit(logits))
    real, fake = non_saturating.d_loss(net(logits), net(logits)), softplus(-net(logits)) + softplus(net(logits))
    torch.testing.assert_close(real, fake)


def test_labelled_samples_teach_the_classes():
    torch.manual_seed(0)
    x, labels = torch.eye(4)[:, None, None], torch.arange(4)
    net = ClassDiscriminator(MLP((1, 1, 4), 4, (16,)))
    pi = MLP(3, (1, 1, 4), (4,))
    hook = Labelled(x, labels, 1.0, 8)
    trainer = AdversarialTrainer(pi, net, latent=3, stabilisers=[hook], lr_discriminator=1e-2)
    torch.manual_seed(1)
    rows = torch.randint(4, (8,))
    torch.manual_seed(1)
    torch.testing.assert_close(hook.lesson(x, x, {}), labelled_loss(net.classes(x[rows]), labels[rows]).mean())
    for _ in range(60):
        trainer.step(x)
    assert held_out_error(net, x, labels).item() == 0
    assert held_out_error(net, x, (labels + 1) % 4).item() == 1
    assert "stabiliser.labelled" not in trainer.state_dict()  # data are no state


def test_noise_layers_are_silent_outside_training():
    layer = GaussianNoise(0.5)
    x = torch.zeros(4000)
    torch.manual_seed(0)
    assert_unbiased(layer(x)[:, None].double().square(), torch.tensor([0.25], dtype=torch.float64))
    assert torch.equal(layer.eval()(x), x)
    assert noisy_mlp(16, 3, (8, 8)).eval()(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_standardised_units_have_mean_0_and_deviation_1_in_every_layer():
    torch.manual_seed(0)
    net, x = noisy_mlp(16, 3, (8, 8), noise=(0.0, 0.0)), 3 + torch.randn(200, 1, 4, 4)
    standardise(net, x)
    seen = 0
    for layer in net:
        x = layer(x)
        if isinstance(layer, nn.Linear):
            seen += 1
            torch.testing.assert_close(x.mean(0), torch.zeros(x.shape[1]), atol=1e-4, rtol=0)
            torch.testing.assert_close(x.std(0), torch.ones(x.shape[1]))
    assert seen == 3
    norms = [p for name, p in net.named_parameters() if name.endswith("original0")]
    assert [p.requires_grad for p in norms] == [False, False, True]  # learnt in the last layer alone
    before, same = noisy_mlp(16, 3, (8,), noise=(0.0, 0.0)), torch.zeros(2, 16)
    after = copy.deepcopy(before)
    standardise(after, same)
    torch.testing.assert_close(after[2].weight, before[2].weight)  # a deviation of 0 is no scale to divide by
    with pytest.raises(ValueError, match="at least 2"):
        standardise(net, torch.zeros(1, 16))


def test_labelled_rows_are_balanced_seeded_and_of_the_training_half():
    data = digits()
    rows = labelled_rows(data, 50, 3)
    assert torch.bincount(data.train_labels[rows]).tolist() == [5] * 10 and len(set(rows.tolist())) == 50
    assert torch.equal(rows, labelled_rows(data, 50, 3)) and not torch.equal(rows, labelled_rows(data, 50, 4))
    with pytest.raises(ValueError, match="multiple of the 10 classes, got 55"):
        labelled_rows(data, 55, 0)
    with pytest.raises(ValueError, match="asks for 500 of class 0"):
        labelled_rows(data, 5000, 0)


def test_accuracies_of_what_was_asked_for():
    """A sampler that gives real digits of the class asked for, one that gives those of the next, one that shuffles."""
    data = digits()
    judge = ConditionalEvaluator(data, FAMILIES["implicit"].prepare, classes=10)
    codes = ConditionalEvaluator(data, FAMILIES["implicit"].prepare, classes=10, matched=True)
    by_class = [data.train[data.train_labels == label] * 2 - 1 for label in range(10)]

    def sampler(shift):
        return lambda n: torch.stack([by_class[(i + shift) % 10][i // 10 % 80] for i in range(n)])

    assert judge.further(sampler(0), 1)["class_accuracy"].item() > 0.97
    assert judge.further(sampler(1), 1)["class_accuracy"].item() < 0.03
    assert codes.further(sampler(1), 1)["code_accuracy"].item() > 0.97
    with pytest.raises(ValueError, match="no labels"):
        ConditionalEvaluator(ImageData("x", data.train, data.held_out), lambda x: x, classes=10)


def test_a_row_for_each_class():
    images = torch.arange(7.0).reshape(7, 1, 1, 1)
    rows, columns = rows_by_class(images, torch.arange(7) % 3, 3)
    assert columns == 3 and rows.flatten().tolist() == [0, 3, 6, 1, 4, -1, 2, 5, -1]
    rows, columns = rows_by_class(images[:3], torch.tensor([2, 2, 0]), 3)
    assert columns == 2 and rows.flatten().tolist() == [2, -1, -1, -1, 0, 1]


MISSPELT = DigitsConditional(conditioning="projecton")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired(torch.zeros(2, 1, 4, 4), torch.zeros(3, 2)), "need images"),
        (lambda: unpaired(torch.zeros(2, 1, 4, 4), 3), "numbers beside"),
        (lambda: class_rows(torch.tensor([0, 4]), 3), "classes=5 or more"),
        (lambda: DigitsConditional(packing=2).validate(), "--packing does not go with digits-conditional"),
        (MISSPELT.validate, "did you mean 'projection'"),
        (lambda: DigitsInfoGAN(augment="shift").validate(), "--augment does not go"),
        (lambda: DigitsInfoGAN(objective="began").build(torch.device("cpu")), "no place for a class"),
        (lambda: DigitsSemiSupervised(spectral_norm=True).validate(), "--spectral-norm does not go"),
        (lambda: DigitsSemiSupervised(labels=0).validate(), "--labels must be at least 1"),
        (lambda: AdversarialTrainer(policy(), discriminators()["concat"], stabilisers=[Guessing()]), "needs an Auxil"),
        (lambda: Labelled(torch.zeros(3, 2), torch.zeros(2)), "one label per sample"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


SMALL = ["--steps", "4", "--log-every", "2", "--picture-every", "4", "--width", "16", "--batch-size", "8", "--quiet"]


@pytest.mark.parametrize(
    ("name", "flags", "figure"),
    [
        ("digits-conditional", [], "class_accuracy"),
        ("digits-conditional", ["--conditioning", "concat", "--policy", "implicit"], "class_accuracy"),
        ("digits-conditional", ["--conditioning", "auxiliary"], "class_accuracy"),
        (
            "digits-conditional",
            ["--estimator", "st", "--probe-gradients", "loo,st", "--probe-every", "2"],
            "class_accuracy",
        ),
        ("digits-infogan", ["--policy", "implicit", "--probe-spectrum", "--probe-every", "4"], "code_accuracy"),
        ("digits-semisupervised", [], "test_error"),
    ],
)
def test_a_recipe_leaves_a_run(name, flags, figure, quick):
    assert main(["train", name, *SMALL, *flags, "--out", "run"]) == 0
    told = json.loads((quick / "run" / "evaluation.json").read_text())
    share = told["rows"]["generated"][figure]["mean"]
    assert 0 <= share <= 1
    assert figure in (quick / "run" / "metrics.csv").read_text().splitlines()[0]
    assert (quick / "run" / "samples" / "step-000004.png").exists()
    again = load("run").evaluate(1)
    assert again.rows["generated"][figure].mean == pytest.approx(share)
    assert main(["sample", "run", "-n", "23"]) == 0 and main(["plot", "run"]) == 0
    resumed = ["train", name, *SMALL, *flags, "--steps", "6", "--resume", "run"]
    assert main(resumed) == 0
