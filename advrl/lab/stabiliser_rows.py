"""What tutorials say of stabilisers in a sentence each, measured: one row per claim and method, with standard errors.

- *Batch norm correlates the samples of a batch, reference and virtual batch norm do not*: the metric
  :func:`advrl.metrics.intra_batch_correlation` of an untrained DCGAN generator's images, batches of 8.
- *Label smoothing lowers the confidence, not the accuracy*: a discriminator of the digits against the same digits under
  noise, targets 1 or .9 for real; its mean D(x) on held-out real images, and how many it tells right.
- *Feature matching makes the better classifier, minibatch discrimination the better samples* (Salimans et al., 2016,
  section 5): error on held-out digits of a (K+1)-class discriminator with five labels a class, its generator trained
  by one or the other, beside the same network on the labels alone; and the mean vote of all seeds' networks (ten).
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from advrl.agents.stabiliser_features import squared_gap
from advrl.data import ImageData, digits
from advrl.lab.study import standard_error
from advrl.metrics import intra_batch_correlation
from advrl.nn import MLP, DCGANGenerator, MinibatchDiscrimination, with_reference
from advrl.seeding import seed_everything

BATCH = 50
LABELS = 5  # of each class
GROUP = 10  # samples that minibatch discrimination compares


def measured_rows(
    seeds: int, steps: int, device: torch.device, say: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """All of them: dictionaries with claim, method, figure, value, value_error and runs; each is said when it is there.

    On one core ten seeds of 500 steps take about three minutes.
    """
    rows: list[dict[str, Any]] = []

    def add(claim: str, method: str, figure: str, values: list[float]) -> None:
        rows.append(_row(claim, method, figure, values))
        say(f"{claim}, {method}: {figure} {rows[-1]['value']:.4f}")

    for method in ("batch norm", "reference batch norm", "virtual batch norm"):
        found = [correlation(method, seed, device) for seed in range(seeds)]
        add("batch norm correlates a batch", method, "correlation", found)
    data = digits()
    for target in (1.0, 0.9):
        pairs = [confidence(data, target, seed, steps, device) for seed in range(seeds)]
        for i, figure in enumerate(("mean D(real)", "accuracy")):
            add("label smoothing", f"real label {target}", figure, [pair[i] for pair in pairs])
    for method in ("labels alone", "feature matching", "minibatch discrimination"):
        votes = [classify(data, method, seed, steps, device) for seed in range(seeds)]
        truth = votes[0][1]
        errors = [(vote.argmax(1) != truth).double().mean().item() for vote, _ in votes]
        add("semi-supervised, 50 labels", method, "test error", errors)
        together = torch.stack([vote.softmax(1) for vote, _ in votes]).mean(0)
        error = (together.argmax(1) != truth).double().mean().item()
        add(f"an ensemble of {seeds}", method, "test error", [error])
    return rows


def correlation(method: str, seed: int, device: torch.device) -> float:
    """Of images of one batch, for 8 noise vectors in 100 batches of 16."""
    seed_everything(seed)
    net: nn.Module = DCGANGenerator(16, 1, 8, 16).to(device)
    z, mates = torch.randn(8, 16, device=device), torch.randn(100, 8, 16, device=device)
    if method != "batch norm":
        net = with_reference(net, torch.randn(64, 16, device=device), method.startswith("virtual"))
    with torch.no_grad():
        images = torch.stack([net(torch.cat([z, m]))[:8].tanh() for m in mates])
    return intra_batch_correlation(images).item()


def confidence(data: ImageData, target: float, seed: int, steps: int, device: torch.device) -> tuple[float, float]:
    """Mean D(x) on held-out real images, and the share of them and of noisy ones that are told right."""
    seed_everything(seed)
    real, held_out = data.train.to(device) * 2 - 1, data.held_out.to(device) * 2 - 1
    net = MLP(data.shape, (), (128, 128)).to(device)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def noisy(x: Tensor) -> Tensor:
        return x + 0.35 * torch.randn_like(x)

    for _ in range(steps):
        x = real[torch.randint(len(real), (BATCH,), device=device)]
        a, b = net(noisy(x * 0.98)), net(noisy(x) + 0.2 * torch.randn_like(x))
        loss = (target * softplus(-a) + (1 - target) * softplus(a) + softplus(b)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        a, b = net(noisy(held_out * 0.98)), net(noisy(held_out) + 0.2 * torch.randn_like(held_out))
    return a.sigmoid().mean().item(), torch.cat([a > _even(target), b <= _even(target)]).double().mean().item()


def _even(target: float) -> float:
    """The logit where real and fake are as likely: at D = target / 2."""
    return float(torch.tensor(target / 2, device="cpu").logit())


class _Classifier(nn.Module):
    """Ten logits l with a (K+1)-th fixed at 0, so that a = logsumexp(l); and the features before the last layer."""

    def __init__(self, shape: tuple[int, ...], minibatch: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(MLP(shape, 128, (128,)), nn.LeakyReLU(0.2))
        self.extra = MinibatchDiscrimination(128, 16, 8, GROUP) if minibatch else nn.Identity()
        self.head = nn.Linear(144 if minibatch else 128, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(self.extra(features)), features


def classify(data: ImageData, method: str, seed: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (N, 10) on the held-out images of a network trained with ``LABELS`` labels a class, and the truth (N,)."""
    seed_everything(seed)
    real, held_out = data.train.to(device) * 2 - 1, data.held_out.to(device) * 2 - 1
    assert data.train_labels is not None and data.held_out_labels is not None
    labels = data.train_labels.to(device)
    known = torch.cat([(labels == k).nonzero()[:LABELS, 0] for k in range(10)])  # the same for all seeds and methods
    net = _Classifier(data.shape, method == "minibatch discrimination").to(device)
    generator = nn.Sequential(MLP(32, data.shape, (128, 128), "relu", layer_norm=True), nn.Tanh()).to(device)
    d_opt = torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.99), fused=True)
    g_opt = torch.optim.Adam(generator.parameters(), 1e-3, betas=(0.5, 0.99), fused=True)
    average = copy.deepcopy(net)
    for step in range(steps):
        some = known[torch.randint(len(known), (BATCH,), device=device)]
        loss = cross_entropy(net(real[some])[0], labels[some])
        x = real[torch.randint(len(real), (BATCH,), device=device)]
        if method != "labels alone":
            fake = generator(torch.randn(BATCH, 32, device=device))
            a, b = (net(images)[0].logsumexp(1) for images in (x, fake.detach()))
            loss = loss + softplus(-a).mean() + softplus(b).mean()
        _update(d_opt, loss)
        if method == "feature matching":
            _update(g_opt, squared_gap(net(x)[1].detach().mean(0), net(fake)[1].mean(0)))
        elif method == "minibatch discrimination":
            _update(g_opt, softplus(-net(fake)[0].logsumexp(1)).mean())
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), max(0.002, 1 / (step + 1)))
    with torch.no_grad():
        whole = len(held_out) // GROUP * GROUP  # minibatch discrimination needs whole groups, all see the same images
        return average(held_out[:whole])[0], data.held_out_labels[:whole].to(device)


def _update(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _row(claim: str, method: str, figure: str, values: list[float]) -> dict[str, Any]:
    return {"claim": claim, "method": method, "figure": figure, "value": statistics.fmean(values),
            "value_error": standard_error(values), "runs": len(values)}  # fmt: skip
