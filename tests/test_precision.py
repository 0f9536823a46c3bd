"""Networks in bfloat16 and compiled: what stays float32, what a checkpoint holds, exact resume."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from advrl.agents import AdversarialTrainer, fit
from advrl.agents.forward import check_compiler, twin
from advrl.estimators import make_estimator
from advrl.nn import FAMILIES, MLP, Policy
from advrl.objectives import r1
from advrl.recipes import Digits
from tests.pairs import PAIRS

SHAPE = (1, 4, 4)
EXACT = {"rtol": 0, "atol": 0}


def make(family: str = "binomial", estimator: str | None = None, **options) -> AdversarialTrainer:
    torch.manual_seed(0)
    policy = Policy(MLP(5, (FAMILIES[family].numbers, 4, 4), (16,), layer_norm=True), FAMILIES[family], 5)
    chosen = None if estimator is None else make_estimator(estimator)
    return AdversarialTrainer(policy, MLP(SHAPE, (), (16,)), estimator=chosen, penalties=[(0.5, r1)], **options)


def reals(n: int, device: torch.device | str = "cpu") -> Tensor:
    return (torch.randint(0, 17, (n, *SHAPE)).float() / 8 - 1).to(device)


class Watched:
    """The dtypes of the matrix products, and of what the trainer makes of them."""

    def __init__(self, trainer: AdversarialTrainer, monkeypatch) -> None:
        self.products: set[torch.dtype] = set()
        self.logits: set[torch.dtype] = set()
        self.exact: set[torch.dtype] = set()
        linear = torch.nn.functional.linear

        def watched(x: Tensor, *rest: Tensor) -> Tensor:
            out = linear(x, *rest)
            self.products.add(out.dtype)
            return out

        monkeypatch.setattr(torch.nn.functional, "linear", watched)
