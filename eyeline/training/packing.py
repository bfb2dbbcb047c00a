"""Scenes packed into a batch: pixels, labels, and several questions about one image in one sequence.

Each question attends to the image and to itself, at the positions that it would have alone, so that training on the pack
equals training on each question by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyeline.scenes import Scene
from eyeline.scenes.canvas import CELL
from eyeline.scenes.question import Question
from eyeline.training.manners import PLAIN, Manner
from eyeline.training.practice import Practice
from eyeline.training.replies import weigh
from eyeline.training.speech import QWEN3_VL, Speech
from eyeline.training.visual_tokens import PATCH, dense_labels, patches


@dataclass(frozen=True, slots=True)
class Batch:
    pixels: Tensor  # uint8 (patches of all images, 3 * 16 * 16), in merge-block order
    grids: Tensor  # int64 (image, 3): frames, rows, columns of patches
    labels: Tensor  # int64 (visual tokens of all images, head)
    ids: Tensor  # int64 (image, token)
    positions: Tensor  # int64 (3, image, token): M-RoPE
    segments: Tensor  # int64 (image, token): 0 for the shared prefix, then the question's number; -1 padding
    copies: list[int]  # how often each image stands in its sequence
    weights: Tensor  # float (image, token): weight in the loss of predicting this token; 0: not supervised
    practice: Practice | None


def asked(scene: Scene, questions: int, manner: Manner = PLAIN) -> tuple[Question, ...]:
    """The scene's first questions; only the first of them may ask to be told at length.

    One less with the text first, where each has the image for itself: attention costs the square of the sequence's length.
    """
    if manner.text_first and questions > 1:
        questions -= 1
    return (*scene.questions[:1], *scene.plain[1:])[:questions]


class _Sequence:
    """One image's row of a batch in the making."""

    def __init__(self, tokenizer, speech: Speech, rows: int, cols: int):
        self.tokenizer, self.speech, self.rows, self.cols = tokenizer, speech, rows, cols
        self.ids: list[int] = []
        self.positions: list[np.ndarray] = []
        self.segments: list[int] = []
        self.weights: list[float] = []

    def add(self, ids: list[int], at: int, segment: int, weights: list[float] | None = None) -> int:
        """Text from position `at` on; returns the position behind it."""
        self.ids += ids
        self.positions.append(np.tile(at + np.arange(len(ids)), (3, 1)))
        self.segments += [segment] * len(ids)
        self.weights += weights or [0.0] * len(ids)
        return at + len(ids)

    def say(self, text: str, at: int, segment: int) -> int:
        return self.add(self.tokenizer.encode(text, add_special_tokens=False), at, segment)

    def show(self, at: int, segment: int) -> int:
        """The image with its marks; it takes as many positions as its longer side has cells."""
        opens, token, closes = self.speech.image
        at = self.say(opens, at, segment)
        rows, cols = np.divmod(np.arange(self.rows * self.cols), self.cols)
        self.ids += [self.tokenizer.convert_tokens_to_ids(token)] * len(rows)
        self.positions.append(at + np.stack([np.zeros_like(rows), rows, cols]))
        self.segments += [segment] * len(rows)
        self.weights += [0.0] * len(rows)
        return self.say(closes, at + max(self.rows, self.cols), segment)


Packed = tuple[list[int], np.ndarray, list[int], list[float]]  # ids, positions (3, token), segments, weights


def pack(
    scene: Scene, tokenizer, questions: int, manner: Manner = PLAIN, speech: Speech = QWEN3_VL
) -> Packed:
    """Token ids, positions (3, token), segments and weights of one image with its first questions.

    What stands before the image must not depend on the question that others attend to: with the text first, each question has
    the image for itself.
    """
    sequence = _Sequence(tokenizer, speech, scene.canvas.height // CELL, scene.canvas.width // CELL)
    shared = sequence.say(speech.head(manner.system), 0, 0)
    if not manner.text_first:
        shared = sequence.show(shared, 0)
    for number, question in enumerate(asked(scene, questions, manner), start=1):
        at = sequence.say(question.prompt, shared, number)
        if manner.text_first:
            at = sequence.show(at, number)
        at = sequence.say(speech.opening, at, number)
        told, in_sight, _ = weigh(question, tokenizer, speech, manner.system)
        sequence.add(told, at, number, in_sight)
    return sequence.ids, np.concatenate(sequence.positions, axis=1), sequence.segments, sequence.weights


def collate(
    scenes: list[Scene],
    tokenizer,
    questions: int,
    practice: Practice | None = None,
    manners: Sequence[Manner] = (),
    speech: Speech = QWEN3_VL,
) -> Batch:
    manners = manners or [PLAIN] * len(scenes)
    packed = [
        pack(scene, tokenizer, questions, manner, speech)
        for scene, manner in zip(scenes, manners, strict=True)
    ]
    longest = max(len(ids) for ids, *_ in packed)
    ids = torch.zeros(len(scenes), longest, dtype=torch.long)
    positions = torch.zeros(3, len(scenes), longest, dtype=torch.long)
    segments = torch.full((len(scenes), longest), -1)
    weights = torch.zeros(len(scenes), longest)
    for row, (row_ids, row_positions, row_segments, row_weights) in enumerate(packed):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        positions[:, row, : len(row_ids)] = torch.from_numpy(row_positions)
        segments[row, : len(row_ids)] = torch.tensor(row_segments)
        weights[row, : len(row_ids)] = torch.tensor(row_weights)
    return Batch(
        pixels=torch.from_numpy(np.concatenate([patches(np.asarray(scene.image)) for scene in scenes])),
        grids=torch.tensor(
            [[1, scene.canvas.height // PATCH, scene.canvas.width // PATCH] for scene in scenes]
        ),
        labels=torch.from_numpy(np.concatenate([dense_labels(scene) for scene in scenes])),
        ids=ids,
        positions=positions,
        segments=segments,
        copies=[
            len(asked(scene, questions, manner)) if manner.text_first else 1
            for scene, manner in zip(scenes, manners, strict=True)
        ],
        weights=weights,
        practice=practice,
    )
