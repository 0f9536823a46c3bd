"""Monte-Carlo gradient estimators: kernels on tensors, and objects ``estimator(distribution, cost)``."""

from advrl.estimators.antithetic import Antithetic, AntitheticScore, reflect
from advrl.estimators.arm import Arm, DisArm
from advrl.estimators.base import Draw, Estimator, fit_loss, modules_of
from advrl.estimators.baselines import Critic, VarianceNormalised, grpo, optimal_baseline
from advrl.estimators.enumeration import Enumerate, RaoBlackwell
from advrl.estimators.evolution import EvolutionStrategy
from advrl.estimators.gumbel import GumbelRao, conditional_gumbel
from advrl.estimators.importance import Importance
from advrl.estimators.kernels import dice, leave_one_out, score_function
from advrl.estimators.landing import StickingTheLanding
from advrl.estimators.lax import ControlVariate, Lax
from advrl.estimators.measure import Measure
from advrl.estimators.muprop import MuProp
from advrl.estimators.names import BASELINES, ESTIMATORS, fitting, make_estimator
from advrl.estimators.path import Path
from advrl.estimators.rebar import Learned, Rebar, Relax
from advrl.estimators.reinmax import ReinMax, reinmax
from advrl.estimators.relaxed import GumbelSoftmax, StraightThrough
from advrl.estimators.score import MovingAverage, Score
from advrl.estimators.sequences import gae, ppo_clip, reward_to_go
from advrl.estimators.tape import Tape
from advrl.estimators.taylor import Taylor
from advrl.estimators.unordered import UnorderedSet

__all__ = [
    "BASELINES",
    "ESTIMATORS",
    "Antithetic",
    "AntitheticScore",
    "Arm",
    "ControlVariate",
    "Critic",
    "DisArm",
    "Draw",
    "Enumerate",
    "Estimator",
    "EvolutionStrategy",
    "GumbelRao",
    "GumbelSoftmax",
    "Importance",
    "Lax",
    "Learned",
    "Measure",
    "MovingAverage",
    "MuProp",
    "Path",
    "RaoBlackwell",
    "Rebar",
    "ReinMax",
    "Relax",
    "Score",
    "StickingTheLanding",
    "StraightThrough",
    "Tape",
    "Taylor",
    "UnorderedSet",
    "VarianceNormalised",
    "conditional_gumbel",
    "dice",
    "fit_loss",
    "fitting",
    "gae",
    "grpo",
    "leave_one_out",
    "make_estimator",
    "modules_of",
    "optimal_baseline",
    "ppo_clip",
    "reflect",
    "reinmax",
    "reward_to_go",
    "score_function",
]
