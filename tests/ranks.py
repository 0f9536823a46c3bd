"""What two ranks do together, run by ``torchrun`` for tests/test_ranks.py: ``-m tests.ranks FOLDER``.

Rank r leaves what is to be judged in FOLDER/rank-r.pt; then rank 1 dies. Both parities and ``baselines`` are played by
one rank too, in the test itself. One launch for all of it, since starting a rank takes longer than what it does here.
"""

import copy
import faulthandler
import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from advrl.agents import (
    DYNAMICS,
    ActorCritic,
    ActorCriticTrainer,
    AdamRule,
    AdversarialTrainer,
    CheckpointError,
    DivergedError,
    DynamicsTrainer,
    Every,
    HistoricalAveraging,
    HistoryPool,
    Interrupted,
    PPOTrainer,
    PrefixCritic,
    ReinforceTrainer,
    ScratchGAN,
    SeqGAN,
    SequenceGANTrainer,
    SGDRule,
    fit,
    make_dynamics,
    play,
)
from advrl.cli import main
from advrl.distributed import RankError, all_reduce_gradients, process_group, rank, rank_seed, world_size
from advrl.envs import SequenceGeneration
from advrl.estimators import Draw, MovingAverage, Score, leave_one_out
from advrl.estimators import Path as PathEstimator
from advrl.lab import Bits, compare
from advrl.nn import (
    FAMILIES,
    MLP,
    CNNDiscriminator,
    GRUPolicy,
    MinibatchDiscrimination,
    Packing,
    Policy,
    RecurrentDiscriminator,
    before_output,
    spectrally_normalised,
)
from advrl.objectives import r1
from advrl.seeding import rng_state, seed_everything

CPU = torch.device("cpu")
SHAPE = (1, 3, 3)
TRAIN = ("train", "digits")
DIGITS = ["--steps", "60", "--log-every", "20", "--checkpoint-every", "20", "--picture-every", "30", "--batch-size",
          "8", "--width", "8", "--latent", "2", "--samples", "2", "--device", "cpu", "--data"]  # fmt: skip
QUIET: dict[str, Any] = {"progress": False, "log_every": 5, "checkpoint_every": 5, "batch_size": 8}


def options(folder: Path) -> list[str]:
    """Of a short run on the images in the folder."""
    return [*DIGITS, str(folder / "images.npy")]


def mine(x: Tensor, parts: int) -> Tensor:
    """This rank's share of each of the parts of x."""
    return x.unflatten(0, (parts, world_size(), -1))[:, rank()].flatten(0, 1)


def parity(steps: int = 8) -> dict[str, Tensor]:
    """The trainer's state after steps on injected noise: no sampling noise, no batch norm, double backward in R1."""
    seed_everything(0)
    nets = MLP(3, 5, (16,)).double(), MLP(5, (), (16,)).double()
    trainer = AdversarialTrainer(
        *nets, latent=3, estimator=PathEstimator(), penalties=[(0.5, r1)], discriminator_steps=2, generator_steps=2
    )
    source = torch.Generator().manual_seed(1)
    for _ in range(steps):
        real, z = (
            torch.randn(parts * 12, size, generator=source, dtype=torch.float64) for parts, size in ((2, 5), (3, 3))
        )
        trainer.step(mine(real, 2), mine(z, 3))
    return {f"{i}.{name}": p for i, net in enumerate((*nets, trainer.average)) for name, p in net.state_dict().items()}


def dynamics_parity(steps: int = 3) -> dict[str, Tensor]:
    """The same of every dynamics, whose gradients and products are averaged where the field is taken."""
    found: dict[str, Tensor] = {}
    for name in DYNAMICS:
        seed_everything(0)
        nets = MLP(3, 2, (6,), "tanh").double(), MLP(2, (), (6,), "tanh").double()
        dynamics = make_dynamics(name, SGDRule(0.1), AdamRule(0.05, eps=1e-3), unroll_steps=2, lookahead_steps=2)
        trainer = DynamicsTrainer(*nets, dynamics=dynamics, latent=3, penalties=[(0.5, r1)], discriminator_steps=2)
        source = torch.Generator().manual_seed(1)
        for _ in range(steps):
            real, z = (torch.randn(2 * 8, size, generator=source, dtype=torch.float64) for size in (2, 3))
            trainer.step(mine(real, 2), mine(z, 2))
        found |= {f"{name} {i}.{part}": p for i, net in enumerate(nets) for part, p in net.state_dict().items()}
    return found


def baselines() -> dict[str, Tensor]:
    """Gradients of REINFORCE with each baseline, for given draws of 6 z, averaged over the ranks."""
    logits = torch.linspace(-1, 1, 3, dtype=torch.float64).requires_grad_()
    source = torch.Generator().manual_seed(2)
    found = {}
    for name, estimator in (("loo", Score(4, leave_one_out)), ("average", Score(4, MovingAverage(0.5)))):
        for call in range(3):
            x = (torch.rand(4, 6, 3, generator=source, dtype=torch.float64) < 0.5).double()
            x = mine(x.transpose(0, 1), 1).transpose(0, 1)  # all draws of one z stay together
            draw = Draw(x, Independent(Bernoulli(logits=logits.expand(x.shape[1], 3)), 1))
            estimator.surrogate(
                draw, lambda x: (x * torch.arange(3.0, dtype=x.dtype)).sum(-1).square()
            ).mean().backward()
            all_reduce_gradients([logits])
            assert logits.grad is not None
            found[f"{name} {call}"] = logits.grad
            logits.grad = None
    return found


def agents() -> dict[str, Tensor]:
    """Weights of the batched agents after updates on given episodes, each rank with its share of them."""
    task = SequenceGeneration(3, 4, "countdown", eos=True)
    found: dict[str, Tensor] = {}
    for kind in (ReinforceTrainer, ActorCriticTrainer, PPOTrainer):
        seed_everything(0)
        policy = GRUPolicy(3, 4, 4, eos=True).double()
        options: dict[str, Any] = {"max_norm": 0.1}
        if kind is PPOTrainer:
            options |= {"minibatches": 1}  # whose order is each rank's own
        trainer = kind(policy, task, **options)
        with torch.random.fork_rng():
            torch.manual_seed(3)
            played = [play(trainer.actor, task, 12, observe=True) for _ in range(4)]
        for episodes in played:
            reward = torch.sin(episodes.action.double()) * episodes.mask
            share = mine(torch.arange(12), 1)
            trainer.learn(episodes.rows(share), reward[share])
        found |= {f"{kind.__name__} {name}": p for name, p in trainer.generator.state_dict().items()}
    return found


def sequence_gans() -> dict[str, Tensor]:
    """Weights of sequence GANs after steps on given sequences, of many lengths, each rank with its share of them."""
    found: dict[str, Tensor] = {}
    makers: list[Any] = [ScratchGAN, SeqGAN, lambda: ActorCritic(PrefixCritic(3, 4, eos=True))]
    for maker in makers:
        seed_everything(0)
        algorithm = maker()
        policy = GRUPolicy(3, 4, 4, eos=True).double()
        judge: nn.Module = RecurrentDiscriminator(3, 4, 4, eos=True, dropout=0.0)
        if isinstance(algorithm, SeqGAN):
            judge = CNNDiscriminator(3, 4, 4, eos=True, filters=((1, 4),), dropout=0.0)
            rollout = {"values": lambda policy, judge, x, mask: (judge.sentence(x)[:, None] * mask, x.sum() * 0.0)}
            vars(algorithm).update(rollout)  # without the rollouts' own random numbers
        trainer = SequenceGANTrainer(policy, judge.double(), algorithm, entropy=0.1, pretrain=1, max_norm=0.1)
        source = copy.deepcopy(policy)
        for _ in range(4):
            with torch.random.fork_rng():
                torch.manual_seed(3)
                real, *written = (source.sample(12) for _ in range(3))
            shares = iter([mine(x, 1) for x in written])
            vars(policy)["sample"] = lambda n, shares=shares: next(shares)
            trainer.step(mine(real, 1))
        found |= {f"{type(algorithm).__name__} {name}": p for name, p in trainer.generator.state_dict().items()}
        found |= {f"{type(algorithm).__name__} judge {name}": p for name, p in judge.state_dict().items()}
        found |= {f"{type(algorithm).__name__} own {name}": p for name, p in algorithm.state_dict().items()}
    return found


def data() -> Tensor:
    return (torch.arange(90).view(10, *SHAPE) % 17).float() / 8 - 1


class Normed(nn.Module):
    """A generator with batch norm and dropout: statistics and random numbers of each rank's own."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 9))

    def forward(self, z: Tensor) -> Tensor:
        numbers: Tensor = self.net(z)
        return numbers.unflatten(1, SHAPE)


def make_trainer(seed: int = 0) -> AdversarialTrainer:
    seed_everything(seed + 1000 * rank())  # other weights on each rank, until the first tells its own
    policy = Policy(Normed(), FAMILIES["binomial"], 4)
    packs = Packing(before_output(MLP((2, 3, 3), (), (8,)), lambda f: MinibatchDiscrimination(f, 3, 2, group=2)), 2)
    return AdversarialTrainer(
        policy,
        spectrally_normalised(packs),
        estimator=Score(3, MovingAverage(0.9)),
        penalties=[(0.5, r1)],
        stabilisers=[HistoricalAveraging(0.1), HistoryPool(6)],
    )


def state(trainer: AdversarialTrainer) -> dict[str, Any]:
    return {"trainer": trainer.state_dict(), "rng": rng_state()["torch"]}


def resumed(folder: Path) -> dict[str, Any]:
    """A run of 20 steps; the same, lost at step 13 and gone on with; and what the ranks saw and drew in the first."""
    straight, seen, noise = make_trainer(), [], []
    step, draw = straight.step, straight.noise

    def watched(batch: Tensor) -> dict[str, Tensor]:
        seen.append(batch)
        return step(batch)

    def heard(n: int) -> Tensor:
        noise.append(draw(n))
        return noise[-1]

    straight.step, straight.noise = watched, heard  # type: ignore[method-assign, assignment]
    last = fit(straight, data(), 20, out=folder / "straight", **QUIET)
    whole = state(straight)

    lost = make_trainer()
    lose = lost.step

    def losing(batch: Tensor) -> dict[str, Tensor]:
        if lost.steps == 13:
            raise KeyboardInterrupt
        return lose(batch)

    lost.step = losing  # type: ignore[method-assign, assignment]
    with suppress(KeyboardInterrupt):
        fit(lost, data(), 20, out=folder / "lost", **QUIET)
    again = make_trainer(seed=7)
    fit(again, data(), 20, out=folder / "lost", resume=True, **QUIET)
    return {"last": last, "seen": seen, "noise": noise, "straight": whole, "resumed": state(again)}


def failures(folder: Path) -> dict[str, str]:
    """What each rank hears when something happens on one of them."""
    heard = {}

    def play(name: str, error: type[BaseException] | tuple[type[BaseException], ...], **options: Any) -> None:
        trainer = make_trainer()
        step = trainer.step

        def troubled(batch: Tensor) -> dict[str, Tensor]:
            metrics = step(batch)
            if rank() == 1 and trainer.steps == 3:
                if name == "signal":
                    os.kill(os.getpid(), signal.SIGINT)
                if name == "nan":
                    metrics["d_loss"] = metrics["d_loss"] * float("nan")
            return metrics

        trainer.step = troubled  # type: ignore[method-assign, assignment]
        try:
            fit(trainer, data(), 10, **(QUIET | {"out": folder / name} | options))
        except error as caught:
            heard[name] = f"{type(caught).__name__}: {caught}"

    def broken(step: int) -> None:
        raise OSError(28, "No space left on device")

    play("signal", Interrupted)
    play("nan", DivergedError)
    play("callback", (OSError, RankError), callbacks=[Every(7, broken)])
    play("indivisible", ValueError, batch_size=9)
    play("alone", (CheckpointError, RankError), resume=True)
    play("signal", (ValueError, RankError))
    return heard


def command_line(*argv: object) -> tuple[int, str, str]:
    """``advrl`` with these arguments: its exit code, and what it printed."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = main([*map(str, argv)])
    return code, out.getvalue(), err.getvalue()


def compared() -> list[Tensor]:
    """Moments of an estimator's gradients, of which each rank draws every other chunk."""
    moments = compare({"loo": Score(4, leave_one_out)}, Bits(), replicates=999, chunk=2**12).moments[0]
    return [torch.tensor(moments.count), moments.mean, moments.variance, torch.tensor(moments.total_error)]


def compare_by_command(folder: Path) -> tuple[int, str, str]:
    """``advrl compare``, as each rank hears it."""
    return command_line(
        "compare", "bernoulli", "--estimators", "loo,score", "--replicates", 9999, "--out", folder, "--device", "cpu"
    )


def play_all(folder: Path) -> dict[str, Any]:
    """Every scene but the last one; most open and close a process group of their own."""
    found: dict[str, Any] = {
        "indivisible": command_line(*TRAIN, "--batch-size", 33, "--out", folder / "never", "--device", "cpu"),
        "digits": command_line(*TRAIN, *options(folder), "--out", folder / "digits"),
        "command": compare_by_command(folder / "compared by two"),
        "resumed": resumed(folder),
        "failures": failures(folder),
    }
    with process_group(CPU):
        return found | {
            "parity": parity(),
            "dynamics": dynamics_parity(),
            "baselines": baselines(),
            "compared": compared(),
            "agents": agents(),
            "sequence_gans": sequence_gans(),
            "seed": rank_seed(5),
        }


def lose(folder: Path) -> int:
    """The digits once more, of which rank 1 does not live to see the 34th step."""
    step = AdversarialTrainer.step

    def dying(trainer: AdversarialTrainer, batch: Tensor) -> dict[str, Tensor]:
        if trainer.steps == 33 and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, batch)

    AdversarialTrainer.step = dying  # type: ignore[method-assign, assignment]
    return main(["train", "digits", *options(folder), "--out", str(folder / "lost digits")])


if __name__ == "__main__":
    faulthandler.dump_traceback_later(240, exit=True)  # ranks that wait for each other for ever say where
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    torch.save(play_all(where), where / f"rank-{os.environ['RANK']}.pt")
    sys.exit(lose(where))
