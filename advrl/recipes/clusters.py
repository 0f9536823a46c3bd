"""Classes that nobody named: clusters of the training images, for conditional games without labels.

A generator that is continuous in z has to draw something on the way from one kind of image to another. One that is told
a cluster besides, as the discriminator is, need not go that way. Sage et al. (2018), "Logo synthesis and manipulation
with clustered generative adversarial networks", section 3.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from advrl.agents.classifier import PixelComponents
from advrl.checks import integer


class Clusters:
    """k-means on the leading principal components of images. Lloyd (1982); first centres by Arthur & Vassilvitskii.

    Args:
        images: (N, C, H, W) in data space, to find the clusters in, on the CPU whatever their device.
        number: of clusters, from 2.

    Attributes:
        shares: (number,) of the images in each cluster.

    Raises:
        ValueError: for fewer (different) images than clusters.
    """

    def __init__(self, images: Tensor, number: int) -> None:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        if len(images) < integer("number", number, 2):
            raise ValueError(f"{number} clusters need at least as many images, got {len(images)}")
        fitted = images.cpu()
        components = PixelComponents(fitted)
        features = components.features(fitted).numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                found = KMeans(number, n_init=4, random_state=0).fit(features)
            except ConvergenceWarning as warning:
                raise ValueError(f"{number} clusters are more than there are different images") from warning
        self.components = components.to(images.device)
        self.centres = torch.from_numpy(found.cluster_centers_).to(images)
        counts = torch.bincount(torch.from_numpy(found.labels_).long(), minlength=number)
        self.shares = counts / counts.sum()

    def of(self, images: Tensor) -> Tensor:
        """(B,) the nearest centre of images (B, C, H, W)."""
        return torch.cdist(self.components.features(images), self.centres).argmin(1)
