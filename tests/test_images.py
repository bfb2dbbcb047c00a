import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from eyeline.errors import ImageError
from eyeline.images import MAX_ASPECT_RATIO, MAX_PIXELS, open_image, open_images


def png(width, height, data=b"", depth=8, kind=2, **chunks):
    """A PNG of rows that each begin with a zero byte; `kind` as in its header: 0 grey, 2 RGB, 3 palette."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(name.encode(), body) for name, body in chunks.items())
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def saved(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def gradient(top, dtype):
    return (np.linspace(0, 1, 64).reshape(8, 8) * top).astype(dtype)


def test_an_rgb_png_is_opened_pixel_by_pixel_from_str_path_and_image(tmp_path):
    path = saved(tmp_path, picture(), "a.png")
    for source in (path, str(path), picture()):
        assert (pixels(open_image(source)) == pixels(picture())).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff", "a.ppm", "a.jp2"])
def test_each_common_format_opens_with_nearly_the_same_colours(tmp_path, name):
    opened = open_image(saved(tmp_path, picture(), name))
    assert opened.size == picture().size
    assert abs(pixels(opened) - pixels(picture())).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_exif_orientation_is_applied_once(tmp_path, name, orientation):
    upright = picture(96, 64)
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),  # as the camera stored it: turned the other way
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turn(np.asarray(upright))))
    opened = open_image(saved(tmp_path, stored, name, exif=exif.tobytes()))
    assert opened.size == upright.size
    assert abs(pixels(opened) - pixels(upright)).mean() < 12
    assert (pixels(open_image(opened)) == pixels(opened)).all()


def test_cmyk_keeps_its_colours(tmp_path):
    colour = Image.new("RGB", (32, 32), (200, 40, 90))
    opened = open_image(saved(tmp_path, colour.convert("CMYK"), "a.jpg", quality=95))
    assert abs(pixels(opened) - (200, 40, 90)).max() < 8


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, name):
    path = saved(tmp_path, Image.fromarray(gradient(65535, np.uint16)), name)
    assert abs(pixels(open_image(path))[..., 0] - gradient(255, float)).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (gradient(1, np.float32), gradient(255, float)),
        (gradient(255, np.float32), gradient(255, float)),
        (gradient(7e4, np.float32) - 1e4, gradient(255, float)),
        (gradient(65535, np.int32), gradient(255, float)),
        (gradient(2**30, np.int32), gradient(255, float)),
        (np.zeros((8, 8), np.float32), np.zeros((8, 8))),
        (np.full((8, 8), np.nan, np.float32), np.zeros((8, 8))),
    ],
    ids=["0 to 1", "0 to 255", "other floats", "16 bits in 32", "32 bits", "all zero", "not numbers"],
)
def test_a_tiff_of_wide_numbers_is_scaled_to_its_range(tmp_path, values, expected):
    path = saved(tmp_path, Image.fromarray(values), "a.tiff")
    assert abs(pixels(open_image(path))[..., 0] - expected).max() <= 1


def test_transparency_lies_over_white(tmp_path):
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:, 2:4] = (200, 0, 0, 255)
    rgba[:, 4:] = (0, 0, 0, 128)
    expected = [(255, 255, 255)] * 2 + [(200, 0, 0)] * 2 + [(127, 127, 127)] * 2
    opened = open_image(saved(tmp_path, Image.fromarray(rgba), "a.png"))
    assert abs(pixels(opened)[0] - expected).max() <= 1
    grey = Image.fromarray(rgba[..., [1, 3]], "LA")
    assert pixels(open_image(saved(tmp_path, grey, "b.png")))[0, :, 0].tolist() == [255, 255, 0, 0, 127, 127]


def test_a_palette_with_alpha_lies_over_white(tmp_path):
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 200, 30, 0, 0, 0])
    palette.paste(1, (0, 0, 2, 4))
    opened = open_image(saved(tmp_path, palette, "a.png", transparency=bytes([255, 0])))
    assert pixels(opened)[0].tolist() == [[255, 255, 255]] * 2 + [[10, 200, 30]] * 2


WHITE = [255, 255, 255]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(4, 1, b"\0\x50", 1, 0, tRNS=b"\0\0"), [WHITE, WHITE, WHITE, WHITE]),
        (png(4, 1, b"\0\x1b", 2, 0, tRNS=b"\0\1"), [[0] * 3, WHITE, [170] * 3, WHITE]),
        (png(4, 1, b"\0\x05\xa1", 4, 0, tRNS=b"\0\5"), [[0] * 3, WHITE, [170] * 3, [17] * 3]),
        (png(3, 1, b"\0\5\0\6", 8, 0, tRNS=b"\0\5"), [WHITE, [0] * 3, [6] * 3]),
        (png(3, 1, b"\0" + struct.pack(">3H", 0, 1, 2570), 16, 0, tRNS=b"\0\0"), [WHITE, [0] * 3, [10] * 3]),
        (
            png(3, 1, b"\0" + struct.pack(">3H", 0, 300, 2570), 16, 0, tRNS=b"\x01\x2c"),
            [[0] * 3, WHITE, [10] * 3],
        ),
        (png(2, 1, b"\0" + bytes([1, 2, 3, 1, 2, 4]), tRNS=struct.pack(">3H", 1, 2, 3)), [WHITE, [1, 2, 4]]),
        (
            png(
                3,
                1,
                b"\0" + struct.pack(">9H", 256, 512, 768, 257, 512, 768, 40000, 0, 0),
                16,
                tRNS=struct.pack(">3H", 256, 512, 768),
            ),
            [WHITE, [1, 2, 3], [156, 0, 0]],
        ),
        (
            png(2, 1, b"\0" + struct.pack(">6H", 0, 0, 0, 0, 0, 100), 16, tRNS=bytes(6)),
            [WHITE, [0, 0, 0]],
        ),
        (
            png(4, 1, b"\0\x1b", 2, 3, PLTE=bytes(range(0, 120, 10)), tRNS=bytes([255, 0])),
            [[0, 10, 20], WHITE, [60, 70, 80], [90, 100, 110]],
        ),
    ],
    ids=[
        "1 bit",
        "2 bits",
        "4 bits",
        "8 bits",
        "16 bits",
        "16 bits, 300",
        "RGB",
        "RGB of 16 bits",
        "black of 16 bits",
        "palette",
    ],
)
def test_what_a_png_says_is_transparent_is_white_and_nothing_else(tmp_path, content, expected):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with Image.open(path) as lazy:
        for source in (path, content, lazy):
            assert pixels(open_image(source))[0].tolist() == expected


def test_a_colour_profile_changes_nothing_and_is_not_kept(tmp_path):
    """As image processors do; what is saved and shown has the same numbers, and no profile either."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    opened = open_image(saved(tmp_path, picture(), "a.png", icc_profile=profile))
    assert (pixels(opened) == pixels(picture())).all()
    assert encoded(picture(), "PNG", icc_profile=profile) != encoded(picture(), "PNG")
    assert encoded(opened, "PNG") == encoded(picture(), "PNG")


def test_arrays_and_the_bytes_of_a_file_are_images(tmp_path):
    array = np.asarray(picture())
    for source in (array, encoded(picture(), "PNG"), array[::-1, ::-1][::-1, ::-1], array.copy(order="F")):
        assert (pixels(open_image(source)) == pixels(picture())).all()
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(picture(96, 64), "JPEG", exif=exif)).size == (64, 96)
    for one in (array, picture(), encoded(picture(), "PNG")):
        assert [each.size for each in open_images(one)] == [(96, 64)]
        assert [each.size for each in open_images([one, one])] == [(96, 64)] * 2
        assert [each.size for each in open_images((one,))] == [(96, 64)]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), bool),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_told_what_is_expected(array):
    shape = ", ".join(map(str, array.shape))
    expected = (
        rf"holds {array.dtype} in the shape \({shape}\): expected uint8 in the shape \(height, width, 3\)"
    )
    with pytest.raises(ImageError, match=expected):
        open_image(array)


def test_bytes_and_arrays_without_a_pixel_are_refused():
    with pytest.raises(ImageError, match="The given image is empty"):
        open_image(b"")
    with pytest.raises(ImageError, match="The given image is not an image"):
        open_image(b"hello")
    with pytest.raises(ImageError, match="5 x 0 pixels"):
        open_image(np.zeros((0, 5, 3), np.uint8))


def test_what_is_no_image_at_all_is_refused_by_its_type():
    code = (  # without the type checks of these tests
        "from eyeline.errors import ImageError\n"
        "from eyeline.images import open_images\n"
        "for source in (None, 7, [None], bytearray(b'x'), {'url': 'a.png'}, [['a.png']]):\n"
        "    try:\n"
        "        open_images(source)\n"
        "    except ImageError as error:\n"
        "        print(str(error).partition(':')[0])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    words = "A value of the type {} is no image"
    assert told.splitlines() == [
        words.format(kind) for kind in ("NoneType", "int", "NoneType", "bytearray", "dict", "list")
    ]


def test_one_bit_becomes_black_and_white(tmp_path):
    bits = Image.new("1", (8, 8), 0)
    bits.paste(1, (4, 0, 8, 8))
    assert pixels(open_image(saved(tmp_path, bits, "a.png")))[0, :, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:], **lossless)
    assert pixels(open_image(path))[0, 0].tolist() == [255, 0, 0]


def test_the_given_image_is_not_changed():
    given_image = picture()
    opened = open_image(given_image)
    opened.paste("white", (0, 0, 96, 64))
    assert (pixels(given_image) == pixels(picture())).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: an image file is expected"),
        (b"hello, world", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
        (encoded(picture(), "PNG")[:150], "is truncated or damaged"),
        (encoded(picture(), "JPEG")[:-100], "is truncated or damaged"),
        (png(0, 0), "is not an image, or its header is broken: .* at least one pixel"),
        (png(60_000, 60_000, bytes(10_000)), "is too large: at most 50 megapixels"),
        (
            png(7_100, 7_100, bytes(10_000)),
            "is too large with 7,100 x 7,100 pixels: at most 50 mega",
        ),
        (png(7_000, 7_000, bytes(10_000)), "is truncated"),
    ],
    ids=["empty", "text", "EPS", "short PNG", "short JPEG", "0 x 0", "bomb", "over limit", "under limit"],
)
def test_a_file_that_is_no_usable_image_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert "bad.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"There is no file .*none\.png.*check the path"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="download it first"):
        open_image("https://example.com/cat.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="not a regular file"):
        open_image(tmp_path / "pipe")
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(ImageError):
            open_image(name)


def test_images_of_impossible_shape_are_refused():
    with pytest.raises(ImageError, match=r"0 x 0 pixels: at least 1 x 1"):
        open_image(Image.new("RGB", (0, 0)))
    with pytest.raises(ImageError, match=r"201 x 1 pixels: vision models refuse .* more than 200 times"):
        open_image(Image.new("RGB", (201, 1)))
    assert open_image(Image.new("RGB", (1, MAX_ASPECT_RATIO))).size == (1, 200)
    assert MAX_PIXELS >= 20_000_000  # a camera's picture


def test_a_lazy_image_that_turns_out_broken_is_refused():
    image = Image.open(io.BytesIO(encoded(picture(), "PNG")[:150]))
    with pytest.raises(ImageError, match="The given image cannot be decoded"):
        open_image(image)


DAMAGED = [encoded(picture(), kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")]
DAMAGED.append(encoded(picture(), "JPEG", exif=b"Exif\0\0broken"))


@given(
    data=st.sampled_from(DAMAGED),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_opens_or_is_refused_and_nothing_else(tmp_path_factory, data, changes):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    path = tmp_path_factory.mktemp("damaged") / "image"
    path.write_bytes(damaged)
    with contextlib.suppress(ImageError):
        assert open_image(path).mode == "RGB"
