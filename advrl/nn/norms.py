r"""Batch norm by a fixed reference batch: reference and virtual batch normalisation, Salimans et al. (2016), 3.4.

A reference batch R of n samples is chosen once. With m and s the mean and the mean square of a channel over the
features of R, *through the current weights*, and m_i, s_i those of sample i alone (over its places, if it has any),

    reference batch norm    mu = m                        var = s - m^2
    virtual batch norm      mu_i = (n m + m_i) / (n + 1)  var_i = (n s + s_i) / (n + 1) - mu_i^2

so that virtual batch norm is batch norm of R and x_i together. Neither looks at the other samples of the batch, and
both are differentiated through R's own pass. R costs a pass of its own through the network, of n samples. Shapes: B
batch, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advrl.checks import integer, number


class ReferenceBatchNorm(nn.Module):
    """Normalises by the statistics of the reference batch alone; only inside :class:`Referenced`.

    Args:
        channels: C, size of dimension 1.
        eps: added to the variance.

    Raises:
        ValueError: for numbers out of range, and, when called, outside ``Referenced`` or with other channels.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    virtual = False

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = integer("channels", channels), number("eps", eps, 0.0, exclusive=True)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self._passing = False  # whether it is the reference batch that passes
        self._found: tuple[int, Tensor, Tensor] | None = None  # what it left: n, mean and mean square (1, C, 1, ...)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *places) to the same shape."""
        if x.dim() < 2 or x.shape[1] != self.channels:
            raise ValueError(f"need (batch, {self.channels}, ...), got a batch of shape {tuple(x.shape)}")
        if self._passing:
            others = [d for d in range(x.dim()) if d != 1]
            mean, square = x.mean(others, keepdim=True), x.square().mean(others, keepdim=True)
            self._found = (len(x), mean, square)
            return self._normalise(x, mean, square)
        if self._found is None:
            raise ValueError(
                f"{type(self).__name__} has seen no reference batch: put the network into advrl.nn.Referenced"
            )
        n, mean, square = self._found
        if self.virtual:
            places = list(range(2, x.dim()))
            own, own_square = (x.mean(places, True), x.square().mean(places, True)) if places else (x, x.square())
            mean, square = (n * mean + own) / (n + 1), (n * square + own_square) / (n + 1)
        return self._normalise(x, mean, square)

    def _normalise(self, x: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        variance = (square - mean.square()).clamp(min=0)  # rounding can take it below
        return (x - mean) * (variance + self.eps).rsqrt() * self.weight.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        """Of the representation."""
        return f"{self.channels}, eps={self.eps}"


class VirtualBatchNorm(ReferenceBatchNorm):
    """Normalises each sample by the statistics of the reference batch and itself; only inside :class:`Referenced`."""

    virtual = True


class Referenced(nn.Module):
    """A network whose reference and virtual batch norms see a fixed batch first, on every call.

    Args:
        net: any network with :class:`ReferenceBatchNorm` or :class:`VirtualBatchNorm` in it.
        reference: (n, *event), n >= 2 inputs of the network: real samples for a discriminator, noise for a generator.
            Kept as a buffer, so that it is part of a checkpoint and the same on all ranks.

    Raises:
        ValueError: if there is no such layer, or the reference batch has fewer than 2 samples.
    """

    reference: Tensor

    def __init__(self, net: nn.Module, reference: Tensor) -> None:
        super().__init__()
        if not any(isinstance(m, ReferenceBatchNorm) for m in net.modules()):
            raise ValueError("the network has neither ReferenceBatchNorm nor VirtualBatchNorm: see with_reference")
        if reference.dim() < 2 or len(reference) < 2:
            raise ValueError(f"need a reference batch of at least 2 samples, got shape {tuple(reference.shape)}")
        self.net = net
        self.register_buffer("reference", reference.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """What the network makes of x (B, *event)."""
        layers = [m for m in self.net.modules() if isinstance(m, ReferenceBatchNorm)]
        try:
            for layer in layers:
                layer._passing = True
            self.net(self.reference)
            for layer in layers:
                layer._passing = False
            out: Tensor = self.net(x)
            return out
        finally:
            for layer in layers:
                layer._passing, layer._found = (
                    False,
                    None,
                )  # nothing of a call outlives it: a copy, a checkpoint holds no graph


def with_reference(net: nn.Module, reference: Tensor, virtual: bool = True) -> Referenced:
    """The same network with every batch norm in it replaced, around a reference batch.

    Args:
        net: changed in place; its ``BatchNorm`` layers hand over their weights and biases.
        reference: (n, *event) as :class:`Referenced` takes it.
        virtual: virtual batch norm; ``False`` for reference batch norm.

    Raises:
        ValueError: if the network has no batch norm, or the reference batch has fewer than 2 samples.
    """
    kind = VirtualBatchNorm if virtual else ReferenceBatchNorm
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                layer = kind(child.num_features, child.eps).to(reference.device, reference.dtype)
                if child.affine:
                    layer.weight, layer.bias = child.weight, child.bias
                setattr(parent, name, layer)
    return Referenced(net, reference)
