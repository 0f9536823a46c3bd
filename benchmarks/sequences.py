"""Updates of sequence GANs: ours against a plain transcription of the papers, on the same networks.

    python benchmarks/sequences.py --out docs/sequences.csv

SeqGAN's sizes: an LSTM of 32 units writes 20 of 5,000 tokens, batch 64, 16 rollouts; the discriminator is the authors'
convolutional one with a highway layer of two matrices (gate and carry), or an LSTM of 64 units with a logit per prefix.

rollouts        SeqGAN's generator update: 64 sequences, Q of their 20 prefixes, policy gradient, clipping, Adam.
discriminator   an update of the convolutional discriminator on 64 sequences.
dense           a generator update paid at every step by the recurrent discriminator, without rollouts.
likelihood      an update by maximum likelihood on 64 sequences.
writing         sequences written, 512 a turn; on a GPU also by the whole loop as one CUDA graph.
draws           one outcome for each of 512 rows of logits, against ``torch.multinomial`` of their softmax.

``plain`` is algorithm 1 of Yu et al. (2017) as one would write it down: one rollout after the other, each prefix read
again from the start, ``torch.multinomial``, log-probabilities picked by one-hot vectors, Adam as it comes. Before
anything is timed, both must give the same gradients (small sizes, double precision, the likeliest token in place of a
draw). The contenders take turns in one process and one thread, so that other work on the machine hits all of them; the
first turn warms up and is not counted. Time is this process's CPU time (and the wall's beside it), on a GPU the wall's
after a synchronisation. The floor is the arithmetic of matrix products and convolutions, counted by hand, at the rate
of a large matrix product in the same turns; what is looked up in place of being computed again can beat it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot, softplus
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from advrl.agents import LikelihoodTrainer, rollout_values
from advrl.checks import integer
from advrl.device import clock, device_name, one_thread, resolve_device
from advrl.distributions import sample_categorical, sequence
from advrl.estimators import Score, leave_one_out
from advrl.files import write_csv
from advrl.nn import CNNDiscriminator, LSTMPolicy, RecurrentDiscriminator

SIDE = 1024  # of the matrices whose product gives the machine's rate
NORM = 5.0  # gradients of the policy are scaled down to it
Turn = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """V, T, hidden units, B, R, and how many sequences or rows the sampling turns have."""

    vocab: int = 5000
    length: int = 20
    hidden: int = 32
    batch: int = 64
    rollouts: int = 16
    rows: int = 512


QUICK = Sizes(vocab=30, length=5, hidden=8, batch=4, rollouts=2, rows=16)


@dataclass(frozen=True)
class Nets:
    """A policy and both discriminators."""

    policy: LSTMPolicy
    cnn: CNNDiscriminator
    recurrent: RecurrentDiscriminator


def networks(sizes: Sizes, device: torch.device) -> Nets:
    """Fresh networks of these sizes; rollouts are scored without dropout."""
    policy = LSTMPolicy(sizes.vocab, sizes.length, sizes.hidden)
    cnn = CNNDiscriminator(sizes.vocab, sizes.length).eval()
    return Nets(policy.to(device), cnn.to(device), RecurrentDiscriminator(sizes.vocab).to(device))


# --- the plain transcription


def plain_draw(logits: Tensor) -> Tensor:
    """One token per row (n, V)."""
    return torch.multinomial(logits.softmax(-1), 1).squeeze(1)


@torch.no_grad()
def plain_write(policy: LSTMPolicy, x: Tensor, given: int, draw: Callable[[Tensor], Tensor]) -> Tensor:
    """Sequences (n, T) that begin with the first ``given`` tokens of x."""
    state, last, text = policy.start(len(x)), None, x.clone()
    for t in range(policy.length):
        logits, state = policy.step(last, state)
        if t >= given:
            text[:, t] = draw(logits)
        last = text[:, t]
    return text


@torch.no_grad()
def plain_values(
    policy: LSTMPolicy, x: Tensor, cnn: nn.Module, rollouts: int, draw: Callable[[Tensor], Tensor]
) -> Tensor:
    """Q of every prefix (n, T): Yu et al. (2017), eq. 4, line by line."""
    n, length = x.shape
    rewards = torch.zeros(rollouts, length, n, dtype=policy.out.weight.dtype, device=x.device)
    for r in range(rollouts):
        for t in range(1, length + 1):
            rewards[r, t - 1] = cnn(plain_write(policy, x, t, draw) if t < length else x).sigmoid()
    return rewards.mean(0).T


def plain_log_probs(policy: LSTMPolicy, x: Tensor) -> Tensor:
    """log p(x_t | x_<t), (n, T)."""
    return (policy.logits(x).log_softmax(-1) * one_hot(x, policy.vocab_size)).sum(-1)


def plain_loss(
    policy: LSTMPolicy, x: Tensor, cnn: nn.Module, rollouts: int, draw: Callable[[Tensor], Tensor]
) -> Tensor:
    """The surrogate of SeqGAN's policy gradient."""
    values = plain_values(policy, x, cnn, rollouts, draw)
    return -(plain_log_probs(policy, x) * values).sum(1).mean()


# --- ours


def our_loss(policy: LSTMPolicy, cnn: nn.Module, batch: int, rollouts: int) -> Tensor:
    """The same by :class:`Score`, whose advantage are the rollouts."""

    def advantage(cost: Tensor, x: Tensor) -> Tensor:
        return -rollout_values(policy, x, lambda text: cnn(text).sigmoid(), rollouts)

    def cost(x: Tensor) -> Tensor:
        return torch.zeros(x.shape, dtype=policy.out.weight.dtype, device=x.device)  # its value is not looked at

    return Score(batch, advantage=advantage)(policy.distribution(validate_args=False), cost)


def dense_loss(policy: LSTMPolicy, recurrent: nn.Module, batch: int) -> Tensor:
    """A cost at every step, the baseline the mean of the other sequences."""

    def cost(x: Tensor) -> Tensor:
        with torch.no_grad():
            return 1 - 2 * recurrent(x).sigmoid()

    return Score(batch, leave_one_out)(policy.distribution(validate_args=False), cost)


def agree(device: torch.device) -> float:
    """The largest difference between the gradients of both, of the largest gradient."""
    sizes = replace(QUICK, batch=6)
    nets = networks(sizes, device)
    policy, cnn = nets.policy.double(), nets.cnn.double()
    with torch.no_grad():
        policy.out.weight.mul_(5.0)

    def likeliest(logits: Tensor) -> Tensor:
        return logits.argmax(-1)

    x = policy.sample(sizes.batch)
    plain = torch.autograd.grad(plain_loss(policy, x, cnn, sizes.rollouts, likeliest), list(policy.parameters()))
    with (
        patch.object(sequence.Sequence, "sample", lambda law, shape: x),
        patch.object(sequence, "sample_categorical", likeliest),
    ):
        ours = torch.autograd.grad(our_loss(policy, cnn, sizes.batch, sizes.rollouts), list(policy.parameters()))
    apart = max((a - b).abs().max() for a, b in zip(plain, ours, strict=True))
    return (apart / max(a.abs().max() for a in plain)).item()


# --- turns


def updates(parameters: list[nn.Parameter], loss: Callable[[], Tensor], lr: float, fused: bool) -> Turn:
    """Updates of these parameters by Adam."""
    optimiser = Adam(parameters, lr=lr, fused=fused) if fused else Adam(parameters, lr=lr)

    def turn() -> None:
        optimiser.zero_grad()
        loss().backward(inputs=parameters)
        clip_grad_norm_(parameters, NORM)
        optimiser.step()

    return turn


def d_turn(cnn: nn.Module, x: Tensor, fused: bool) -> Turn:
    """Updates of a discriminator on ids (B, T), half of them real, with its dropout on."""
    cnn.train()
    target = (torch.arange(len(x), device=x.device) % 2).to(torch.get_default_dtype())

    def plain() -> Tensor:
        return binary_cross_entropy_with_logits(cnn(x), target)

    def ours() -> Tensor:
        logits = cnn(x)
        return (softplus(logits) - target * logits).mean()

    return updates(list(cnn.parameters()), ours if fused else plain, 1e-4, fused)


def graphed(turn: Turn) -> Turn:
    """The turn recorded as one CUDA graph, which draws other random numbers at each replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        turn()  # what is made at the first call alone must not be recorded
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        turn()
    return graph.replay


def contenders(name: str, sizes: Sizes, device: torch.device) -> dict[str, Turn]:
    """The turns of each contender, ours first."""
    nets, others = (networks(sizes, device) for _ in range(2))
    for a, b in zip(vars(nets).values(), vars(others).values(), strict=True):
        b.load_state_dict(a.state_dict())
    policy, weights = nets.policy, list(nets.policy.parameters())
    other, other_weights = others.policy, list(others.policy.parameters())
    x = torch.randint(0, sizes.vocab, (sizes.batch, sizes.length), device=device)
    blank = torch.zeros(sizes.rows, sizes.length, dtype=torch.int64, device=device)
    if name == "rollouts":

        def plain() -> Tensor:
            text = plain_write(other, x, 0, plain_draw)
            return plain_loss(other, text, others.cnn, sizes.rollouts, plain_draw)

        return {
            "ours": updates(weights, lambda: our_loss(policy, nets.cnn, sizes.batch, sizes.rollouts), 1e-2, True),
            "plain": updates(other_weights, plain, 1e-2, False),
        }
    if name == "discriminator":
        return {"ours": d_turn(nets.cnn, x, True), "plain": d_turn(others.cnn, x, False)}
    if name == "dense":
        return {"ours": updates(weights, lambda: dense_loss(policy, nets.recurrent, sizes.batch), 1e-2, True)}
    if name == "likelihood":
        trainer = LikelihoodTrainer(policy, lr=1e-2, max_norm=NORM)
        return {
            "ours": lambda: trainer.step(x),
            "plain": updates(other_weights, lambda: -plain_log_probs(other, x).mean(), 1e-2, False),
        }
    if name == "writing":
        law = policy.distribution()

        def write() -> Tensor:
            return law.sample((sizes.rows,))

        found = {"ours": write, "plain": lambda: plain_write(other, blank, 0, plain_draw)}
        return found | ({"graph": graphed(write)} if device.type == "cuda" else {})
    logits = torch.randn(sizes.rows, sizes.vocab, device=device)
    return {"ours": lambda: sample_categorical(logits), "plain": lambda: plain_draw(logits)}


NAMES = ("rollouts", "discriminator", "dense", "likelihood", "writing", "draws")


def flops(name: str, sizes: Sizes, nets: Nets) -> float:
    """Twice the multiplications of a turn's matrix products and convolutions; a backward pass has two of each."""
    step = 16 * sizes.hidden**2 + 2 * sizes.hidden * sizes.vocab
    pass_ = sizes.batch * sizes.length * step
    features = nets.cnn.out.in_features
    windows = sum(
        each.in_channels * each.out_channels * each.kernel_size[0] * (sizes.length - each.kernel_size[0] + 1)
        for each in nets.cnn.convolutions
    )
    judged = 2 * (windows + 2 * features**2 + features)
    lstm = nets.recurrent.rnn
    read = sizes.batch * sizes.length * 8 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)
    steps = sizes.rollouts * sizes.batch * sizes.length * (sizes.length - 1) // 2
    return {
        "rollouts": 4 * pass_ + steps * step + (sizes.rollouts * (sizes.length - 1) + 1) * sizes.batch * judged,
        "discriminator": 3 * sizes.batch * judged,
        "dense": 4 * pass_ + read,
        "likelihood": 3 * pass_,
        "writing": sizes.rows * sizes.length * step,
        "draws": 0,
    }[name]


def seconds(turn: Turn, device: torch.device) -> tuple[float, float]:
    """Of this process and of the wall; on a GPU both are the wall's."""
    start, wall = clock(device), time.perf_counter()
    turn()
    return clock(device) - start, time.perf_counter() - wall


def measure(name: str, sizes: Sizes, device: torch.device, rounds: int) -> list[dict[str, object]]:
    """A row for each contender."""
    torch.manual_seed(0)
    turns = contenders(name, sizes, device)
    matrices = torch.randn(2, SIDE, SIDE, device=device)
    turns["product"] = lambda: torch.mm(*matrices)
    taken: dict[str, list[tuple[float, float]]] = {contender: [] for contender in turns}
    for _ in range(rounds + 1):
        for contender, turn in turns.items():
            taken[contender].append(seconds(turn, device))
    middle = {contender: statistics.median(cpu for cpu, _ in times[1:]) for contender, times in taken.items()}
    work = flops(name, sizes, networks(sizes, device))
    floor = work / (2 * SIDE**3) * middle.pop("product")
    rows: list[dict[str, object]] = []
    for contender, median in middle.items():
        times, items = taken[contender][1:], sizes.rows if name in ("writing", "draws") else sizes.batch
        ratios = [cpu / ours for (cpu, _), (ours, _) in zip(times, taken["ours"][1:], strict=True)]
        rows.append({
            "task": name, "contender": contender, "device": device_name(device), "seconds": median,
            "wall": statistics.median(wall for _, wall in times), "times_ours": statistics.median(ratios),
            "low": min(ratios), "high": max(ratios), "items": items,
            "gflop": work / 1e9, "floor_seconds": floor, "rounds": rounds, "threads": torch.get_num_threads(),
            "vocab": sizes.vocab, "length": sizes.length, "rollouts": sizes.rollouts, "torch": torch.__version__,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| task | by | ms | wall, ms | a second | time / ours | range | floor, ms |",
        "| --- | --- | ---: | ---: | ---: | ---: | :---: | ---: |",
    ]
    for row in rows:
        lines.append(
            "| {task} | {contender} | {:.3g} | {:.3g} | {:,.0f} | {times_ours:.2f} | {low:.2f} to {high:.2f} "
            "| {:.3g} |".format(
                1e3 * row["seconds"],
                1e3 * row["wall"],
                row["items"] / row["seconds"],
                1e3 * row["floor_seconds"],
                **row,
            )
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=NAMES, action="append", help="once or more; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, help="turns of each contender; default: 3 with rollouts, else 21")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two turns: only to see that it runs")
    parser.add_argument("--out", type=Path, help="write the rows to this CSV file")
    options = parser.parse_args(argv)
    device = resolve_device(options.device)
    rows = []
    with one_thread():
        apart = agree(device)
        if not apart < 1e-9:
            raise AssertionError(f"the gradients disagree by {apart:.2g} of the largest")
        for name in options.task or NAMES:
            usual = 2 if options.quick else 3 if name == "rollouts" else 21
            rounds = integer("--rounds", options.rounds or usual)
            rows += measure(name, QUICK if options.quick else Sizes(), device, rounds)
    print(table(rows))
    if options.out:
        write_csv(options.out, rows)
    return rows


if __name__ == "__main__":
    main()
