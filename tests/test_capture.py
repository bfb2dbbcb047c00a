"""The model does not notice a capture, nor do its other users, and is afterwards as it was."""

import threading
from collections import Counter

import pytest
import torch
from captures import NEW_TOKENS, QUESTION, attention_of, generate, pad_left
from conftest import build_tiny, picture
from transformers.integrations import sdpa_attention

from eyeline.capture import AttentionCapture
from eyeline.errors import UnsupportedModelError
from eyeline.kernels import KERNELS


def state(hf):
    """What a capture could leave behind."""
    configs = {
        name: getattr(hf.config, name)._attn_implementation for name in ("text_config", "vision_config")
    }
    hooks = [
        (name, len(module._forward_pre_hooks), len(module._forward_hooks))
        for name, module in hf.named_modules()
    ]
    weights = [(name, weight.data_ptr()) for name, weight in hf.named_parameters()]
    return hf.config._attn_implementation, configs, hooks, weights


@pytest.mark.parametrize("layers", [None, [1]])
@pytest.mark.parametrize("padding", [0, 5])
def test_generated_ids_and_logits_are_the_same_to_the_bit_with_and_without_capture(tiny, padding, layers):
    inputs = tiny.inputs(picture(), QUESTION)
    if padding:
        inputs = pad_left(inputs, padding, tiny.tokenizer.pad_token_id)
    options = {"tokens": 40, "output_logits": True, "return_dict_in_generate": True}
    without = generate(tiny, inputs, **options)
    with AttentionCapture(tiny, inputs, layers=layers):
        within = generate(tiny, inputs, **options)
    assert within.sequences.tolist() == without.sequences.tolist()
    assert len(set(without.sequences[0].tolist())) > 10
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(within.logits, without.logits, strict=True))


def test_sampling_with_the_same_seed_gives_the_same_ids(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    torch.manual_seed(3)
    without = tiny.hf.generate(**inputs, max_new_tokens=20, do_sample=True, temperature=1.5)
    torch.manual_seed(3)
    with AttentionCapture(tiny, inputs):
        within = tiny.hf.generate(**inputs, max_new_tokens=20, do_sample=True, temperature=1.5)
    assert within.tolist() == without.tolist()


def test_layers_that_are_not_wanted_run_as_without_capture(tiny, monkeypatch):
    ran = {"kept": Counter(), "kernel": 0, "sdpa": Counter()}
    kernel, keep, sdpa = KERNELS["cpu"], AttentionCapture.keep, sdpa_attention.sdpa_attention_forward

    def counted_kernel(*args):
        ran["kernel"] += 1
        return kernel(*args)

    def counted_keep(self, query, *args):
        ran["kept"][query.shape[2]] += 1  # by rows
        keep(self, query, *args)

    def counted_sdpa(module, *args, **options):
        ran["sdpa"][module.layer_idx] += 1
        return sdpa(module, *args, **options)

    monkeypatch.setitem(KERNELS, "cpu", counted_kernel)
    monkeypatch.setattr(AttentionCapture, "keep", counted_keep)
    monkeypatch.setattr(sdpa_attention, "sdpa_attention_forward", counted_sdpa)
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs, layers=[1]):
        generate(tiny, inputs)
    assert ran == {
        "kept": {inputs["input_ids"].shape[1]: 1, 1: NEW_TOKENS - 1},
        "kernel": NEW_TOKENS, "sdpa": {0: NEW_TOKENS, 2: NEW_TOKENS},
    }  # fmt: skip


def test_the_model_is_as_it_was_after_the_block(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    before = state(tiny.hf)
    with AttentionCapture(tiny, inputs):
        assert state(tiny.hf) != before
        assert tiny.hf.config.vision_config._attn_implementation == "sdpa"
        generate(tiny, inputs, tokens=2)
    assert state(tiny.hf) == before


def test_the_model_is_as_it_was_after_an_exception_in_the_block_in_a_pass_and_on_the_way_in(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    before = state(tiny.hf)
    with pytest.raises(KeyboardInterrupt), AttentionCapture(tiny, inputs):
        raise KeyboardInterrupt
    assert state(tiny.hf) == before

    def fail(*_):
        raise RuntimeError("inside a layer")

    hook = tiny.adapter.layers(tiny.hf)[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="inside a layer"), AttentionCapture(tiny, inputs):
        generate(tiny, inputs)
    hook.remove()
    assert state(tiny.hf) == before

    with AttentionCapture(tiny, inputs):
        within = state(tiny.hf)
        with pytest.raises(UnsupportedModelError, match="already captures"), AttentionCapture(tiny, inputs):
            pass
        assert state(tiny.hf) == within, "the first capture goes on"
    assert state(tiny.hf) == before


def test_another_implementation_of_the_users_is_put_back(tiny):
    model = build_tiny(tiny.adapter.family)
    model.hf.set_attn_implementation("eager")
    inputs = model.inputs(picture(), QUESTION)
    before = state(model.hf)
    with AttentionCapture(model, inputs) as capture:
        ids = generate(model, inputs)
    assert state(model.hf) == before
    assert ids.tolist() == generate(model, inputs).tolist()
    assert capture.num_tokens == NEW_TOKENS


def test_two_threads_capture_the_same_model_at_once(tiny):
    before = state(tiny.hf)
    prompts = [tiny.inputs(picture(seed=seed), f"{QUESTION} {'Please. ' * seed}") for seed in range(2)]
    alone = []
    for inputs in prompts:
        with AttentionCapture(tiny, inputs) as capture:
            ids = generate(tiny, inputs, tokens=40)
        alone.append((ids, attention_of(capture, capture.take(0, 40))))

    together: dict[int, tuple] = {}
    both_inside = threading.Barrier(2, timeout=60)

    def run(index):
        with AttentionCapture(tiny, prompts[index]) as capture:
            both_inside.wait()
            ids = generate(tiny, prompts[index], tokens=40)
        together[index] = (ids, attention_of(capture, capture.take(0, 40)))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(tiny.hf) == before
    for index, (ids, attention) in enumerate(alone):
        assert together[index][0].tolist() == ids.tolist()
        torch.testing.assert_close(together[index][1], attention)


def test_the_last_capture_to_leave_puts_the_model_back_whatever_the_order(tiny):
    before = state(tiny.hf)
    inputs = tiny.inputs(picture(), QUESTION)
    first_open, second_open, first_closed = (threading.Event() for _ in range(3))
    seen = {}

    def other():
        first_open.wait(60)
        with AttentionCapture(tiny, inputs) as capture:
            second_open.set()
            first_closed.wait(60)
            seen["ids"] = generate(tiny, inputs)
            seen["tokens"] = capture.num_tokens

    thread = threading.Thread(target=other)
    thread.start()
    with AttentionCapture(tiny, inputs):
        first_open.set()
        assert second_open.wait(60)
    first_closed.set()
    thread.join()
    assert seen["tokens"] == NEW_TOKENS
    assert seen["ids"].tolist() == generate(tiny, inputs).tolist()
    assert state(tiny.hf) == before


def test_passes_of_another_thread_are_not_recorded(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        thread = threading.Thread(target=lambda: generate(tiny, inputs, tokens=5))
        thread.start()
        thread.join()
        assert capture.num_tokens == 0
        assert capture.pending_bytes == 0
        assert capture.vision_features is None
        generate(tiny, inputs, tokens=3)
    assert capture.num_tokens == 3


def test_beams_a_second_generation_and_batches_are_refused(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with pytest.raises(UnsupportedModelError, match="2 sequences"), AttentionCapture(tiny, inputs):
        generate(tiny, inputs, num_beams=2)
    with AttentionCapture(tiny, inputs):
        generate(tiny, inputs, tokens=2)
        with pytest.raises(UnsupportedModelError, match="one generation at a time"):
            generate(tiny, inputs, tokens=2)
    batch = {name: torch.cat([tensor, tensor]) for name, tensor in inputs.items()}
    with pytest.raises(UnsupportedModelError, match="not a batch of 2"):
        AttentionCapture(tiny, batch)
