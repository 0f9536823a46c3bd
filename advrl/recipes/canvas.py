"""Digits drawn stroke by stroke: an agent on the canvas, paid by a discriminator that sees finished pictures alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from advrl.agents import Adversary, Evaluator, play
from advrl.agents.rollout import SightActor
from advrl.checks import choice, integer, number
from advrl.data import digits
from advrl.envs import CanvasGeneration, DiscriminatorScore
from advrl.envs.canvas import BRUSHES
from advrl.nn import MLP
from advrl.objectives import GAMES, r1
from advrl.plots import image_grid, sample_sheet, save_png
from advrl.recipes.agents import AgentConfig, AgentParts
from advrl.seeding import isolated

SIZE, PICTURED, PICTURE_SEED = 8, 64, 1


class Painter(nn.Module):
    """A policy that sees the canvas and its pen: observations (n, S^2 + 3) to logits (n, A)."""

    def __init__(self, strokes: int, brush: str, width: int) -> None:
        super().__init__()
        self.strokes, self.brush = strokes, brush
        self.net = MLP(SIZE**2 + 3, SIZE**2 * (2 if brush == "stroke" else 1), (width, width), "silu", layer_norm=True)
        with torch.no_grad():
            cast(nn.Linear, self.net.net[-1]).weight.mul_(0.1)  # near to uniform at first

    def forward(self, observation: Tensor) -> Tensor:
        """(n, A) logits."""
        logits: Tensor = self.net(observation)
        return logits

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        """n pictures (n, 1, S, S) in [-1, 1]."""
        task = CanvasGeneration(SIZE, self.strokes, self.brush, device=next(self.parameters()).device)
        return play(SightActor(self, task), task, n).sample


@dataclass(frozen=True)
class Canvas(AgentConfig):
    """Train an agent to draw digits stroke by stroke (8 x 8), in the manner of SPIRAL.

    It moves a pen or draws a line, sees its canvas, and is paid once the picture is finished, by a discriminator that
    learns beside it on scikit-learn's digits. No gradient passes through the renderer. About two minutes on one core.
    """

    name: ClassVar[str] = "canvas"

    strokes: int = 10
    """Actions of an episode."""
    brush: str = "stroke"
    """stroke (move the pen, or draw a straight line) or pixel (a dot)."""
    r1: float = 2.0
    """Weight of the R1 penalty (gamma) on the discriminator; 0 turns it off."""

    def validate(self) -> None:
        """As for every agent, and the canvas's own options."""
        super().validate()
        integer("--strokes", self.strokes)
        choice("brush", self.brush, BRUSHES)
        number("--r1", self.r1, 0.0)

    def policy_for(self, shape: tuple[int, ...]) -> Painter:
        """The untrained painter: what :func:`advrl.load` fills with weights."""
        return Painter(self.strokes, self.brush, self.width)

    def build(self, device: torch.device) -> AgentParts:
        """All parts of the run."""
        data = digits()
        real = _prepare(data.train).to(device)
        game = GAMES[self.objective]
        discriminator = MLP(data.shape, (), (self.width, self.width)).to(device)
        score = DiscriminatorScore(discriminator, game.objective)
        penalties = [*game.penalties, *[(self.r1 / 2, r1)] * (self.r1 > 0)]
        adversary = Adversary(score, penalties=penalties, lr=self.lr_discriminator, updates=self.discriminator_steps)
        task = CanvasGeneration(SIZE, self.strokes, self.brush, score, device=device)
        policy = self.policy_for(data.shape).to(device)
        return AgentParts(
            data=data,
            real=real,
            trainer=self.trainer(policy, task, adversary),
            evaluator=Evaluator(data, _prepare, device),
            about=f"{len(data.train):,} training images of shape {tuple(data.shape)}, {len(data.held_out):,} held out; "
            f"{self.strokes} actions of a {self.brush} brush",
            monitor="frechet",
            chosen_by="Fréchet distance to the training half",
            pictured="real digits and drawn ones",
            draw=partial(_draw, real=real),
        )

    def save_picture(self, samples: Tensor, path: Path) -> None:
        """Write a picture of drawings."""
        save_png(image_grid(samples.clamp(-1, 1)), path)


def _prepare(images: Tensor) -> Tensor:
    return 2 * images - 1


def _draw(policy: Painter, step: int, path: Path, *, real: Tensor) -> None:
    with isolated(PICTURE_SEED):
        rows = torch.randperm(len(real), device="cpu")[:PICTURED].to(real.device)
        panels = {"real": real[rows], "drawn": policy.sample(PICTURED)}
    save_png(sample_sheet(panels, title=f"step {step:,}"), path)
