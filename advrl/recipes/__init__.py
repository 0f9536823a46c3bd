"""Recipes: named experiments, each a configuration that builds its parts."""

from __future__ import annotations

from typing import Any

from advrl.recipes.canvas import Canvas
from advrl.recipes.conditional import DigitsConditional, DigitsInfoGAN
from advrl.recipes.config import AdversarialConfig
from advrl.recipes.digits import Digits
from advrl.recipes.mixtures import Grid, Ring
from advrl.recipes.oracle import SequenceOracle
from advrl.recipes.oracles import OracleSequences
from advrl.recipes.pictures import Images
from advrl.recipes.run import Run, RunError, load, train
from advrl.recipes.semisupervised import DigitsSemiSupervised
from advrl.recipes.text import Text

RECIPES: dict[str, type[Any]] = {
    cls.name: cls
    for cls in (
        Digits, Images, Ring, Grid, DigitsConditional, DigitsInfoGAN, DigitsSemiSupervised, Canvas, SequenceOracle,
        Text, OracleSequences,
    )
}  # fmt: skip

__all__ = [
    "RECIPES",
    "AdversarialConfig",
    "Canvas",
    "Digits",
    "DigitsConditional",
    "DigitsInfoGAN",
    "DigitsSemiSupervised",
    "Grid",
    "Images",
    "OracleSequences",
    "Ring",
    "Run",
    "RunError",
    "SequenceOracle",
    "Text",
    "load",
    "train",
]
