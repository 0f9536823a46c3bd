"""Data: sets of real images held as tensors in [0, 1], folders that stay on the disk, and endless random batches."""

from advrl.data.batches import Batches, cycle
from advrl.data.files import load_images
from advrl.data.images import ImageData, digits
from advrl.data.pictures import PictureError, Pictures, find_pictures
from advrl.data.sources import Streamed, open_images
from advrl.data.stream import PictureBatches

__all__ = [
    "Batches",
    "ImageData",
    "PictureBatches",
    "PictureError",
    "Pictures",
    "Streamed",
    "cycle",
    "digits",
    "find_pictures",
    "load_images",
    "open_images",
]
