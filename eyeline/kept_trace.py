"""The trace of a saved run, read back for a model that measures it: its ids, and whether they say what the run's events say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.errors import DataError
from eyeline.events import Done, Event, Text
from eyeline.generation import segmenter
from eyeline.model import Inputs, Model, Prompt
from eyeline.runs import TRACE, Run, damaged, text_of

WHOLE = ("eos", "stop", "length")  # ends after which all text is told


@dataclass(frozen=True, eq=False)
class KeptTrace:
    """What the model wrote after a prompt."""

    ids: list[int]
    generation: dict[str, Any]  # options of `hf.generate` that it was written with
    inputs: Inputs  # the prompt


def check_model(model: Model, run: Run, to_do: str) -> None:
    """Raises `DataError` for a run of another model, with what was `to_do` with the same one."""
    if run.start.model != model.name:
        raise DataError(
            f"The run was written by {run.start.model!r}, not by {model.name!r}: {to_do} with the same model."
        )


def read_back(model: Model, run: Run, prompt: Prompt | None = None) -> KeptTrace:
    """The trace of a run; `prompt`: what was asked, where that is more than one turn.

    Raises `DataError` where the run does not keep its ids, or they say another text than its events.
    """
    ids, generation = run.trace()
    inputs = model.inputs(run.images, run.prompt if prompt is None else prompt)
    opened = model.prompt_opens_thinking(inputs["input_ids"])
    follow = segmenter(model, opened=opened, stop=generation.get("stop_strings") or ())
    written = [event for token in ids for event in follow.push(token)] + follow.finish()
    if not _same(run.events, [event for event in written if isinstance(event, Text)]):
        assert run.folder is not None, "it kept its ids there"
        raise DataError(damaged(run.folder, f"its token ids in {TRACE} say another text than its events"))
    return KeptTrace(ids, generation, inputs)


def _same(events: Sequence[Event], written: Sequence[Text]) -> bool:
    """Whether events tell the text that was written; of a run that was broken off, as far as they go."""
    done = next((event for event in events if isinstance(event, Done)), None)
    whole = done is not None and done.reason in WHOLE
    for channel in ("thinking", "answer"):
        told, all_text = text_of(events, channel), text_of(written, channel)
        if told != (all_text if whole else all_text[: len(told)]):
            return False
    return True
