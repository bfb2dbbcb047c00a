"""An image as the embedded model's vision tower learns from it: its patches, and what each visual token shows."""

from collections.abc import Iterator

import numpy as np

from eyeline.scenes import Scene
from eyeline.scenes.canvas import CELL, COLOURS, SYMBOLS
from eyeline.scenes.lexicon import WORDS

PATCH = 16  # pixels
# what scenes say and show
SAID = (*WORDS, *COLOURS, *SYMBOLS)
CHARS = {char: index for index, char in enumerate(sorted({*"".join(WORDS), *"0123456789+-x=:.V"}), start=1)}
WORD = {word: index for index, word in enumerate((*WORDS, "+", "-", "x", "=", "V"), start=1)}
MARK = {mark: index for index, mark in enumerate((*SYMBOLS, "level", "button", "bullet"), start=1)}
COLOUR = {colour: index for index, colour in enumerate(COLOURS, start=1)}
# One classification per visual token: the character in each of its four patches, then what the token shows as a whole.
HEADS = {
    "char0": len(CHARS) + 1, "char1": len(CHARS) + 1, "char2": len(CHARS) + 1, "char3": len(CHARS) + 1,
    "word": len(WORD) + 1, "tens": 12, "ones": 11, "mark": len(MARK) + 1, "colour": len(COLOUR) + 1, "order": 8,
    "place": 10,
}  # fmt: skip


def patches(image: np.ndarray) -> np.ndarray:
    """Pixels uint8 (height, width, 3) as flattened patches, merge blocks together, as Qwen's image processor orders them."""
    rows, cols = image.shape[0] // CELL, image.shape[1] // CELL
    blocks = image.reshape(rows, 2, PATCH, cols, 2, PATCH, 3)
    return blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * cols * 4, 3 * PATCH * PATCH)


def dense_labels(scene: Scene) -> np.ndarray:
    """What each visual token shows, int64 (visual token, head); 0 is nothing."""
    rows, cols = scene.canvas.height // CELL, scene.canvas.width // CELL
    labels = np.zeros((rows, cols, len(HEADS)), dtype=np.int64)
    best = np.zeros((2 * rows, 2 * cols))
    for char, box in scene.canvas.glyphs:
        for row, col, area in _overlaps(box, PATCH, 2 * rows, 2 * cols):
            if area > best[row, col] and area > 0.15 * PATCH * PATCH:
                best[row, col] = area
                labels[row // 2, col // 2, 2 * (row % 2) + col % 2] = CHARS.get(char, 0)
    best = np.zeros((rows, cols))
    for item in scene.canvas.items:
        left, top, right, bottom = item.box
        enough = 0.12 * min(CELL * CELL, max(1, (right - left) * (bottom - top)))
        number = item.number if item.number is not None else int(item.word) if item.word.isdigit() else None
        what = [
            0 if number is not None else WORD.get(item.word, 0),
            0 if number is None else number // 10 + 1 if number > 9 else 11,
            0 if number is None else number % 10 + 1,
            MARK.get(item.mark, 0),
            COLOUR.get(item.colour, 0),
            min(item.order, 7),
            1
            + 3 * min(2, 3 * (top + bottom) // (2 * scene.canvas.height))
            + min(2, 3 * (left + right) // (2 * scene.canvas.width)),
        ]
        for row, col, area in _overlaps(item.box, CELL, rows, cols):
            if area > best[row, col] and area > enough:
                best[row, col] = area
                labels[row, col, 4:] = what
    return labels.reshape(rows * cols, -1)


def _overlaps(box, side: int, rows: int, cols: int) -> Iterator[tuple[int, int, int]]:
    left, top, right, bottom = box
    for row in range(max(0, top // side), min(rows, (bottom - 1) // side + 1)):
        high = min(bottom, (row + 1) * side) - max(top, row * side)
        for col in range(max(0, left // side), min(cols, (right - 1) // side + 1)):
            yield row, col, high * (min(right, (col + 1) * side) - max(left, col * side))
