"""What learns: trainers, the loop around them, and the judge; installed as ``advrl.agents``."""

if __name__ == "agents":  # imported by its folder's name, in a checkout
    from advrl._alias import alias

    alias(__name__)
else:
    from advrl.agents.adversarial import AdversarialTrainer
    from advrl.agents.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
    from advrl.agents.evaluation import Evaluator
    from advrl.agents.fit import Every, Interrupted, Trainer, WriteError, fit
    from advrl.agents.meter import DivergedError
    from advrl.agents.modes import ModeEvaluator, ModeReport
    from advrl.agents.report import Report

    __all__ = [
        "AdversarialTrainer",
        "CheckpointError",
        "DivergedError",
        "Evaluator",
        "Every",
        "Interrupted",
        "ModeEvaluator",
        "ModeReport",
        "Report",
        "Trainer",
        "WriteError",
        "fit",
        "load_checkpoint",
        "save_checkpoint",
    ]
