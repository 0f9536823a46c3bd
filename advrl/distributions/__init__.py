"""What a policy needs and ``torch.distributions`` lacks, as ordinary ``Distribution`` subclasses."""

from advrl.distributions.binomial import Binomial
from advrl.distributions.categorical import sample_categorical
from advrl.distributions.implicit import Implicit
from advrl.distributions.inverse import inverse_transform
from advrl.distributions.mixture import MixtureSameFamily
from advrl.distributions.onehot import OneHotCategorical
from advrl.distributions.relaxed import relaxed_rsample
from advrl.distributions.sequence import Sequence, SequencePolicy
from advrl.distributions.von_mises import VonMises

__all__ = [
    "Binomial",
    "Implicit",
    "MixtureSameFamily",
    "OneHotCategorical",
    "Sequence",
    "SequencePolicy",
    "VonMises",
    "inverse_transform",
    "relaxed_rsample",
    "sample_categorical",
]
