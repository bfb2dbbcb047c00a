"""What a capture keeps of each token is taken and released while the model decodes."""

import threading

import pytest
import torch
from captures import NEW_TOKENS, QUESTION, attention_of, generate
from conftest import picture
from transformers import DynamicCache, Qwen3VLConfig

from benchmarks.flops import QWEN3_VL_8B, on_meta
from eyeline.capture import AttentionCapture
from eyeline.kernels import KERNELS
from eyeline.stream import PENDING_BYTES
from eyeline.teacher_forcing import cache_name


def test_a_worker_takes_and_releases_while_the_model_decodes(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs) as whole:
        generate(tiny, inputs, tokens=60)
    expected = attention_of(whole, whole.take(0, 60))
    taken, peak = [], []

    def work(capture):
        for start in range(0, 60, 4):
            while capture.num_tokens < start + 4:
                threading.Event().wait(0.001)
            steps = capture.take(start, start + 4)
            capture.release(start + 4)
            peak.append(capture.pending_bytes)
            taken.append(attention_of(capture, steps))

    with AttentionCapture(tiny, inputs) as capture:
        worker = threading.Thread(target=work, args=(capture,))
        worker.start()
        generate(tiny, inputs, tokens=60)
        worker.join()
    torch.testing.assert_close(torch.cat(taken, dim=2), expected)
    assert capture.pending_bytes == 0
    assert whole.pending_bytes > max(peak)


def test_pending_bytes_count_what_is_kept_until_it_is_released(tiny):
    inputs = tiny.inputs(picture(), QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        generate(tiny, inputs)
    steps = capture.take(0, NEW_TOKENS)
    fields = (steps.queries, steps.log_sum_exp, steps.hidden, steps.attention_rms, steps.likeliest)
    assert steps.likeliest is not None
    assert capture.pending_bytes == sum(each.nbytes for each in fields if each is not None)
    capture.release(NEW_TOKENS - 3)
    assert capture.pending_bytes == pytest.approx(
        3 / NEW_TOKENS * sum(each.nbytes for each in fields if each is not None)
    )
    with pytest.raises(ValueError, match="not all kept"):
        capture.take(0, NEW_TOKENS)
    with pytest.raises(ValueError, match="not all kept"):
        capture.take(NEW_TOKENS - 1, NEW_TOKENS + 1)
    torch.testing.assert_close(capture.take(NEW_TOKENS - 2, NEW_TOKENS).queries, steps.queries[:, :, -2:])


@pytest.mark.parametrize("layers", [[0], [0, 2]])
def test_pending_bytes_fall_with_the_layers_that_are_kept(tiny, layers):
    inputs = tiny.inputs(picture(), QUESTION)
    of_layers = []
    for wanted in (None, layers):
        with AttentionCapture(tiny, inputs, layers=wanted) as capture:
            generate(tiny, inputs)
        steps = capture.take(0, NEW_TOKENS)
        of_layers.append(capture.pending_bytes - steps.hidden.nbytes - steps.likeliest.nbytes)
    assert of_layers[1] * 3 == of_layers[0] * len(layers) > 0


def shapes_alone(query, key, value, mask, causal, scaling):
    return torch.empty_like(query), query.new_empty(query.shape[:3], dtype=torch.float32)


@torch.inference_mode()
def bytes_per_token(model, outputs, steps=3):
    """What a capture keeps of a token that a model without weights decodes: an image, then token after token."""
    text, head = model.adapter.text_model(model.hf), model.adapter.lm_head(model.hf)
    config, merge = model.adapter.text_config(model.hf), model.adapter.merge_size(model.hf)
    ids = torch.full((1, 16), model.adapter.image_token_id(model.hf))
    grid = torch.tensor([[1, 4 * merge, 4 * merge]])
    cache = DynamicCache(config=config)
    with AttentionCapture(model, {"input_ids": ids, "image_grid_thw": grid}, outputs=outputs) as capture:
        capture.image_positions = capture.image_positions.to("meta")
        for length in (16, *[1] * (steps - 1)):
            embeds = torch.empty(1, length, config.hidden_size, dtype=torch.bfloat16, device="meta")
            at = torch.zeros(3, 1, length, dtype=torch.long, device="meta")
            states = text(
                inputs_embeds=embeds, position_ids=at, **{cache_name(model): cache}
            ).last_hidden_state
            head(states[:, -1:])
        assert capture.num_tokens == steps
        return capture.pending_bytes / steps


def test_a_token_of_an_8b_model_takes_at_most_320_kb_until_it_is_read_whatever_features_are(monkeypatch):
    monkeypatch.setitem(KERNELS, "meta", shapes_alone)
    model = on_meta(Qwen3VLConfig(**QWEN3_VL_8B))
    queries, likeliest = 36 * 32 * 128 * 2, 1024 * (2 + 4) + 4
    rest = 36 * 32 * 4 + 4096 * 2  # log-sum-exp in float32, the last hidden state
    for outputs in (False, True):
        kept = bytes_per_token(model, outputs)
        assert kept == queries + rest + likeliest == 313_860 <= 320_000
        assert PENDING_BYTES / kept > 128, "the longest span"
