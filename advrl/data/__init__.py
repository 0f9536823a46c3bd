"""Data: sets of real images held as tensors in [0, 1], mixtures of Gaussians, and endless random batches of them."""

from advrl.data.batches import Batches, Draws, Stream, cycle
from advrl.data.files import load_images
from advrl.data.images import ImageData, digits
from advrl.data.mixtures import Mixture, grid, ring

__all__ = ["Batches", "Draws", "ImageData", "Mixture", "Stream", "cycle", "digits", "grid", "load_images", "ring"]
