"""Data: real images as tensors in [0, 1] or as folders, mixtures of Gaussians, and endless batches of them."""

from advrl.data.batches import Batches, Draws, Stream, cycle
from advrl.data.files import load_images
from advrl.data.images import ImageData, digits
from advrl.data.mixtures import Mixture, grid, ring
from advrl.data.oracles import HMMOracle, LSTMOracle, Oracle
from advrl.data.pictures import PictureError, Pictures, find_pictures
from advrl.data.sources import Streamed, open_images
from advrl.data.stream import PictureBatches

__all__ = [
    "Batches",
    "Draws",
    "HMMOracle",
    "ImageData",
    "LSTMOracle",
    "Mixture",
    "Oracle",
    "PictureBatches",
    "PictureError",
    "Pictures",
    "Stream",
    "Streamed",
    "cycle",
    "digits",
    "find_pictures",
    "grid",
    "load_images",
    "open_images",
    "ring",
]
