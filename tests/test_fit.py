"""The loop: exact resume, divergence, interruption, full disks, and that looking at a run does not change it."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from advrl.agents import AdversarialTrainer, CheckpointError, DivergedError, Every, Interrupted, WriteError, fit
from advrl.agents.checkpoint import load_checkpoint, save_checkpoint
from advrl.agents.meter import Meter
from advrl.estimators import MovingAverage, Score, leave_one_out
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import r1
from advrl.plots import read_metrics
from advrl.seeding import isolated, rng_state, seed_everything, set_rng_state

SHAPE = (1, 3, 3)
QUIET = {"progress": False, "log_every": 7, "batch_size": 8}


def make_trainer(seed: int = 0, baseline: str = "moving-average") -> AdversarialTrainer:
    seed_everything(seed)
    policy = Policy(MLP(4, SHAPE, (8,)), FAMILIES["binomial"], 4)
    estimator = Score(3, MovingAverage(0.9) if baseline == "moving-average" else leave_one_out)
    return AdversarialTrainer(
        policy, MLP(SHAPE, (), (8,), dropout=0.1), estimator=estimator, penalties=[(0.5, r1)], penalty_every=4, ema=0.99
    )


def data() -> Tensor:
    return (torch.arange(90).view(10, *SHAPE) % 17).float() / 8 - 1


def everything(trainer: AdversarialTrainer) -> list[Tensor]:
    """Every tensor in a trainer's state, in order."""
    found: list[Tensor] = []

    def walk(value) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)

    walk(trainer.state_dict())
    return found


class Killed(Exception):
    """Stands for SIGKILL: nothing of fit's own catches it."""


@pytest.mark.parametrize("killed_at", [101, 150, 199])
def test_200_steps_straight_are_100_killed_and_resumed(tmp_path, killed_at):
    straight = make_trainer()
    fit(straight, data(), 200, out=tmp_path / "a", checkpoint_every=50, **QUIET)
    after_straight = rng_state()["torch"]

    killed = make_trainer()
    step = killed.step

    def dying(batch: Tensor) -> dict[str, Tensor]:
        if killed.steps == killed_at:
            raise Killed
        return step(batch)

    killed.step = dying
    with pytest.raises(Killed):
        fit(killed, data(), 200, out=tmp_path / "b", checkpoint_every=50, **QUIET)
    with open(tmp_path / "b" / "metrics.csv", "a") as file:
        file.write("203,1.0,0.")  # what a kill in the middle of a row leaves

    resumed = make_trainer(seed=123)  # other weights, other random state: all of it comes from the checkpoint
    torch.randn(17)
    fit(resumed, data(), 200, out=tmp_path / "b", checkpoint_every=50, resume=True, **QUIET)
    for a, b in zip(everything(straight), everything(resumed), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(after_straight, rng_state()["torch"])
    one, other = read_metrics(tmp_path / "a" / "metrics.csv"), read_metrics(tmp_path / "b" / "metrics.csv")
    assert one["step"] == other["step"] == [float(s) for s in (*range(7, 200, 7), 200)]
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], other[name])


def test_looking_at_a_run_does_not_change_it():
    plain, watched = make_trainer(), None
    fit(plain, data(), 20, **QUIET)

    def look(step: int) -> dict[str, float]:
        random.random(), np.random.rand()
        return {"seen": float(torch.randn(3).sum() * 0 + step)}

    watched = make_trainer()
    last = fit(watched, data(), 20, callbacks=[Every(3, look)], **QUIET)
    assert last["seen"] == 20
    for a, b in zip(everything(plain), everything(watched), strict=True):
        assert torch.equal(a, b)


def test_the_lowest_monitored_value_is_kept(tmp_path):
    values = iter([3.0, 1.0, 2.0])
    fit(
        make_trainer(),
        data(),
        30,
        out=tmp_path,
        callbacks=[Every(10, lambda s: {"v": next(values)})],
        monitor="v",
        **QUIET,
    )
    assert load_checkpoint(tmp_path / "best.pt")["step"] == 20
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (state["step"], state["best"]) == (30, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_step_term_and_last_good_checkpoint(tmp_path, value):
    trainer = make_trainer()
    step = trainer.step

    def diverging(batch: Tensor) -> dict[str, Tensor]:
        metrics = step(batch)
        return metrics | {"g_cost": metrics["g_cost"] * value} if trainer.steps == 13 else metrics

    trainer.step = diverging
    with pytest.raises(DivergedError, match=r"g_cost was not finite at step 13; .*checkpoint\.pt of step 10 is whole"):
        fit(trainer, data(), 30, out=tmp_path, checkpoint_every=10, **QUIET)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 10


def test_divergence_is_named_before_a_callback_stumbles_over_it():
    trainer = make_trainer()
    step = trainer.step
    trainer.step = lambda batch: step(batch) | {"g_cost": torch.tensor(float("nan"))}
    called = []
    with pytest.raises(DivergedError, match="g_cost was not finite at step 1"):
        fit(trainer, data(), 30, callbacks=[Every(3, called.append)], **QUIET)
    assert trainer.steps == 3 and not called


def test_no_checkpoint_of_parameters_that_are_not_finite(tmp_path):
    """Finite losses, but the last update broke a parameter: the checkpoint due now must not be written."""
    trainer = make_trainer()
    step = trainer.step

    def breaking(batch: Tensor) -> dict[str, Tensor]:
        metrics = step(batch)
        if trainer.steps == 20:
            with torch.no_grad():
                next(trainer.generator.parameters())[0] = float("nan")
        return metrics

    trainer.step = breaking
    with pytest.raises(DivergedError, match="parameters of generator were not finite after step 20"):
        fit(trainer, data(), 30, out=tmp_path, checkpoint_every=10, **QUIET)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 10


def test_meter_averages_each_term_over_the_steps_that_have_it():
    meter = Meter()
    meter.add(1, {"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    meter.add(2, {"a": torch.tensor(3.0)})
    copy = Meter()
    copy.load_state_dict(meter.state_dict())
    assert meter.read() == copy.read() == {"a": 2.0, "b": 4.0}
    assert meter.read() == {}
    meter.add(3, {"a": torch.tensor(float("nan")), "b": torch.tensor(float("inf"))})
    meter.add(2, {"a": torch.tensor(float("nan"))})
    with pytest.raises(DivergedError, match="a was not finite at step 2"):
        meter.check()


def test_ctrl_c_saves_between_two_steps_and_says_so(tmp_path):
    trainer = make_trainer()
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"interrupted at step \d+, saved in .*checkpoint\.pt"):
        fit(trainer, data(), 10**9, out=tmp_path, checkpoint_every=10**9, **QUIET)
    assert signal.getsignal(signal.SIGINT) is before
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == trainer.steps
    steps = trainer.steps + 5
    fit(trainer, data(), steps, out=tmp_path, resume=True, **QUIET)
    assert trainer.steps == steps


def test_a_disk_that_fills_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    trainer = make_trainer()
    good = {}

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    def fill(step: int) -> None:
        if step == 20:
            good["bytes"] = (tmp_path / "checkpoint.pt").read_bytes()
            monkeypatch.setattr("advrl.agents.checkpoint.write_atomically", full)

    with pytest.raises(WriteError, match=r"No space left on device; .*checkpoint\.pt of step 10 is whole"):
        fit(trainer, data(), 30, out=tmp_path, checkpoint_every=10, callbacks=[Every(10, fill)], **QUIET)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good["bytes"]


def flipped(content: bytes) -> bytes:
    """The content with one byte of the stored tensor changed."""
    where = content.index(torch.arange(1000).numpy().tobytes()) + 100
    return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]


def test_checkpoints_survive_a_real_kill_and_refuse_damage(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"step": 1, "x": torch.arange(1000)})
    child = os.fork()
    if child == 0:  # keeps writing until it is killed
        while True:
            save_checkpoint(path, {"step": 2, "x": torch.arange(1000)})
    time.sleep(0.3)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert torch.equal(load_checkpoint(path)["x"], torch.arange(1000))

    content = path.read_bytes()
    for damaged in (content[:-1], content[: len(content) // 2], b"", b"hello", flipped(content)):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"no checkpoint|damaged|cannot be read"):
            load_checkpoint(path)
    torch.save({"foreign": 1}, path)
    with pytest.raises(CheckpointError, match="not written by this version"):
        load_checkpoint(path)
    torch.save({"code": Killed}, path)
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path):
    fit(make_trainer(), data(), 2, out=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="already holds a run"):
        fit(make_trainer(), data(), 2, out=tmp_path, **QUIET)


def test_loaders_and_other_iterables_of_batches():
    loader = DataLoader(TensorDataset(data(), torch.zeros(10)), batch_size=4)
    trainer = make_trainer()
    fit(trainer, loader, 7, **QUIET)
    assert trainer.steps == 7
    twice = AdversarialTrainer(
        Policy(MLP(4, SHAPE, (8,)), FAMILIES["implicit"], 4), MLP(SHAPE, (), (8,)), discriminator_steps=2
    )
    fit(twice, [data()[:4], data()[4:8]], 3, **QUIET)
    fit(twice, DataLoader(data()[:9], batch_size=5), 5, **QUIET)  # batches of 5 and 4 for two updates
    for wrong in ([{"x": data()}], data().numpy()):
        with pytest.raises(TypeError, match="batches must be tensors"):
            fit(make_trainer(), wrong, 1, **QUIET)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        fit(trainer, data(), 0)


def test_a_loader_s_batches_go_to_the_trainer_s_device():
    trainer = make_trainer()
    for net in (trainer.generator, trainer.average, trainer.discriminator):
        net.to("meta")
    seen = []
    trainer.step = lambda batch: (
        seen.append(batch.device.type) or setattr(trainer, "steps", 1) or {"x": torch.zeros(())}
    )
    with pytest.raises(RuntimeError, match="meta"):  # the check of the parameters' values, after the step
        fit(trainer, [data()], 1, **QUIET)
    assert seen == ["meta"]


def test_random_state_round_trip_and_isolation():
    seed_everything(5)
    before = rng_state()
    first = (random.random(), np.random.rand(), torch.rand(1).item())
    set_rng_state(before)
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())
    set_rng_state(before)
    with isolated(9):
        inner = torch.rand(1).item()
        with isolated(9):
            assert torch.rand(1).item() == inner
    assert first == (random.random(), np.random.rand(), torch.rand(1).item())
    with pytest.raises(ValueError, match="seed must be in"):
        seed_everything(-1)
