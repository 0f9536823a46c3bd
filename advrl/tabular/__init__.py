"""Tabular Markov decision processes: solve exactly, with proof, and hold what is learned against that."""

from advrl.tabular.analysis import (
    hitting_probability,
    hitting_times,
    occupancy,
    policy_gradient,
    stationary_distribution,
    steps_to_end,
    success_probability,
    successor_representation,
)
from advrl.tabular.average import AverageReward, relative_value_iteration
from advrl.tabular.convert import (
    from_dense,
    from_function,
    from_gymnasium,
    from_sparse,
    from_trajectories,
    model_intervals,
    to_table,
)
from advrl.tabular.evaluation import Evaluation, evaluation_sweeps, policy_evaluation, under_policy
from advrl.tabular.finite_gan import (
    discriminator_loss,
    generator_cost,
    generator_gradient,
    jensen_shannon,
    optimal_discriminator,
    optimal_logit,
)
from advrl.tabular.horizon import Plan, backward_induction, lookahead, soft_value_iteration
from advrl.tabular.linear import linear_program
from advrl.tabular.mdp import MDP
from advrl.tabular.planning import (
    modified_policy_iteration,
    policy_iteration,
    solve,
    value_iteration,
    value_sweeps,
)
from advrl.tabular.render import (
    assert_policy_optimal,
    bounds_by_sweep,
    ended_states,
    render_policy,
    render_solution,
    render_values,
)
from advrl.tabular.simulate import Simulator, Step, Trajectories, sample_step, sample_trajectories
from advrl.tabular.solution import Solution, greedy, q_from_v
from advrl.tabular.transitions import Successors
from advrl.tabular.tree import LayeredTree, TreeValues

__all__ = [
    "MDP",
    "AverageReward",
    "Evaluation",
    "LayeredTree",
    "Plan",
    "Simulator",
    "Solution",
    "Step",
    "Successors",
    "Trajectories",
    "TreeValues",
    "assert_policy_optimal",
    "backward_induction",
    "bounds_by_sweep",
    "discriminator_loss",
    "ended_states",
    "evaluation_sweeps",
    "from_dense",
    "from_function",
    "from_gymnasium",
    "from_sparse",
    "from_trajectories",
    "generator_cost",
    "generator_gradient",
    "greedy",
    "hitting_probability",
    "hitting_times",
    "jensen_shannon",
    "linear_program",
    "lookahead",
    "model_intervals",
    "modified_policy_iteration",
    "occupancy",
    "optimal_discriminator",
    "optimal_logit",
    "policy_evaluation",
    "policy_gradient",
    "policy_iteration",
    "q_from_v",
    "relative_value_iteration",
    "render_policy",
    "render_solution",
    "render_values",
    "sample_step",
    "sample_trajectories",
    "soft_value_iteration",
    "solve",
    "stationary_distribution",
    "steps_to_end",
    "success_probability",
    "successor_representation",
    "to_table",
    "under_policy",
    "value_iteration",
    "value_sweeps",
]
