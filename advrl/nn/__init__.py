"""Networks, and the policies that are put on them."""

from advrl.nn.attention import TransformerDiscriminator, TransformerPolicy
from advrl.nn.beam import beam_search
from advrl.nn.coupling import MinibatchDiscrimination, MinibatchStdDev, Packing, before_output, coupled_samples
from advrl.nn.energy import ReconstructionEnergy
from advrl.nn.families import FAMILIES, Family
from advrl.nn.networks import MLP, DCGANDiscriminator, DCGANGenerator
from advrl.nn.norms import ReferenceBatchNorm, Referenced, VirtualBatchNorm, with_reference
from advrl.nn.points import POINT_FAMILIES, FourierFeatures, point_family
from advrl.nn.policies import Policy
from advrl.nn.residual import ResidualDiscriminator, ResidualGenerator, spectrally_normalised
from advrl.nn.sequence_discriminators import CNNDiscriminator, RecurrentDiscriminator
from advrl.nn.sequences import GRUPolicy, LSTMPolicy

__all__ = [
    "FAMILIES",
    "MLP",
    "POINT_FAMILIES",
    "CNNDiscriminator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "Family",
    "FourierFeatures",
    "GRUPolicy",
    "LSTMPolicy",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "Packing",
    "Policy",
    "ReconstructionEnergy",
    "RecurrentDiscriminator",
    "ReferenceBatchNorm",
    "Referenced",
    "ResidualDiscriminator",
    "ResidualGenerator",
    "TransformerDiscriminator",
    "TransformerPolicy",
    "VirtualBatchNorm",
    "beam_search",
    "before_output",
    "coupled_samples",
    "point_family",
    "spectrally_normalised",
    "with_reference",
]
