"""What every adversarial recipe can be told: the options of ``advrl train``, with what is allowed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from advrl.agents.dynamics import DYNAMICS
from advrl.agents.forward import Precision
from advrl.checks import choice, integer, number, words
from advrl.estimators import BASELINES, ESTIMATORS
from advrl.nn import FAMILIES
from advrl.objectives import make_game
from advrl.plots import image_grid, save_png
from advrl.recipes.stabilising import check_stabilisers

BaselineName = Literal["none", "constant", "moving-average", "loo"]

RESUMABLE = ("steps", "out", "device", "compile", "resume", "log_every", "checkpoint_every", "picture_every", "quiet",
             "probe_gradients", "probe_spectrum", "probe_every")  # fmt: skip
"""What may differ from the saved configuration when a run is resumed."""


@dataclass(frozen=True)
class AdversarialConfig:
    """Options shared by the adversarial recipes."""

    policy: str = "binomial"
    """What the generator's numbers mean: binomial (counts of ink), bernoulli (ink or none), categorical (grey levels
    as classes), gaussian (given z) or implicit (the deterministic G(z))."""
    estimator: str = "auto"
    """Gradient of the policy: auto, loo, score, nvil, grpo, path, antithetic, taylor, lax, measure, es, gumbel, st,
    st-gumbel, gumbel-rao, reinmax, rebar, relax, muprop, arm, disarm, enumerate, rao-blackwell, unordered-set, or
    FILE.py:NAME."""
    objective: str = "non-saturating"
    """Losses of the two players: minimax, non-saturating, maximum-likelihood, reverse-kl, jeffreys, pearson, neyman,
    hellinger, total-variation, least-squares, least-squares-pearson, hinge, wasserstein-clip, wasserstein-gp,
    relativistic, r3gan, boundary-seeking, gail, gail-log-d, airl, fairl, f-gan-kl, f-gan-reverse-kl, f-gan-jeffreys,
    f-gan-pearson, f-gan-neyman, f-gan-hellinger, f-gan-total-variation, f-gan-jensen-shannon, ebgan, began, bs-gan,
    relativistic-average, or FILE.py:NAME (a function: logits to costs, or an Objective)."""
    real_label: float = 1.0
    """The discriminator's target for real samples; .9 is one-sided label smoothing."""
    fake_label: float = 0.0
    """Its target for fakes. Above 0 it no longer rejects what only the generator draws, and warns."""
    samples: int | None = None
    """Samples per z. Default: 8 with loo, grpo and es (pairs), 4 with unordered-set, else 1 (a pair with arm and
    disarm)."""
    baseline: BaselineName | None = None
    """Baseline of `--estimator score` (`loo` has its own). `constant` is the cost at D = 1/2."""
    temperature: float = 1.0
    """Of the relaxation, in gumbel, st-gumbel, gumbel-rao, reinmax, rebar and relax."""
    latent: int = 64
    """Dimension of the noise z."""
    width: int = 256
    """Units of each of the two hidden layers, in both networks."""
    batch_size: int = 128
    """Noise vectors, and real samples, per update."""
    steps: int = 17000
    """Steps to train for."""
    discriminator_steps: int = 1
    """Discriminator updates per step, each on a batch of its own."""
    generator_steps: int = 1
    """Generator updates per step."""
    dynamics: str = "alternating"
    """How the two players move: alternating, simultaneous, ttur, extragradient, past-extragradient, optimistic,
    unrolled, unrolled-first-order, consensus, symplectic, competitive, lookahead, negative-momentum, averaging."""
    unroll_steps: int = 5
    """Discriminator steps that the generator sees ahead, in unrolled and unrolled-first-order."""
    lookahead_steps: int = 5
    """Steps between two returns, in lookahead."""
    adjustment: float = 1.0
    """Weight of what is added to the gradient, in consensus and symplectic."""
    lr_generator: float = 2e-3
    """Adam's learning rate for the generator; falls linearly over the second half of the run."""
    lr_discriminator: float = 2e-3
    """The same for the discriminator."""
    r1: float = 4.0
    """Weight of the R1 penalty (gamma); 0 turns it off."""
    instance_noise: float = 0.0
    """Noise on what the discriminator sees at first; it falls to 0 by --noise-until."""
    noise_until: float = 0.4
    """Share of the steps after which there is no instance noise any more."""
    packing: int = 1
    """Samples that the discriminator judges together, side by side (PacGAN); score functions are paid per pack."""
    minibatch_features: int = 0
    """Kernels of minibatch discrimination in front of the discriminator's last layer; 0 turns it off."""
    minibatch_stddev: bool = False
    """Show the discriminator's last layer the standard deviation within a group of samples."""
    minibatch_group: int = 8
    """Samples (or packs) that see each other in the two above; score functions are paid per group."""
    spectral_norm: bool = False
    """Divide every weight of the discriminator by its largest singular value."""
    feature_matching: bool = False
    """The generator matches the mean of what goes into the discriminator's last layer instead of its objective."""
    historical_averaging: float = 0.0
    """Weight of both players' squared distance from the mean of their past; 0 turns it off."""
    history_pool: int = 0
    """Past fakes that are kept, of which half of the discriminator's fakes are drawn; 0 turns it off."""
    augment: str = ""
    """Differentiable augmentation of all images that the discriminator sees: colour, shift, affine, cutout, with
    commas between."""
    joint_batches: bool = False
    """Show the discriminator real samples and fakes in one batch, which matters to batch norm in it alone."""
    ema: float = 0.9995
    """Decay of the generator's moving average, which is what is sampled and judged; 0 turns it off."""
    seed: int = 0
    """Of everything random in the run."""
    seeds: int = 1
    """Train this many runs, with seeds counted up from --seed, each in a folder of its own."""
    precision: Precision = "fp32"
    """fp32, or bf16: the networks run in bfloat16; parameters, losses and penalties stay float32."""
    compile: bool = False
    """Run the networks through torch.compile; needs a C++ compiler, on CUDA Triton. Takes up to a minute to begin."""
    deterministic: bool = False
    """Use only deterministic algorithms (slower on a GPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps; auto is cuda where there is one, else cpu."""
    data: Path | None = None
    """Another data set: .npz or .npy with images (N, H, W), optionally labels."""
    out: Path | None = None
    """Folder of the run. Default: the next free runs/RECIPE-N."""
    resume: Path | None = None
    """Folder of a run to go on with; only --steps, --out, --device, --compile and the logging options may change."""
    log_every: int = 100
    """Steps between two rows of metrics.csv."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    picture_every: int = 1000
    """Steps between two pictures and quick evaluations."""
    probe_gradients: str = ""
    """Estimators, with commas between, whose bias, variance and cosine are measured at the run's own parameters on the
    way; the run itself stays the same."""
    probe_spectrum: bool = False
    """Look for the outer eigenvalues of the game's Jacobian on the way, and whether the steps are too large for it."""
    probe_every: int = 200
    """Steps between two such measurements."""
    quiet: bool = False
    """No progress bar, no report."""

    def validate(self) -> None:
        """Raise a ``ValueError`` or ``TypeError`` for the first option that cannot be.

        Everything here is known before any work is done; what depends on the data or the policy is checked when the
        parts are built, which is also before the first step.
        """
        choice("policy", self.policy, FAMILIES)
        if ":" not in self.estimator:
            choice("estimator", self.estimator, ["auto", *ESTIMATORS], hint=", or FILE.py:NAME")
        if ":" not in self.objective:
            make_game(self.objective, hint=", or FILE.py:NAME")
        choice("dynamics", self.dynamics, DYNAMICS)
        if self.dynamics != "alternating" and (self.compile or self.precision != "fp32"):
            raise ValueError(f"--compile and --precision bf16 need --dynamics alternating, got {self.dynamics}")
        if self.baseline is not None:
            choice("baseline", self.baseline, BASELINES)
        if self.samples is not None:
            integer("--samples", self.samples)
        choice("precision", self.precision, get_args(Precision))
        for name in ("latent", "width", "batch_size", "steps", "discriminator_steps", "generator_steps", "seeds",
                     "unroll_steps", "lookahead_steps", "log_every", "checkpoint_every", "picture_every",
                     "probe_every"):  # fmt: skip
            integer(flag(name), getattr(self, name))
        for name in probed(self):
            choice("estimator", name, ESTIMATORS)
        check_stabilisers(self)
        for name in ("lr_generator", "lr_discriminator", "temperature"):
            number(flag(name), getattr(self, name), 0.0, exclusive=True)
        number("--r1", self.r1, 0.0)
        number("--instance-noise", self.instance_noise, 0.0)
        number("--noise-until", self.noise_until, 0.0, 1.0, exclusive=True)
        if number("--real-label", self.real_label, 0.0, 1.0) <= number("--fake-label", self.fake_label, 0.0, 1.0):
            raise ValueError(f"--real-label must be above --fake-label, got {self.real_label} and {self.fake_label}")
        number("--adjustment", self.adjustment, 0.0)
        if number("--ema", self.ema, 0.0) >= 1.0:
            raise ValueError(f"--ema must be below 1, got {self.ema}")
        if not 0 <= self.seed <= 2**32 - self.seeds:
            raise ValueError(f"--seed, and the seeds counted up from it, must be in [0, 2**32), got {self.seed}")

    def save_picture(self, samples: Tensor, path: Path) -> None:
        """Write a picture of samples (n, *event) on the CPU; here, of images in [-1, 1]."""
        save_png(image_grid(samples.clamp(-1, 1)), path)


assert get_args(BaselineName) == BASELINES


def probed(config: AdversarialConfig) -> list[str]:
    """The names in ``--probe-gradients``."""
    return words(config.probe_gradients)


def flag(field: str) -> str:
    """The command-line spelling of a field."""
    return "--" + field.replace("_", "-")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as JSON-able values."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}


def from_dict(cls: type[Any], values: dict[str, Any]) -> Any:
    """The configuration that :func:`to_dict` wrote.

    Raises:
        ValueError: if it has options that this version does not know.
    """
    known = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise ValueError(f"the saved configuration has options that this version does not know: {', '.join(unknown)}")
    paths = {name for name, f in known.items() if "Path" in str(f.type)}
    return cls(**{k: Path(v) if k in paths and v is not None else v for k, v in values.items()})


def differences(saved: Any, given: Any) -> list[str]:
    """What differs, beyond what may, as ``--flag: saved A, given B``."""
    return [
        f"{flag(f.name)} is {getattr(saved, f.name)} in the run, {getattr(given, f.name)} was given"
        for f in dataclasses.fields(saved)
        if f.name not in RESUMABLE and getattr(saved, f.name) != getattr(given, f.name)
    ]
