"""What the commands say of themselves where no option tells it: the front page, recipes, policies, estimators."""

from __future__ import annotations

from typing import Any

import advrl
from advrl.columns import columns

COMPARE = """\
usage: advrl compare PROBLEM [options]      (each explains its options: advrl compare PROBLEM --help)

Measures gradient estimators on a problem whose exact gradient is known: bias with its z-score, variance with its
standard error beside the closed form, evaluations of the cost and time. Prints a table, writes it and its figures.
  advrl compare normal-square                                    the lecture: score function against path derivative
  advrl compare categorical --estimators score,loo,gumbel,st --replicates 10000
  advrl compare tucker --t 0.499 --samples 2,8,32"""

BENCH = """\
usage: advrl bench STUDY [options]      (each explains its options: advrl bench STUDY --help)

Trains and scores several methods on one task over seeds; prints a table, writes it as CSV, and draws it."""

EXERCISE = """\
usage: advrl exercise N|NAME [options]      (each explains its options: advrl exercise NAME --help)

Exercises on generators and discriminators, each done in numbers. Try the problem on paper first: the command states
it, goes through the steps, draws a figure, and says of every claim whether it holds. Exit code 1 if one does not.
  advrl exercise 1                       the best discriminator; the four stages of Goodfellow's figure, from a run
  advrl exercise xy --eta 0.3            the same game with larger steps"""


def front_page() -> str:
    """What ``advrl --help`` says."""
    from advrl.recipes import RECIPES

    recipes = "\n".join(f"    {name:<14} {_first_line(cls)}" for name, cls in RECIPES.items())
    return f"""\
advrl {advrl.__version__}: a generator is a policy, rewarded by a function of the discriminator.

  advrl train RECIPE [options]     train a generator; leaves a folder with pictures, curves and checkpoints
{recipes}
  advrl sample RUN -n 64           draw from a trained generator
  advrl edit RUN --image x.png     find an image's noise, move it towards a class, draw what becomes of it
  advrl evaluate RUN               judge it against real data that it never saw
  advrl plot RUN...                curves of runs, seeds and experiments over each other
  advrl compare PROBLEM            gradient estimators: bias, variance and cost beside exact answers
  advrl bench STUDY                methods side by side over seeds: a table and figures
  advrl exercise N                 problems on paper, done in numbers: steps, a figure, claims that are checked
  advrl solve PROBLEM              solve a small decision problem exactly: values, all optimal actions, bounds
  advrl learn q-learning cliff     tabular agents by the thousand, held against the exact answer
  advrl grade LESSON FILE.py       your answers to a lesson's exercise, with points and what is wrong

Start with:  advrl train digits
Every command explains itself with --help."""


def train_help() -> str:
    """What ``advrl train --help`` says."""
    import torch

    from advrl.estimators import ESTIMATORS, fitting
    from advrl.nn import FAMILIES
    from advrl.recipes import RECIPES
    from advrl.recipes.sequence_defaults import ALGORITHMS

    auto = {name: fitting(f.distribution(torch.zeros(1, f.numbers, 1, 1))) for name, f in FAMILIES.items()}
    policies = "\n".join(f"  {name:<12} {family.summary:<31} {auto[name]}" for name, family in FAMILIES.items())
    estimators = explained({name: f"{e.summary}; {e.samples} per z" for name, e in ESTIMATORS.items()})
    algorithms = explained({name: usual.summary for name, usual in ALGORITHMS.items()})
    recipes = "\n".join(
        f"  {name}\n      {_first_line(cls)}\n      {_settings(cls())}" for name, cls in RECIPES.items()
    )
    return f"""\
usage: advrl train RECIPE [options]

recipes (each explains its options: advrl train RECIPE --help)
{recipes}
  FILE.py:NAME
      a configuration class of your own

--policy       what the generator draws        --estimator auto
{policies}

--estimator    gradient of the policy; default number of samples
{estimators}

--algorithm    how a sequence policy learns, in text and oracle
{algorithms}

The generator is a policy: noise z in, a distribution over samples out. One flag changes one thing:
  advrl train digits --estimator gumbel
  advrl train digits --policy gaussian --objective hinge"""


def explained(names: dict[str, str]) -> str:
    """Names, and what they mean in a column beside them."""
    return "\n".join(f"  {line}" for line in columns(list(names.items()), figures=False, gap=" "))


def _settings(config: Any) -> str:
    if hasattr(config, "settings"):
        return str(config.settings)
    how = (
        f"agent {config.agent}" if hasattr(config, "agent") else f"policy {config.policy}, estimator {config.estimator}"
    )
    return f"{how}, objective {config.objective}, {config.steps:,} steps"


def _first_line(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")
