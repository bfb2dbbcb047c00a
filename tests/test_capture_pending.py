"""What a capture keeps of each token is taken and released while the model decodes."""

import threading

import pytest
import torch
from captures import NEW_TOKENS, QUESTION, attention_of, generate
from conftest import picture

from eyeline.capture import AttentionCapture


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
    fields = (steps.queries, steps.log_sum_exp, steps.hidden, steps.attention_rms, steps.logits)
    assert steps.logits is not None
    assert capture.pending_bytes == sum(tensor.nbytes for tensor in fields if tensor is not None)
    capture.release(NEW_TOKENS - 3)
    assert capture.pending_bytes == pytest.approx(
        3 / NEW_TOKENS * sum(t.nbytes for t in fields if t is not None)
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
        of_layers.append(capture.pending_bytes - steps.hidden.nbytes - steps.logits.nbytes)
    assert of_layers[1] * 3 == of_layers[0] * len(layers) > 0
