"""Rows of pixels as a folder of pictures: PNG, grey, square, as a device is sent them."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

# The digits' pixels are 0 to 16.
STEP = 15


def write(columns, folder):
    """A file for each row, in their order."""
    matrix = np.column_stack(list(columns.values()))
    pixels = np.clip(matrix * STEP, 0, 255).round().astype(np.uint8)
    side = math.isqrt(pixels.shape[1])
    Path(folder).mkdir()
    for row, picture in enumerate(pixels.reshape(-1, side, side)):
        Path(folder, f"{row:06}.png").write_bytes(png(picture))


def png(picture):
    """The file of a grey picture; PNG specification, third edition, 5 and 11."""
    height, width = picture.shape
    rows = b"".join(b"\0" + line.tobytes() for line in picture)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*of) for of in chunks)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
