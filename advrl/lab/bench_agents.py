r"""``advrl bench agents``: agents that learn an oracle's sequences, at equal CPU-seconds, over seeds.

All climb the same objective on the same seeded LSTM oracle p,

    E_pi[log p(x)] + H(pi) = -KL(pi || p),         best at pi = p, where the oracle's NLL is its entropy H(p)

The score-function agents see log p(x) alone, when a sequence is finished, and are paid -log pi(a_t | s_t) at each step;
Stable-Baselines3's by :class:`advrl.agents.sb3.EntropyReward`, since its ``ent_coef`` is something else. Gumbel-softmax
(straight-through, temperature 1) sees more: it follows the path derivative of the same objective through the tokens and
*inside* the oracle, whose weights the others never see; its gradient is biased, being the relaxation's.

A budget is CPU-seconds of the process, playing and learning; evaluations are not counted. They come at equal marks,
after the first step that ends behind the mark, on fresh hard sequences. Curves are interquartile means over the seeds
with bootstrap intervals, as Agarwal et al. (2021) recommend.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.optim import Adam

from advrl.agents import ActorCriticTrainer, PPOTrainer, ReinforceTrainer, Turns
from advrl.agents.adversarial import update
from advrl.checks import choice, integer, number, words
from advrl.data import LSTMOracle
from advrl.envs import SequenceGeneration
from advrl.estimators import GumbelSoftmax, leave_one_out
from advrl.files import as_text, write_csv
from advrl.nn import GRUPolicy
from advrl.seeding import isolated, seed_everything

JUDGED = 2_000  # sequences of an evaluation
FIRST = 0.5  # CPU-seconds of the first mark
MARKS = 14


@dataclass(frozen=True)
class Options:
    """PPO, A2C, REINFORCE, actor-critic, Gumbel-softmax on an oracle's sequences, at equal CPU-seconds, over seeds."""

    methods: str = ""
    """Which, with commas between. Default: all."""
    seeds: int = 5
    """Runs of each, with seeds counted up from --seed."""
    seed: int = 0
    """The first of them."""
    seconds: float = 30.0
    """CPU-seconds of each run, playing and learning."""
    vocab: int = 20
    """Tokens."""
    length: int = 10
    """Tokens of a sequence."""
    oracle_seed: int = 0
    """Of the oracle's weights."""
    hidden: int = 64
    """Units of the policies."""
    lr: float | None = None
    """Adam's learning rate of all. Default: each method's own."""
    out: Path | None = None
    """Folder; runs that are in its table are not run again. Default: the next free runs/bench-agents-N."""


@dataclass(frozen=True)
class Contender:
    """What a run needs of a method: a step, and n sequences with their log-probabilities; and how large it is."""

    step: Callable[[], object]
    draw: Callable[[int], tuple[Tensor, Tensor]]
    sequences: int
    parameters: int


@dataclass(frozen=True)
class Method:
    """How a contender is made: a maker, its sequences per step and its learning rate, chosen on a seed outside."""

    make: Callable[[Options, LSTMOracle, int, float], Contender]
    sequences: int
    lr: float


def _ours(cls: Any, **options: Any) -> Callable[[Options, LSTMOracle, int, float], Contender]:
    def make(config: Options, oracle: LSTMOracle, sequences: int, lr: float) -> Contender:
        task = SequenceGeneration(config.vocab, config.length, oracle.log_prob)
        policy = GRUPolicy(config.vocab, config.length, config.hidden)
        trainer = cls(policy, task, entropy=1.0, lr=lr, max_norm=1.0, **options)
        rows = Turns(sequences).draw(torch.Generator())
        return _sampled(policy, lambda: trainer.step(rows), sequences)

    return make


def _gumbel(config: Options, oracle: LSTMOracle, sequences: int, lr: float) -> Contender:
    policy = GRUPolicy(config.vocab, config.length, config.hidden)
    optimiser = Adam(policy.parameters(), lr=lr)
    estimator = GumbelSoftmax(sequences, temperature=1.0, hard=True)

    def step() -> None:
        update(optimiser, estimator(policy.distribution(), lambda x: relaxed_divergence(policy, oracle, x)))

    return _sampled(policy, step, sequences)


def relaxed_divergence(policy: GRUPolicy, oracle: LSTMOracle, x: Tensor) -> Tensor:
    """(n,) log pi(x) - log p(x) of relaxed sequences (n, T, V): on one-hot rows, those of the sequences."""
    ours, theirs = (log_softmax(law.logits(x), -1) for law in (policy, oracle.policy))
    return (x * (ours - theirs)).sum((-1, -2))


def _sampled(policy: GRUPolicy, step: Callable[[], object], sequences: int) -> Contender:
    def draw(n: int) -> tuple[Tensor, Tensor]:
        x = policy.sample(n)
        return x, policy.log_probs(x).sum(1)

    return Contender(step, draw, sequences, _size(policy))


def _theirs(name: str, *, gru: bool = False, **options: Any) -> Callable[[Options, LSTMOracle, int, float], Contender]:
    def make(config: Options, oracle: LSTMOracle, sequences: int, lr: float) -> Contender:
        from advrl.agents.sb3 import ON_POLICY, EntropyReward, GeneratorPolicy, SB3VecEnv, TokenFeatures, generate

        def env() -> Any:
            made: dict[str, Any] = {"vocab": config.vocab, "length": config.length, "reward": oracle.log_prob}
            return SB3VecEnv(gym.make_vec("advrl/Sequence-v0", sequences, **made))

        if name == "ppo":  # a divisor of what there is, 512 with an even length
            options["batch_size"] = sequences * (2 - config.length % 2)
        policy: Any = GeneratorPolicy if gru else "MlpPolicy"
        generator = GRUPolicy(config.vocab, config.length, config.hidden)
        plain = {"features_extractor_class": TokenFeatures, "net_arch": [config.hidden]}
        agent: Any = ON_POLICY[name](
            policy, env(), n_steps=config.length, gamma=1.0, gae_lambda=1.0, ent_coef=0.0, learning_rate=lr,
            max_grad_norm=1.0, device="cpu", policy_kwargs={"generator": generator} if gru else plain, **options,
        )  # fmt: skip
        elsewhere, paid = env(), EntropyReward()

        def step() -> None:
            agent.learn(sequences * config.length, callback=paid, reset_num_timesteps=False)

        def draw(n: int) -> tuple[Tensor, Tensor]:
            found: tuple[Tensor, Tensor] = generate(agent, n, elsewhere, return_log_prob=True)
            return found

        return Contender(step, draw, sequences, _size(agent.policy))

    return make


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


METHODS = {
    "reinforce": Method(_ours(ReinforceTrainer, baseline=leave_one_out), 256, 1e-2),
    "actor-critic": Method(_ours(ActorCriticTrainer, normalise=True, lr_critic=3e-3), 256, 1e-2),
    "ppo": Method(_ours(PPOTrainer, lr_critic=3e-3), 256, 3e-3),
    "gumbel-softmax": Method(_gumbel, 256, 3e-3),
    "sb3-ppo": Method(_theirs("ppo", n_epochs=4), 256, 1e-2),
    "sb3-a2c": Method(_theirs("a2c", normalize_advantage=True, use_rms_prop=False), 256, 1e-2),
    "sb3-ppo-gru": Method(_theirs("ppo", gru=True, n_epochs=4), 256, 3e-3),
}
"""Name to method. The first four have one GRU, as has sb3-ppo-gru, run over each prefix again; sb3-ppo and sb3-a2c have
Stable-Baselines3's perceptrons on one-hot prefixes, as large with their critic."""


def run(options: Options, folder: Callable[[], Path], say: Callable[[str], None] = print) -> None:
    """Run what is not run yet, print the table, write it and the figure.

    Raises:
        ValueError, TypeError: for names that do not exist and numbers out of range, before anything is run.
    """
    from advrl.lab.agents_table import curves, draw, read_rows, report

    names = words(options.methods) or list(METHODS)
    for name in names:
        choice("method", name, METHODS)
    integer("--seeds", options.seeds), integer("--seed", options.seed, 0), integer("--vocab", options.vocab, 2)
    (
        integer("--length", options.length),
        integer("--hidden", options.hidden),
        integer("--oracle-seed", options.oracle_seed, 0),
    )
    number("--seconds", options.seconds, 0.0, exclusive=True)
    if options.lr is not None:
        number("--lr", options.lr, 0.0, exclusive=True)
    oracle = LSTMOracle(options.vocab, options.length, seed=options.oracle_seed)
    out = options.out or folder()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "runs.csv"
    task = {k: str(asdict(options)[k]) for k in ("vocab", "length", "oracle_seed", "hidden", "seconds")}
    rows = read_rows(path, task)
    done = {(row["method"], row["seed"]) for row in rows}
    cells = list(itertools.product(range(options.seed, options.seed + options.seeds), names))
    for number_, (seed, name) in enumerate(cells, 1):
        if (name, str(seed)) in done:
            continue
        found = [{"method": name, "seed": seed, **task, **row} for row in learn(name, seed, options, oracle)]
        rows += [as_text(row, 6) for row in found]
        write_csv(path, rows)
        last = found[-1]
        say(
            f"{number_}/{len(cells)} {name}, seed {seed}: NLL {last['nll']:.3f}, divergence {last['divergence']:.3f} "
            f"after {last['spent']:.0f} s and {last['sequences']:,} sequences"
        )
    wanted = [row for row in rows if (int(row["seed"]), row["method"]) in set(cells)]
    table = curves(wanted)
    floor = entropy_of(oracle)
    write_csv(out / "curves.csv", table, 6)
    written = [path, out / "curves.csv", draw(table, floor, out / "agents.png")]
    say(f"\n{report(table, floor)}\n\nWritten:\n" + "\n".join(f"  {p}" for p in written))


def marks(seconds: float) -> list[float]:
    """CPU-seconds at which is evaluated: 0, and then in equal ratios up to the whole budget."""
    first = min(FIRST, seconds / 4)
    return [0.0, *(first * (seconds / first) ** (k / (MARKS - 1)) for k in range(MARKS))]


def learn(name: str, seed: int, options: Options, oracle: LSTMOracle) -> list[dict[str, Any]]:
    """One run: a row for each mark."""
    seed_everything(seed)
    method = METHODS[name]
    lr = method.lr if options.lr is None else options.lr
    contender = method.make(options, oracle, method.sequences, lr)
    rows: list[dict[str, Any]] = []
    spent, steps, ahead = 0.0, 0, marks(options.seconds)
    while ahead:
        if spent >= ahead[0]:
            told = {"lr": lr, "parameters": contender.parameters, "spent": spent, "steps": steps,
                    "sequences": steps * contender.sequences, **judged(contender, oracle)}  # fmt: skip
            while ahead and spent >= ahead[0]:
                rows.append({"mark": ahead.pop(0), **told})
            continue
        start = time.process_time()
        contender.step()
        spent += time.process_time() - start
        steps += 1
    return rows


def judged(contender: Contender, oracle: LSTMOracle) -> dict[str, float]:
    """Of fresh sequences, in nats: NLL under the oracle per token, and the divergence KL(pi || p) of a sequence."""
    with isolated(0), torch.no_grad():
        x, log_prob = contender.draw(JUDGED)
        theirs = oracle.log_prob(x)
    return {
        "nll": float(-theirs.double().mean()) / oracle.length,
        "divergence": float((log_prob.to(theirs) - theirs).double().mean()),
    }


def entropy_of(oracle: LSTMOracle, n: int = 50_000) -> float:
    """H(p) in nats per token: the mean over n sequences of the exact entropies of their steps, to about 1e-3."""
    with isolated(0), torch.no_grad():
        total = 0.0
        for part in oracle.sample(n).split(5_000):
            log_p = log_softmax(oracle.policy.logits(part), -1)
            total -= float((log_p.exp() * log_p).sum(-1).double().sum())
    return total / (n * oracle.length)
