# pyright: reportMissingImports=false
"""Eyeline as a model of lmms-eval: it answers a task's questions, and keeps beside each score what the answer rests on.

lmms-eval finds `manifest` by its entry point `lmms_eval.models` and loads `Eyeline` where somebody asks for the model `eyeline`;
nothing else in the package imports this file, which needs lmms-eval.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from PIL import Image

from eyeline.asked import question_of
from eyeline.boxes import evidence_sets
from eyeline.errors import DataError, EyelineError, PromptError
from eyeline.events import Done, Event, SpanAttribution, Start
from eyeline.images import open_image
from eyeline.kept_trace import WHOLE
from eyeline.runs import Run, read_run, save_run
from eyeline.streaming_model import load

TABLE = "attributions.jsonl"
SAMPLING = ("temperature", "top_p", "top_k")


def manifest() -> ModelManifest:
    """What lmms-eval is told: the model's name and its class."""
    return ModelManifest(model_id="eyeline", chat_class_path="eyeline.harness.Eyeline")


class Eyeline(lmms):
    """`lmms-eval --model eyeline --model_args pretrained=M,runs=DIR --tasks T`.

    `pretrained`: a folder, an id on the Hub, or `mini`. `estimator`: as for `model.stream`. `runs`: a folder that gets a
    saved run of each question, TASK/ID, and `attributions.jsonl`, a line each; a question that stands there is not asked again.
    Without it nothing is kept but the answers. `max_new_tokens`: of thinking and answer together, by default what the context
    allows; a task's own limit is meant for answers alone and would cut the thinking. `load_options`: those of `eyeline.load`.

    A task's `until` ends the answer, never the thinking. Raises `EyelineError` for what cannot be loaded or asked.
    """

    is_simple = False

    def __init__(
        self, pretrained: str = "mini", estimator: str | None = None, runs: str | None = None,
        max_new_tokens: int | None = None, seed: int = 0, batch_size: int | str = 1, **load_options: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if str(batch_size) not in ("1", "auto"):
            raise EyelineError(
                f"The batch size is {batch_size}; Eyeline follows one trace after the other: leave it at 1."
            )
        self.model, self.estimator, self.seed = load(pretrained, **load_options), estimator, seed
        self.runs = None if runs is None else Path(runs).expanduser()
        self.max_new_tokens = None if max_new_tokens is None else int(max_new_tokens)
        self.noted = set() if self.runs is None else _noted(self.runs / TABLE)

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """The answers, without the thinking, in the order of the requests."""
        found = []
        for request in requests:
            context, to_messages, options, number, task, split = request.args
            images, messages = asked(to_messages(self.task_dict[task][split][number]))
            run = self._ask(task, number, images, messages, options)
            done = run.events[-1]
            if not isinstance(done, Done) or done.reason not in WHOLE:
                raise DataError(
                    f"Question {number} of {task} ended by an error; run the same again: what is answered stays."
                )
            answer = cut_at(done.answer.strip(), options.get("until"))
            if self.runs is not None:
                self._note(task, number, run, done, answer)
            self.cache_hook.add_partial("generate_until", (context, options), answer)
            found.append(GenerationResult(answer, TokenCounts(done.prompt_tokens, done.tokens, thought(run))))
        return found

    def _ask(
        self, task: str, number: Any, images: list[Image.Image], messages: list[Any], options: Mapping[str, Any]
    ) -> Run:  # fmt: skip
        folder = None if self.runs is None else self.runs / plain(task) / plain(str(number))
        prompt = question_of(messages)
        if folder is not None and (kept := finished(folder, prompt, self.model.name)) is not None:
            return kept
        given: dict[str, Any] = {name: options[name] for name in SAMPLING if options.get(name) is not None}
        if not options.get("do_sample", True):
            given = {"temperature": 0}
        events: list[Event] = []
        with self.model.stream(
            images, messages, estimator=self.estimator, max_new_tokens=self.max_new_tokens, seed=self.seed, **given
        ) as stream:  # fmt: skip
            if folder is None:
                events += stream
                return Run(prompt, tuple(images), tuple(events))
            with save_run(folder, images, prompt) as run:
                for event in stream:
                    run.write(event)
                    events.append(event)
                run.keep(stream.games, stream.ids, stream.generation)
        return Run(prompt, tuple(images), tuple(events), folder)

    def _note(self, task: str, number: Any, run: Run, done: Done, answer: str) -> None:
        """A line of the table: by task and document it stands beside lmms-eval's own log of samples."""
        assert self.runs is not None, "the caller looked"
        if (task, number) in self.noted:
            return
        start, spans = run.start, [event for event in run.events if isinstance(event, SpanAttribution)]
        rests = done.rests_on
        boxes = [] if rests is None else evidence_sets(run.events, "answer")[0].boxes
        told = {
            "task": task, "doc_id": number, "run": str(run.folder), "answer": answer,
            "unit": start.unit, "estimator": start.estimator,
            "spans": len(spans), "tokens": done.tokens,
            "whole_image": None if rests is None else rests.whole, "changes": None if rests is None else rests.changes,
            "evidence": [{"region": box.region, "image": box.image, "box": box.box, "changes": box.amount} for box in boxes],
        }  # fmt: skip
        with (self.runs / TABLE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(told, ensure_ascii=False) + "\n")
        self.noted.add((task, number))

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Not there: a thinking model answers in text."""
        raise EyelineError(
            "The task scores given continuations; choose one that generates (output_type: generate_until)."
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Not there: attribution is of one answer."""
        raise EyelineError(
            "The task has several rounds; choose one with a single one (output_type: generate_until)."
        )


def asked(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Image.Image], list[dict[str, Any]]]:
    """A task's messages as images, in order, and a chat that says where they stand. Raises `PromptError` for video and sound."""
    images, chat = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        told = []
        for part in parts:
            if part["type"] == "image":
                url = part["url"]
                images.append(open_image(url) if isinstance(url, str | Path) else url.convert("RGB"))
                told.append({"type": "image"})
            elif part["type"] == "text":
                told.append({"type": "text", "text": part["text"]})
            else:
                raise PromptError(
                    f"The task shows a {part['type']}; Eyeline follows images and text: choose another task."
                )
        chat.append({"role": message["role"], "content": told})
    return images, chat


def cut_at(answer: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first of some texts."""
    stops = [until] if isinstance(until, str) else list(until or ())
    return min((answer.split(stop)[0] for stop in stops if stop), key=len, default=answer)


def thought(run: Run) -> int:
    """Tokens of the thinking."""
    spans = (
        event for event in run.events if isinstance(event, SpanAttribution) and event.channel == "thinking"
    )
    return sum(span.end - span.start for span in spans)


def finished(folder: Path, prompt: str, model: str) -> Run | None:
    """The run in a folder, if it is whole and of the same question to the same model."""
    try:
        run = read_run(folder)
    except DataError:
        return None
    done = run.events[-1]
    same = run.prompt == prompt and isinstance(run.events[0], Start) and run.start.model == model
    return run if same and isinstance(done, Done) and done.reason in WHOLE else None


def plain(name: str) -> str:
    """As the name of a folder."""
    return re.sub(r"[^\w.-]", "_", name)


def _noted(path: Path) -> set[tuple[str, Any]]:
    """Tasks and documents that the table has a line of."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
    told = (json.loads(line) for line in lines if line.strip())
    return {(each["task"], each["doc_id"]) for each in told}
