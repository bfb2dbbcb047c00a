"""A question about a scene, the trace that answers it, and what each sentence of the trace reads."""

from dataclasses import dataclass

from eyeline.scenes.canvas import Box

Sentence = tuple[str, tuple[Box, ...]]  # the text, and the boxes it reads


@dataclass(frozen=True, slots=True)
class Slip:
    """A value that the trace first misreads: where it stands, and the sentences that put it right."""

    sentence: int  # its number
    start: int  # characters of the sentence, [start, end)
    end: int
    mended: tuple[int, ...]  # numbers of sentences


@dataclass(frozen=True, slots=True)
class Question:
    prompt: str
    sentences: tuple[Sentence, ...]
    answer: str
    prior: bool = False  # world knowledge or arithmetic suggests another answer than the image shows
    slip: Slip | None = None  # only where a trace to learn from asks for one

    @property
    def trace(self) -> str:
        return " ".join(text for text, _ in self.sentences)


def ask(
    prompt: str,
    read: list[Sentence],
    conclusion: str | tuple[str, ...],
    answer: object,
    *,
    prior: bool = False,
) -> Question:
    """A question whose trace first reads the scene, then concludes, in one sentence or several."""
    conclusions = (conclusion,) if isinstance(conclusion, str) else conclusion
    return Question(prompt, (*read, *((text, ()) for text in conclusions)), str(answer), prior)
