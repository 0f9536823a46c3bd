"""Studies by name, for ``advrl bench``: each trains and scores several methods and leaves a table and figures.

A study is a module with a dataclass ``Options`` (its docstring and fields are the help) and a function
``run(options, folder)``, where ``folder()`` names the next free folder if the user gave none.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

BENCHES: dict[str, tuple[str, str]] = {
    "envs": ("advrl.lab.bench_envs", "raw steps per second of the sequence environment, batched and one by one"),
    "agents": (
        "advrl.lab.bench_agents",
        "PPO, A2C, REINFORCE and others on an oracle, at equal CPU-seconds, over seeds",
    ),
    "costs": ("advrl.lab.bench_costs", "what each objective pays against D, and how steeply it falls (no training)"),
    "stabilisers": ("advrl.lab.bench_stabilisers", "what a stabiliser costs a step, beside what it gains"),
    "semisupervised": ("advrl.lab.bench_semisupervised", "test error from a few labels, with a generator and without"),
    "oracle": ("advrl.lab.bench_oracle", "sequence GANs on a known law: both likelihoods and KLs, beside tempered MLE"),
    "text": ("advrl.lab.bench_text", "sequence GANs on captions of yours: BLEU, language models, beside tempered MLE"),
    "modes": ("advrl.lab.bench_modes", "ring, grid and stacked digits over seeds, beside the published rows"),
    "dynamics": ("advrl.lab.bench_dynamics", "how two players move: ring and grid at equal time, oscillation, cost"),
}
"""Name to (module, one line for the help)."""


def bench(name: str) -> ModuleType:
    """The module of a study, loaded when it is asked for."""
    return import_module(BENCHES[name][0])
