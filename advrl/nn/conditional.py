r"""Conditional models: a game on pairs (x, y), of an image and what stands beside it (a class, codes).

The generator draws y as the data do and x from pi(x | z, y); the discriminator judges pairs. Mirza & Osindero (2014).
Nothing else of the game changes, so objectives, estimators and penalties are the usual ones. A pair travels as one
tensor: the K numbers of y are K constant channels behind the C of the image, which is what a convolution needs when y
is concatenated. Penalties of slope do not see those channels: y has no neighbours. Shapes: B batch, F features of an
image, K = classes + codes.

    concatenation   a = net(x, y)                                                    Mirza & Osindero (2014)
    projection      a = psi(phi(x)) + <V y, phi(x)>                                  Miyato & Koyama (2018), eq. 3
    auxiliary       a = psi(phi(x)), and beside it q(y | x) from phi(x)         Odena et al. (2017); Chen et al. (2016)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import cross_entropy, one_hot

from advrl.checks import integer
from advrl.nn.families import Family
from advrl.nn.policies import Policy

SHARPEST = 0.5  # least deviation of a guessed code: a sharper guess pays for detail that drowns the game


def paired(images: Tensor, side: Tensor) -> Tensor:
    """Images (B, C, H, W) and y (B, K) as pairs (B, C + K, H, W).

    Raises:
        ValueError: for other shapes.
    """
    if images.dim() != 4 or side.dim() != 2 or len(images) != len(side):
        raise ValueError(f"need images (B, C, H, W) and y (B, K), got {tuple(images.shape)} and {tuple(side.shape)}")
    planes = side.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, planes], 1)


def unpaired(pairs: Tensor, sides: int) -> tuple[Tensor, Tensor]:
    """Pairs (B, C + K, H, W) as images (B, C, H, W) and y (B, K), K = ``sides``, through which no gradient flows.

    Raises:
        ValueError: if there is no channel left for the images.
    """
    if pairs.dim() != 4 or pairs.shape[1] <= sides:
        raise ValueError(f"pairs with {sides} numbers beside must be (B, C + {sides}, H, W), got {tuple(pairs.shape)}")
    images, planes = pairs.split([pairs.shape[1] - sides, sides], 1)
    return images, planes[:, :, 0, 0].detach()


def class_rows(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels (B,) as one-hot rows (B, classes).

    Raises:
        ValueError: for a label outside 0 .. classes - 1.
    """
    integer("classes", classes, 2)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels must be in 0 .. {classes - 1}, got {int(labels.min())} to {int(labels.max())}: "
            f"give classes={int(labels.max()) + 1} or more"
        )
    return one_hot(labels, classes).to(dtype)


class ConditionalPolicy(Policy):
    """pi(x | z, y) with y of one class out of several, and of continuous codes in [-1, 1].

    z and y together are the policy's noise, (B, latent + classes + codes), so that a trainer need not know.

    Args:
        net: maps (B, latent + classes + codes) to (B, family.numbers * C, H, W).
        family: what those numbers mean.
        latent: dimension of z ~ N(0, 1).
        classes: of y.
        codes: continuous numbers of y, uniform in [-1, 1].
        shares: (classes,) how often each class is drawn; ``sample`` then draws them too. By default equally often, and
            ``sample`` takes them in turn.

    Raises:
        ValueError: if ``shares`` are no probabilities of so many classes.
    """

    shares: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        family: Family,
        latent: int,
        classes: int,
        codes: int = 0,
        shares: Tensor | None = None,
    ) -> None:
        super().__init__(net, family, latent)
        self.classes, self.codes = integer("classes", classes, 2), integer("codes", codes, 0)
        if shares is not None and (shares.shape != (classes,) or not constraints.simplex.check(shares)):
            raise ValueError(f"shares must be {classes} probabilities, got {shares.tolist()}")
        self.register_buffer("shares", shares)

    @property
    def sides(self) -> int:
        """K, how many numbers stand beside an image."""
        return self.classes + self.codes

    def noise(self, n: int) -> Tensor:
        """(n, latent + K): z normal, classes by their shares, codes uniform."""
        z = super().noise(n)
        if self.shares is None:
            return self.ask(torch.randint(self.classes, (n,), device=z.device), z)
        return self.ask(torch.multinomial(self.shares, n, replacement=True), z)

    def ask(self, labels: Tensor, z: Tensor | None = None, codes: Tensor | None = None) -> Tensor:
        """(n, latent + K) noise for samples of the classes ``labels`` (n,).

        Args:
            labels: (n,) classes.
            z: (n, latent); fresh if ``None``.
            codes: (n, codes) in [-1, 1]; fresh if ``None``.
        """
        z = super().noise(len(labels)) if z is None else z
        parts = [z[:, : self.latent], one_hot(labels, self.classes).to(z.dtype)]
        if self.codes:
            parts.append(z.new_empty(len(z), self.codes).uniform_(-1, 1) if codes is None else codes)
        return torch.cat(parts, 1)

    def pair(self, images: Tensor, z: Tensor) -> Tensor:
        """Images (*, B, C, H, W) drawn given z (B, latent + K), as the discriminator sees them: (*, B, C + K, H, W)."""
        side = z[:, self.latent :, None, None].expand(*images.shape[:-3], -1, *images.shape[-2:])
        return torch.cat([images, side], -3)

    @torch.no_grad()
    def sample(self, n: int, z: Tensor | None = None) -> Tensor:
        """``n`` images (n, C, H, W) from ``z`` (n, latent + K), by default from :meth:`fresh` noise."""
        return super().sample(n, self.fresh(n) if z is None else z)

    def fresh(self, n: int) -> Tensor:
        """Noise (n, latent + K) of what is sampled: the classes 0, 1, 2, ... in turn, or drawn by their shares."""
        return self.in_turn(n) if self.shares is None else self.noise(n)

    def in_turn(self, n: int) -> Tensor:
        """Fresh noise (n, latent + K) that asks for the classes in turn: row i for class i mod classes."""
        return self.ask(torch.arange(n, device=next(self.parameters()).device) % self.classes)


class ConcatDiscriminator(nn.Module):
    """Judges pairs by a network that sees y as further channels.

    Args:
        net: maps (B, C + K, H, W) to logits (B,) or (B, 1).
        sides: K.
    """

    def __init__(self, net: nn.Module, sides: int) -> None:
        super().__init__()
        self.net, self.sides = net, integer("sides", sides)

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, C + K, H, W) to (B,)."""
        logits: Tensor = self.net(paired(*unpaired(pairs, self.sides)))
        return logits.flatten()


class ProjectionDiscriminator(nn.Module):
    """Judges pairs by a = psi(phi(x)) + <V y, phi(x)>. Miyato & Koyama (2018), eq. 3, with psi affine.

    Where p and q differ by class in a log-linear way this is the form of the optimal logit: a part of x alone, and one
    that tells the class.

    Args:
        trunk: phi, maps images (B, C, H, W) to (B, F).
        features: F.
        sides: K.
    """

    def __init__(self, trunk: nn.Module, features: int, sides: int) -> None:
        super().__init__()
        self.trunk, self.sides = trunk, integer("sides", sides)
        self.embed = nn.Linear(sides, integer("features", features), bias=False)
        self.logit = nn.Linear(features, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, C + K, H, W) to (B,)."""
        images, side = unpaired(pairs, self.sides)
        phi = self.trunk(images)
        logits: Tensor = self.logit(phi).squeeze(1) + (self.embed(side) * phi).sum(1)
        return logits


class AuxiliaryDiscriminator(nn.Module):
    """Judges the image alone, and guesses what stands beside it: class and codes, by q(y | x) on the same features.

    Args:
        trunk: phi, maps images (B, C, H, W) to (B, F).
        features: F.
        classes: of y.
        codes: continuous numbers of y; each is guessed as normal, with a mean of its own and one learned deviation, at
            least 0.5; -log q is then at least 0.226 per code, and its information at most log 2 - 0.226 = 0.467 nats.
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int, codes: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        self.classes, self.codes = integer("classes", classes, 2), integer("codes", codes, 0)
        self.guess = nn.Linear(integer("features", features), classes + codes)
        self.log_std = nn.Parameter(torch.zeros(codes, device=self.guess.weight.device))
        self.logit = nn.Linear(features, 1)

    @property
    def sides(self) -> int:
        """K."""
        return self.classes + self.codes

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, C + K, H, W) to (B,), which does not depend on y."""
        logits: Tensor = self.logit(self.trunk(unpaired(pairs, self.sides)[0])).squeeze(1)
        return logits

    def surprise(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """-log q of the class and of the codes, (B,) each, in pairs (B, C + K, H, W)."""
        images, side = unpaired(pairs, self.sides)
        guess = self.guess(self.trunk(images))
        classes = cross_entropy(guess[:, : self.classes], side[:, : self.classes], reduction="none")
        log_std = self.log_std.clamp(math.log(SHARPEST), 1.0)
        error = (side[:, self.classes :] - guess[:, self.classes :]) / log_std.exp()
        return classes, (0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
