"""Networks, and the policies that are put on them."""

from advrl.nn.families import FAMILIES, Family
from advrl.nn.networks import MLP, DCGANDiscriminator, DCGANGenerator
from advrl.nn.policies import Policy

__all__ = ["FAMILIES", "MLP", "DCGANDiscriminator", "DCGANGenerator", "Family", "Policy"]
