"""A stream leaves the model, and the threads of torch, as it found them."""

import threading

import torch
from conftest import tiny_model
from streams import QUESTION, Processor, sampled, threads_set_to
from test_features import PICTURES

from eyeline.reader import Reader


def test_threads_of_torch_are_the_same_for_the_caller_and_for_later_threads(monkeypatch):
    model, seen = tiny_model("qwen3_vl"), {}
    read = Reader.read

    def look(*args):
        seen["worker"] = torch.get_num_threads()
        return read(*args)

    def in_new_thread(name):
        thread = threading.Thread(target=lambda: seen.update({name: torch.get_num_threads()}))
        thread.start()
        thread.join()

    def while_decoding():
        seen["decoding"] = torch.get_num_threads()
        in_new_thread("started meanwhile")

    monkeypatch.setattr(Reader, "read", look)
    with threads_set_to(3):
        options = sampled(model) | {"logits_processor": [Processor(5, while_decoding)]}
        streams = [model.stream(PICTURES[0], QUESTION, **options) for _ in range(3)]
        in_new_thread("started beside streams")
        for stream in streams:
            list(stream)
        in_new_thread("started afterwards")
        assert torch.get_num_threads() == 3
    assert seen == {
        "worker": 1, "decoding": 3, "started meanwhile": 3, "started beside streams": 3, "started afterwards": 3,
    }  # fmt: skip


def test_rope_deltas_and_attention_are_left_as_they_were_also_after_two_streams(tiny):
    inner = tiny.hf.model
    before, mark = inner.rope_deltas, torch.tensor([[17]])
    inner.rope_deltas = mark
    try:
        streams = [tiny.stream(PICTURES[0], QUESTION, **sampled(tiny, tokens=tokens)) for tokens in (5, 40)]
        for stream in streams:
            list(stream)
        list(tiny.attribute(PICTURES[0], QUESTION, "A bar."))
        assert inner.rope_deltas is mark
        assert tiny.hf.config.text_config._attn_implementation == "sdpa"
        assert not tiny.hf._forward_hooks
    finally:
        inner.rope_deltas = before
