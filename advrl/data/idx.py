"""IDX, the format that MNIST came in: a magic number, the dimensions, then bytes; often compressed.

    0x00 0x00 TYPE RANK, RANK big-endian sizes of four bytes, values          LeCun, Cortes & Burges (1998)

TYPE 0x08 is a byte. Labels lie beside the images under the same name, with ``images`` and ``idx3`` replaced by
``labels`` and ``idx1``, compressed or not.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = re.compile(r"[.-]idx\d-ubyte(\.gz)?$")
BYTES = 0x08
GZIP = b"\x1f\x8b"


def is_idx(path: Path) -> bool:
    """Whether a file says by its name that it is one."""
    return NAME.search(path.name) is not None


def read_idx(path: Path) -> NDArray[Any]:
    """The array of bytes in an IDX file.

    Raises:
        ValueError: if it is not one, holds anything but bytes, or is truncated; names the file and the fault.
    """
    try:
        content = path.read_bytes()
        if content[:2] == GZIP:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error or type(error).__name__}") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(f"{path} is no IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, not with 00 00")
    kind, rank = content[2], content[3]
    if kind != BYTES:
        raise ValueError(f"{path} holds values of IDX type 0x{kind:02x}; only bytes (0x08) are read")
    if rank == 0 or len(content) < 4 + 4 * rank:
        raise ValueError(f"{path} is truncated, or no IDX file: {rank} dimensions in {len(content)} bytes")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(
            f"{path} should hold {math.prod(shape):,} bytes of shape {shape} but holds {values.size:,}; "
            "it may be truncated"
        )
    return values.reshape(shape)


def labels_beside(path: Path) -> Path | None:
    """The file of labels that belongs to a file of images, if there is one."""
    if "images" not in path.name:
        return None
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    plain = name.removesuffix(".gz")
    found = [path.with_name(n) for n in (name, plain, f"{plain}.gz") if path.with_name(n).is_file()]
    return found[0] if found else None
