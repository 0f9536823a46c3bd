"""What learns: trainers, the loop around them, and the judge; installed as ``advrl.agents``."""

if __name__ == "agents":  # imported by its folder's name, in a checkout
    from advrl._alias import alias

    alias(__name__)
else:
    from advrl.agents.adversarial import AdversarialTrainer
    from advrl.agents.adversary import Adversary
    from advrl.agents.auxiliary import Guessing, Labelled
    from advrl.agents.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
    from advrl.agents.coupled import CoupledTrainer
    from advrl.agents.dynamics import DYNAMICS, GameOptimizer, make_dynamics
    from advrl.agents.dynamics_around import Averaging, Lookahead
    from advrl.agents.dynamics_first import (
        Alternating,
        Dynamics,
        Extragradient,
        PastExtragradient,
        Simultaneous,
        negative_momentum,
        optimistic,
    )
    from advrl.agents.dynamics_rules import AdamRule, OptimisticRule, Rule, SGDRule
    from advrl.agents.dynamics_second import Competitive, Consensus, Symplectic
    from advrl.agents.dynamics_trainer import DynamicsTrainer
    from advrl.agents.dynamics_unrolled import Unrolled
    from advrl.agents.evaluation import Evaluator
    from advrl.agents.fit import Every, Interrupted, Trainer, WriteError, fit
    from advrl.agents.language_model import LanguageModel, train_language_model
    from advrl.agents.likelihood import LikelihoodTrainer
    from advrl.agents.meter import DivergedError
    from advrl.agents.modes import ModeEvaluator, ModeReport
    from advrl.agents.policy_gradient import PolicyGradientTrainer, ReinforceTrainer
    from advrl.agents.ppo import ActorCriticTrainer, PPOTrainer
    from advrl.agents.report import Report
    from advrl.agents.rollout import Episodes, Player, Turns, actor_for, pay, play
    from advrl.agents.sequence_gan import SequenceGANTrainer
    from advrl.agents.sequence_gan_paths import Annealed, EmbeddingPath, Gumbel
    from advrl.agents.sequence_gan_rewards import LeaveOneOut, MovingAverage, NoBaseline
    from advrl.agents.sequence_gan_scores import (
        ActorCritic,
        Constant,
        ImportanceWeighted,
        PrefixCritic,
        Reinforce,
        ScratchGAN,
        SeqGAN,
        SequenceAlgorithm,
    )
    from advrl.agents.sequence_rollouts import rollout_values
    from advrl.agents.stabiliser import Stabiliser
    from advrl.agents.stabiliser_augment import AUGMENTATIONS, Augmentation
    from advrl.agents.stabiliser_features import FeatureMatching
    from advrl.agents.stabiliser_history import HistoricalAveraging
    from advrl.agents.stabiliser_pool import HistoryPool
    from advrl.agents.tabular_control import double_q_learning, expected_sarsa, q_learning, sarsa
    from advrl.agents.tabular_dyna import dyna_q, prioritized_sweeping
    from advrl.agents.tabular_gradient import actor_critic, reinforce
    from advrl.agents.tabular_linear import LearnedLinear, TileCoding, linear_sarsa, linear_td
    from advrl.agents.tabular_loop import Common, Learned, decay, harmonic
    from advrl.agents.tabular_model import LearnedModel, exact_values, model_learning, value_gap
    from advrl.agents.tabular_monte_carlo import mc_control, mc_prediction
    from advrl.agents.tabular_nstep import n_step_sarsa, tree_backup
    from advrl.agents.tabular_optimism import LearnedPlan, ucb_vi
    from advrl.agents.tabular_posterior import posterior_sampling
    from advrl.agents.tabular_prediction import td_prediction
    from advrl.agents.tabular_traces import q_lambda, sarsa_lambda
    from advrl.agents.values import ValueNet

    __all__ = [
        "AUGMENTATIONS",
        "DYNAMICS",
        "ActorCritic",
        "ActorCriticTrainer",
        "AdamRule",
        "AdversarialTrainer",
        "Adversary",
        "Alternating",
        "Annealed",
        "Augmentation",
        "Averaging",
        "CheckpointError",
        "Common",
        "Competitive",
        "Consensus",
        "Constant",
        "CoupledTrainer",
        "DivergedError",
        "Dynamics",
        "DynamicsTrainer",
        "EmbeddingPath",
        "Episodes",
        "Evaluator",
        "Every",
        "Extragradient",
        "FeatureMatching",
        "GameOptimizer",
        "Guessing",
        "Gumbel",
        "HistoricalAveraging",
        "HistoryPool",
        "ImportanceWeighted",
        "Interrupted",
        "Labelled",
        "LanguageModel",
        "Learned",
        "LearnedLinear",
        "LearnedModel",
        "LearnedPlan",
        "LeaveOneOut",
        "LikelihoodTrainer",
        "Lookahead",
        "ModeEvaluator",
        "ModeReport",
        "MovingAverage",
        "NoBaseline",
        "OptimisticRule",
        "PPOTrainer",
        "PastExtragradient",
        "Player",
        "PolicyGradientTrainer",
        "PrefixCritic",
        "Reinforce",
        "ReinforceTrainer",
        "Report",
        "Rule",
        "SGDRule",
        "ScratchGAN",
        "SeqGAN",
        "SequenceAlgorithm",
        "SequenceGANTrainer",
        "Simultaneous",
        "Stabiliser",
        "Symplectic",
        "TileCoding",
        "Trainer",
        "Turns",
        "Unrolled",
        "ValueNet",
        "WriteError",
        "actor_critic",
        "actor_for",
        "decay",
        "double_q_learning",
        "dyna_q",
        "exact_values",
        "expected_sarsa",
        "fit",
        "harmonic",
        "linear_sarsa",
        "linear_td",
        "load_checkpoint",
        "make_dynamics",
        "mc_control",
        "mc_prediction",
        "model_learning",
        "n_step_sarsa",
        "negative_momentum",
        "optimistic",
        "pay",
        "play",
        "posterior_sampling",
        "prioritized_sweeping",
        "q_lambda",
        "q_learning",
        "reinforce",
        "rollout_values",
        "sarsa",
        "sarsa_lambda",
        "save_checkpoint",
        "td_prediction",
        "train_language_model",
        "tree_backup",
        "ucb_vi",
        "value_gap",
    ]
