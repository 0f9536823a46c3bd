"""Every registered estimator against bare torch code of the same estimator, written as a user would by hand.

One estimate is: make the distribution, draw, cost, surrogate, backward; the gradient is left in a leaf. Both sides are
first checked to have the same expectation (a two-sample z-test per entry of the gradient), then interleaved on one
thread and timed by the process's own clock: one JSON line per estimator with the median ratio and its quartiles.

    OMP_NUM_THREADS=1 python benchmarks/estimators.py
    OMP_NUM_THREADS=1 python benchmarks/estimators.py --size digits --only rebar,relax --rounds 41

The problems: ``coins``, B x K Bernoullis; ``dice``, B one-hot categoricals of K; ``normals``, B x K Gaussians; the cost
a perceptron that takes no gradient of its own: 64, 10 and 32 hidden units as in published timings of other libraries,
or 128, 64 and 256-256 as in ``advrl train digits``. Not timed: what has no twin below.
Where storchastic can be imported, it is timed beside in the same way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal
from torch.nn.functional import gumbel_softmax, logsigmoid, softplus

from advrl.distributions import OneHotCategorical
from advrl.estimators import ESTIMATORS, ControlVariate, Relax, fit_loss, make_estimator

SIZES = {"small": (64, 10, (32,)), "digits": (128, 64, (256, 256))}  # B, K, hidden units of the cost
FEW = 6  # coins whose outcomes are listed
Step = Callable[[], None]

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


def ours(name: str, make: Callable[[Tensor], Distribution], f: Callable[[Tensor], Tensor], n: int) -> Step:
    """One estimate by the library."""
    estimator = make_estimator(name, n=n)
    learned: list[nn.Parameter] = []
    if name == "rebar":
        estimator = type(estimator)(n, 0.5)
    if name == "relax":
        estimator = Relax(n, 0.5, ControlVariate(critic))
        learned = list(critic.parameters())

    def step() -> None:
        leaf.grad = None
        loss = estimator(make(leaf), f).mean()
        if learned:
            fitting = fit_loss(estimator)
            assert fitting is not None
            grads = torch.autograd.grad(fitting, learned, retain_graph=True, allow_unused=True)
            for parameter, grad in zip(learned, grads, strict=True):
                parameter.grad = grad
        loss.backward(inputs=[leaf] if learned else None)

    return step


def by_hand(function: Callable[[int], Tensor | None], n: int) -> Step:
    """One estimate by the twin."""

    def step() -> None:
        leaf.grad = None
        loss = function(n)
        if loss is not None:
            loss.backward()

    return step


def same_expectation(first: Step, second: Step, replicates: int = 150) -> None:
    """Raise an ``AssertionError`` if the two have different gradients on average: chance 1e-6 if they have not."""
    means, errors = [], []
    for step in (first, second):
        found = []
        for _ in range(replicates):
            step()
            assert leaf.grad is not None
            found.append(leaf.grad.clone())
        draws = torch.stack(found).double()
        means.append(draws.mean(0))
        errors.append(draws.var(0) / replicates)
    z = (means[0] - means[1]) / (errors[0] + errors[1]).clamp(min=1e-16).sqrt()
    bound = NormalDist().inv_cdf(1 - 1e-6 / (2 * z.numel()))
    assert z.abs().max() < bound, f"the twins differ: |z| = {z.abs().max():.1f} > {bound:.1f}"


def seconds(step: Step, repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - start) / repeats


# ------------------------------------------------------------------------------------- storchastic, where it is there


def storchastic(method: Any, make: Callable[[Any], Distribution]) -> Step:
    """One estimate by storchastic: the batch is declared, the cost goes into its list, backward is its own."""
    import storch

    learned = list(method.parameters()) if isinstance(method, nn.Module) else []

    def step() -> None:
        leaf.grad = None
        for parameter in learned:
            parameter.grad = None
        x = method(make(storch.denote_independent(leaf, 0, "batch")))
        storch.add_cost(cost(x), "cost")
        storch.backward()

    return step


def against_storchastic(only: list[str], rounds: int, repeats: int) -> None:
    """Print how many times faster the library is, interleaved in one process.

    Last of all, since importing storchastic replaces functions of torch and turns its validation of arguments off. Its
    REBAR and RELAX run on coins given by probabilities alone; RELAX's critic is its own. What it cannot do, or does
    with an exception on these problems (DisARM; REBAR and RELAX on dice), has no row.
    """
    import storch.method as methods

    def probabilities(theta: Any) -> Distribution:
        return Bernoulli(probs=theta.sigmoid())

    def logits(theta: Any) -> Distribution:
        return Bernoulli(logits=theta)

    def one_hot(theta: Any) -> Distribution:
        return torch.distributions.OneHotCategorical(logits=theta)

    def normal(theta: Any) -> Distribution:
        return Normal(theta, 1.0)

    loo = {"baseline_factory": "batch_average"}
    rows: dict[tuple[str, str], tuple[Any, Callable[[Any], Distribution]]] = {
        ("loo", "coins"): (methods.ScoreFunction("z", n_samples=16, **loo), logits),
        ("loo", "dice"): (methods.ScoreFunction("z", n_samples=16, **loo), one_hot),
        ("score", "coins"): (methods.ScoreFunction("z", n_samples=16), logits),
        ("path", "normals"): (methods.Reparameterization("z", n_samples=16), normal),
        ("gumbel", "coins"): (methods.GumbelSoftmax("z", n_samples=16), logits),
        ("gumbel", "dice"): (methods.GumbelSoftmax("z", n_samples=16), one_hot),
        ("st-gumbel", "dice"): (methods.GumbelSoftmax("z", n_samples=16, straight_through=True), one_hot),
        ("rebar", "coins"): (methods.REBAR("z", n_samples=16), probabilities),
        ("relax", "coins"): (methods.RELAX("z", n_samples=16, in_dim=K), probabilities),
        ("arm", "coins"): (methods.ARM("z", n_samples=8), logits),
        ("unordered-set", "dice"): (methods.UnorderedSetEstimator("z", k=3), one_hot),
    }
    for (name, problem), (method, distribution) in rows.items():
        if name not in only:
            continue
        make, f, n, _ = TWINS[name, problem]
        library, other = ours(name, make, f, n), storchastic(method, distribution)
        library(), other()
        pairs = [(seconds(library, repeats), seconds(other, repeats)) for _ in range(rounds)]
        ratios = sorted(b / a for a, b in pairs)
        quarter = len(ratios) // 4
        row = {
            "bench": f"{name} against storchastic",
            "problem": problem,
            "size": SIZE,
            "n": n,
            "us": round(statistics.median(a for a, _ in pairs) * 1e6),
            "storchastic_us": round(statistics.median(b for _, b in pairs) * 1e6),
            "times": round(statistics.median(ratios), 2),
            "quartiles": [round(ratios[quarter], 2), round(ratios[-1 - quarter], 2)],
            "storchastic": version("storchastic"),
            "torch": torch.__version__,
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[sizes])
    parser.add_argument("--only", default=",".join(ESTIMATORS), help="names, with commas between them")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    only = arguments.only.split(",")
    for (name, problem), (make, f, n, function) in TWINS.items():
        if name not in only:
            continue
        library, bare = ours(name, make, f, n), by_hand(function, n)
        same_expectation(library, bare)
        pairs = [
            (seconds(library, arguments.repeats), seconds(bare, arguments.repeats)) for _ in range(arguments.rounds)
        ]
        ratios = sorted(a / b for a, b in pairs)
        quarter = len(ratios) // 4
        row = {
            "bench": name,
            "problem": problem,
            "size": SIZE,
            "n": n,
            "us": round(statistics.median(a for a, _ in pairs) * 1e6),
            "bare_us": round(statistics.median(b for _, b in pairs) * 1e6),
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(ratios[quarter], 3), round(ratios[-1 - quarter], 3)],
            "torch": torch.__version__,
        }
        print(json.dumps(row), flush=True)
    print(json.dumps({"not timed": sorted(set(ESTIMATORS) - {name for name, _ in TWINS})}))
    if find_spec("storch") is not None:
        against_storchastic(only, arguments.rounds, arguments.repeats)


if __name__ == "__main__":
    main()
