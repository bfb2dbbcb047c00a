"""Earlier text hidden from one span's queries, against whole passes with a mask of every row."""

import pytest
import torch
from conftest import picture, tiny_model
from test_features import trace_of

from eyeline.errors import UnsupportedModelError
from eyeline.spans import Span
from eyeline.teacher_forcing import read, see, teacher_force, trace_log_probs
from eyeline.text_ablation import hide_text, of_spans

SPAN = Span(2, "answer", 4, 7, "x", False)


@torch.inference_mode()
def slow_falls(model, inputs, ids, span, hidden):
    """One pass over everything for each subset, with a mask over all rows and columns."""
    trace = teacher_force(model, inputs, ids)
    vision = see(model, trace, trace.pixel_values[None])
    length = trace.ids.shape[1]
    found = []
    for subset in [torch.zeros_like(hidden[0]), *hidden]:
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        for row in range(trace.prompt_length - 1 + span.start, trace.prompt_length - 1 + span.end):
            for token in subset.nonzero()[:, 0].tolist():
                if row < length and trace.prompt_length + token != row:
                    allowed[row, trace.prompt_length + token] = False
        mask = torch.zeros(length, length).masked_fill(~allowed, torch.finfo(torch.float32).min)
        states, _ = read(model, trace, vision, 1, attention_mask=mask[None, None], use_cache=False)
        log_probs = trace_log_probs(model, states[:, length - len(ids) :], ids)[0]
        found.append(log_probs[span.start : span.end])
    return torch.stack([found[0] - each for each in found[1:]])


def test_falls_are_those_of_whole_passes_whose_mask_hides_the_text_from_the_span_alone(tiny):
    inputs, ids = tiny.inputs(picture(), "How many?"), trace_of(tiny)
    hidden = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
    expected = slow_falls(tiny, inputs, ids, SPAN, hidden)
    found = hide_text(tiny, inputs, ids, SPAN, hidden)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(
        hide_text(tiny, inputs, ids, SPAN, hidden, rows=2), found, rtol=1e-3, atol=1e-4
    )
    assert hide_text(tiny, inputs, ids, SPAN, torch.zeros(1, 4, dtype=torch.bool)).abs().max() < 1e-4


def test_subsets_of_spans_are_those_of_their_tokens():
    spans = [Span(0, "thinking", 0, 2, "a", False), Span(1, "thinking", 2, 3, "b", False)]
    found = of_spans(torch.tensor([[True, False], [False, True]]), spans, 4)
    assert found.int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 0]]


def test_a_model_whose_mask_cannot_be_set_is_refused(monkeypatch):
    model = tiny_model("qwen2_5_vl")
    monkeypatch.setattr("eyeline.text_ablation.kernel_without_mask", lambda _: "flash_attention_2")
    with pytest.raises(UnsupportedModelError, match="load it with attn_implementation=sdpa"):
        hide_text(model, model.inputs(picture(), "?"), trace_of(model), SPAN, torch.ones(1, 4).bool())
