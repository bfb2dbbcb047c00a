"""Audits: scheduled on a scripted engine with a clock of its own, and in a real server."""

import asyncio
import json
import os
import time
from dataclasses import asdict, replace

import pytest
import torch
from conftest import picture
from server_process import eventually, question, running
from streams import random_estimator

import eyeline
from eyeline import audit
from eyeline.ablation import ablate, hidden_patches
from eyeline.errors import EyelineError
from eyeline.estimator_files import save_estimator
from eyeline.events import Done, ImageInfo, SpanAttribution, Start
from eyeline.game import Game
from eyeline.images import open_image
from eyeline.kept_games import Games
from eyeline.runs import keep
from eyeline.server.asking import Desk
from eyeline.server.auditing import BATCH_S, Auditor
from eyeline.server.counters import Counters
from eyeline.server.engine import About, Engine, EngineDiedError, Worker
from eyeline.server.line import Line
from eyeline.server.request import ChatRequest
from eyeline.server.safety import Settings
from eyeline.server.serving import serve
from eyeline.server.store import Store

REGIONS, SPANS = 6, 3


class Clocked(Engine):
    """An engine whose passes take some time each on a clock of its own; it notes which subsets it was asked for, and when."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now, self.calls = seconds, 0.0, []
        self.about = About("tiny", "mine", "nats", 1000, "pixels", "f" * 64)
        self.meanwhile = lambda: None

    async def call(self, op, **asked):
        assert op == "measure"
        began = self.now
        self.now += self.seconds * (1 + len(asked["subsets"]))
        self.calls.append((began, self.now, asked["folder"], len(asked["subsets"])))
        self.meanwhile()
        tokens = len(asked["token_ids"]) - asked["start"]
        return {
            "log_probs": [-1.0] * tokens,
            "falls": [[float(sum(some))] * tokens for some in asked["subsets"]],
        }

    async def sleep(self, seconds):
        self.now += seconds
        await asyncio.sleep(0)


def a_run(store, number):
    """A saved run of SPANS spans of two tokens."""
    run = f"run-{number:024d}"
    writer = store.prepare(run, [picture()], "What?")
    log = store.add(run, writer, "tiny", {"messages": [], "options": {}, "hidden": None}, saved=True)
    log.write(Start("0", "tiny", "mine", "nats", (ImageInfo(96, 64, 2, 3),), (((0, 1, 2), (3, 4, 5)),)))
    games, zeros = Games(), (0.0,) * REGIONS
    for span in range(SPANS):
        none = torch.zeros(2, 0)
        games.add(
            2 * span, Game(torch.rand(2, REGIONS), torch.zeros(2, 0, REGIONS), none, none, torch.zeros(2))
        )
        pairs = ((0.0, 0.0),) * REGIONS
        log.write(SpanAttribution(
            span, "answer", 2 * span, 2 * span + 2, "ab", zeros, pairs, zeros, pairs, (), (), None, 1.0, -1.0, False, 0.1
        ))  # fmt: skip
    done = Done("ab", 3, 2 * SPANS, 1.0, 0.0, "eos")
    log.write(done)
    log.close()
    keep(store.folder / run, games, list(range(2 * SPANS)), {})
    store.finish(run, done, list(range(2 * SPANS)))
    return store.get(run)


def audit_with(tmp_path, seconds, share, scenario):
    async def play():
        store, engine = Store(tmp_path), Clocked(seconds)
        desk = Desk(engine, store, Line(8), Settings(tmp_path), Counters())
        auditor = Auditor(desk, share, clock=lambda: engine.now, sleep=engine.sleep)
        task = asyncio.create_task(auditor.work())
        try:
            return await scenario(store, desk, auditor, engine)
        finally:
            task.cancel()
            store.close()

    return asyncio.run(play())


async def until(condition):
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("did not come true")


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_no_batch_takes_long_and_all_of_them_no_more_than_their_share_of_the_time(tmp_path, share):
    async def scenario(store, desk, auditor, engine):
        auditor.take(a_run(store, 1))
        await until(lambda: auditor.record.measured == SPANS)
        assert sum(count for *_, count in engine.calls) == SPANS * audit.SUBSETS
        assert max(end - began for began, end, *_ in engine.calls) <= BATCH_S + engine.seconds + 1e-9
        busy = sum(end - began for began, end, *_ in engine.calls)
        assert auditor.seconds == pytest.approx(busy)
        assert busy <= share * engine.now + 1e-6
        assert max(count for *_, count in engine.calls) > 1  # not slower than need be

    audit_with(tmp_path, 0.05, share, scenario)


def test_a_question_that_comes_is_next_after_the_batch_that_is_on(tmp_path):
    async def scenario(store, desk, auditor, engine):
        tickets = []
        engine.meanwhile = lambda: (
            tickets.append(desk.line.enter("client")) if len(engine.calls) == 3 else None
        )
        auditor.take(a_run(store, 1))
        await until(lambda: tickets)
        await asyncio.wait_for(tickets[0].turn(), 1)
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert len(engine.calls) == 3  # nothing is measured while it is answered
        tickets[0].leave()
        await until(lambda: auditor.record.measured == SPANS)

    audit_with(tmp_path, 0.05, 1.0, scenario)


def test_the_newest_run_goes_first_and_one_that_is_deleted_gets_no_file(tmp_path):
    async def scenario(store, desk, auditor, engine):
        first, second, third = (a_run(store, number) for number in (1, 2, 3))

        def meanwhile():
            if len(engine.calls) == 2:
                auditor.take(second)
            if len(engine.calls) > 2 and third.id in engine.calls[-1][2]:
                store.discard(third.id)

        engine.meanwhile = meanwhile
        auditor.take(first)
        await until(lambda: auditor.record.measured == 2 * SPANS)
        order = list(dict.fromkeys(run for run, _ in auditor.record.spans))
        runs = [run for run, _ in auditor.record.spans]
        assert order == [first.id, second.id]
        assert runs[1 : 1 + SPANS] == [second.id] * SPANS  # after the span that was under way
        auditor.take(third)
        await until(
            lambda: not store.folder_of(third).exists() and not auditor.runs and not auditor.news.is_set()
        )
        assert not store.folder_of(third).exists()
        assert auditor.record.measured == 2 * SPANS

    audit_with(tmp_path, 0.05, 1.0, scenario)


@pytest.mark.parametrize(
    "error", [KeyError("falls"), ValueError("of another shape"), EngineDiedError("gone")]
)
def test_a_run_that_cannot_be_measured_keeps_no_other_from_it(tmp_path, caplog, error):
    async def scenario(store, desk, auditor, engine):
        first, second = a_run(store, 1), a_run(store, 2)

        def meanwhile():
            if second.id in engine.calls[-1][2]:
                raise error

        engine.meanwhile = meanwhile
        auditor.take(first)
        auditor.take(second)
        await until(lambda: auditor.record.measured == SPANS)
        assert {run for run, _ in auditor.record.spans} == {first.id}
        assert second.id in caplog.text

    audit_with(tmp_path, 0.05, 1.0, scenario)


def test_a_server_that_starts_again_goes_on_with_what_was_measured_and_measures_no_span_twice(tmp_path):
    async def scenario(store, desk, auditor, engine):
        row = a_run(store, 1)
        auditor.take(row)
        await until(lambda: auditor.record.measured == SPANS)
        again = Auditor(desk, 1.0, clock=lambda: engine.now, sleep=engine.sleep)
        assert again.record.told() == auditor.record.told()
        before = len(engine.calls)
        auditor.take(row)
        await until(lambda: not auditor.news.is_set())
        assert len(engine.calls) == before
        engine.about = replace(engine.about, fingerprint="e" * 64)
        assert Auditor(desk, 1.0).record.measured == 0  # of another model

    audit_with(tmp_path, 0.05, 1.0, scenario)


# --- with a real model's process


class Traced(Worker):
    """Notes of every job in which thread it ran, from when to when."""

    def do(self, job):
        op, began = job["op"], time.monotonic()
        super().do(job)
        with open(os.environ["EYELINE_TEST_TRACE"], "a") as file:
            import threading

            file.write(json.dumps([op, threading.get_ident(), began, time.monotonic()]) + "\n")


@pytest.fixture(scope="module")
def audited_model(model_folder, tmp_path_factory):
    """The estimator of the server's tiny model."""
    folder = tmp_path_factory.mktemp("audited") / "estimator"
    save_estimator(random_estimator(eyeline.load(model_folder), hiding="pixels"), folder)
    return folder


def test_while_a_question_is_answered_nothing_is_audited(model_folder, audited_model, tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    monkeypatch.setenv("EYELINE_TEST_TRACE", str(trace))

    async def play():
        engine = Engine(str(model_folder), audited_model, worker=Traced)
        engine.start()
        await engine.open()
        store = Store(tmp_path)
        desk = Desk(engine, store, Line(8), Settings(tmp_path), Counters())
        desk.auditor = Auditor(desk, 1.0)
        task = asyncio.create_task(desk.auditor.work())
        body = {"messages": question(), "max_tokens": 40, "temperature": 0, "eyeline": {"save": True}}
        for number in range(3):  # the later ones while the first is audited
            asking = await desk.ask(ChatRequest.model_validate(body | {"seed": number}), "client")
            await asking.over.wait()
            await until(lambda before=number: desk.auditor.record.measured > before)
        task.cancel()
        await engine.close()
        store.close()

    asyncio.run(play())
    jobs = [json.loads(line) for line in trace.read_text().splitlines()]
    asked, measured = ([job for job in jobs if job[0] == op] for op in ("ask", "measure"))
    assert len(asked) == 3
    assert len(measured) > 3
    assert len({thread for _, thread, *_ in [*asked, *measured]}) == 1
    for _, _, began, ended in asked:
        assert not any(first < ended and last > began for _, _, first, last in measured)


def test_a_server_audits_what_is_saved_and_shows_it(model_folder, audited_model, tmp_path):
    options = ("--estimator", str(audited_model), "--audit", "1")
    with running(model_folder, tmp_path, *options) as server:
        assert server.call("GET", "/v1/audit").json["on"]
        server.ask(max_tokens=30)  # which is not saved
        run = server.ask(max_tokens=30, eyeline={"save": True}).json["id"]
        folder = tmp_path / "runs" / run
        eventually(lambda: server.call("GET", "/v1/audit").json["measured"] >= 1, 60)
        told = server.call("GET", "/v1/audit").json
        assert (told["share"], told["bound"]) == (1.0, audit.LEAST)
        assert server.metric("eyeline_audit_spans") >= 1
        assert server.metric("eyeline_audit_drift") in (0, 1)
        assert server.metric("eyeline_audit_seconds_total") > 0
    path = min((folder / "audit").glob("span-*.safetensors"))
    one = audit.read(path)
    model = eyeline.load(model_folder)
    inputs = model.inputs(open_image(folder / "image-0.png"), "How many?")
    read = eyeline.runs.read_run(folder)
    labels = torch.cat([torch.tensor(grid).flatten() for grid in read.start.regions])
    ids = torch.tensor(read.trace()[0][: one.origin.end])
    found = ablate(model, inputs, ids, hidden_patches(one.subsets, labels))
    torch.testing.assert_close(one.token_falls, found.falls[:, one.origin.start :].T, atol=1e-4, rtol=1e-3)
    joint = read.joint(one.origin.span, one.subsets[0].nonzero()[:, 0].tolist())
    assert float(one.game(one.subsets[:1].T.float())[0]) == pytest.approx(joint.fall, abs=1e-4)
    assert asdict(one.origin)["estimator"] == "random"


def test_without_an_estimator_there_is_nothing_to_audit(model_folder, tmp_path):
    with pytest.raises(EyelineError, match="There is nothing to audit"):
        serve(Settings(tmp_path, port=1 + 2**15), str(model_folder), "attention", audit=0.2)
