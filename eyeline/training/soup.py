"""Crowded pages to teach the vision tower its letters."""

from random import Random

from eyeline.scenes import Scene
from eyeline.scenes.canvas import COLOURS, FONTS, SYMBOLS, Canvas
from eyeline.scenes.lexicon import WORDS


def soup(seed: int) -> Scene:
    """A crowded page of words, numbers and symbols at random: many letters an image, to teach the vision tower."""
    rng = Random(f"soup {seed}")
    canvas = Canvas(rng, grids=((8, 8),))
    y = rng.randint(4, 12)
    while y < canvas.height - 16:
        size = rng.randint(20, 32)
        x = rng.randint(4, 40)
        while True:
            canvas.font_file = rng.choice(FONTS)
            colour = rng.choice(list(COLOURS)) if rng.random() < 0.35 else ""
            kind = rng.random()
            if kind < 0.25:
                side = rng.randint(size, size + 18)
                if x + side > canvas.width:
                    break
                canvas.mark(rng.choice(list(SYMBOLS)), (x, y, x + side, y + side), colour=colour)
                x += side + rng.randint(6, 30)
                continue
            text = (
                rng.choice(WORDS)
                if kind < 0.65
                else str(rng.randint(1, 99))
                if kind < 0.95
                else rng.choice("+-x=")
            )
            width, _ = canvas.text_size(text, size)
            if x + width > canvas.width:
                break
            canvas.text(x, y + size // 2, text, size, colour=colour)
            x += width + rng.randint(6, 30)
        y += round(size * rng.uniform(1.1, 1.7))
    return Scene("soup", "soup", canvas, (), ())
