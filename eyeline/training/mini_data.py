"""Scenes to training batches for the embedded model: pixels, packed questions and dense labels for the vision tower.

Several questions about one image share one sequence: each attends to the image and to itself, at the positions
that it would have alone, so that training on the pack equals training on each question by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from eyeline.scenes import FAMILIES, Scene, draw
from eyeline.scenes.canvas import CELL, COLOURS, FONTS, SYMBOLS, Canvas
from eyeline.scenes.lexicon import WORDS

PATCH = 16
CHARS = {char: index for index, char in enumerate(sorted({*"".join(WORDS), *"0123456789+-x=:.V"}), start=1)}
WORD = {word: index for index, word in enumerate((*WORDS, "+", "-", "x", "=", "V"), start=1)}
MARK = {mark: index for index, mark in enumerate((*SYMBOLS, "level", "button", "bullet"), start=1)}
COLOUR = {colour: index for index, colour in enumerate(COLOURS, start=1)}
# One classification per visual token: the character in each of its four patches, then what the token shows as a whole.
HEADS = {
    "char0": len(CHARS) + 1, "char1": len(CHARS) + 1, "char2": len(CHARS) + 1, "char3": len(CHARS) + 1,
    "word": len(WORD) + 1, "tens": 12, "ones": 11, "mark": len(MARK) + 1, "colour": len(COLOUR) + 1, "order": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    pixels: Tensor  # uint8 (patches of all images, 3 * 16 * 16), in merge-block order
    grids: Tensor  # int64 (image, 3): frames, rows, columns of patches
    labels: Tensor  # int64 (visual tokens of all images, head)
    ids: Tensor  # int64 (image, token)
    positions: Tensor  # int64 (3, image, token): M-RoPE
    segments: Tensor  # int64 (image, token): 0 for the shared prefix, then the question's number; -1 padding
    supervised: Tensor  # bool (image, token): token to be predicted


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


def reply(trace: str, answer: str) -> str:
    """The assistant's turn after the opening `<think>` and its line break."""
    return f"{trace}\n</think>\n\n{answer}<|im_end|>"


def pack(scene: Scene, tokenizer, questions: int) -> tuple[list[int], np.ndarray, list[int], list[bool]]:
    """Token ids, positions (3, token), segments and supervision of one image with its first questions."""
    rows, cols = scene.canvas.height // CELL, scene.canvas.width // CELL
    before = tokenizer.encode("<|im_start|>user\n<|vision_start|>", add_special_tokens=False)
    image = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    ids = [*before, *[image] * (rows * cols), *tokenizer.encode("<|vision_end|>", add_special_tokens=False)]
    start = len(before)
    after = start + max(rows, cols)
    grid = np.stack(
        [
            np.full(rows * cols, start),
            start + np.repeat(np.arange(rows), cols),
            start + np.tile(np.arange(cols), rows),
        ]
    )
    positions = [np.tile(np.arange(start), (3, 1)), grid, np.full((3, 1), after)]
    segments = [0] * len(ids)
    supervised = [False] * len(ids)
    for number, question in enumerate(scene.questions[:questions], start=1):
        asked = tokenizer.encode(
            f"{question.prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n", add_special_tokens=False
        )
        told = tokenizer.encode(reply(question.trace, question.answer), add_special_tokens=False)
        ids += asked + told
        positions.append(np.tile(after + 1 + np.arange(len(asked) + len(told)), (3, 1)))
        segments += [number] * (len(asked) + len(told))
        supervised += [False] * len(asked) + [True] * len(told)
    return ids, np.concatenate(positions, axis=1), segments, supervised


def collate(scenes: list[Scene], tokenizer, questions: int) -> Batch:
    packed = [pack(scene, tokenizer, questions) for scene in scenes]
    longest = max(len(ids) for ids, *_ in packed)
    ids = torch.zeros(len(scenes), longest, dtype=torch.long)
    positions = torch.zeros(3, len(scenes), longest, dtype=torch.long)
    segments = torch.full((len(scenes), longest), -1)
    supervised = torch.zeros(len(scenes), longest, dtype=torch.bool)
    for row, (row_ids, row_positions, row_segments, row_supervised) in enumerate(packed):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        positions[:, row, : len(row_ids)] = torch.from_numpy(row_positions)
        segments[row, : len(row_ids)] = torch.tensor(row_segments)
        supervised[row, : len(row_ids)] = torch.tensor(row_supervised)
    return Batch(
        pixels=torch.from_numpy(np.concatenate([patches(np.asarray(scene.image)) for scene in scenes])),
        grids=torch.tensor(
            [[1, scene.canvas.height // PATCH, scene.canvas.width // PATCH] for scene in scenes]
        ),
        labels=torch.from_numpy(np.concatenate([dense_labels(scene) for scene in scenes])),
        ids=ids,
        positions=positions,
        segments=segments,
        supervised=supervised,
    )


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
    return Scene("soup", "soup", canvas, ())


class Batches:
    """Endless batches from seed `first` on, every `step`-th pool of them; scenes of like size share a batch.

    Without questions, two scenes in three are soup.
    """

    def __init__(self, tokenizer, first: int, size: int, questions: int, index: int, step: int):
        self.tokenizer, self.first, self.size, self.questions = tokenizer, first, size, questions
        self.index, self.step = index, step

    def scene(self, number: int) -> Scene:
        if not self.questions and number % 3:
            return soup(number)
        return draw(list(FAMILIES)[number % 5], number // 5 % 8_000_000)

    def __iter__(self) -> Iterator[Batch]:
        pool = 4 * self.size
        at = self.first + self.index * pool
        while True:
            scenes = [self.scene(number) for number in range(at, at + pool)]
            scenes.sort(key=lambda scene: scene.canvas.width * scene.canvas.height)
            groups = [scenes[start : start + self.size] for start in range(0, pool, self.size)]
            for group in sorted(
                groups, key=lambda group: group[0].canvas.background
            ):  # any order but by size
                yield collate(group, self.tokenizer, self.questions)
            at += self.step * pool


def corpus(count: int) -> Iterator[str]:
    """Everything that `count` scenes of each family say, for the tokenizer."""
    for family in FAMILIES:
        for seed in range(count):
            for question in draw(family, seed).questions:
                yield re.sub(r"<\|.*?\|>", "", f"{question.prompt}\n{question.trace}\n{question.answer}")
