"""What a set stores as an image to what models see, and which part of a set an image is in."""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from eyeline.errors import ImageError
from eyeline.images import open_image

Part = Literal["fit", "test", "all"]
FIT_SHARE = 0.8  # of the images; the others test


def picture_of(stored: Any) -> Image.Image | None:
    """The image of a column: bytes, a file, a decoded one, or base64 text; None where there is none. Raises `ImageError`."""
    if isinstance(stored, dict):
        stored = stored["bytes"] if stored.get("bytes") is not None else stored.get("path")
        stored = Path(stored) if isinstance(stored, str) else stored
    if stored is None or (isinstance(stored, str) and not stored.strip()):
        return None
    if isinstance(stored, str):
        try:
            stored = base64.b64decode(stored, validate=True)
        except binascii.Error as error:
            raise ImageError("Text in place of an image is no base64; expected an image.") from error
    return open_image(stored)


def part_of(pictures: Sequence[Image.Image]) -> Part | None:
    """Which part a question about these images is in, by their pixels alone; None where they are of both."""
    parts: set[Part] = {"fit" if _place(picture) < FIT_SHARE else "test" for picture in pictures}
    return parts.pop() if len(parts) == 1 else None


def _place(picture: Image.Image) -> float:
    """Where an image lies between 0 and 1 in the order of its pixels' hash."""
    found = hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).digest()
    return int.from_bytes(found[:8], "big") / 2**64
