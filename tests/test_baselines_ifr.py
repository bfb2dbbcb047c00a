import numpy as np
import pytest
import torch
from conftest import FAMILIES, build_tiny, tiny_model
from slow_hiding import extended, trace_of
from test_baselines_gradient import CELLS, LABELS, REGIONS, question_of, spans_of

from eyeline.evaluation.baselines import ifr
from eyeline.evaluation.baselines.ifr import each_layer, flows, information_flow
from eyeline.regions import Regions
from eyeline.teacher_forcing import read, see, teacher_force


def asked(model):
    return model, question_of(model), trace_of(model), spans_of()


def watched(family):
    """What transformers works out in each layer with eager attention: of each a dictionary of arrays in float64."""
    model = build_tiny(family)
    model.hf.set_attn_implementation({"text_config": "eager"})
    layers, handles = [], []

    def keep(number, name, of):
        def hook(module, args, output):
            layers[number][name] = of(args, output).detach()[0].double().numpy()

        return hook

    for number, layer in enumerate(model.adapter.layers(model.hf)):
        layers.append({})
        parts = {
            "before": (layer.input_layernorm, lambda args, _: args[0]),
            "after": (layer.post_attention_layernorm, lambda args, _: args[0]),
            "values": (layer.self_attn.v_proj, lambda _, output: output),
            "weights": (layer.self_attn, lambda _, output: output[1]),
            "unnormed": (layer.self_attn.o_proj, lambda _, output: output),
        }
        handles += [
            module.register_forward_hook(keep(number, name, of)) for name, (module, of) in parts.items()
        ]
    _, inputs, trace_ids, _ = asked(model)
    with torch.no_grad():
        model.hf(**extended(model, inputs, trace_ids), use_cache=False)
    for handle in handles:
        handle.remove()
    return model, layers


def size(vector):
    return np.abs(vector).sum()


def slow_flow(model, layers, rows):
    """Share of each position in what the heads and the residual write to the streams of some rows; and the residual's."""
    length = len(layers[0]["before"])
    shares, kept = np.zeros(length), 0.0
    for number, seen in enumerate(layers):
        layer = model.adapter.layers(model.hf)[number]
        matrix = layer.self_attn.o_proj.weight.detach().double().numpy()
        norm = model.adapter.attention_norm(layer)
        heads = len(seen["weights"])
        dim = matrix.shape[1] // heads
        whole, stream = seen["after"][rows].sum(0), seen["before"][rows].sum(0)
        near = np.zeros((length, heads))
        for head in range(heads):
            kv = head // (heads // (seen["values"].shape[1] // dim))
            for position in range(length):
                value = seen["values"][position, kv * dim : (kv + 1) * dim]
                vector = np.zeros(len(whole))
                for row in rows:
                    written = seen["weights"][head, row, position] * (
                        matrix[:, head * dim : (head + 1) * dim] @ value
                    )
                    if norm is not None:
                        rms = np.sqrt((seen["unnormed"][row] ** 2).mean() + norm.variance_epsilon)
                        written = written / rms * norm.weight.detach().double().numpy()
                    vector += written
                near[position, head] = max(0, size(whole) - size(whole - vector))
        residual = max(0, size(whole) - size(whole - stream))
        total = near.sum() + residual
        shares += near.sum(1) / total / len(layers)
        kept += residual / total / len(layers)
    return shares, kept


@pytest.mark.parametrize("family", FAMILIES)
def test_every_share_equals_its_slow_definition(family, monkeypatch):
    monkeypatch.setattr(ifr, "AT_ONCE", 3000)  # several chunks of queries and of positions
    slow, layers = watched(family)
    model = tiny_model(family)
    trace = teacher_force(model, *asked(model)[1:3])
    with torch.inference_mode():
        found = flows(model, trace, spans_of())
    for number, span in enumerate(spans_of()):
        rows = range(trace.prompt_length - 1 + span.start, trace.prompt_length - 1 + span.end)
        (*shares, last), kept = slow_flow(slow, layers, rows)
        shares = np.array(shares)
        assert last == 0  # the trace's last token predicts nothing
        np.testing.assert_allclose(found.positions[number].numpy(), shares, rtol=2e-3, atol=2e-6)
        assert found.kept[number].item() == pytest.approx(kept, rel=1e-3)
        assert 0.01 < kept < 0.99
        assert shares[trace.patches].std() > 1e-4
    torch.testing.assert_close(
        information_flow(*asked(model), CELLS), found.positions[:, trace.patches].clone()
    )


def test_the_shares_of_all_positions_and_of_the_stream_add_up_to_one(tiny):
    with torch.inference_mode():
        found = flows(tiny, teacher_force(tiny, *asked(tiny)[1:3]), spans_of())
    torch.testing.assert_close(found.positions.sum(1) + found.kept, torch.ones(3))
    assert found.positions.min() >= 0
    assert found.kept.gt(0).all()


def test_regions_merged_have_the_sum_of_their_shares(tiny):
    cells, merged = information_flow(*asked(tiny), CELLS), information_flow(*asked(tiny), Regions(LABELS, 8))
    for region in range(7):
        torch.testing.assert_close(merged[:, region], cells[:, REGIONS.of_patch == region].sum(1))
    assert merged[:, 7].eq(0).all()


def test_later_text_changes_no_flow(tiny):
    model, inputs, trace_ids, spans = asked(tiny)
    whole = information_flow(model, inputs, trace_ids, spans, CELLS)
    cut = information_flow(model, inputs, trace_ids[: spans[1].end], spans[:2], CELLS)
    torch.testing.assert_close(cut, whole[:2], rtol=1e-3, atol=1e-6)


def state_of(model):
    modules = list(model.hf.modules())
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]
    return hooks, model.hf.config.text_config._attn_implementation


def test_the_model_computes_the_same_within_the_block_and_is_left_as_it_was(tiny):
    trace, before = teacher_force(tiny, *asked(tiny)[1:3]), state_of(tiny)
    with torch.inference_mode():
        vision = see(tiny, trace, trace.pixel_values[None])
        states = read(tiny, trace, vision, 1, use_cache=False)[0]
        with each_layer(tiny, lambda _: None):
            assert torch.equal(read(tiny, trace, vision, 1, use_cache=False)[0], states)
            assert state_of(tiny) != before

        def fail(_):
            raise KeyError("in a layer")

        with pytest.raises(KeyError, match="in a layer"), each_layer(tiny, fail):
            read(tiny, trace, vision, 1, use_cache=False)
    assert state_of(tiny) == before


def test_a_bfloat16_model_gives_float32_shares_near_its_own_in_float32(tiny):
    model = build_tiny(tiny.adapter.family)
    exact = information_flow(*asked(model), CELLS)
    model.hf.to(torch.bfloat16)
    shares = information_flow(*asked(model), CELLS)
    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares, exact, rtol=0.15, atol=2e-3)


def test_shares_can_be_used_in_autograd(tiny):
    weight = torch.ones((), requires_grad=True)
    (information_flow(*asked(tiny), CELLS) * weight).square().sum().backward()
    assert weight.grad > 0
