"""Spans of OpenTelemetry, as its own exporter in memory gets them."""

import asyncio
from dataclasses import replace

import pytest
from test_server_restart import DONE, EVENTS, Scripted, attempt, converse

from eyeline.events import RestsOn, SpanAttribution
from eyeline.runs import EVENTS as EVENTS_FILE
from eyeline.server import telemetry

pytest.importorskip("opentelemetry.sdk", reason="needs pip install opentelemetry-sdk")


class DoneError(Exception):
    """Nothing more is to be seen of a conversation."""


RESTS = RestsOn((0.5, 0.25), 0.75, (1.0, 2.0), (0.0, 0.0), ())


@pytest.fixture
def exported(monkeypatch):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry.trace, "get_tracer", provider.get_tracer)
    return exporter


def test_each_answer_is_a_span_with_its_visual_reliance_and_without_its_words(tmp_path, exported):
    falls = iter((1.0, 2.0, 6.0))
    events = [
        replace(each, whole_image=next(falls)) if isinstance(each, SpanAttribution) else each
        for each in EVENTS
    ]
    _, _, row = converse(tmp_path, lambda: Scripted(attempt([*events, replace(DONE, rests_on=RESTS)])))
    (span,) = exported.get_finished_spans()
    assert span.name == "chat scripted"
    about = dict(span.attributes)
    assert about.pop("gen_ai.request.seed") == row.question["options"]["seed"]
    assert about == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "eyeline", "gen_ai.request.model": "scripted",
        "gen_ai.response.model": "scripted", "gen_ai.response.id": row.id, "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 6,
        "gen_ai.request.max_tokens": 1000 - 3,  # what the context leaves
    }  # fmt: skip
    assert {event.name for event in span.events} == {"gen_ai.evaluation.result"}
    scores = {event.attributes["gen_ai.evaluation.name"]: event.attributes for event in span.events}
    assert scores["visual_reliance"]["gen_ai.evaluation.score.value"] == 3.0
    assert scores["visual_reliance.answer"]["gen_ai.evaluation.score.value"] == 0.75
    assert all(each["gen_ai.response.id"] == row.id for each in scores.values())
    assert "w0" not in span.to_json()


def test_an_answer_whose_run_is_gone_ends_all_the_same(tmp_path, exported):
    async def lose(desk, asking):
        (desk.store.folder_of(asking.row) / EVENTS_FILE).unlink()
        await asyncio.wait_for(asking.over.wait(), 10)
        raise DoneError

    with pytest.raises(DoneError):
        converse(tmp_path, lambda: Scripted(attempt()), lose)


def test_an_answer_that_fails_is_a_span_with_an_error_and_one_without_numbers_has_no_evaluation(
    tmp_path, exported
):
    converse(tmp_path / "died", lambda: Scripted(*[attempt(dies_after=3) for _ in range(3)]))
    converse(tmp_path / "fine", lambda: Scripted(attempt()))
    failed, fine = exported.get_finished_spans()
    assert (failed.attributes["error.type"], failed.status.is_ok) == ("error", False)
    assert (fine.status.is_ok, fine.events) == (True, ())


def test_without_opentelemetry_an_answer_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "trace", None)
    chunks, _, row = converse(tmp_path, lambda: Scripted(attempt()))
    assert (chunks[-1], row.reason) == ("[DONE]", "eos")
    assert not telemetry.Telling("scripted", "run-0", {}).heard
