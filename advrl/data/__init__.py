"""Data: images as tensors in [0, 1] or as folders, lines of text as ids, mixtures of Gaussians, and endless batches."""

from advrl.data.batches import Batches, Draws, Stream, cycle
from advrl.data.files import load_images
from advrl.data.grammar import ARITHMETIC, GrammarOracle
from advrl.data.images import ImageData, digits
from advrl.data.mixtures import Mixture, grid, ring
from advrl.data.oracles import HMMOracle, LSTMOracle, Oracle
from advrl.data.pictures import PictureError, Pictures, find_pictures
from advrl.data.sources import Streamed, open_images
from advrl.data.stacked import Stacked, stacked
from advrl.data.stream import PictureBatches
from advrl.data.text import Corpus, TextStatistics, make_corpus, read_lines
from advrl.data.tokenisers import TOKENISERS
from advrl.data.toys import TOYS, checkerboard, pinwheel, swiss_roll, two_moons
from advrl.data.vocabulary import UNKNOWN, Vocabulary

__all__ = [
    "ARITHMETIC",
    "TOKENISERS",
    "TOYS",
    "UNKNOWN",
    "Batches",
    "Corpus",
    "Draws",
    "GrammarOracle",
    "HMMOracle",
    "ImageData",
    "LSTMOracle",
    "Mixture",
    "Oracle",
    "PictureBatches",
    "PictureError",
    "Pictures",
    "Stacked",
    "Stream",
    "Streamed",
    "TextStatistics",
    "Vocabulary",
    "checkerboard",
    "cycle",
    "digits",
    "find_pictures",
    "grid",
    "load_images",
    "make_corpus",
    "open_images",
    "pinwheel",
    "read_lines",
    "ring",
    "stacked",
    "swiss_roll",
    "two_moons",
]
