"""Opens what a user calls an image, and refuses the rest with one sentence.

Everything after it sees upright 8-bit RGB; resizing and normalising are the model's image processor's.
"""

import warnings
from pathlib import Path

import numpy as np
import PIL.Image
from PIL.Image import Transpose

from eyeline.errors import ImageError

MAX_PIXELS = 50_000_000  # more is refused from the header, before anything is decoded; the server's limit too
MAX_ASPECT_RATIO = 200  # the image processors of Qwen and GLM refuse more
# No EPS or WMF: Pillow hands those to other programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000")
UPRIGHT = {  # EXIF orientation -> what turns the image upright
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def open_image(source: str | Path | PIL.Image.Image) -> PIL.Image.Image:
    """The image as the model should see it: RGB, EXIF orientation applied, transparency over white.

    Of an animation the first frame. 16-bit values are scaled by 1/257; floats in 0..1 or 0..255 are taken
    as such, other ranges are stretched from their least to their greatest value. Raises `ImageError`.
    """
    name = "The given image" if isinstance(source, PIL.Image.Image) else f"{str(source)!r}"
    image = source if isinstance(source, PIL.Image.Image) else decode(source)
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


def decode(path: str | Path) -> PIL.Image.Image:
    """A file's pixels in its own mode, the size checked before decoding. Raises `ImageError`."""
    name, path = f"{str(path)!r}", Path(path)
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

    PIL.Image.init()
    formats = [known for known in FORMATS if known in PIL.Image.OPEN]  # AVIF is not in every Pillow
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is checked here, or harmless
        try:
            image = PIL.Image.open(path, formats=formats)
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
                image.load()
            except Exception as error:
                raise ImageError(
                    f"{name} is truncated or damaged ({_reason(error)}): a complete {image.format} file is "
                    "expected; copy or download it again."
                ) from error
            return image


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
    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF counts as none, as in browsers
        orientation = None
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith(("I", "F")):
        image = PIL.Image.fromarray(_to_bytes(np.asarray(image), sixteen_bit="16" in image.mode))
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
