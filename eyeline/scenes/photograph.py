"""From a clean drawing to a picture as people send it.

The page is set smaller and a little askew on a sheet of another shape, things stand on it that nobody asks about, and a
camera or a file format adds its noise. Everything that the drawing remembers moves along.
"""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from eyeline.scenes.canvas import BACKGROUNDS, CELL, COLOURS, FONTS, GRIDS, SYMBOLS, Box, Canvas, Colour, font
from eyeline.scenes.lexicon import WORDS

Move = Callable[[Box], Box]

SHEETS = (*GRIDS, (14, 5), (5, 14), (13, 6), (6, 13), (16, 4), (14, 8), (8, 14), (11, 11))  # columns, rows
SMALLEST, LARGEST = 0.7, 1.15  # sizes of the page on its sheet, against the drawing's
ASKEW = 6.0  # degrees, at most
SET, DISTRACTED, NOISY = 0.35, 0.3, 0.3  # shares of the scenes
# What may stand beside each family's scenes without changing any answer.
DISTRACTORS = {
    "math": ("scribble", "symbol"),
    "science": ("scribble",),
    "document": ("scribble", "symbol"),
    "code": ("scribble", "symbol"),
    "general": ("scribble", "word"),
}


def photograph(canvas: Canvas, family: str, rng: Random, *, spoil: bool = True) -> tuple[Canvas, Move]:
    """The scene as a picture of it, and where its boxes have gone; without noise unless `spoil`. The canvas given is used up."""
    move: Move = _stay
    if rng.random() < SET:
        move = _set(canvas, rng)
    if rng.random() < DISTRACTED:
        for _ in range(rng.randint(1, 3)):
            _distract(canvas, rng.choice(DISTRACTORS[family]), rng)
    if rng.random() < NOISY and spoil:
        _spoil(canvas, rng)
    return canvas, move


def _stay(box: Box) -> Box:
    return box


def _set(canvas: Canvas, rng: Random) -> Move:
    """Sets the drawing on another sheet, of another colour, scaled and turned about its centre."""
    width, height = canvas.width, canvas.height
    angle = math.radians(rng.uniform(-ASKEW, ASKEW)) if rng.random() < 0.6 else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    wide = abs(width * cos) + abs(height * sin)
    high = abs(width * sin) + abs(height * cos)
    sheets = [
        (cols * CELL, rows * CELL)
        for cols, rows in SHEETS
        if min(cols * CELL / wide, rows * CELL / high) >= SMALLEST
    ]
    new_width, new_height = rng.choice(sheets or [(width, height)])
    fits = min(new_width / wide, new_height / high)
    scale = rng.uniform(min(SMALLEST, fits), min(LARGEST, fits))
    x = rng.uniform(scale * wide / 2, new_width - scale * wide / 2)
    y = rng.uniform(scale * high / 2, new_height - scale * high / 2)

    def move(box: Box) -> Box:
        corners = [
            (
                x + scale * (cos * (left - width / 2) - sin * (top - height / 2)),
                y + scale * (sin * (left - width / 2) + cos * (top - height / 2)),
            )
            for left, top in ((box[0], box[1]), (box[2], box[1]), (box[0], box[3]), (box[2], box[3]))
        ]
        lefts, tops = zip(*corners, strict=True)
        return round(min(lefts)), round(min(tops)), round(max(lefts)), round(max(tops))

    a, b = cos / scale, sin / scale  # from the sheet back to the drawing
    canvas.image = canvas.image.transform(
        (new_width, new_height),
        Image.Transform.AFFINE,
        (a, b, width / 2 - a * x - b * y, -b, a, height / 2 + b * x - a * y),
        Image.Resampling.BICUBIC,
        fillcolor=rng.choice([colour for colour in BACKGROUNDS if colour != canvas.background]),
    )
    canvas.draw = ImageDraw.Draw(canvas.image)
    canvas.width, canvas.height = new_width, new_height
    canvas.items = [replace(item, box=move(item.box)) for item in canvas.items]
    canvas.glyphs = [(char, move(box)) for char, box in canvas.glyphs]
    return move


def _distract(canvas: Canvas, kind: str, rng: Random) -> None:
    """Draws a thing where nothing is; where there is no such place, nothing."""
    word, size = rng.choice(WORDS), rng.randint(20, 26)
    face = font(rng.choice(FONTS), size)
    width = math.ceil(face.getlength(word)) if kind == "word" else rng.randint(24, 52)
    height = size if kind == "word" else width
    ink = rng.choice(list(COLOURS.values()))
    pale: Colour = tuple((3 * value + 255) // 4 if kind == "scribble" else value for value in ink)  # pyright: ignore[reportAssignmentType]
    for _ in range(30):
        left = rng.randint(4, max(4, canvas.width - width - 4))
        top = rng.randint(4, max(4, canvas.height - height - 4))
        box = (left, top, left + width, top + height)
        around = canvas.image.crop((left - 8, top - 8, box[2] + 8, box[3] + 8))
        if (
            box[2] > canvas.width
            or box[3] > canvas.height
            or np.asarray(around).reshape(-1, 3).std(0).max() > 0
        ):
            continue
        if kind == "word":
            canvas.draw.text((left, top + height / 2), word, font=face, fill=pale, anchor="lm")
        elif kind == "symbol":
            SYMBOLS[rng.choice(("leaf", "star", "bell", "apple", "ring"))](canvas.draw, box, pale)
        else:
            points = [(rng.uniform(left, box[2]), rng.uniform(top, box[3])) for _ in range(rng.randint(4, 7))]
            canvas.draw.line(points, fill=pale, width=rng.randint(2, 4), joint="curve")
        return


def _spoil(canvas: Canvas, rng: Random) -> None:
    """The noise of a sensor, uneven light, or the blocks of a JPEG file."""
    kind = rng.choice(("jpeg", "noise", "light"))
    if kind == "jpeg":
        file = io.BytesIO()
        canvas.image.save(file, "jpeg", quality=rng.randint(20, 70))
        canvas.image = Image.open(file).convert("RGB")
    else:
        pixels = np.asarray(canvas.image).astype(np.float32)
        if kind == "noise":
            pixels += np.random.default_rng(rng.randrange(2**32)).normal(0, rng.uniform(3, 12), pixels.shape)
        else:
            ramp = np.linspace(rng.uniform(-30, 0), rng.uniform(-30, 0), canvas.width)[None, :, None]
            pixels += ramp + np.linspace(0, rng.uniform(-20, 0), canvas.height)[:, None, None]
        canvas.image = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
    canvas.draw = ImageDraw.Draw(canvas.image)
