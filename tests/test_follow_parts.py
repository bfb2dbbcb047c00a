"""The proxy's parts by themselves: whatever the pieces, bytes stay what they were; whatever the form, fields come out alone."""

import base64
import io
import json
from itertools import pairwise

import pytest
from conftest import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripted_upstream import Script
from scripted_upstream import Upstream as Written
from server_process import free_port

from eyeline.errors import EyelineError
from eyeline.proxy.events_of_bytes import Splitter, data_of
from eyeline.proxy.fixed_size import fixed_size
from eyeline.proxy.forwarding import plain_size
from eyeline.proxy.servers import Account
from eyeline.proxy.surgery import put_in, take_out
from eyeline.proxy.tiers import TIERS, difference
from eyeline.proxy.upstream import Upstream, find
from eyeline.vocabulary import Vocabulary

STREAM = b': hello\n\nid: 1\ndata: {"a": 1}\n\nretry: 3\r\n\r\ndata: two\r\ndata: lines\r\n\r\ndata:bare\r\rdata: [DONE]\n\nrest'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_a_stream_is_cut(places):
    cuts = [0, *sorted(places), len(STREAM)]
    splitter = Splitter()
    events = [event for a, b in pairwise(cuts) for event in splitter.feed(STREAM[a:b])]
    assert b"".join(events) + splitter.rest == STREAM
    assert splitter.rest == b"rest"
    told = [data_of(event) for event in events]
    assert [data for data in told if data is not None] == [b'{"a": 1}', b"two\nlines", b"bare", b"[DONE]"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(["a", "b", 'q"', "\u00e9", "ids", "logprobs"]), values, max_size=5)
forms = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}])


@given(objects, st.lists(objects, max_size=3), forms, st.sampled_from([(), ("ids",), ("ids", "logprobs")]))
def test_taking_fields_out_leaves_the_text_of_an_object_without_them(top, choices, form, null):
    whole = {**top, "choices": choices, "end": 1}

    def without(fields, names):
        left = {key: value for key, value in fields.items() if key not in names or key in null}
        return {key: None if key in names else value for key, value in left.items()}

    cut = take_out(json.dumps(whole, **form), {"ids"}, {"ids", "logprobs"}, null)
    expected = {
        **without(whole, {"ids"}),
        "choices": [without(each, {"ids", "logprobs"}) for each in choices],
    }
    assert json.loads(cut) == expected
    if form != {"indent": 2}:  # what is left of an emptied object keeps its line breaks
        assert cut == json.dumps(expected, **form)


def test_a_field_is_put_in_the_first_message_at_its_end_or_in_place_of_its_namesake():
    text = '{"choices": [{"message": {"content": "}"} , "i": 0}, {"message": {}}]}'
    assert put_in(text, "own", "[1]") == text.replace('"}"}', '"}","own":[1]}', 1)
    assert (
        put_in('{"choices":[{"message":{"own":2}}]}', "own", "[1]") == '{"choices":[{"message":{"own":[1]}}]}'
    )
    assert put_in('{"choices":[{"message":{}}]}', "own", "1") == '{"choices":[{"message":{"own":1}}]}'
    assert put_in('{"error": 1}', "own", "1") == '{"error": 1}'


TEXT = "A bar is café red.\nTwo  bars, 3 × 2!</think>There are 3 of them."


def parts_of(tier, model, vocabulary, ids):
    for start in range(0, len(ids), 3):
        some = ids[start : start + 3]
        yield {
            "ids": {"ids": some, "log_probs": None},
            "bytes": {
                "bytes": [list(vocabulary.bytes_of(each)) for each in some],
                "log_probs": [-1.0] * len(some),
            },
        }[tier]


@pytest.mark.parametrize("tier", ["ids", "bytes"])
def test_ids_come_back_from_what_a_server_tells_of_them(tier):
    model = tiny_model("qwen3_vl")
    vocabulary = Vocabulary(model.tokenizer)
    ids = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    reading = TIERS[tier](model, vocabulary, True)
    found = [each for part in parts_of(tier, model, vocabulary, ids) for each in reading.read(part).ids]
    assert found + reading.finish().ids == ids


@given(st.lists(st.integers(0, len(TEXT)), max_size=8), st.booleans())
def test_text_is_tokenized_as_a_whole_wherever_it_is_cut(places, opened):
    model = tiny_model("qwen3_vl")
    thinking, answer = TEXT.split("</think>")
    joined = thinking + answer
    reading = TIERS["text"](model, Vocabulary(model.tokenizer), opened)
    found, cuts = [], [0, *sorted(places), len(joined)]
    for a, b in pairwise(cuts):
        split = max(a, min(b, len(thinking)))
        found += reading.read({"thinking": joined[a:split], "text": joined[split:b]}).ids
    found += reading.finish().ids
    whole = TEXT if opened else "<think>" + TEXT
    assert found == model.tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_bytes_that_no_token_has_are_tokenized():
    model = tiny_model("qwen3_vl")
    reading = TIERS["bytes"](model, Vocabulary(model.tokenizer), True)
    found = reading.read({"bytes": [list(b"ab"), []], "log_probs": [-1.0, -1.0]})
    assert found.ids == model.tokenizer("ab", add_special_tokens=False)["input_ids"]
    assert found.log_probs == [None, None]


def test_the_first_id_that_differs_is_named():
    assert difference([1, 2], [1, 2]) is None
    assert "token 1 on" in difference([1, 2], [1, 3])
    assert "token 2 on (2 were read, it wrote 3)" in difference([1, 2], [1, 2, 3])


def test_a_count_of_tokens_and_an_error_of_the_server_are_kept():
    account = Account()
    account.read({"choices": [{"delta": {"content": "x"}, "token_ids": [1, 2]}]})
    account.read({"choices": [], "usage": {"completion_tokens": 3}})
    account.read({"error": {"message": "out of memory"}})
    assert (account.tier, account.told, account.expected, account.error) == ("ids", 2, 3, "out of memory")


def test_a_fixed_size_is_the_processors_own_and_stays(tiny):
    for size in ((96, 64), (101, 67), (30, 400), (640, 480)):
        found = fixed_size(tiny, size)
        assert fixed_size(tiny, found) == found
    with pytest.raises(EyelineError, match="refuses an image of 4 x 4000"):
        fixed_size(tiny, (4, 4000))


def data_url(picture: Image.Image, form: str = "PNG", **options) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(encoded.getvalue()).decode()}"


def test_a_size_is_read_only_where_every_reader_sees_the_same_pixels():
    colours = Image.new("RGB", (64, 96), (9, 30, 200))
    assert plain_size(data_url(colours)) == (64, 96)
    assert plain_size(data_url(colours, "JPEG")) is None  # decoders differ by a grey or two
    for mode in ("RGBA", "LA", "L", "P", "1"):
        assert plain_size(data_url(colours.convert(mode))) is None, mode
    assert plain_size(data_url(colours, transparency=(9, 30, 200))) is None
    turned = Image.Exif()
    turned[0x0112] = 6
    assert plain_size(data_url(colours, exif=turned)) is None
    assert plain_size(data_url(colours, save_all=True, append_images=[Image.new("RGB", (64, 96))])) is None
    for other in ("http://example.com/a.png", "data:image/png;base64,***", "data:image/png;base64,aGVsbG8="):
        assert plain_size(other) is None


def test_a_key_goes_on_only_where_that_is_meant():
    given_headers = {"Authorization": "Bearer a", "Cookie": "b", "X-Own": "c", "Accept-Encoding": "gzip"}
    plain = {"X-Own": "c", "accept-encoding": "identity"}
    assert Upstream("http://x/v1").headers(given_headers) == plain
    assert Upstream("http://x/v1", passes_key=True).headers(given_headers) == {
        "Authorization": "Bearer a",
        **plain,
    }
    assert Upstream("http://x/v1", key="k").headers(given_headers) == {**plain, "authorization": "Bearer k"}


def test_a_server_is_found_by_the_model_it_serves():
    with Written() as written:
        written.script = Script("vllm", "Qwen/Some-VL", [], [], None)
        assert find(written.url, "Qwen/Some-VL").kind.name == "vLLM"
        assert find(written.url + "/", "/models/other", served_as="Qwen/Some-VL").model == "Qwen/Some-VL"
        with pytest.raises(EyelineError, match=r"serves 'Qwen/Some-VL', not 'mini'.*--served-as"):
            find(written.url, "mini")
        written.script = Script("eyeline", "qwen3-vl-mini", [], [], None)
        assert find(written.url, "mini").kind.name == "Eyeline"
        with pytest.raises(EyelineError, match="up to /v1"):
            find(written.url.removesuffix("/v1"), "mini")
    with pytest.raises(EyelineError, match="No server can be reached"):
        find(f"http://127.0.0.1:{free_port()}/v1", "mini")
    with pytest.raises(EyelineError, match="is no address"):
        find("localhost:8000", "mini")
