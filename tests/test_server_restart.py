"""What a client is sent when the model's process dies, or generation is ended, in the middle: a scripted model's process."""

import asyncio
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from server_process import token_ids

from eyeline.errors import EyelineError
from eyeline.events import Done, Error, ImageInfo, SpanAttribution, Start, Text, from_json, to_json
from eyeline.server import engine as engine_module
from eyeline.server.asking import DIFFERS, STOPPED, Desk
from eyeline.server.counters import Counters
from eyeline.server.engine import About, Engine, EngineDiedError, Message, Worker
from eyeline.server.line import Line
from eyeline.server.request import ChatRequest
from eyeline.server.request_error import RequestError
from eyeline.server.response import Wanted, follow, gather
from eyeline.server.safety import Settings
from eyeline.server.store import Store

START = Start("0", "scripted", None, "attention", (ImageInfo(4, 2, 1, 2),), (((0, 1),),))
IDS = [10, 11, 12, 13, 14, 15]
TEXTS = [Text("answer", f" w{number}", number, number + 1) for number in range(6)]
SPANS = [
    SpanAttribution(n, "answer", 2 * n, 2 * n + 2, f" w{2 * n} w{2 * n + 1}", (0.1, 0.2), *[None] * 7, -1.0, False, 0.1)
    for n in range(3)
]  # fmt: skip
EVENTS = [START, TEXTS[0], TEXTS[1], TEXTS[2], SPANS[0], TEXTS[3], TEXTS[4], SPANS[1], TEXTS[5], SPANS[2]]
DONE = Done("w0 w1 w2 w3 w4 w5", 3, 6, 1.0, 0.0, "eos")
DIED = object()
ABOUT = About("scripted", None, "attention", 1000, "pixels")


def attempt(events=(*EVENTS, DONE), ids=IDS, dies_after=None):
    """What the process says in one attempt. Ids run one ahead of the text, as a real process's may."""
    script, told = [], 0
    for event in events[:dies_after]:
        end = len(ids) if isinstance(event, Done) else min(len(ids), getattr(event, "end", 0) + 1)
        script.append(Message("event", {"ids": ids[told : max(told, end)]}, to_json(event).encode()))
        told = max(told, end)
    return [*script, DIED if dies_after is not None else Message("result", {"token_ids": list(ids)})]


class Scripted(Engine):
    """Stands in for the engine: each `ask` plays the next attempt; `until` holds one open until it is cancelled."""

    def __init__(self, *attempts, after_cancel=()):
        self.attempts, self.after_cancel, self.about = iter(attempts), after_cancel, ABOUT
        self.cancelled = asyncio.Event()

    def number(self):
        return 1

    async def call(self, op, **_):
        assert op == "check"
        return {"prompt_token_ids": [1, 2, 3]}

    async def stream(self, op, job=None, **_):
        for message in next(self.attempts):
            if message is DIED:
                raise EngineDiedError
            yield message
        if self.after_cancel:
            await self.cancelled.wait()
            for message in self.after_cancel:
                yield message

    async def cancel(self, job):
        self.cancelled.set()


def converse(tmp_path, engine_of, meanwhile=None):
    """Asks one question that is kept; returns its chunks, what it is without a stream, and its row."""

    async def talk():
        store = Store(tmp_path)
        desk = Desk(engine_of(), store, Line(8), Settings(tmp_path), Counters())
        body = {"messages": [{"role": "user", "content": "?"}], "eyeline": {"save": True}}
        asking = await desk.ask(ChatRequest.model_validate(body), "client")
        with desk.reading(asking):
            if meanwhile is not None:
                await meanwhile(desk, asking)
            sent = [part async for part in follow(asking, "req", 10, usage=True, wanted=Wanted(ids=True))]
            try:
                whole = await gather(asking, Wanted(ids=True))
            except RequestError as error:
                whole = error
        row = store.get(asking.row.id)
        store.close()
        return [part[6:].strip() for part in sent if part.startswith(b"data: ")], whole, row

    chunks, whole, row = asyncio.run(talk())
    return [chunk.decode() if chunk == b"[DONE]" else json.loads(chunk) for chunk in chunks], whole, row


def events_of(chunks):
    return [from_json(json.dumps(chunk["eyeline"])) for chunk in chunks if "eyeline" in chunk]


def assert_fails(chunks, whole, message, status, code):
    """No `finish_reason` anywhere; the same error object at the end of a stream and without one."""
    assert not any(choice["finish_reason"] for chunk in chunks for choice in chunk.get("choices", ()))
    assert chunks[-1]["error"] | {"message": message, "code": code} == chunks[-1]["error"]
    assert isinstance(whole, RequestError)
    assert (whole.status, whole.code, whole.message) == (status, code, message)


@pytest.mark.parametrize("dies_after", range(len(EVENTS) + 2))
def test_a_replay_of_the_same_goes_on_where_it_stopped(tmp_path, dies_after):
    rounded = [
        replace(each, log_prob=-1.0001) if isinstance(each, SpanAttribution) else each for each in EVENTS
    ]
    chunks, whole, row = converse(
        tmp_path, lambda: Scripted(attempt(dies_after=dies_after), attempt([*rounded, DONE]))
    )
    sent = events_of(chunks)
    assert [type(event) for event in sent] == [type(event) for event in (*EVENTS, DONE)]
    texts = [event for event in sent if isinstance(event, Text)]
    assert (texts, sent[-1]) == (TEXTS, DONE)
    assert chunks[-1] == "[DONE]"
    assert token_ids(chunks) == IDS
    assert (chunks[0]["prompt_token_ids"], chunks[-3]["choices"][0]["finish_reason"]) == ([1, 2, 3], "stop")
    assert whole["choices"][0]["message"]["content"] == "".join(text.text for text in TEXTS)
    assert (row.reason, row.token_ids) == ("eos", IDS)


OTHER_START = replace(START, regions=(((0, 0),),))
CHANGED = {
    "another word": [replace(each, text=" else") if each is TEXTS[1] else each for each in EVENTS],
    "another channel": [replace(each, channel="thinking") if each is TEXTS[1] else each for each in EVENTS],
    "another place": [replace(each, start=0) if each is TEXTS[1] else each for each in EVENTS],
    "other regions": [OTHER_START, *EVENTS[1:]],
    "another span": [replace(each, end=3) if each is SPANS[0] else each for each in EVENTS],
    "a span of another text": [replace(each, text="w") if each is SPANS[0] else each for each in EVENTS],
    "less": EVENTS[:4],
}
OTHERWISE = {name: attempt([*events, DONE]) for name, events in CHANGED.items()}
OTHERWISE["other ids of the same text"] = attempt(ids=[10, 99, 12, 13, 14, 15])


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_replay_of_something_else_ends_with_an_error_and_keeps_what_was_sent(tmp_path, name):
    chunks, whole, row = converse(tmp_path, lambda: Scripted(attempt(dies_after=6), OTHERWISE[name]))
    *sent, error, done = events_of(chunks)
    assert sent == EVENTS[:6]
    assert error == Error(DIFFERS)
    assert (done.reason, done.answer, done.tokens) == ("error", "w0 w1 w2 w3", 4)
    # the ids that the spans that were sent were read from
    assert (row.reason, row.token_ids) == ("error", IDS[:4])
    assert_fails(chunks, whole, DIFFERS, 500, "internal")


def test_what_was_not_sent_may_come_otherwise(tmp_path):
    later = [*EVENTS[:6], replace(TEXTS[4], text=" else"), *EVENTS[7:]]
    ids = [*IDS[:4], 98, 99]  # the first process had the fifth id, but had sent nothing of it
    chunks, _, row = converse(
        tmp_path, lambda: Scripted(attempt(dies_after=6), attempt([*later, DONE], ids=ids))
    )
    assert events_of(chunks) == [*later, DONE]
    assert (chunks[-1], row.token_ids) == ("[DONE]", ids)


def test_an_error_that_was_told_is_not_told_twice_and_a_span_that_was_lost_comes_no_more(tmp_path):
    lost = Error("Lost the attribution of span 0, generation goes on: out of memory")
    first = [lost if each is SPANS[0] else each for each in EVENTS]
    again = [*EVENTS[:4], lost, *EVENTS[4:], DONE]
    chunks, _, _ = converse(tmp_path, lambda: Scripted(attempt(first, dies_after=8), attempt(again)))
    assert events_of(chunks) == [*first, DONE]


def test_a_process_that_dies_each_time_leaves_the_ids_of_what_was_sent(tmp_path):
    chunks, whole, row = converse(
        tmp_path, lambda: Scripted(attempt(dies_after=2), attempt(dies_after=6), attempt(dies_after=4))
    )
    message = "The model's process died 3 times on this question."
    assert events_of(chunks)[:-2] == EVENTS[:6]
    assert row.token_ids == IDS[:4]
    assert_fails(chunks, whole, message, 500, "internal")


def test_generation_that_fails_is_an_error_and_no_finish_reason(tmp_path):
    failed = Error("Generation failed after 3 tokens: RuntimeError: out of memory")
    events = [*EVENTS[:4], failed, replace(DONE, reason="error")]
    chunks, whole, _ = converse(tmp_path, lambda: Scripted(attempt(events, ids=IDS[:3])))
    assert events_of(chunks) == events
    assert_fails(chunks, whole, failed.message, 500, "internal")


def ending(done, ids):
    """What is left to say of an attempt whose ids have all been told."""
    return [Message("event", {"ids": []}, to_json(done).encode()), Message("result", {"token_ids": ids})]


CANCELLED = replace(DONE, answer="w0 w1 w2", tokens=3, reason="cancelled")


async def stop(desk, asking):
    while asking.end < 3:
        await asking.log.wait(1)
    await desk.stop()


def test_a_question_that_the_servers_end_cuts_short_is_an_error_and_no_finish_reason(tmp_path):
    ended = ending(CANCELLED, IDS[:3])
    begun = attempt(EVENTS[:4], ids=IDS[:3])[:-1]
    chunks, whole, row = converse(tmp_path, lambda: Scripted(begun, after_cancel=ended), stop)
    assert events_of(chunks) == [*EVENTS[:4], Error(STOPPED), CANCELLED]
    assert (row.reason, row.token_ids) == ("cancelled", IDS[:3])
    assert_fails(chunks, whole, STOPPED, 503, "stopping")


def test_a_replay_that_is_cut_short_tells_of_all_that_was_sent(tmp_path):
    ended = ending(replace(CANCELLED, answer="w0", tokens=1), IDS[:1])
    begun = attempt(EVENTS[:2], ids=IDS[:1])[:-1]
    chunks, _, row = converse(
        tmp_path, lambda: Scripted(attempt(dies_after=6), begun, after_cancel=ended), stop
    )
    done = events_of(chunks)[-1]
    assert (done.reason, done.answer, done.tokens) == ("cancelled", "w0 w1 w2 w3", 4)
    assert row.token_ids == IDS[:4]


def test_an_answer_that_is_whole_when_the_server_ends_is_whole(tmp_path):
    last = attempt([*EVENTS[4:], DONE])
    last = [replace(each, values={"ids": IDS[4:] if n == 0 else []}) if each.kind == "event" else each
            for n, each in enumerate(last)]  # fmt: skip
    begun = attempt(EVENTS[:4])[:-1]
    chunks, whole, row = converse(tmp_path, lambda: Scripted(begun, after_cancel=last), stop)
    assert events_of(chunks) == [*EVENTS, DONE]
    assert chunks[-1] == "[DONE]"
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert row.reason == "eos"


class OnceAlive(Worker):
    """Dies on its first job, and never loads again: it says why, or dies without having read what it was told."""

    def load(self, model_id, estimator, options):
        if not Path(model_id).exists():
            Path(model_id).touch()
            return self.say("ready", **asdict(ABOUT))
        if options["says"]:
            raise EyelineError("The model is gone.")
        self.pipe.poll(20)
        os._exit(1)

    def do_ask(self, number):
        os._exit(1)


@pytest.mark.parametrize("says", [True, False])
def test_who_waits_for_a_process_that_cannot_be_started_again_is_told(tmp_path, monkeypatch, says):
    monkeypatch.setattr(engine_module, "MOST_RESTARTS", 1)

    async def talk():
        engine = Engine(str(tmp_path / "loaded"), options={"says": says}, worker=OnceAlive)
        engine.start()
        await engine.open()
        for _ in range(3):
            with pytest.raises(EngineDiedError):
                await asyncio.wait_for(engine.call("ask"), 45)
            await engine.cancel(1)
        assert not engine.alive
        await engine.close()

    asyncio.run(talk())
