"""Data: sets of real images held as tensors in [0, 1], and endless random batches of them."""

from advrl.data.batches import Batches, cycle
from advrl.data.files import load_images
from advrl.data.images import ImageData, digits

__all__ = ["Batches", "ImageData", "cycle", "digits", "load_images"]
