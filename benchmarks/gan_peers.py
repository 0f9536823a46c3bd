"""Steps of torchgan 0.1.0 and torch-mimicry 0.1.16 on our networks, for gan_step.py, where they can be imported.

Each peer's own step functions are called as its trainer calls them, its bookkeeping of losses included; what its loop
does besides (progress, pictures, checkpoints) is not timed.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import islice
from tempfile import mkdtemp
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.utils.data import DataLoader, TensorDataset

from advrl.data import cycle

Turn = Callable[[int], None]


def torchgan(task: Any, networks: tuple[nn.Module, nn.Module], data: Tensor) -> Turn:
    """Steps of ``torchgan.trainer.Trainer``."""
    os.environ.update(TENSORBOARD_LOGGING="0", CONSOLE_LOGGING="0", VISDOM_LOGGING="0")
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss
    from torchgan.models import Discriminator, Generator
    from torchgan.trainer import Trainer

    class G(Generator):
        def __init__(self) -> None:
            super().__init__(task.latent)
            self.net = copy.deepcopy(networks[0])

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z)

    class D(Discriminator):
        def __init__(self) -> None:
            super().__init__(1)
            self.net = copy.deepcopy(networks[1])

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    def player(network: type[nn.Module], lr: float) -> dict[str, Any]:
        return {"name": network, "optimizer": {"name": Adam, "args": {"lr": lr, "betas": task.betas}}}

    trainer = Trainer(
        {"generator": player(G, task.lr[0]), "discriminator": player(D, task.lr[1])},
        [MinimaxGeneratorLoss(), MinimaxDiscriminatorLoss()],
        device=data.device, epochs=1, sample_size=1, checkpoints=mkdtemp() + "/", recon=mkdtemp(),
        test_noise=torch.zeros(1, task.latent),
    )  # fmt: skip
    trainer.batch_size = task.batch
    batches = reals(task, data)

    def turn(steps: int) -> None:
        for real in islice(batches, steps):
            trainer.real_inputs = real.to(data.device)
            trainer.train_iter()

    return turn


def torch_mimicry(task: Any, networks: tuple[nn.Module, nn.Module], data: Tensor) -> Turn:
    """Steps of ``torch_mimicry.training.Trainer``."""
    sys.modules.setdefault("torch._six", ModuleType("torch._six"))  # what torch no longer has, and TensorFlow, which
    sys.modules["torch._six"].PY3 = True  # type: ignore[attr-defined]  # its metrics use, are not needed in a step
    if "tensorflow" not in sys.modules and find_spec("tensorflow") is None:
        for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1"):
            sys.modules[name] = MagicMock(__spec__=None)
    from torch_mimicry.nets.gan import gan
    from torch_mimicry.training.metric_log import MetricLog

    class G(gan.BaseGenerator):
        def __init__(self) -> None:
            super().__init__(nz=task.latent, ngf=1, bottom_width=1, loss_type="ns")
            self.net = copy.deepcopy(networks[0])

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z)

    class D(gan.BaseDiscriminator):
        def __init__(self) -> None:
            super().__init__(ndf=1, loss_type="ns")
            self.net = copy.deepcopy(networks[1])

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, None]

    generator, discriminator = G().to(data.device), D().to(data.device)
    g_opt = Adam(generator.parameters(), task.lr[0], task.betas)
    d_opt = Adam(discriminator.parameters(), task.lr[1], task.betas)
    batches = reals(task, data)

    def turn(steps: int) -> None:
        for real in islice(batches, steps):
            batch, log = (real.to(data.device), None), MetricLog()
            shared = {"real_batch": batch, "log_data": log, "device": data.device}
            discriminator.train_step(netG=generator, optD=d_opt, **shared)
            generator.train_step(netD=discriminator, optG=g_opt, **shared)

    return turn


def reals(task: Any, data: Tensor) -> Any:
    """Batches as both take them, from a ``DataLoader``."""
    return cycle(DataLoader(TensorDataset(data.cpu()), batch_size=task.batch, shuffle=True, drop_last=True))


def turns(task: Any, networks: tuple[nn.Module, nn.Module], data: Tensor) -> dict[str, Turn]:
    """Those that can be imported; says why one that is installed cannot."""
    found = {}
    for name, peer in (("torchgan", torchgan), ("torch_mimicry", torch_mimicry)):
        if find_spec(name) is None:
            continue
        try:
            found[name] = peer(task, networks, data)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    return found
