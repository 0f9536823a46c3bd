r"""Conditional models: a game on pairs (x, y), of an image and what stands beside it (a class, codes).

The generator draws y as the data do and x from pi(x | z, y); the discriminator judges pairs. Mirza & Osindero (2014).
Nothing else of the game changes, so objectives, estimators and penalties are the usual ones. A pair travels as one
tensor: the K numbers of y are written, one after the other, into as few channels as hold them, P = ceil(K / (H W)),
behind the C of the image. Penalties of slope do not see those channels: y has no neighbours. Shapes: B batch, F
features of an image, K = classes + codes.

    concatenation   a = net(x, y)                                                    Mirza & Osindero (2014)
    projection      a = psi(phi(x)) + <V y, phi(x)>                                  Miyato & Koyama (2018), eq. 3
    auxiliary       a = psi(phi(x)), and beside it q(y | x) from phi(x)         Odena et al. (2017); Chen et al. (2016)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import cross_entropy, one_hot, pad

from advrl.checks import integer
from advrl.nn.families import Family
from advrl.nn.policies import Policy

SHARPEST = 0.5  # least deviation of a guessed code: a sharper guess pays for detail that drowns the game


def paired(images: Tensor, side: Tensor) -> Tensor:
    """Images (*, B, C, H, W) and y (B, K) as pairs (*, B, C + P, H, W).

    Raises:
        ValueError: for other shapes.
    """
    if images.dim() < 4 or side.dim() != 2 or images.shape[-4] != len(side):
        raise ValueError(f"need images (B, C, H, W) and y (B, K), got {tuple(images.shape)} and {tuple(side.shape)}")
    height, width = images.shape[-2:]
    planes = _planes(side.shape[1], height, width)
    filled = pad(side.to(images.dtype), (0, planes * height * width - side.shape[1]))
    return torch.cat([images, filled.view(-1, planes, height, width).expand(*images.shape[:-3], -1, -1, -1)], -3)


def unpaired(pairs: Tensor, sides: int) -> tuple[Tensor, Tensor]:
    """Pairs (B, C + P, H, W) as images (B, C, H, W) and y (B, K), K = ``sides``, through which no gradient flows.

    Raises:
        ValueError: if there is no channel left for the images.
    """
    planes = _planes(sides, *pairs.shape[2:]) if pairs.dim() == 4 else 0
    if pairs.dim() != 4 or pairs.shape[1] <= planes:
        raise ValueError(f"pairs with {sides} numbers beside must be (B, C + P, H, W), got {tuple(pairs.shape)}")
    images, side = pairs.split([pairs.shape[1] - planes, planes], 1)
    return images, side.flatten(1)[:, :sides].detach()


def _planes(sides: int, height: int, width: int) -> int:
    return -(-sides // (height * width))


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
        shares: (classes,) how often each class is drawn; by default equally often.

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
        return self.ask(
            torch.multinomial(self.shares.expand(n, -1), 1).squeeze(1), z
        )  # one a row: deterministic on CUDA

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
        """Images (*, B, C, H, W) drawn given z (B, latent + K), as the discriminator sees them: (*, B, C + P, H, W)."""
        return paired(images, z[:, self.latent :])

    def asked(self, n: int) -> Tensor:
        """(n,) the classes that ``n`` samples are of: 0, 1, 2, ... in turn, and a larger share more often.

        Evenly spread, so that any part of the samples has the shares: the j-th of class k has its turn at
        (j + 1/2) / share(k).
        """
        if self.shares is None:
            return torch.arange(n, device=next(self.parameters()).device) % self.classes
        most = min(n, int(n * self.shares.max()) + 2)
        turns = (torch.arange(most, device=self.shares.device)[:, None] + 0.5) / self.shares
        return turns.flatten().argsort(stable=True)[:n] % self.classes

    @torch.no_grad()
    def sample(self, n: int, z: Tensor | None = None) -> Tensor:
        """``n`` images (n, C, H, W) from ``z`` (n, latent + K), or fresh ones of the classes :meth:`asked` for."""
        return super().sample(n, self.ask(self.asked(n)) if z is None else z)


class ConcatDiscriminator(nn.Module):
    """Judges pairs by a network that sees y as further channels.

    Args:
        net: maps (B, C + K, H, W), with a constant channel for each number of y, to logits (B,) or (B, 1).
        sides: K.
    """

    def __init__(self, net: nn.Module, sides: int) -> None:
        super().__init__()
        self.net, self.sides = net, integer("sides", sides)

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, C + P, H, W) to (B,)."""
        images, side = unpaired(pairs, self.sides)
        logits: Tensor = self.net(torch.cat([images, side[:, :, None, None].expand(-1, -1, *images.shape[2:])], 1))
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
        """(B, C + P, H, W) to (B,)."""
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
        """(B, C + P, H, W) to (B,), which does not depend on y."""
        logits: Tensor = self.logit(self.trunk(unpaired(pairs, self.sides)[0])).squeeze(1)
        return logits

    def surprise(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """-log q of the class and of the codes, (B,) each, in pairs (B, C + P, H, W)."""
        images, side = unpaired(pairs, self.sides)
        guess = self.guess(self.trunk(images))
        classes = cross_entropy(guess[:, : self.classes], side[:, : self.classes], reduction="none")
        log_std = self.log_std.clamp(math.log(SHARPEST), 1.0)
        error = (side[:, self.classes :] - guess[:, self.classes :]) / log_std.exp()
        return classes, (0.5 * error.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(1)
