"""What recipes with batched agents share: their options, the agent that they name, a run's parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

from torch import Tensor, nn

from advrl.agents import (
    ActorCriticTrainer,
    Adversary,
    Every,
    PolicyGradientTrainer,
    PPOTrainer,
    ReinforceTrainer,
    Turns,
)
from advrl.agents.switched import evaluating
from advrl.checks import choice, integer, number
from advrl.envs.generation import Generation
from advrl.estimators import leave_one_out
from advrl.objectives import GAMES
from advrl.recipes.config import flag
from advrl.recipes.parts import LinearDecay, quick_evaluation

Agent = Literal["reinforce", "actor-critic", "ppo"]


@dataclass(frozen=True)
class AgentConfig:
    """Options shared by the recipes whose generator plays an environment."""

    agent: Agent = "ppo"
    """reinforce (each episode against the mean of the others), actor-critic or ppo."""
    objective: str = "non-saturating"
    """Losses of discriminator and generator; the reward is minus the generator's cost."""
    entropy: float = 0.0
    """Weight of the policy's entropy beside the reward."""
    batch_size: int = 256
    """Episodes, and real samples, per step."""
    steps: int = 1000
    """Steps to train for."""
    discriminator_steps: int = 1
    """Discriminator updates per step."""
    width: int = 128
    """Units of the hidden layers."""
    lr: float = 2e-3
    """Adam's learning rate for the policy; falls linearly over the second half of the run."""
    lr_critic: float = 2e-3
    """Adam's learning rate for the critic of actor-critic and ppo."""
    lr_discriminator: float = 2e-3
    """Adam's learning rate for the discriminator."""
    lam: float = 0.95
    """Lambda of the advantages of actor-critic and ppo."""
    clip: float = 0.2
    """How far ppo's ratio of probabilities may go."""
    epochs: int = 4
    """How often ppo goes through the episodes of a step."""
    ema: float = 0.99
    """Decay of the policy's moving average, which is what is sampled and judged; 0 turns it off."""
    seed: int = 0
    """Of everything random in the run."""
    seeds: int = 1
    """Train this many runs, with seeds counted up from --seed, each in a folder of its own."""
    deterministic: bool = False
    """Use only deterministic algorithms (slower on a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; auto is cuda where there is one, else cpu."""
    out: Path | None = None
    """Folder of the run. Default: the next free runs/RECIPE-N."""
    resume: Path | None = None
    """Folder of a run to go on with; only --steps, --out, --device and the logging options may change."""
    log_every: int = 20
    """Steps between two rows of metrics.csv."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    picture_every: int = 100
    """Steps between two pictures and quick evaluations."""
    quiet: bool = False
    """No progress bar, no report."""

    probe_gradients: ClassVar[str] = ""  # exact gradients are those of tests/test_agents.py
    probe_spectrum: ClassVar[bool] = False

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be."""
        choice("agent", self.agent, get_args(Agent))
        choice("objective", self.objective, GAMES)
        game = GAMES[self.objective]
        if game.objective.needs_real:
            raise ValueError(f"--objective {self.objective} compares fakes with real samples; an agent needs a reward")
        if game.clip is not None:
            raise ValueError(f"--objective {self.objective} clips the discriminator's weights, which agents do not")
        for name in ("batch_size", "steps", "discriminator_steps", "width", "epochs", "seeds", "log_every",
                     "checkpoint_every", "picture_every"):  # fmt: skip
            integer(flag(name), getattr(self, name))
        if self.agent == "reinforce" and self.batch_size < 2:
            raise ValueError("--agent reinforce holds each episode against the others: --batch-size must be at least 2")
        for name in ("lr", "lr_critic", "lr_discriminator", "clip"):
            number(flag(name), getattr(self, name), 0.0, exclusive=True)
        number("--entropy", self.entropy, 0.0)
        number("--lam", self.lam, 0.0, 1.0)
        if number("--ema", self.ema, 0.0) >= 1.0:
            raise ValueError(f"--ema must be below 1, got {self.ema}")
        if not 0 <= self.seed <= 2**32 - self.seeds:
            raise ValueError(f"--seed, and the seeds counted up from it, must be in [0, 2**32), got {self.seed}")

    def trainer(self, policy: nn.Module, task: Generation, adversary: Adversary | None) -> PolicyGradientTrainer:
        """The configured agent."""
        common: dict[str, Any] = {
            "adversary": adversary,
            "entropy": self.entropy,
            "lr": self.lr,
            "schedule": LinearDecay(self.steps),
            "max_norm": 1.0,
            "ema": self.ema,
        }
        if self.agent == "reinforce":
            return ReinforceTrainer(policy, task, baseline=leave_one_out, **common)
        common |= {"lam": self.lam, "lr_critic": self.lr_critic, "normalise": True}
        if self.agent == "actor-critic":
            return ActorCriticTrainer(policy, task, **common)
        return PPOTrainer(policy, task, clip=self.clip, epochs=self.epochs, **common)

    def announcement(self) -> str:
        """What the run says of itself, a line each."""
        return f"agent      {self.agent}, {self.batch_size:,} episodes a step\nobjective  {self.objective}\n"


class Judge(Protocol):
    """An evaluator: figures to follow a run by, and a report."""

    def fast(self, sample: Callable[[int], Tensor]) -> dict[str, float]: ...

    def evaluate(self, sample: Callable[[int], Tensor], splits: int = 10) -> Any: ...


@dataclass(frozen=True)
class AgentParts:
    """A run's parts: real samples or nothing, the trainer, the judge, and what is drawn of the policy."""

    data: Any
    real: Tensor | Turns
    trainer: PolicyGradientTrainer
    evaluator: Judge
    about: str
    monitor: str
    chosen_by: str
    pictured: str
    draw: Callable[[nn.Module, int, Path], None]

    def callbacks(self, folder: Path, every: int) -> list[Every]:
        """The quick evaluation and a picture, every so many steps."""
        policy: Any = self.trainer.average

        def picture(step: int) -> None:
            with evaluating(policy):
                self.draw(policy, step, folder / "samples" / f"step-{step:06d}.png")

        return [quick_evaluation(self.evaluator, policy, every), Every(every, picture)]
