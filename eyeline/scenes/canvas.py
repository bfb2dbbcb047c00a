"""A drawing surface that remembers what it drew and where.

Scenes draw through it, so that the evidence of every sentence and the dense labels that teach the vision
tower come from the drawing itself. Coordinates are pixels, boxes are (left, top, right, bottom).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from random import Random

from PIL import Image, ImageDraw, ImageFont

from eyeline.errors import EyelineError

Box = tuple[int, int, int, int]
Colour = tuple[int, int, int]
Real = float | int

CELL = 32  # pixels a side of one visual token: patch 16, merged 2 x 2
FONTS = (
    ("font_source_sans_pro", "SourceSansPro-Semibold.ttf"),
    ("font_hanken_grotesk", "HankenGrotesk-Medium.otf"),
    ("font_manrope", "Manrope-SemiBold.ttf"),
    ("font_caladea", "Caladea-Bold.ttf"),
)
SIZES = 20, 32  # pixels: the smallest and the largest text
COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (245, 133, 20),
    "yellow": (240, 205, 20),
    "green": (40, 150, 60),
    "blue": (35, 90, 210),
    "purple": (125, 50, 165),
    "brown": (125, 75, 35),
    "pink": (245, 130, 180),
}
BACKGROUNDS: tuple[Colour, ...] = (
    (255, 255, 255), (248, 244, 232), (228, 238, 248), (234, 246, 234), (224, 224, 228), (250, 232, 236),
)  # fmt: skip
GRIDS = (
    (8, 8),
    (8, 8),
    (8, 8),
    (9, 8),
    (8, 9),
    (10, 7),
    (7, 10),
    (10, 8),
    (8, 10),
    (12, 7),
    (7, 12),
    (10, 10),
    (12, 9),
    (12, 12),
)


@dataclass(frozen=True, slots=True)
class Item:
    """Something drawn: a word, a number or a mark, at its place in the scene's reading order."""

    box: Box
    order: int  # 1-based place in the reading order of the trace; 0: not read out
    word: str = ""  # the text as drawn, for words and numbers
    mark: str = ""  # the name of a shape or symbol
    colour: str = ""
    number: int | None = None  # for marks that stand for a value, such as the level of a thermometer


def check_fonts() -> None:
    """Raises `EyelineError` where a font is missing, whether a scene would use it or not: each can be drawn, or none."""
    missing = [package for package, _ in FONTS if find_spec(package) is None]
    if missing:
        raise EyelineError(
            f"Scenes are drawn with fonts that are not installed here ({', '.join(missing)}): "
            "pip install 'eyeline[scenes]'."
        )


class Canvas:
    """An image in the making, and the list of what is on it."""

    def __init__(self, rng: Random, grids: tuple[tuple[int, int], ...] = GRIDS):
        check_fonts()
        cols, rows = rng.choice(grids)
        self.rng = rng
        self.width, self.height = cols * CELL, rows * CELL
        self.background = rng.choice(BACKGROUNDS)
        self.ink: Colour = rng.choice(((20, 20, 20), (30, 40, 80), (70, 30, 30)))
        self.image = Image.new("RGB", (self.width, self.height), self.background)
        self.draw = ImageDraw.Draw(self.image)
        self.font_file = rng.choice(FONTS)
        self.items: list[Item] = []
        self.glyphs: list[tuple[str, Box]] = []

    def paint(self, name: str) -> Colour:
        """The named colour, a little different each time."""
        return tuple(max(0, min(255, value + self.rng.randint(-14, 14))) for value in COLOURS[name])  # pyright: ignore[reportReturnType]

    def text_size(self, text: str, size: int) -> tuple[int, int]:
        left, top, right, bottom = font(self.font_file, size).getbbox(text, anchor="ls")
        return math.ceil(right - left), math.ceil(bottom - top)

    def text(
        self, x: int, y: int, text: str, size: int, *, order: int = 0, colour: str = "", anchor: str = "lm",
        fill: Colour | None = None,
    ) -> Box:  # fmt: skip
        """Draws words at (x, y) and returns their box; each word becomes an item, each letter a glyph."""
        face = font(self.font_file, size)
        ink = fill or (self.paint(colour) if colour else self.ink)
        length = face.getlength(text)
        x = round(x - {"l": 0, "m": length / 2, "r": length}[anchor[0]])
        self.draw.text((x, y), text, font=face, fill=ink, anchor="l" + anchor[1])
        at = 0
        boxes = []
        for word in text.split(" "):
            left, top, right, bottom = self.draw.textbbox(
                (x + face.getlength(text[:at]), y), word, font=face, anchor="l" + anchor[1]
            )
            box = (round(left), round(top), round(right), round(bottom))
            self.items.append(Item(box, order, word=word.strip(".,:?"), colour=colour))
            boxes.append(box)
            for index, char in enumerate(word):
                start, stop = (
                    x + face.getlength(text[: at + index]),
                    x + face.getlength(text[: at + index + 1]),
                )
                self.glyphs.append((char, (round(start), box[1], round(stop), box[3])))
            at += len(word) + 1
        return union(*boxes)

    def mark(
        self, name: str, box: Box, *, order: int = 0, colour: str = "", number: int | None = None
    ) -> Box:
        """Draws a symbol of `SYMBOLS` into the box."""
        fill = self.paint(colour) if colour else self.ink
        SYMBOLS[name](self.draw, box, fill)
        return self.note(name, box, order=order, colour=colour, number=number)

    def note(
        self, name: str, box: Box, *, order: int = 0, colour: str = "", number: int | None = None
    ) -> Box:
        """Remembers a mark that the scene has drawn by itself."""
        self.items.append(Item(box, order, mark=name, colour=colour, number=number))
        return box


def union(*boxes: Box) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


@lru_cache(maxsize=256)
def font(file: tuple[str, str], size: int) -> ImageFont.FreeTypeFont:
    """The font at that size in pixels, no smaller or larger than the embedded model can read."""
    package, name = file
    size = max(SIZES[0], min(SIZES[1], size))
    return ImageFont.truetype(str(files(package) / "files" / name), size)


def _polygon(points):
    def draw(pen, box, fill):
        left, top, right, bottom = box
        pen.polygon([(left + x * (right - left), top + y * (bottom - top)) for x, y in points], fill=fill)

    return draw


def _star(count: int = 5, inner: float = 0.42):
    points = []
    for step in range(2 * count):
        radius = 0.5 if step % 2 == 0 else 0.5 * inner
        angle = math.pi * step / count - math.pi / 2
        points.append((0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)))
    return _polygon(points)


def _ellipse(pen, box, fill):
    pen.ellipse(box, fill=fill)


def _ring(pen, box, fill):
    pen.ellipse(box, outline=fill, width=max(3, (box[2] - box[0]) // 5))


def _inside(box: Box, left: Real, top: Real, right: Real, bottom: Real) -> tuple[Real, Real, Real, Real]:
    width, height = box[2] - box[0], box[3] - box[1]
    return box[0] + left * width, box[1] + top * height, box[0] + right * width, box[1] + bottom * height


def _apple(pen, box, fill):
    pen.ellipse(_inside(box, 0, 0.2, 0.6, 1), fill=fill)
    pen.ellipse(_inside(box, 0.4, 0.2, 1, 1), fill=fill)
    pen.line(_inside(box, 0.5, 0.3, 0.6, 0), fill=(110, 70, 30), width=3)


def _banana(pen, box, fill):
    pen.arc(_inside(box, 0, -0.6, 1, 0.9), 10, 170, fill=fill, width=max(5, (box[3] - box[1]) // 3))


def _carrot(pen, box, fill):
    _polygon([(0.15, 0.25), (0.85, 0.25), (0.5, 1)])(pen, box, fill)
    for x in (0.3, 0.5, 0.7):
        pen.line(_inside(box, 0.5, 0.25, x, 0), fill=(60, 140, 60), width=3)


def _grape(pen, box, fill):
    for row, count in enumerate((3, 2, 1)):
        for step in range(count):
            x = 0.5 + (step - (count - 1) / 2) * 0.33
            pen.ellipse(_inside(box, x - 0.17, row * 0.3, x + 0.17, row * 0.3 + 0.36), fill=fill)


def _leaf(pen, box, fill):
    pen.chord(_inside(box, -0.3, 0, 0.8, 1), 300, 60, fill=fill)
    pen.chord(_inside(box, 0.2, 0, 1.3, 1), 120, 240, fill=fill)
    pen.line(_inside(box, 0.5, 0.1, 0.5, 1), fill=(90, 60, 30), width=2)


def _lamp(pen, box, fill):
    pen.ellipse(box, outline=fill, width=3)
    pen.line(_inside(box, 0.15, 0.15, 0.85, 0.85), fill=fill, width=3)
    pen.line(_inside(box, 0.15, 0.85, 0.85, 0.15), fill=fill, width=3)


def _cell(pen, box, fill):
    pen.line(_inside(box, 0.35, 0, 0.35, 1), fill=fill, width=3)
    pen.line(_inside(box, 0.65, 0.25, 0.65, 0.75), fill=fill, width=7)


def _switch(pen, box, fill):
    pen.ellipse(_inside(box, 0, 0.4, 0.2, 0.6), fill=fill)
    pen.ellipse(_inside(box, 0.8, 0.4, 1, 0.6), fill=fill)
    pen.line(_inside(box, 0.1, 0.5, 0.8, 0.05), fill=fill, width=4)


def _bell(pen, box, fill):
    pen.pieslice(_inside(box, 0, 0, 1, 1.6), 180, 360, fill=fill)
    pen.line(_inside(box, 0, 0.85, 1, 0.85), fill=fill, width=4)


def _resistor(pen, box, fill):
    pen.rectangle(_inside(box, 0, 0.25, 1, 0.75), outline=fill, width=4)


def _motor(pen, box, fill):
    pen.ellipse(box, outline=fill, width=3)
    points = [
        _inside(box, x, y, 0, 0)[:2]
        for x, y in ((0.3, 0.75), (0.3, 0.3), (0.5, 0.55), (0.7, 0.3), (0.7, 0.75))
    ]
    pen.line(points, fill=fill, width=3)


SYMBOLS = {
    "circle": _ellipse,
    "ring": _ring,
    "square": _polygon([(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]),
    "triangle": _polygon([(0.5, 0.05), (1, 0.95), (0, 0.95)]),
    "diamond": _polygon([(0.5, 0), (0.9, 0.5), (0.5, 1), (0.1, 0.5)]),
    "star": _star(),
    "cross": _polygon(
        [
            *((0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65)),
            *((0.65, 1), (0.35, 1), (0.35, 0.65), (0, 0.65), (0, 0.35), (0.35, 0.35)),
        ]
    ),
    "apple": _apple,
    "banana": _banana,
    "carrot": _carrot,
    "grape": _grape,
    "leaf": _leaf,
    "lamp": _lamp,
    "cell": _cell,
    "switch": _switch,
    "bell": _bell,
    "resistor": _resistor,
    "motor": _motor,
    "right": _polygon([(0, 0.4), (0.6, 0.4), (0.6, 0.1), (1, 0.5), (0.6, 0.9), (0.6, 0.6), (0, 0.6)]),
    "left": _polygon([(1, 0.4), (0.4, 0.4), (0.4, 0.1), (0, 0.5), (0.4, 0.9), (0.4, 0.6), (1, 0.6)]),
    "down": _polygon([(0.4, 0), (0.6, 0), (0.6, 0.6), (0.9, 0.6), (0.5, 1), (0.1, 0.6), (0.4, 0.6)]),
    "up": _polygon([(0.4, 1), (0.6, 1), (0.6, 0.4), (0.9, 0.4), (0.5, 0), (0.1, 0.4), (0.4, 0.4)]),
}  # fmt: skip
