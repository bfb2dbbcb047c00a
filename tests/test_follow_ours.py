"""Our own server followed by a copy in another process, with the embedded model: the same spans and the same numbers."""

import io
import json

import pytest
from PIL import Image
from scripted_upstream import get, post
from server_process import data_url, question, running
from streams import assert_same_spans, only

from eyeline.events import Done, Error, SpanAttribution, Text, from_json
from eyeline.server import gallery

SCENE = "{}-{}".format(*gallery.SCENES[0])


@pytest.fixture(scope="module", params=["mini", "glm4v-mini"])
def servers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    with running(request.param, folder / "writes") as writes:
        options = ("--base-url", f"{writes.url}/v1", "--linger", "120")
        with running(request.param, folder / "follows", *options, command="follow") as follows:
            yield writes, follows


def asked(**fields):
    picture = gallery.draw_png(SCENE)
    messages = question(
        gallery.scenes()[SCENE]["prompt"], data_url(Image.open(io.BytesIO(picture)).convert("RGB"))
    )
    return {"messages": messages, "temperature": 0, "max_tokens": 200, "stream": True, **fields}


def events_of(server, run):
    return [
        from_json(json.dumps(event))
        for event in json.loads(get(f"{server.url}/v1", f"/runs/{run}")[1])["events"]
    ]


def chunks_of(content):
    return [json.loads(part[6:]) for part in content.split(b"\n\n") if part.startswith(b"data: {")]


def test_a_followed_trace_has_the_spans_and_numbers_of_the_one_that_was_written(servers):
    pytest.importorskip("font_hanken_grotesk", reason="needs pip install 'eyeline[scenes]'")
    writes, follows = servers
    native = chunks_of(post(f"{writes.url}/v1", asked(eyeline={"save": True}))[2])
    ours = events_of(writes, native[0]["id"])
    _, headers, content = post(f"{follows.url}/v1", asked())
    followed = chunks_of(content)
    theirs = [from_json(json.dumps(chunk["eyeline"])) for chunk in followed if "eyeline" in chunk]
    assert theirs == events_of(follows, headers["x-eyeline-run"])
    assert len(only(SpanAttribution, ours)) > 3
    assert_same_spans(only(SpanAttribution, theirs), only(SpanAttribution, ours), tolerance=2e-2)
    assert only(Text, theirs) == only(Text, ours)
    assert not only(Error, theirs)
    done, of_ours = theirs[-1], ours[-1]
    assert isinstance(done, Done)
    for name in ("answer", "prompt_tokens", "tokens", "reason"):
        assert getattr(done, name) == getattr(of_ours, name)
    assert done.agreement.tokens == done.tokens
    assert done.agreement.worst < 1e-3
    assert theirs[0].regions == ours[0].regions
    assert [notice.kind for notice in theirs[0].notices] == ["ids-ids"]
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in followed if chunk["choices"]]
    assert "".join(deltas) == "".join(text.text for text in only(Text, ours) if text.channel == "answer")


def test_switched_off_the_client_gets_what_our_server_sends(servers):
    writes, follows = servers
    wanted = {"return_token_ids": True, "logprobs": True}

    def told(chunk):
        """But for what no two answers share."""
        event = {
            key: value for key, value in chunk.get("eyeline", {}).items() if isinstance(value, int | str)
        }
        return {**chunk, "id": 0, "created": 0, "eyeline": event}

    def texts_and_end(content):
        chunks = [told(chunk) for chunk in chunks_of(content)]
        return [chunk for chunk in chunks if chunk["eyeline"].get("event") in ("start", "text", None)]

    for fields in ({}, wanted):
        direct = texts_and_end(post(f"{writes.url}/v1", asked(**fields))[2])
        through = texts_and_end(post(f"{follows.url}/v1", asked(**fields, eyeline=False))[2])
        assert len(direct) > 10
        assert [sorted(chunk) for chunk in through] == [sorted(chunk) for chunk in direct]
        for one, other in zip(through, direct, strict=True):
            (ours,), (theirs,) = (chunk["choices"] for chunk in (one, other))
            assert (ours.pop("logprobs") is None) == (theirs.pop("logprobs") is None)  # numbers round apart
            assert ours == theirs
