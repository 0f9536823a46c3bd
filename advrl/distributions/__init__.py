"""What a policy needs and ``torch.distributions`` lacks, as ordinary ``Distribution`` subclasses."""

from advrl.distributions.binomial import Binomial
from advrl.distributions.implicit import Implicit
from advrl.distributions.inverse import inverse_transform
from advrl.distributions.onehot import OneHotCategorical
from advrl.distributions.relaxed import relaxed_rsample

__all__ = ["Binomial", "Implicit", "OneHotCategorical", "inverse_transform", "relaxed_rsample"]
