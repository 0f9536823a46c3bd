"""The laboratory: batched estimates against a loop, moments against torch's, tables, figures, ranks and the command."""

import csv
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path as FilePath

import pytest
import torch
from torch.distributions import Bernoulli, Normal

from advrl.cli import main
from advrl.distributions import OneHotCategorical
from advrl.estimators import (
    ESTIMATORS,
    Critic,
    GumbelSoftmax,
    Learned,
    Path,
    Rebar,
    Relax,
    Score,
    StraightThrough,
    VarianceNormalised,
    leave_one_out,
    make_estimator,
)
from advrl.lab import (
    PROBLEMS,
    Bits,
    Choice,
    Moments,
    NormalSquare,
    Problem,
    Row,
    Table,
    bias_variance_plot,
    compare,
    histogram_plot,
    save_figures,
    variance_plot,
)
from advrl.lab.compare import largest_z, z_bound
from advrl.lab.harness import gradients, measure, numbers_of
from advrl.nn import MLP
from tests.statistics import assert_table, assert_unbiased

TWO = {"score": [Score(2), Score(8)], "loo": [Score(2, leave_one_out), Score(8, leave_one_out)]}


def mlp_policy(batch: int = 6, seed: int = 0, behind: bool = True) -> Problem:
    """A perceptron from contexts to one choice among four each; exact at the node, since outcomes can be listed."""
    from advrl.lab.enumeration import exact_gradient

    torch.manual_seed(seed)
    net, contexts = MLP(3, 4, (8,)).double(), torch.randn(batch, 3, dtype=torch.float64)
    weights = torch.randn(batch, 4, dtype=torch.float64)
    problem = Problem(
        "policy",
        net(contexts),
        lambda node: OneHotCategorical(logits=node, validate_args=False),
        lambda x: (x * weights).sum(-1).exp(),
        parameters=tuple(net.parameters()) if behind else (),
    )
    object.__setattr__(problem, "gradient", exact_gradient(problem))
    return problem


@pytest.mark.parametrize("estimator", [Score(4), Score(4, leave_one_out), GumbelSoftmax(4), StraightThrough(4)])
def test_all_parameters_at_once_are_what_a_loop_gives(estimator):
    """Mean and total variance over all of an MLP's parameters, batched and by one backward per replicate."""
    problem = mlp_policy()
    torch.manual_seed(1)
    loop = []
    for _ in range(600):
        loss = estimator(problem.distribution(problem.node), problem.cost).mean()
        found = torch.autograd.grad(loss, problem.parameters, retain_graph=True)
        loop.append(torch.cat([g.flatten() for g in found]))
    loop = torch.stack(loop)
    batched = gradients(estimator, problem, 4000)
    assert batched.shape == (4000, sum(p.numel() for p in problem.parameters))
    one, many = Moments.of(loop, batched.mean(0)), Moments.of(batched, batched.mean(0))
    assert abs(one.total - many.total) < 5 * (one.total_error**2 + many.total_error**2) ** 0.5
    assert_unbiased(loop - batched.mean(0) * 1.0, torch.zeros(loop.shape[1]), 1e-9)
    if estimator.unbiased:
        assert_unbiased(batched, problem.truth())


def test_one_draw_through_the_batched_product_is_the_plain_gradient():
    """With the same random numbers, R = 1 is the gradient of the surrogate itself."""
    problem = mlp_policy()
    torch.manual_seed(3)
    one = gradients(Score(2), problem, 1)[0]
    torch.manual_seed(3)
    loss = Score(2)(problem.distribution(problem.node[None]), problem.cost).mean()
    plain = torch.cat([g.flatten() for g in torch.autograd.grad(loss, problem.parameters, retain_graph=True)])
    assert torch.allclose(one, plain)


def test_the_exact_gradient_of_parameters():
    problem = mlp_policy()
    from advrl.lab.enumeration import expectation

    value = expectation(problem.distribution(problem.node), problem.cost).mean()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(value, problem.parameters, retain_graph=True)])
    assert torch.allclose(problem.truth(), exact)


def test_moments_are_torch_s_and_merge():
    torch.manual_seed(0)
    draws = torch.randn(1000, 3, dtype=torch.float64) ** 3 + torch.tensor([1e3, 0.0, -5.0])
    centre = draws[:100].mean(0)
    whole, parts = Moments.of(draws, centre), Moments.empty(centre)
    for chunk in draws.split([1, 99, 400, 500]):
        parts = parts.merge(Moments.of(chunk, centre))
    for m in (whole, parts):
        assert m.count == 1000
        assert torch.allclose(m.mean, draws.mean(0)) and torch.allclose(m.variance, draws.var(0))
        assert torch.allclose(m.error, draws.std(0) / 1000**0.5) and m.total == pytest.approx(float(draws.var(0).sum()))
    assert parts.total_error == pytest.approx(whole.total_error, rel=1e-9)
    assert Moments.empty(centre).merge(whole) is whole and whole.merge(Moments.empty(centre)) is whole


def test_the_error_of_the_variance_is_exact_for_one_number():
    """sqrt((m4 - s^4) / R), whatever the centre; for several numbers it is near with a centre near the mean."""
    torch.manual_seed(0)
    draws = torch.randn(5000, 1, dtype=torch.float64).exp()
    away = draws - draws.mean()
    exact = float((((away**4).mean() - (away**2).mean() ** 2) / 5000) ** 0.5)
    for centre in (0.0, 1.6, 100.0):
        assert Moments.of(draws, torch.tensor([centre]).double()).total_error == pytest.approx(exact, rel=1e-3)
    mixed = torch.randn(4000, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    direct = float((((mixed - mixed.mean(0)) ** 2).sum(1)).std() / 4000**0.5)
    assert Moments.of(mixed, mixed[:64].mean(0)).total_error == pytest.approx(direct, rel=0.05)


def test_the_error_of_the_variance_covers():
    """Of 500 experiments, 95.4 % lie within two errors of the truth; between 90 and 99 %, but for 1 in 10^6."""
    torch.manual_seed(0)
    inside = 0
    for _ in range(500):
        m = Moments.of(torch.randn(2000, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
        inside += abs(m.total - 2) < 2 * m.total_error
    assert 450 <= inside <= 495


def test_the_false_alarm_rate_of_the_bias_is_the_stated_one():
    """1,000 rows of an unbiased, skewed estimator at 1e-2: between 1 and 25 marked, but for 1 in 10^4 (mean 10)."""
    problem = Bits(bits=3).on()
    exact = problem.truth()
    torch.manual_seed(0)
    draws = gradients(Score(4, leave_one_out), problem, 1000 * 200).reshape(1000, 200, 3)
    z = (draws.mean(1) - exact) / (draws.std(1) / 200**0.5)
    alarms = int((z.abs().amax(1) > z_bound(200, 3, false_alarm=1e-2)).sum())
    assert 1 <= alarms <= 25


def test_rare_events_do_not_look_like_bias():
    """A coordinate that hardly ever moves is known far too well by its own standard error: z would be above 100."""
    torch.manual_seed(0)
    draws = torch.randn(512, 20, dtype=torch.float64)
    draws[:, 0] = 0.01 + 1e-3 * draws[:, 0]  # its mean is 0.01 from the truth, and what makes up for it never happened
    m = Moments.of(draws, torch.zeros(20, dtype=torch.float64))
    assert float((m.mean / m.error)[0]) > 100
    assert abs(largest_z(m.mean, m.error, 0.0)) < z_bound(512, 20)
    assert largest_z(m.mean + 1.0, m.error, 0.0) > 15, "a bias beyond the noise is found"


def test_a_known_bias_is_marked():
    """A baseline that includes its own sample shrinks the gradient by (n - 1) / n."""
    estimators = {"right": Score(4, leave_one_out), "wrong": Score(4, lambda c: c.mean(0))}
    table = compare(estimators, NormalSquare(), replicates=20_000)
    assert not table["right"].biased and table["wrong"].biased and "*" in str(table)
    assert table["wrong"].bias == pytest.approx(-1.0, abs=0.1)


def test_chunks_change_the_draws_but_not_the_answer():
    problem = Choice(categories=4).on()
    tables = [compare(TWO, problem, replicates=3000, chunk=chunk) for chunk in (2**10, 2**12, 2**18)]
    for table in tables:
        assert_table(table)
        assert {row.replicates for row in table.rows} == {3000}
    exact = {"mean": Path(2)}
    ready = Problem("flat", torch.zeros(2), lambda node: Normal(node, 1.0), lambda x: x)  # every estimate is the same
    few, many = (compare(exact, ready, replicates=100, chunk=chunk).rows[0] for chunk in (4, 2**18))
    assert (few.gradient, few.variance) == (many.gradient, many.variance) and few.gradient == pytest.approx(0.5**0.5)


def test_chunks_bound_the_memory():
    problem, seen = Bits().on(), []

    def watching(x):
        seen.append(x.numel())
        return problem.cost(x)

    watched = Problem("watched", problem.node, problem.distribution, watching, width=2)
    numbers = numbers_of(Score(8), watched)
    assert numbers == 8 * 6 * 2
    centre = torch.zeros(6, dtype=torch.float64)
    seen.clear()
    measure(Score(8), watched, 1000, numbers=numbers, centre=centre, direction=centre + 6**-0.5, chunk=10 * numbers)
    assert len(seen) == 100 and max(seen) == 10 * 8 * 6


def test_comparing_leaves_no_trace_and_repeats():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = compare(TWO, Bits(), replicates=500)
    assert torch.equal(before, torch.get_rng_state())
    other = compare({"loo": TWO["loo"], "st": StraightThrough(2)}, Bits(), replicates=500)
    assert one["loo"].variance == other["loo"].variance, "a row does not depend on its neighbours"
    assert compare(TWO, Bits(), replicates=500, seed=1)["loo"].variance != one["loo"].variance


@pytest.mark.parametrize(
    "estimator",
    [Score(2, Critic()), Score(2, advantage=VarianceNormalised(Critic())), Relax(2), Rebar(2, Learned(0.5))],
)
def test_what_is_learned_warms_up_on_the_problem(estimator):
    """It has left a loss of its own graph behind, which no copy may take along."""
    raw, warm = (compare({"it": estimator}, Bits(bits=3), replicates=400, warmup=n)["it"] for n in (0, 40))
    assert raw.variance != warm.variance


def test_evaluations_are_counted():
    table = compare({"score": Score(3), "gumbel": GumbelSoftmax(5)}, mlp_policy(behind=False), replicates=10)
    assert [row.evaluations for row in table.rows] == [3, 5]


@pytest.mark.parametrize("name", ["normal-square", "tucker", "bernoulli", "categorical", "sequence"])
def test_every_estimator_is_compared_or_says_why_not(name, device):
    estimators = {}
    for estimator in ESTIMATORS:
        estimators[estimator] = make_estimator(estimator, n=2)
    table = compare(estimators, PROBLEMS[name](), replicates=50, device=device)
    assert {row.name for row in table.rows} | table.refused.keys() == set(ESTIMATORS)
    assert len(table.rows) > 1 and all(len(reason) > 20 for reason in table.refused.values())
    with pytest.raises(ValueError, match="no estimator fits"):
        compare({}, PROBLEMS[name](), replicates=50)


@pytest.fixture(scope="module")
def table() -> Table:
    return compare({**TWO, "gumbel": GumbelSoftmax(8), "path": Path(8)}, Bits(), replicates=400)


def test_a_table_prints_aligned_and_narrow(table):
    lines = str(table).splitlines()
    rows = lines[2:3] + lines[4 : 4 + len(table.rows)]
    assert len({len(line) for line in rows}) == 1 and max(map(len, rows)) <= 120
    assert "exact gradient 0.52971 long (6 parameters); 400 estimates each, cpu" in lines[0]
    assert "path left out: path needs a reparameterised distribution, and Bernoulli is none" in str(table)
    long = Row("a-name-that-goes-on-and-on", 10**6, "", True, 10**7, -1.23456789e-12, 1.2e-13, -1e-9, -1e9, 4.0,
               1.2345e-12, 1.23e-13, 1.2345e-12, 10.0**6, 123456.7)  # fmt: skip
    wide = str(Table("p", (long,), {}, -1e-9, 1, "cuda:0"))
    assert max(map(len, wide.splitlines())) <= 120


def test_exports_round_trip(table, tmp_path):
    paths = {path.name: path for path in table.save(tmp_path)}
    assert Table.from_json(paths["table.json"].read_text()) == table
    assert json.loads(paths["table.json"].read_text())["refused"].keys() == {"path"}
    with open(paths["table.csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    for row, read in zip(table.rows, rows, strict=True):
        for field in fields(Row):
            value = getattr(row, field.name)
            text = "" if value is None else str(value)
            assert read[field.name] == text
        assert float(read["variance_evaluations"]) == row.variance_evaluations
    latex = paths["table.tex"].read_text()
    assert latex.count(r"\\") == 1 + len(table.rows) and latex.startswith(r"\begin{tabular}{lrr")
    assert "±" not in latex and "×" not in latex
    with pytest.raises(KeyError):
        table["nobody"]


def test_figures_show_what_the_table_has(table, tmp_path):
    assert {path.name for path in save_figures(table, tmp_path)} == {
        "variance.png", "bias-variance.png", "histograms.png"}  # fmt: skip
    panel = variance_plot(table).axes[0]
    assert panel.get_xscale() == panel.get_yscale() == "log"
    assert {text.get_text() for text in panel.get_legend().get_texts()} == {"score", "loo", "gumbel"}
    assert len(histogram_plot(table).axes) == len(table.rows)
    assert bias_variance_plot(table).axes[0].get_xlabel() == "|bias|"
    bare = Table.from_json(table.to_json())
    with pytest.raises(ValueError, match="read from a file"):
        histogram_plot(bare)


def test_without_an_exact_gradient_there_is_no_bias():
    problem = mlp_policy()
    object.__setattr__(problem, "gradient", None)
    table = compare({"score": Score(2), "loo": Score(4, leave_one_out)}, problem, replicates=300)
    assert table.exact is None and {row.z for row in table.rows} == {None}
    assert "bias" not in str(table) and table.rows[0].gradient > 0


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def test_the_command_compares_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("compare", "categorical", "--estimators", "score,loo,gumbel,st", "--replicates", 200, "--samples", "2,4",
               "--categories", 4, "--device", "cpu") == 0  # fmt: skip
    out = capsys.readouterr().out
    folder = FilePath("runs/compare-categorical-1")
    names = {"table.csv", "table.json", "table.tex", "variance.png", "bias-variance.png", "histograms.png"}
    assert {path.name for path in folder.iterdir()} == names and all(f"{folder}/{name}" in out for name in names)
    table = Table.from_json((folder / "table.json").read_text())
    assert [(row.name, row.n) for row in table.rows] == [
        (e, n) for e in ("score", "loo", "gumbel", "st") for n in (2, 4)
    ]
    assert str(table).splitlines()[2] in out


def test_the_lecture_s_experiment(tmp_path, capsys):
    assert run("compare", "normal-square", "--out", tmp_path) == 0
    table = Table.from_json((tmp_path / "table.json").read_text())
    assert [row.n for row in table.rows] == [10**k for k in range(1, 6)] * 2
    assert {row.replicates for row in table.rows} == {100}
    assert table.rows[0].closed_form == pytest.approx(8.7) and table.rows[5].closed_form == pytest.approx(0.4)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 120


def test_impossible_rows_are_shown_as_such(tmp_path, capsys):
    assert run("compare", "tucker", "--samples", "1", "--replicates", 10, "--out", tmp_path) == 0
    out = capsys.readouterr().out
    assert "loo left out: the leave-one-out baseline needs n >= 2" in out and "path left out" in out


def test_the_command_teaches(capsys):
    assert run("compare", "--help") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in PROBLEMS) and all(name in out for name in ESTIMATORS)
    assert max(map(len, out.splitlines())) <= 120
    assert run("compare", "--list") == 0 and "normal-square" in capsys.readouterr().out
    assert run("compare") == 2
    assert run("compare", "normal-square", "--help") == 0 and "--theta" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["normal-sqare"], "did you mean 'normal-square'"),
        (["tucker", "--estimators", "gumble"], "did you mean 'gumbel'"),
        (["tucker", "--samples", "two"], "whole numbers with commas"),
        (["tucker", "--samples", "0"], "at least 1"),
        (["tucker", "--replicates", "1"], "at least 2"),
        (["tucker", "--temperature", "0"], "above 0"),
        (["tucker", "--device", "tpu"], "unknown device"),
        (["tucker", "--estimators", "path"], "no estimator fits"),
        (["bernoulli", "--bits", "20"], "from 1 to 12"),
        (["bernoulli", "--cost", "quadratik"], "did you mean 'quadratic'"),
    ],
)
def test_wrong_words_end_with_a_sentence(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("compare", *argv) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.usefixtures("meta")
def test_nothing_is_made_on_the_default_device(name):
    options = {"training": 2} if name == "binary-vae" else {}
    table = compare({"score": Score(2), "loo": Score(2, leave_one_out)}, PROBLEMS[name](**options), replicates=4)
    assert table["loo"].variance > 0


def test_bernoulli_without_independent_is_a_batch():
    """A batch's gradient is that of the mean over it."""
    problem = Problem("batch", torch.zeros(3), lambda node: Bernoulli(logits=node), lambda x: x)
    row = compare({"loo": Score(4, leave_one_out)}, problem, replicates=4000).moments[0]
    assert torch.allclose(row.mean, torch.full((3,), 0.25 / 3).double(), atol=float(6 * row.error.max()))


def test_no_estimator_pays_for_what_torch_imports_at_the_first_gradient():
    script = """
import sys
from advrl.estimators import Score
from advrl.lab import NormalSquare, compare, harness

clock, there = harness._now, []
harness._now = lambda problem: (there.append("torch.fx.experimental.symbolic_shapes" in sys.modules), clock(problem))[1]
compare({"score": Score(10)}, NormalSquare().on("cpu"), replicates=4)
assert len(there) == 2 and there[0] == there[1], there
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
