"""Networks, and the policies that are put on them."""

from advrl.nn.families import FAMILIES, Family
from advrl.nn.networks import MLP, DCGANDiscriminator, DCGANGenerator
from advrl.nn.points import POINT_FAMILIES, FourierFeatures, point_family
from advrl.nn.policies import Policy
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
    "Policy",
    "RecurrentDiscriminator",
    "point_family",
]
