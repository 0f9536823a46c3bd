"""Bare torch code of the registered estimators, as a user would write it by hand for the one problem at hand.

Two ways: without any distribution object, for the estimators whose formula is written on logits and noise; and with
``torch.distributions`` (validation off) where an estimator is a draw and a log-probability. Neither has costs with
parameters of their own, and both are right to first order only. Functions return a loss to call backward on, or leave
the gradient themselves.

The problems: ``coins``, B x K Bernoullis; ``dice``, B one-hot categoricals of K; ``normals``, B x K Gaussians; the cost
a perceptron that takes no gradient of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.distributions import OneHotCategorical as TorchOneHot
from torch.nn.functional import gumbel_softmax, logsigmoid, softplus

from advrl.distributions import OneHotCategorical

SIZES = {"small": (64, 10, (32,)), "digits": (128, 64, (256, 256))}  # B, K, hidden units of the cost
FEW = 6  # coins whose outcomes are listed

sizes = argparse.ArgumentParser(add_help=False)
sizes.add_argument("--size", choices=SIZES, default="small", help="of the batch, the event and the cost")
SIZE = sizes.parse_known_args()[0].size
B, K, HIDDEN = SIZES[SIZE]

torch.manual_seed(0)
leaf = (torch.randn(B, K) * 0.5).requires_grad_()
net = nn.Sequential()
for fan_in, fan_out in zip((K, *HIDDEN), HIDDEN, strict=False):
    net.extend([nn.Linear(fan_in, fan_out), nn.Tanh()])
net.append(nn.Linear(HIDDEN[-1], 1)).requires_grad_(False)
critic = nn.Sequential(nn.Linear(K, 64), nn.Tanh(), nn.Linear(64, 1))
digits = torch.cartesian_prod(*[torch.arange(2)] * FEW).float()


def cost(x: Tensor) -> Tensor:
    return net(x).squeeze(-1)


def cost_of_few(x: Tensor) -> Tensor:
    return net(nn.functional.pad(x, (0, K - FEW))).squeeze(-1)


def coins(theta: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=theta, validate_args=False), 1, validate_args=False)


def few_coins(theta: Tensor) -> Distribution:
    return coins(theta[:, :FEW])


def dice(theta: Tensor) -> Distribution:
    return OneHotCategorical(logits=theta, validate_args=False)


def normals(theta: Tensor) -> Distribution:
    return Independent(Normal(theta, 1.0, validate_args=False), 1, validate_args=False)


# ------------------------------------------------------------------------- by hand: losses to call backward on


def log_coins(b: Tensor) -> Tensor:
    return (b * leaf - softplus(leaf)).sum(-1)


def draw_coins(n: int) -> Tensor:
    with torch.no_grad():
        return (torch.rand(n, B, K) < leaf.sigmoid()).float()


def draw_dice(n: int) -> tuple[Tensor, Tensor, Tensor]:
    log_p = leaf.log_softmax(-1)
    with torch.no_grad():
        index = torch.multinomial(log_p.exp(), n, replacement=True).t().unsqueeze(-1)
        hard = torch.zeros(n, B, K).scatter_(-1, index, 1.0)
    return log_p, hard, log_p.expand(n, B, K).gather(-1, index).squeeze(-1)


def loo_coins(n: int) -> Tensor:
    b = draw_coins(n)
    with torch.no_grad():
        f = cost(b)
        advantage = (f - f.mean(0)) * (n / (n - 1))
    return (log_coins(b) * advantage).mean()


def loo_dice(n: int) -> Tensor:
    _, hard, log_prob = draw_dice(n)
    with torch.no_grad():
        f = cost(hard)
        advantage = (f - f.mean(0)) * (n / (n - 1))
    return (log_prob * advantage).mean()


def score_coins(n: int) -> Tensor:
    b = draw_coins(n)
    with torch.no_grad():
        f = cost(b)
    return (log_coins(b) * f).mean()


def path_normals(n: int) -> Tensor:
    return cost(leaf + torch.randn(n, B, K)).mean()


def gumbel_coins(n: int) -> Tensor:
    u = torch.rand(n, B, K).clamp_(1e-7, 1 - 1e-7)
    return cost((leaf + u.logit()).sigmoid()).mean()


def gumbel_dice(n: int, hard: bool = False) -> Tensor:
    return cost(gumbel_softmax(leaf.expand(n, B, K), hard=hard)).mean()


def st_coins(n: int) -> Tensor:
    p = leaf.sigmoid()
    return cost(draw_coins(n) + p - p.detach()).mean()


def st_gumbel_dice(n: int) -> Tensor:
    return gumbel_dice(n, hard=True)


def gumbel_rao_dice(n: int, k: int = 16) -> Tensor:
    log_p, hard, _ = draw_dice(n)
    with torch.no_grad():
        e = torch.empty(k, n, B, K).exponential_()
        first = (e * hard).sum(-1, keepdim=True)
        z = torch.where(hard.bool(), -first.log(), -(e / log_p.exp() + first).log())
        noise = z - log_p
    soft = (log_p + noise).softmax(-1).mean(0)
    return cost(hard + soft - soft.detach()).mean()


def reinmax_dice(n: int) -> Tensor:
    _, hard, _ = draw_dice(n)
    p = leaf.softmax(-1)
    middle = (hard + p.detach()) / 2
    soft = 2 * ((middle.log() - leaf).detach() + leaf).softmax(-1) - p / 2
    return cost(hard + soft - soft.detach()).mean()


def coin_pair(n: int) -> tuple[Tensor, Tensor, Tensor]:
    p = leaf.sigmoid()
    u = torch.rand(n, B, K).clamp_(1e-7, 1 - 1e-7)
    z = leaf + u.logit()
    hard = (z > 0).float().detach()
    v = torch.rand(n, B, K)
    v = torch.where(hard.bool(), v * p + (1 - p), v * (1 - p))
    return z, leaf + v.clamp(1e-7, 1 - 1e-7).logit(), hard


def die_pair(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    log_p = leaf.log_softmax(-1)
    z = log_p - torch.empty(n, B, K).exponential_().log()
    index = z.detach().argmax(-1, keepdim=True)
    hard = torch.zeros(n, B, K).scatter_(-1, index, 1.0)
    e = torch.empty(n, B, K).exponential_()
    first = e.gather(-1, index)
    given = torch.where(hard.bool(), -first.log(), -(e / log_p.exp() + first).log())
    return z, given, hard, log_p.expand(n, B, K).gather(-1, index).squeeze(-1)


def rebar_coins(n: int) -> Tensor:
    z, given, hard = coin_pair(n)
    free, tied = cost((torch.stack((z, given)) / 0.5).sigmoid())
    with torch.no_grad():
        f = cost(hard)
    return (log_coins(hard) * (f - tied.detach()) + free - tied).mean()


def rebar_dice(n: int) -> Tensor:
    z, given, hard, log_prob = die_pair(n)
    free, tied = cost((torch.stack((z, given)) / 0.5).softmax(-1))
    with torch.no_grad():
        f = cost(hard)
    return (log_prob * (f - tied.detach()) + free - tied).mean()


def relax_by_hand(hard: Tensor, score: Tensor, soft: Tensor) -> None:
    """Leave the gradient in the leaf, and its square's in the critic."""
    n = len(hard)
    free, tied = critic(soft).squeeze(-1)
    with torch.no_grad():
        f = cost(hard)
    slope = torch.autograd.grad((free - tied).sum() / (n * B), leaf, create_graph=True)[0]
    gradient = (score * (f - tied).unsqueeze(-1)).sum(0) / (n * B) + slope
    parameters = list(critic.parameters())
    grads = torch.autograd.grad(gradient.square().sum() * B, parameters, allow_unused=True)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    leaf.grad = gradient.detach()


def relax_coins(n: int) -> None:
    z, given, hard = coin_pair(n)
    relax_by_hand(hard, hard - leaf.detach().sigmoid(), (torch.stack((z, given)) / 0.5).sigmoid())


def relax_dice(n: int) -> None:
    z, given, hard, _ = die_pair(n)
    relax_by_hand(hard, hard - leaf.detach().softmax(-1), (torch.stack((z, given)) / 0.5).softmax(-1))


def muprop_coins(n: int) -> Tensor:
    b, p = draw_coins(n), leaf.sigmoid()
    centre = p.detach().requires_grad_()
    f0 = cost(centre)
    slope = torch.autograd.grad(f0.sum(), centre)[0]
    with torch.no_grad():
        rest = cost(b) - f0 - ((b - centre) * slope).sum(-1)
    return (log_coins(b) * rest).mean() + (slope * p).sum(-1).mean()


def arm_coins(n: int) -> Tensor:
    with torch.no_grad():
        p, u = leaf.sigmoid(), torch.rand(n, B, K)
        f = cost(torch.cat([(u < p).float(), (u > 1 - p).float()]))
        g = ((f[:n] - f[n:]).unsqueeze(-1) * (0.5 - u)).mean(0)
    return (g * leaf).sum(-1).mean()


def disarm_coins(n: int) -> Tensor:
    with torch.no_grad():
        p, u = leaf.sigmoid(), torch.rand(n, B, K)
        b, other = (u < p).float(), (u > 1 - p).float()
        f = cost(torch.cat([b, other]))
        g = (f[:n] - f[n:]).unsqueeze(-1) * (b - other) * leaf.abs().sigmoid() / 2
    return (g.mean(0) * leaf).sum(-1).mean()


def few_log_probs() -> Tensor:
    one, zero = logsigmoid(leaf[:, :FEW]), logsigmoid(-leaf[:, :FEW])
    return digits @ one.t() + (1 - digits) @ zero.t()


def enumerate_few(n: int) -> Tensor:
    return (few_log_probs().exp() * cost_of_few(digits.unsqueeze(1).expand(-1, B, -1))).sum(0).mean()


def rao_blackwell_dice(n: int, k: int = 4) -> Tensor:
    log_p = leaf.log_softmax(-1)
    p = log_p.exp()
    eye = torch.eye(K)
    with torch.no_grad():
        top = p.topk(k, -1).indices
        others = p.scatter(-1, top, 0.0)
        index = torch.multinomial(others, n, replacement=True)
        chosen = torch.cat([top, index], 1)
        f = cost(eye[chosen])
    mass = p.gather(-1, top)
    summed = (mass * f[:, :k]).sum(-1)
    rest = 1 - mass.sum(-1)
    log_q = log_p.gather(-1, index) - rest.log().unsqueeze(-1)
    baseline = (summed / mass.sum(-1)).detach().unsqueeze(-1)
    left = f[:, k:]
    return (summed + rest * left.mean(-1) + rest.detach() * (log_q * (left - baseline)).mean(-1)).mean()


def unordered_set_dice(n: int) -> Tensor:
    """Three samples: the ratios written out."""
    log_p = leaf.log_softmax(-1)
    with torch.no_grad():
        top = (log_p - torch.empty(B, K).exponential_().log()).topk(3, -1).indices
        f = cost(torch.eye(K)[top])
        p = log_p.gather(-1, top).exp()
        a, b, c = p.unbind(-1)

        def next_two(gone: Tensor, x: Tensor, y: Tensor) -> Tensor:
            left = 1 - gone
            return x / left * y / (left - x) + y / left * x / (left - y)

        without = torch.stack([next_two(a, b, c), next_two(b, a, c), next_two(c, a, b)], -1)
        whole = (p * without).sum(-1, keepdim=True)
        ratio = without / whole
        pairs = torch.ones(B, 3, 3)
        for i, j, last in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            third = p[:, last] / (1 - p[:, i] - p[:, j])
            pairs[:, i, j] = third / without[:, i]
            pairs[:, j, i] = third / without[:, j]
        baseline = (pairs * (p * f).unsqueeze(1)).sum(-1)
        weight = p * ratio * (f - baseline)
    return (weight * log_p.gather(-1, top)).sum(-1).mean()


# ------------------------------------------------------------------------- by hand, with torch.distributions


def score_of(make: Callable[[Tensor], Distribution], leave_one_out: bool) -> Callable[[int], Tensor]:
    def loss(n: int) -> Tensor:
        q = make(leaf)
        x = q.sample((n,))
        with torch.no_grad():
            f = cost(x)
            advantage = (f - f.mean(0)) * (n / (n - 1)) if leave_one_out else f
        return (q.log_prob(x) * advantage).mean()

    return loss


def path_of(make: Callable[[Tensor], Distribution]) -> Callable[[int], Tensor]:
    return lambda n: cost(make(leaf).rsample((n,))).mean()


def torch_dice(theta: Tensor) -> Distribution:
    return TorchOneHot(logits=theta, validate_args=False)


WITH_DISTRIBUTIONS: dict[tuple[str, str], Callable[[int], Tensor]] = {
    ("loo", "coins"): score_of(coins, True),
    ("loo", "dice"): score_of(torch_dice, True),
    ("score", "coins"): score_of(coins, False),
    ("path", "normals"): path_of(normals),
}

# (estimator, problem): (the distribution, the cost, samples, the code by hand)
Twin = tuple[Callable[[Tensor], Distribution], Callable[[Tensor], Tensor], int, Callable[[int], Tensor | None]]
TWINS: dict[tuple[str, str], Twin] = {
    ("loo", "coins"): (coins, cost, 16, loo_coins),
    ("loo", "dice"): (dice, cost, 16, loo_dice),
    ("score", "coins"): (coins, cost, 16, score_coins),
    ("path", "normals"): (normals, cost, 16, path_normals),
    ("gumbel", "coins"): (coins, cost, 16, gumbel_coins),
    ("gumbel", "dice"): (dice, cost, 16, gumbel_dice),
    ("st", "coins"): (coins, cost, 16, st_coins),
    ("st-gumbel", "dice"): (dice, cost, 16, st_gumbel_dice),
    ("gumbel-rao", "dice"): (dice, cost, 4, gumbel_rao_dice),
    ("reinmax", "dice"): (dice, cost, 16, reinmax_dice),
    ("rebar", "coins"): (coins, cost, 16, rebar_coins),
    ("rebar", "dice"): (dice, cost, 16, rebar_dice),
    ("relax", "coins"): (coins, cost, 16, relax_coins),
    ("relax", "dice"): (dice, cost, 16, relax_dice),
    ("muprop", "coins"): (coins, cost, 16, muprop_coins),
    ("arm", "coins"): (coins, cost, 8, arm_coins),
    ("disarm", "coins"): (coins, cost, 8, disarm_coins),
    ("enumerate", "coins"): (few_coins, cost_of_few, 1, enumerate_few),
    ("rao-blackwell", "dice"): (dice, cost, 12, rao_blackwell_dice),
    ("unordered-set", "dice"): (dice, cost, 3, unordered_set_dice),
}
