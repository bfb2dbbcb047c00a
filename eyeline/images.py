"""Opens what a user calls an image, and refuses the rest with one sentence.

Everything after it sees upright 8-bit RGB; resizing and normalising are the model's image processor's. Colour profiles are
left out, as image processors do: the model sees the numbers in the file, and what is saved and shown are the same ones.
"""

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from eyeline.errors import ImageError

MAX_PIXELS = 50_000_000  # more is refused from the header, before anything is decoded; the server's limit too
MAX_ASPECT_RATIO = 200  # the image processors of Qwen and GLM refuse more
# No EPS or WMF: Pillow hands those to other programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
GREYS = {"L;2": 85, "L;4": 17}  # of fewer bits -> what makes them 8-bit ones
Picture = str | Path | PIL.Image.Image | np.ndarray | bytes
UPRIGHT = {  # EXIF orientation -> what turns the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def open_images(sources: Picture | Sequence[Picture]) -> list[PIL.Image.Image]:
    """Those of one image, or of several in a list. Raises `ImageError`."""
    if isinstance(sources, Picture | bytearray | Mapping) or not isinstance(sources, Iterable):
        return [open_image(sources)]
    return [open_image(each) for each in sources]


def open_image(source: Picture) -> PIL.Image.Image:
    """The image as the model should see it: RGB, EXIF orientation applied, transparency over white.

    Of an animation the first frame. 16-bit values are scaled by 1/257; floats in 0..1 or 0..255 are taken
    as such, other ranges are stretched from their least to their greatest value. Bytes are those of an image file,
    arrays hold uint8 RGB. Raises `ImageError`.
    """
    name = f"{str(source)!r}" if isinstance(source, str | Path) else "The given image"
    if isinstance(source, np.ndarray):
        image = _from_array(source)
    elif isinstance(source, PIL.Image.Image):
        image = source
    elif isinstance(source, str | Path | bytes):
        image = decode(source)
    else:
        raise ImageError(
            f"A value of the type {type(source).__name__} is no image: expected a path, a PIL image, the bytes of an image "
            "file, or a uint8 array of height x width x 3; give one of these, or several in a list."
        )
    _check_size(image, name)
    width, height = image.size
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageError(
            f"{name} is {width} x {height} pixels: vision models refuse images more than {MAX_ASPECT_RATIO} "
            "times as long as wide; crop it or cut it into several images."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _to_rgb(_upright(image))
    except Exception as error:  # Pillow's decoders raise nearly every kind
        raise ImageError(
            f"{name} cannot be decoded ({_reason(error)}): the data is damaged, or its colour mode "
            f"({image.mode}) is not supported; save it again as an RGB PNG."
        ) from error


def decode(source: str | Path | bytes) -> PIL.Image.Image:
    """A file's pixels in its own mode, the size checked before decoding. Raises `ImageError`."""
    if isinstance(source, bytes):
        if not source:
            raise ImageError(
                "The given image is empty: the bytes of an image file are expected; read it again."
            )
        return _decode(io.BytesIO(source), "The given image")
    name, path = f"{str(source)!r}", Path(source)
    try:
        if not path.exists():
            hint = "download it first and give the file" if "://" in name else "check the path"
            raise ImageError(f"There is no file {name}: an image file is expected; {hint}.")
        if path.is_dir():
            raise ImageError(f"{name} is a folder: an image file is expected; name a file in it.")
        if not path.is_file():
            raise ImageError(f"{name} is not a regular file: an image file is expected; save it as one.")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} is empty: an image file is expected; copy or download it again.")
        with path.open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:  # no permission, a name that is too long or holds a zero byte
        raise ImageError(
            f"{name} cannot be read ({_reason(error)}): give the path of a readable image."
        ) from error
    return _decode(path, name)


def _decode(file: Path | io.BytesIO, name: str) -> PIL.Image.Image:
    PIL.Image.init()
    formats = [known for known in FORMATS if known in PIL.Image.OPEN]  # AVIF is not in every Pillow
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is checked here, or harmless
        try:
            image = PIL.Image.open(file, formats=formats)
        except PIL.Image.DecompressionBombError as error:
            raise ImageError(_too_large(name, "")) from error
        except Exception as error:
            raise ImageError(
                f"{name} is not an image, or its header is broken: expected one of {', '.join(formats)} with "
                "at least one pixel; open it in an image viewer and save it as PNG."
            ) from error
        with image:
            _check_size(image, name)
            try:
                return _load(image)
            except Exception as error:
                raise ImageError(
                    f"{name} is truncated or damaged ({_reason(error)}): a complete {image.format} file is "
                    "expected; copy or download it again."
                ) from error


def _from_array(pixels: np.ndarray) -> PIL.Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"The given array holds {pixels.dtype} in the shape {pixels.shape}: expected uint8 in the shape (height, width, 3), "
            "red, green and blue from 0 to 255; convert it, and give several images as a list."
        )
    if not pixels.size:  # PIL refuses it with words of its own
        return PIL.Image.new("RGB", (pixels.shape[1], pixels.shape[0]))
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def _load(image: PIL.Image.Image) -> PIL.Image.Image:
    """Decodes. A colour that a PNG says is transparent is then one of the pixels' own numbers, or alpha."""
    tiles = getattr(image, "tile", [])
    raw = tiles[0].args if tiles and "transparency" in image.info else None
    low = _low_bytes(image) if raw == "RGB;16B" else None
    image.load()
    key = image.info.get("transparency")
    if raw in GREYS and isinstance(key, int):
        image.info["transparency"] = key * GREYS[raw]
    elif isinstance(key, tuple) and (
        low is not None or max(key) > 255
    ):  # 16 bits, of which pixels keep the high 8
        same = np.asarray(image) == np.array(key) >> 8
        if low is not None:
            same &= low == np.array(key) & 255
        alpha = PIL.Image.fromarray(np.where(same.all(axis=2), 0, 255).astype(np.uint8))
        info = {name: value for name, value in image.info.items() if name != "transparency"}
        image = PIL.Image.merge("RGBA", (*image.split(), alpha))
        image.info = info
    return image


def _low_bytes(image: PIL.Image.Image) -> np.ndarray:
    """The low bytes of a 16-bit RGB PNG that is not decoded yet: read as if the low byte came first."""
    file = getattr(image, "fp")  # noqa: B009
    place = file.tell()
    file.seek(0)
    with PIL.Image.open(io.BytesIO(file.read())) as again:
        tiles = getattr(again, "tile")  # noqa: B009
        tiles[0] = tiles[0]._replace(args="RGB;16L")
        file.seek(place)
        return np.asarray(again)


def _check_size(image: PIL.Image.Image, name: str) -> None:
    width, height = image.size
    if not width * height:
        raise ImageError(
            f"{name} is {width} x {height} pixels: at least 1 x 1 is expected; give another image."
        )
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name, f" with {width:,} x {height:,} pixels"))


def _too_large(name: str, size: str) -> str:
    limit = f"at most {MAX_PIXELS // 10**6} megapixels are expected"
    return f"{name} is too large{size}: {limit}; make it smaller or crop it."


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    image = _load(image)
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF counts as none, as in browsers
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith(("I", "F")):
        values, key = np.asarray(image), image.info.get("transparency")
        grey = _to_bytes(values, sixteen_bit="16" in image.mode)
        image = PIL.Image.fromarray(np.where(values == key, 255, grey).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        image = PIL.Image.alpha_composite(white, image)
    image = image.convert("RGB")
    image.info = {}  # or EXIF would turn it again when it is opened again
    return image


def _to_bytes(values: np.ndarray, sixteen_bit: bool) -> np.ndarray:
    """Brightness of any number type to 0..255; what the greatest value means is read from the data."""
    tops = (255, 65535) if values.dtype.kind in "iu" else (1, 255)
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0, 0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if sixteen_bit:
        low, high = 0, 65535
    elif low >= 0:
        low, high = 0, next((top for top in tops if high <= top), high)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(scaled).astype(np.uint8)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
