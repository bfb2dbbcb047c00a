from dataclasses import replace

import pytest
import torch
from captures import generate, pad_left
from conftest import FAMILIES, build_tiny, picture, tiny_model
from torch.nn import functional

from eyeline import attention, features
from eyeline.ablation import read_trace
from eyeline.attention import Likeliest, likeliest
from eyeline.capture import AttentionCapture
from eyeline.features import KINDS
from eyeline.rereading import taken_away
from eyeline.spans import Span

QUESTION = "How many?"
PICTURES = (picture(), picture(64, 96, seed=1))
CLOSE = {"rtol": 2e-3, "atol": 2e-5}


def trace_of(model, tokens=7, seed=2):
    """Random token ids, two of which are the same."""
    ids = torch.randint(0, 200, (tokens,), generator=torch.Generator().manual_seed(seed))
    ids[-1] = ids[0]
    return ids


def slow_features(family, pictures, question, trace_ids, dtype=torch.float32, of_text=False):
    """(kind, layer, head, token, patch): loops over everything, on the attention weights of the eager model.

    `of_text`: of the trace's own tokens in the place of visual ones.
    """
    model = build_tiny(family)
    model.hf.to(dtype).float().set_attn_implementation("eager")
    inputs = model.inputs(list(pictures), question)
    length, text = inputs["input_ids"].shape[1], torch.zeros(1, len(trace_ids), dtype=torch.long)
    full = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], trace_ids[None]], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], text + 1], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], text.int()], dim=1),
    }
    norm, head = model.adapter.final_norm(model.hf), model.adapter.lm_head(model.hf)
    layers = model.adapter.layers(model.hf)
    seen = {}
    hooks = [norm.register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0][0]))]
    for number, layer in enumerate(layers):
        if (after := model.adapter.attention_norm(layer)) is not None:
            hooks.append(
                after.register_forward_pre_hook(lambda _, args, n=number: seen.update({n: args[0][0]}))
            )
    with torch.no_grad():
        output = model.hf(**full, use_cache=True, output_attentions=True)
    for hook in hooks:
        hook.remove()
    positions = (inputs["input_ids"][0] == model.adapter.image_token_id(model.hf)).nonzero()[:, 0].tolist()
    if of_text:
        positions = list(range(length, length + len(trace_ids)))
    heads, width = output.attentions[0].shape[1], seen["hidden"].shape[1]
    slow = torch.zeros(4, len(layers), heads, len(trace_ids), len(positions))
    for token, token_id in enumerate(trace_ids.tolist()):
        row = length - 1 + token
        hidden = seen["hidden"][row].detach().clone().requires_grad_()
        log_p = head(norm(hidden)).log_softmax(-1)[token_id]
        (of_odds,) = torch.autograd.grad(log_p - torch.log1p(-log_p.exp()), hidden)
        for number, layer in enumerate(layers):
            values = output.past_key_values.layers[number].values[0]  # (kv_head, position, dim)
            attention, after = model.adapter.self_attention(layer), model.adapter.attention_norm(layer)
            for which in range(heads):
                dim = values.shape[2]
                weight = attention.o_proj.weight[:, which * dim : (which + 1) * dim].detach()
                shares = output.attentions[number][0, which, row]

                def as_written(value, weight=weight, after=after, number=number, row=row):
                    written = weight @ value
                    if after is None:
                        return written
                    rms = (seen[number][row].square().sum() / width + after.variance_epsilon).sqrt()
                    return after.weight.detach() * written / rms

                whole = as_written(shares @ values[which * len(values) // heads])
                for patch, position in enumerate(positions):
                    share = shares[position]
                    written = as_written(values[which * len(values) // heads, position])
                    without = (whole - share * written) / (1 - share)
                    slow[3, number, which, token, patch] = (whole - without) @ of_odds
                    slow[0, number, which, token, patch] = share
                    slow[1, number, which, token, patch] = share * written.norm()
                    slow[2, number, which, token, patch] = share * (written @ of_odds)
    log_probs = output.logits[0, length - 1 : -1].log_softmax(-1)[torch.arange(len(trace_ids)), trace_ids]
    return slow, log_probs


def fast_features(model, trace_ids, start, end, kinds=features.KINDS, pictures=PICTURES, layers=None):
    """(feature, token, patch): each visual token a region of its own; of some layers, or all."""
    inputs = model.inputs(list(pictures), QUESTION)
    with torch.inference_mode(), AttentionCapture(model, inputs, layers=layers, outputs=True) as capture:
        read_trace(model, inputs, trace_ids)
        image = features.read_image(model, capture)
        steps = capture.take(start, end)
        likely = features.likeliest_of(model, steps)
        written = features.read_written(model, steps.hidden, likely, trace_ids[start:end])
        patches = image.norms.shape[2]
        every = torch.arange(patches)
        parts = features.own_parts(every, patches)
        seen = features.token_features(model, capture, image, steps, written, parts, kinds)
        assert seen.cells is None, "there are no weights"
        return seen.regions.permute(2, 0, 1)


def test_every_feature_equals_its_slow_definition_by_loops_and_autograd(tiny):
    trace_ids = trace_of(tiny)
    slow, _ = slow_features(tiny.adapter.family, PICTURES, QUESTION, trace_ids)
    for start, end in ((0, 7), (0, 1), (2, 6)):
        fast = fast_features(tiny, trace_ids, start, end)
        expected = slow[..., start:end, :].flatten(0, 2)
        assert all(kind.std() > 1e-3 for kind in expected.chunk(4)), (
            "every kind varies, so equality means something"
        )
        torch.testing.assert_close(fast, expected, **CLOSE)


def test_what_heads_put_out_is_summed_from_the_cache_as_models_with_sliding_windows_keep_it():
    model = build_tiny("qwen2_5_vl", use_sliding_window=True, sliding_window=4096, max_window_layers=1)
    trace_ids = trace_of(model)
    inputs = model.inputs(list(PICTURES), QUESTION)
    with torch.inference_mode(), AttentionCapture(model, inputs, outputs=True) as capture:
        read_trace(model, inputs, trace_ids)
        image, steps = features.read_image(model, capture), capture.take(2, 6)
        assert steps.outputs is not None
        every = torch.arange(image.norms.shape[2])
        parts = features.own_parts(every, len(every))
        written = features.read_written(
            model, steps.hidden, features.likeliest_of(model, steps), trace_ids[2:6]
        )
        kept, summed = (
            features.token_features(model, capture, image, each, written, parts, ("change",)).regions
            for each in (steps, replace(steps, outputs=None))
        )
    assert kept.std() > 1e-3
    torch.testing.assert_close(summed, kept, **CLOSE)


def test_padding_is_no_text_that_heads_read(tiny):
    inputs, found = tiny.inputs(picture(), QUESTION), []
    labels = torch.arange(sum(map(len, tiny.image_grids(inputs)))) % 3
    for given in (inputs, pad_left(inputs, 3, tiny.tokenizer.pad_token_id)):
        with torch.inference_mode(), AttentionCapture(tiny, given, outputs=True) as capture:
            ids = generate(tiny, given)[0, given["input_ids"].shape[1] :]
            span, parts = Span(0, "thinking", 0, 4, "a", False), features.own_parts(labels, 3)
            found.append(features.captured_features(tiny, capture, ids, [span], parts, ("change",)).features)
    assert found[0].std() > 1e-3
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_the_gradients_are_autograds_and_log_p_the_models_own(tiny):
    trace_ids = trace_of(tiny)
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    with AttentionCapture(tiny, inputs) as capture:
        read_trace(tiny, inputs, trace_ids)
    steps = capture.take(0, len(trace_ids))
    hidden = steps.hidden.clone().requires_grad_()
    norm, head = tiny.adapter.final_norm(tiny.hf), tiny.adapter.lm_head(tiny.hf)
    picked = head(norm(hidden)).log_softmax(-1).gather(1, trace_ids[:, None])
    (expected,) = torch.autograd.grad(picked.sum(), hidden)
    with torch.no_grad():
        likely = features.likeliest_of(tiny, steps)
        log_probs = features.written_log_probs(tiny, hidden, likely, trace_ids)
        written = features.read_written(tiny, hidden, likely, trace_ids)
    doubt = -torch.expm1(picked.detach())
    torch.testing.assert_close(doubt * written.odds, expected, rtol=1e-4, atol=1e-6)
    odds = features.log_odds(log_probs)
    torch.testing.assert_close(odds, (picked.detach() - doubt.log())[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_probs, picked.detach()[:, 0])
    _, slow = slow_features(tiny.adapter.family, PICTURES, QUESTION, trace_ids)
    torch.testing.assert_close(picked[:, 0].detach(), slow, rtol=1e-4, atol=1e-4)


def test_of_a_large_vocabulary_likely_entries_count_by_themselves_and_the_others_as_their_mean(tiny):
    trace_ids = trace_of(tiny)
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        read_trace(tiny, inputs, trace_ids)
        steps = capture.take(0, len(trace_ids))
        every = features.likeliest_of(tiny, steps)
        weight = tiny.adapter.lm_head(tiny.hf).weight
        probabilities = every.logits.softmax(1)
        for count in (len(weight) - 1, 5, 1):
            few = likeliest(every.logits, count)
            assert few.logits.shape == (len(trace_ids), count)
            for row, written, found in zip(
                probabilities, trace_ids, features._expected(tiny, few, trace_ids), strict=True
            ):
                kept = row.argsort(descending=True)[:count]
                kept = kept[kept != written]
                beyond = 1 - row.sort(descending=True).values[:count].sum()
                expected = (row[kept] @ weight[kept] + beyond * weight.mean(0)) / (row[kept].sum() + beyond)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        few = likeliest(every.logits, len(weight) - 1)
        ours, theirs = (
            features.read_written(tiny, steps.hidden, each, trace_ids).odds for each in (few, every)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_log_prob_of_a_written_token_is_the_models_own_whether_it_is_among_the_likeliest_or_not(tiny):
    trace_ids = trace_of(tiny)
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        read_trace(tiny, inputs, trace_ids)
        steps = capture.take(0, len(trace_ids))
        every = features.likeliest_of(tiny, steps)
        ranks = every.logits.argsort(1, descending=True).argsort(1).gather(1, trace_ids[:, None])[:, 0]
        between = int(ranks.sort().values[len(ranks) // 2])
        few = likeliest(every.logits, between)
        assert 0 < int((ranks < between).sum()) < len(ranks)
        ours = features.written_log_probs(tiny, steps.hidden, few, trace_ids)
    expected = every.logits.log_softmax(1).gather(1, trace_ids[:, None])[:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_logits_that_decoding_has_worked_out_are_not_worked_out_again(tiny, monkeypatch):
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        tiny.hf.generate(**inputs, max_new_tokens=6, do_sample=False)
        steps = capture.take(1, 6)
    again = features.likeliest_of(tiny, replace(steps, likeliest=None)).logits.detach()
    head = tiny.adapter.lm_head(tiny.hf)
    monkeypatch.setattr(type(head), "forward", lambda *_: pytest.fail("the unembedding was run again"))
    torch.testing.assert_close(features.likeliest_of(tiny, steps).logits, again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", [("attention",), ("value",), ("odds",), ("change",), ("odds", "attention")])
def test_chosen_kinds_are_the_same_rows_in_the_order_asked_for(tiny, kinds):
    trace_ids = trace_of(tiny)
    everything = dict(zip(features.KINDS, fast_features(tiny, trace_ids, 1, 5).chunk(4), strict=True))
    chosen = fast_features(tiny, trace_ids, 1, 5, kinds)
    torch.testing.assert_close(chosen, torch.cat([everything[kind] for kind in kinds]))


@pytest.mark.parametrize("layers", [[1], [0, 2]])
def test_features_of_captured_layers_are_those_of_these_layers_among_all(tiny, layers, monkeypatch):
    trace_ids = trace_of(tiny)
    every = fast_features(tiny, trace_ids, 1, 6).unflatten(0, (len(features.KINDS), 3, -1))
    for at_once in (attention.WEIGHTS_AT_ONCE, 1):
        monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", at_once)
        some = fast_features(tiny, trace_ids, 1, 6, layers=layers)
        torch.testing.assert_close(some, every[:, layers].flatten(0, 2))
        assert not torch.allclose(some, every[:, : len(layers)].flatten(0, 2), rtol=0.1)  # not just the first


@pytest.mark.parametrize("shared", [False, True])
def test_regions_and_cells_are_those_of_the_features_however_many_layers_are_read_at_once(
    tiny, shared, monkeypatch
):
    """Of regions the sums over their own tokens, or of shares in all; of each visual token by the weights of each token."""
    trace_ids, kinds = trace_of(tiny), ("odds", "value")
    weights = torch.randn(4, 24, generator=torch.Generator().manual_seed(1))
    every = fast_features(tiny, trace_ids, 2, 6, kinds)
    cells = torch.einsum("tf,ftp->tp", weights, every)
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    for at_once in (attention.WEIGHTS_AT_ONCE, 1):
        monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", at_once)
        with torch.inference_mode(), AttentionCapture(tiny, inputs, outputs=True) as capture:
            read_trace(tiny, inputs, trace_ids)
            image, steps = features.read_image(tiny, capture), capture.take(2, 6)
            likely = features.likeliest_of(tiny, steps)
            written = features.read_written(tiny, steps.hidden, likely, trace_ids[2:6])
            patches = image.norms.shape[2]
            labels = torch.arange(patches) % 3
            shares = functional.one_hot(labels, 3).T.float()
            if shared:
                shares = torch.rand(3, patches, generator=torch.Generator().manual_seed(2))
            parts = features.Parts(labels, 3, shares if shared else None, taken_away(labels, 3))
            seen = features.token_features(tiny, capture, image, steps, written, parts, kinds, weights)
        torch.testing.assert_close(seen.cells, cells, rtol=1e-3, atol=1e-5)
        expected = torch.einsum("kp,ftp->tkf", shares, every)
        torch.testing.assert_close(seen.regions, expected, rtol=1e-3, atol=1e-5)


def test_spans_are_read_one_after_the_other(tiny):
    trace_ids, labels = (
        trace_of(tiny),
        torch.arange(sum(map(len, tiny.image_grids(tiny.inputs(list(PICTURES), QUESTION))))) % 3,
    )
    inputs = tiny.inputs(list(PICTURES), QUESTION)
    spans = [Span(0, "thinking", 4, 7, "b", False), Span(1, "thinking", 0, 2, "a", False)]
    with torch.inference_mode(), AttentionCapture(tiny, inputs) as capture:
        read_trace(tiny, inputs, trace_ids)
        read = features.captured_features(
            tiny, capture, trace_ids, spans, features.own_parts(labels, 3), KINDS[:3]
        )
        steps = capture.take(0, 7)
        likely = features.likeliest_of(tiny, steps)
        log_probs = features.written_log_probs(tiny, steps.hidden, likely, trace_ids)
    whole = fast_features(tiny, trace_ids, 0, 7, KINDS[:3]).permute(1, 0, 2)
    expected = features.pool(whole, labels, 3).permute(0, 2, 1)
    torch.testing.assert_close(read.features, torch.cat([expected[4:7], expected[:2]]), rtol=1e-3, atol=1e-5)
    odds = features.log_odds(log_probs)
    torch.testing.assert_close(read.log_odds, torch.cat([odds[4:7], odds[:2]]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_gives_float32_features_close_to_those_of_its_weights_in_float32(family):
    model = build_tiny(family)
    model.hf.to(torch.bfloat16)
    trace_ids = trace_of(model)
    fast = fast_features(model, trace_ids, 0, 7)
    slow, _ = slow_features(family, PICTURES, QUESTION, trace_ids, dtype=torch.bfloat16)
    assert fast.dtype == torch.float32
    for ours, theirs in zip(fast.chunk(4), slow.flatten(0, 2).chunk(4), strict=True):
        assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.995


class Packed(torch.nn.Module):
    """Like a quantised layer: its weight is bytes in another shape."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.whole = linear.in_features, linear.weight.detach()
        self.weight = torch.nn.Parameter(torch.zeros(5, 1, dtype=torch.uint8), requires_grad=False)
        self.rows = []  # of each call

    def forward(self, states):
        self.rows.append(states.shape[-2])
        return states @ self.whole.T


class Forward(Packed):
    """One whose library has written no backward pass."""

    def forward(self, states):
        with torch.no_grad():
            return super().forward(states)


class Rounding(Packed):
    """One whose backward pass is that of rounding: nothing."""

    def forward(self, states):
        return super().forward(states).detach() + 0 * states.sum()


def packed_tiny(family, kind):
    model = build_tiny(family)
    for layer in model.adapter.layers(model.hf):
        attention = model.adapter.self_attention(layer)
        attention.o_proj = kind(attention.o_proj)
    return model, [model.adapter.self_attention(layer).o_proj for layer in model.adapter.layers(model.hf)]


def test_a_packed_output_projection_is_read_by_its_own_backward_pass(tiny):
    trace_ids = trace_of(tiny)
    model, packed = packed_tiny(tiny.adapter.family, Packed)
    expected = fast_features(tiny, trace_ids, 0, 7)
    torch.testing.assert_close(fast_features(model, trace_ids, 0, 7), expected)
    for each in packed:
        each.rows.clear()
    torch.testing.assert_close(fast_features(model, trace_ids, 2, 5), expected[:, 2:5], rtol=1e-4, atol=1e-5)
    for each in packed:
        assert max(each.rows[1:]) == 3  # after the model's own pass: the span's tokens, not every unit vector


@pytest.mark.parametrize("kind", [Forward, Rounding])
def test_a_packed_output_projection_without_a_right_backward_pass_is_read_off_unit_vectors_and_told(
    tiny, kind
):
    trace_ids = trace_of(tiny)
    model, packed = packed_tiny(tiny.adapter.family, kind)
    with pytest.warns(UserWarning, match=f"{kind.__name__} passes no gradient back"):
        found = fast_features(model, trace_ids, 0, 7)
    torch.testing.assert_close(found, fast_features(tiny, trace_ids, 0, 7))
    assert all(each.rows[-1] == each.in_features + 1 for each in packed)  # and a bias, were there one
    fast_features(model, trace_ids, 0, 7)  # told once


def test_pooling_sums_the_patches_of_each_region_and_leaves_zeros_where_there_is_none():
    columns = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 1.0, 0.0, -1.0]])
    pooled = features.pool(columns, torch.tensor([0, 3, 0, 1]), 4)
    assert pooled.tolist() == [[5.0, 8.0, 0.0, 2.0], [0.0, -1.0, 0.0, 1.0]]


def test_reading_features_leaves_the_model_alone(tiny):
    before = {name: value.clone() for name, value in tiny_model(tiny.adapter.family).hf.state_dict().items()}
    fast_features(tiny, trace_of(tiny), 0, 7)
    assert all(torch.equal(before[name], value) for name, value in tiny.hf.state_dict().items())


def test_the_gradient_of_the_odds_stays_where_the_model_is_sure():
    """Of log p nothing is left; both are compared with the logits, of which log-odds are differences."""
    model = tiny_model("qwen3_vl")
    hidden = torch.randn(1, 64, generator=torch.Generator().manual_seed(3))
    token = model.adapter.lm_head(model.hf)(model.adapter.final_norm(model.hf)(hidden)).argmax(1)
    log_probs = torch.full((1, model.hf.config.text_config.vocab_size), -40.0)
    log_probs[0, token] = -1e-9
    with torch.no_grad():
        written = features.read_written(model, hidden, Likeliest(log_probs, None, None), token)
    assert 10 < float(features.log_odds(log_probs[0, token])) < 20
    assert written.odds.isfinite().all()
    assert written.odds.norm() > 0.1
