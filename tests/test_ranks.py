"""Several ranks: the same as one on the joined batch, one word for all, and a run that survives the loss of a rank."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advrl import distributed
from advrl.agents import fit
from advrl.agents.checkpoint import load_checkpoint
from advrl.cli import main
from advrl.data import Batches
from advrl.device import resolve_device
from advrl.distributed import place, process_group, world_size
from advrl.lab import Table
from advrl.plots import read_metrics
from advrl.recipes import Digits, run
from tests import ranks

ROOT = Path(__file__).parents[1]
TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--standalone",
    "--monitor-interval",
    "1",
]  # of the launcher: a rank has time to say what happened before it is ended


def torchrun(*argv: object) -> subprocess.CompletedProcess[str]:
    """Two ranks on a free port."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    call = [*TORCHRUN, *map(str, argv)]
    return subprocess.run(call, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of tests/ranks.py and what its two ranks found, before one died."""
    folder = tmp_path_factory.mktemp("ranks")
    images = (np.arange(80 * 16).reshape(80, 4, 4) % 17) / 16  # few, small, without labels: quickly judged
    np.save(folder / "images.npy", images)
    fit(ranks.make_trainer(), ranks.data(), 10, out=folder / "alone", **ranks.QUIET)
    done = torchrun("-m", "tests.ranks", folder)
    assert done.returncode != 0 and "advrl: rank 0 lost the other ranks" in done.stderr, done.stderr
    assert "checkpoint.pt of step 20 is whole" in done.stderr
    return folder, [torch.load(folder / f"rank-{r}.pt", weights_only=False) for r in (0, 1)]


def tensors(value: Any) -> list[Tensor]:
    """Every tensor in a state, in order."""
    if isinstance(value, Tensor):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in inside for tensor in tensors(item)]


def same(one: Any, other: Any) -> bool:
    """Whether two states hold the same bits."""
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def test_two_ranks_on_half_batches_are_one_on_the_joined_batch(played):
    """Adam divides by the root of the mean square, so that a rounding error of 1e-16 in a gradient g moves a weight by
    lr * 1e-16 / |g|: the bound leaves gradients down to 1e-6 for 16 updates at lr 2e-3."""
    one = tensors(ranks.parity())
    for found in played[1]:
        two = tensors(found["parity"])
        assert len(one) == len(two) == 12
        for a, b in zip(one, two, strict=True):
            assert (a - b).abs().max() < 1e-11
    assert same(played[1][0]["parity"], played[1][1]["parity"])


def test_two_ranks_are_one_in_every_dynamics(played):
    """Products with the game's Jacobian and unrolled steps included; Adam's eps of 1e-3 keeps rounding small."""
    one = ranks.dynamics_parity()
    for found in played[1]:
        assert found["dynamics"].keys() == one.keys()
        for name, value in one.items():
            assert (value - found["dynamics"][name]).abs().max() < 1e-11, name
    assert same(played[1][0]["dynamics"], played[1][1]["dynamics"])


def test_the_comparison_sees_a_rank_that_keeps_its_gradients_to_itself(monkeypatch):
    one = tensors(ranks.parity())
    monkeypatch.setattr(ranks, "mine", lambda x, parts: x.unflatten(0, (parts, 2, -1))[:, 0].flatten(0, 1))
    assert max((a - b).abs().max() for a, b in zip(one, tensors(ranks.parity()), strict=True)) > 1e-4


def test_baselines_are_of_all_ranks(played):
    one = ranks.baselines()
    for found in played[1]:
        for name, gradient in one.items():
            torch.testing.assert_close(found["baselines"][name], gradient, rtol=1e-13, atol=1e-13)


def test_agents_learn_from_the_episodes_of_all_ranks(played, monkeypatch):
    """Adam's steps as above, at gradients that clipping leaves; with one rank's half of the episodes they differ."""
    one = ranks.agents()
    for found in played[1]:
        assert max(float((found["agents"][name] - weight).abs().max()) for name, weight in one.items()) < 1e-11
    monkeypatch.setattr(ranks, "mine", lambda x, parts: x[: len(x) // 2])
    half = ranks.agents()
    assert all((half[name] - weight).abs().max() > 1e-4 for name, weight in one.items() if "out.bias" in name)


def test_sequence_gans_learn_from_the_sequences_of_all_ranks(played, monkeypatch):
    """Lengths differ between the ranks, and so do sums over tokens; baselines are of all."""
    one = ranks.sequence_gans()
    for found in played[1]:
        assert max(float((found["sequence_gans"][name] - value).abs().max()) for name, value in one.items()) < 1e-11
    monkeypatch.setattr(ranks, "mine", lambda x, parts: x[: len(x) // 2])
    half = ranks.sequence_gans()
    assert all(
        (half[name] - weight).abs().max() > 1e-4 for name, weight in one.items() if name.split()[1] == "out.bias"
    )


def test_ranks_share_weights_and_batches_but_no_noise(played):
    zero, one = (found["resumed"] for found in played[1])
    ours, theirs = (found["straight"]["trainer"] for found in (zero, one))
    for name in ("discriminator", "g_opt", "d_opt", "estimator.baseline", "stabiliser.historical-averaging"):
        assert same(ours[name], theirs[name]), name
    for name in ("generator", "average"):
        weights = [k for k in ours[name] if "running" not in k]
        assert all(torch.equal(ours[name][k], theirs[name][k]) for k in weights)
        assert not torch.equal(ours[name]["net.net.1.running_mean"], theirs[name]["net.net.1.running_mean"])
    pools = [state["stabiliser.history-pool"] for state in (ours, theirs)]
    assert pools[0]["count"] == pools[1]["count"] == 6 and not torch.equal(pools[0]["held"], pools[1]["held"])
    assert not any(torch.equal(a, b) for a, b in zip(zero["noise"], one["noise"], strict=True))
    assert len(zero["noise"]) == 20 and zero["noise"][0].shape == (4, 4)

    order = Batches(ranks.data(), 8, seed=0)
    for a, b in zip(zero["seen"], one["seen"], strict=True):
        assert torch.equal(torch.cat([a, b]), next(order))


def test_logged_metrics_are_means_over_ranks(played):
    zero, one = (found["resumed"]["last"] for found in played[1])
    assert zero == one and {"d_loss", "g_cost", "r1"} <= zero.keys()


def test_the_first_rank_s_random_stream_is_left_as_it_is(played):
    zero, one = (found["resumed"]["noise"][0] for found in played[1])
    trainer = ranks.make_trainer()
    assert torch.equal(trainer.noise(4), zero)
    ranks.seed_everything(played[1][1]["seed"])
    assert not torch.equal(trainer.noise(4), one)  # the run's seed was another
    assert played[1][0]["seed"] == 5 != played[1][1]["seed"]


def test_a_lost_run_goes_on_bit_for_bit(played):
    for found in played[1]:
        assert same(found["resumed"]["straight"], found["resumed"]["resumed"])
    folder = played[0]
    one, other = (load_checkpoint(folder / name / "checkpoint.pt") for name in ("straight", "lost"))
    assert len(one["others"]) == 1
    assert same({k: one[k] for k in one if k != "seconds"}, {k: other[k] for k in other if k != "seconds"})


def test_what_happens_on_one_rank_ends_all(played):
    folder, (zero, one) = played[0], (found["failures"] for found in played[1])
    kept = folder / "signal" / "checkpoint.pt"
    assert zero["nan"] == one["nan"]
    assert "DivergedError: d_loss was not finite at step 3 on rank 1; " in zero["nan"]
    assert load_checkpoint(folder / "nan" / "checkpoint.pt")["step"] == 0
    assert load_checkpoint(kept)["step"] == 3
    assert zero["callback"].startswith("WriteError: cannot write") and "of step 5 is whole" in zero["callback"]
    assert one["callback"].startswith("RankError: rank 1 ends, since rank 0 failed; ")
    for heard in (zero, one):
        assert (
            "batch_size is of all ranks together and must divide by their number, got 9 for 2" in heard["indivisible"]
        )
    assert "made by 1 rank and cannot go on with 2" in zero["alone"] and one["alone"].startswith("RankError")
    assert "already holds a run" in zero["signal"] and one["signal"].startswith("RankError")


def test_the_command_line_refuses_a_batch_that_does_not_divide(played):
    sentence = "--batch-size is of all ranks together and must divide by their number, got 33 for 2 ranks"
    zero, one = (found["indivisible"] for found in played[1])
    assert zero == (2, "", f"advrl: {sentence}\n")
    assert one == (2, "", f"rank 1: advrl: {sentence}\n")  # it waited for torchrun to end it, which here goes on


def test_rank_0_alone_speaks(played):
    (code, out, err), other = (found["digits"] for found in played[1])
    assert code == 0 and other == (0, "", "")
    for words in ("ranks      2, each with 4 of a batch of 8\n", "Written:", "Next:"):
        assert out.count(words) == 1
    assert err.count("step 60/60") == 1


def test_ranks_share_replicates_and_have_the_moments_of_one(played):
    alone = ranks.compared()
    for found in played[1]:
        for one, other in zip(alone, found["compared"], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=0.0)


def test_the_command_compares_on_all_ranks_and_rank_0_speaks(played):
    folder, ((code, out, err), other) = played[0], (found["command"] for found in played[1])
    assert (code, err) == (0, "") and other == (0, "", "") and out.count("Written:") == 1
    assert ranks.compare_by_command(folder / "compared by one")[0] == 0
    one, two = (Table.from_json((folder / f"compared by {n}" / "table.json").read_text()).rows for n in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert (a.name, a.replicates) == (b.name, b.replicates)
        for number in ("gradient", "gradient_error", "z", "variance", "variance_error"):
            assert getattr(a, number) == pytest.approx(getattr(b, number), rel=1e-9), number


def test_batch_norm_of_each_rank_is_announced(monkeypatch):
    for module in (distributed, run):
        monkeypatch.setattr(module, "world_size", lambda: 2)
    plain, normed = (
        SimpleNamespace(generator=nn.Linear(1, 1), discriminator=net) for net in (nn.ReLU(), ranks.Normed())
    )
    assert run._ranks(Digits(), plain) == "ranks      2, each with 64 of a batch of 128\n"
    assert run._ranks(Digits(), normed).endswith("64 of a batch of 128; batch norm sees those alone\n")


def test_digits_that_lost_a_rank_go_on_bit_for_bit(played, capsys):
    folder = played[0]
    lost = folder / "lost digits"
    assert load_checkpoint(lost / "checkpoint.pt")["step"] == 20
    assert main(["train", "digits", "--resume", str(lost), "--device", "cpu"]) == 2
    assert "was made by 2 ranks and cannot go on with 1" in capsys.readouterr().err

    done = torchrun("-m", "advrl", "train", "digits", "--resume", lost, "--quiet", "--device", "cpu")
    assert done.returncode == 0 and not done.stdout, done.stderr
    for name in ("checkpoint.pt", "best.pt"):
        one, other = (load_checkpoint(run / name) for run in (folder / "digits", lost))
        assert one["step"] == other["step"] and one["best"] == other["best"] and len(one["others"]) == 1
        assert same({k: one[k] for k in one if k != "seconds"}, {k: other[k] for k in other if k != "seconds"})
    one, other = (read_metrics(run / "metrics.csv") for run in (folder / "digits", lost))
    assert one["step"] == other["step"] == [20.0, 30.0, 40.0, 60.0]
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_launcher_s_environment(monkeypatch):
    assert place() == (0, 1, 0, 1)
    monkeypatch.setenv("RANK", "1")  # as some clusters set it for every process
    assert place() == (0, 1, 0, 1)
    with process_group(ranks.CPU):
        assert world_size() == 1
    for name, value in (("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert place() == (1, 2, 0, 1)
    monkeypatch.setenv("LOCAL_RANK", "1"), monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")
    assert resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 ranks on this machine need a cuda device each, there are 1"):
        resolve_device("auto")
    with (
        pytest.raises(ValueError, match="several ranks train on cpu or cuda, not on mps"),
        process_group(torch.device("mps")),
    ):
        pass
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="RANK 2 of WORLD_SIZE 2"):
        place()
