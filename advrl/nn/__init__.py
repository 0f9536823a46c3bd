"""Networks, and the policies that are put on them."""

from advrl.nn.attention import TransformerDiscriminator, TransformerPolicy
from advrl.nn.beam import beam_search
from advrl.nn.conditional import (
    AuxiliaryDiscriminator,
    ConcatDiscriminator,
    ConditionalPolicy,
    ProjectionDiscriminator,
    class_rows,
    paired,
    unpaired,
)
from advrl.nn.coupling import MinibatchDiscrimination, MinibatchStdDev, Packing, before_output, coupled_samples
from advrl.nn.embedding_generator import EmbeddingGenerator, VectorDiscriminator
from advrl.nn.energy import ReconstructionEnergy
from advrl.nn.families import FAMILIES, Family
from advrl.nn.latent import arithmetic, class_means, lerp, project, slerp, truncated_normal
from advrl.nn.networks import MLP, DCGANDiscriminator, DCGANGenerator
from advrl.nn.norms import ReferenceBatchNorm, Referenced, VirtualBatchNorm, with_reference
from advrl.nn.points import POINT_FAMILIES, FourierFeatures, point_family
from advrl.nn.policies import Policy
from advrl.nn.residual import ResidualDiscriminator, ResidualGenerator, spectrally_normalised
from advrl.nn.semisupervised import ClassDiscriminator, GaussianNoise, noisy_mlp, standardise
from advrl.nn.sequence_discriminators import CNNDiscriminator, RecurrentDiscriminator
from advrl.nn.sequences import GRUPolicy, LSTMPolicy

__all__ = [
    "FAMILIES",
    "MLP",
    "POINT_FAMILIES",
    "AuxiliaryDiscriminator",
    "CNNDiscriminator",
    "ClassDiscriminator",
    "ConcatDiscriminator",
    "ConditionalPolicy",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "EmbeddingGenerator",
    "Family",
    "FourierFeatures",
    "GRUPolicy",
    "GaussianNoise",
    "LSTMPolicy",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "Packing",
    "Policy",
    "ProjectionDiscriminator",
    "ReconstructionEnergy",
    "RecurrentDiscriminator",
    "ReferenceBatchNorm",
    "Referenced",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "TransformerDiscriminator",
    "TransformerPolicy",
    "VectorDiscriminator",
    "VirtualBatchNorm",
    "arithmetic",
    "beam_search",
    "before_output",
    "class_means",
    "class_rows",
    "coupled_samples",
    "lerp",
    "noisy_mlp",
    "paired",
    "point_family",
    "project",
    "slerp",
    "spectrally_normalised",
    "standardise",
    "truncated_normal",
    "unpaired",
    "with_reference",
]
