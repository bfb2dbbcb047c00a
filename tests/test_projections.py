"""Attribution reads a model as it computes, whatever holds its weights: against the merged or dequantised truth."""

import copy
import threading

import pytest
import torch
from conftest import build_tiny, picture
from test_features import PICTURES, QUESTION, fast_features, trace_of
from torch import nn

from eyeline import features, load, writing
from eyeline.capture import AttentionCapture
from eyeline.errors import UnsupportedModelError
from eyeline.evaluation.baselines.ifr import information_flow
from eyeline.evaluation.baselines.tam import token_activation_map
from eyeline.fingerprint import fingerprint, is_quantised
from eyeline.projections import head_of
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.writing import output_of, writing_of

FAMILIES = ("qwen3_vl", "glm4v")  # without and with a norm after attention
CLOSE = {"rtol": 2e-3, "atol": 2e-4}
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft


def again(model):
    """The same model, loaded from memory."""
    return load((model.hf, (model.tokenizer, model.image_processor)))


def tiny_of(family):
    model = build_tiny(family, intermediate_size=128)  # of which libraries make blocks
    model.hf.requires_grad_(False)
    return model


def replace_linears(model, make, head=True):
    """Puts `make(linear)` in place of every linear layer of the language model, the head too if so."""
    for name, module in list(model.adapter.text_model(model.hf).named_modules()):
        if isinstance(module, nn.Linear):
            model.adapter.text_model(model.hf).set_submodule(name, make(module))
    if head:
        model.hf.lm_head = make(model.hf.lm_head)


class Packed(nn.Module):
    """A layer as AWQ and GPTQ have it: packed whole numbers, scales, and no `weight`; the truth is `dequantised`."""

    def __init__(self, linear):
        super().__init__()
        scales = linear.weight.detach().abs().amax(1, keepdim=True) / 7
        self.register_buffer("qweight", (linear.weight.detach() / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def dequantised(self):
        return self.qweight.float() * self.scales

    def forward(self, states):
        return nn.functional.linear(states, self.dequantised(), self.bias)


def packed(model):
    replace_linears(model, Packed)
    return Packed.dequantised


def by_torchao(model):
    quantization = pytest.importorskip("torchao.quantization", reason="needs pip install torchao")
    config = quantization.Int8WeightOnlyConfig(set_inductor_config=False)
    language = model.adapter.text_model(model.hf)
    quantization.quantize_(language, config)
    quantization.quantize_(model.hf, config, filter_fn=lambda module, name: name == "lm_head")
    return lambda module: module.weight.dequantize()


def by_bitsandbytes(model):
    bnb = pytest.importorskip("bitsandbytes", reason="needs pip install bitsandbytes")

    def make(linear):
        small = bnb.nn.Linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, torch.float32, quant_type="nf4"
        )
        small.load_state_dict(linear.state_dict())
        return small.to("cpu").eval()

    replace_linears(model, make, head=False)  # of fewer entries than its kernel wants
    return lambda module: _unpacked(bnb, module)


def _unpacked(bnb, module):
    state, weight = module.weight.quant_state, module.weight.data
    if getattr(state, "packing_format_for_cpu", False):
        weight, state = bnb.functional._convert_weight_packed_for_cpu_inverse(
            weight.clone(), copy.deepcopy(state)
        )
    return bnb.functional.dequantize_4bit(weight, state).float()


WAYS = {"AWQ-like": packed, "torchao": by_torchao, "bitsandbytes": by_bitsandbytes}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.mark.filterwarnings("ignore:.*passes no gradient back")
@pytest.mark.parametrize("way", WAYS)
def test_a_quantised_model_is_read_as_its_dequantised_weights(family, way):
    model, truth = tiny_of(family), tiny_of(family)
    known = fingerprint(truth)
    dequantised = WAYS[way](model)
    fast_features(model, trace_of(model), 0, 7)  # libraries pack again at the first pass
    theirs = dict(model.hf.named_modules())
    for name, module in truth.hf.named_modules():
        small = isinstance(module, nn.Linear) and not name.startswith("model.visual")
        if small and (name != "lm_head" or way != "bitsandbytes"):
            module.weight = nn.Parameter(dequantised(theirs[name]).clone(), requires_grad=False)
    model = again(model)
    assert is_quantised(model) or way == "AWQ-like"  # its library says so in the configuration
    assert not is_quantised(truth)
    fingerprint(model)
    assert fingerprint(truth) != known
    trace_ids = trace_of(model)
    found, expected = fast_features(model, trace_ids, 0, 7), fast_features(truth, trace_ids, 0, 7)
    loose = (
        {"rtol": 0.05, "atol": 0.05} if way == "bitsandbytes" else CLOSE
    )  # it computes in bfloat16 on some CPUs
    for kind, ours, right in zip(features.KINDS, found.chunk(4), expected.chunk(4), strict=True):
        assert torch.corrcoef(torch.stack([ours.flatten(), right.flatten()]))[0, 1] > 0.999, kind
        torch.testing.assert_close(ours, right, **loose)


def lora(model, **options):
    """Puts LoRAs of random weights beside some linear layers, the head among them; the peft model around it all."""
    peft = pytest.importorskip("peft", reason="needs pip install peft")
    torch.manual_seed(3)
    targets = ["o_proj", "v_proj", "down_proj", "lm_head"]
    return peft.get_peft_model(
        model.hf, peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **options)
    ).eval()


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"lora_dropout": 0.5}], ids=str)
def test_a_lora_that_is_not_merged_is_read_as_one_that_is(family, options):
    base = tiny_of(family)
    trace_ids = trace_of(base)
    plain = fast_features(base, trace_ids, 0, 7)
    adapted = lora(tiny_of(family), **options)
    model = load((adapted, (base.tokenizer, base.image_processor)))
    found = fast_features(model, trace_ids, 0, 7)
    merged = again(model)
    merged = load((copy.deepcopy(adapted).merge_and_unload(), (base.tokenizer, base.image_processor)))
    expected = fast_features(merged, trace_ids, 0, 7)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (plain - expected).norm() > 0.1 * expected.norm()
    assert len({fingerprint(each) for each in (base, model, merged)}) == 3


def test_weights_that_change_in_place_are_read_anew_at_the_next_image(family):
    base = tiny_of(family)
    trace_ids = trace_of(base)
    adapted = lora(tiny_of(family))
    model = load((adapted, (base.tokenizer, base.image_processor)))
    found = [fast_features(model, trace_ids, 0, 7)]
    adapted.merge_adapter()
    found.append(fast_features(model, trace_ids, 0, 7))
    adapted.unmerge_adapter()
    with adapted.disable_adapter():
        without = fast_features(model, trace_ids, 0, 7)
    torch.testing.assert_close(*found, **CLOSE)
    torch.testing.assert_close(without, fast_features(base, trace_ids, 0, 7), **CLOSE)
    assert not torch.allclose(without, found[0], rtol=0.1)


def test_plain_weights_that_change_in_place_are_read_anew_too(family):
    model, other = tiny_of(family), tiny_of(family)
    trace_ids = trace_of(model)
    fast_features(model, trace_ids, 0, 7)
    known = writing_of(model)
    assert writing_of(model, again=True) is known
    for each in (model, other):
        output = each.adapter.self_attention(each.adapter.layers(each.hf)[1]).o_proj
        output.weight.data *= 1.5
    found = fast_features(model, trace_ids, 0, 7)
    assert writing_of(model) is not known
    torch.testing.assert_close(found, fast_features(other, trace_ids, 0, 7))


def test_two_streams_that_begin_at_once_work_weights_out_once_and_know_the_same(monkeypatch):
    model, worked_out, found = tiny_of("qwen3_vl"), [], []
    both, work_out = threading.Barrier(2, timeout=60), writing._work_out
    monkeypatch.setattr(writing, "_work_out", lambda model: worked_out.append(model) or work_out(model))

    def run():
        both.wait()
        found.append(writing_of(model, again=True))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worked_out) == 1
    assert found[0] is found[1]


def test_rivals_read_what_modules_compute_too():
    base, adapted = tiny_of("glm4v"), lora(tiny_of("glm4v"))
    model = load((adapted, (base.tokenizer, base.image_processor)))
    merged = load((copy.deepcopy(adapted).merge_and_unload(), (base.tokenizer, base.image_processor)))
    trace_ids, spans = trace_of(base), [Span(0, "thinking", 0, 7, "", False)]
    regions = Regions((torch.arange(6).view(2, 3),), 6)
    for rival in (information_flow, token_activation_map):
        ours, right, plain = (
            rival(each, each.inputs(picture(), QUESTION), trace_ids, spans, regions)
            for each in (model, merged, base)
        )
        torch.testing.assert_close(ours, right, **CLOSE)
        assert not torch.allclose(plain, right, rtol=0.01)


@pytest.mark.parametrize("way", [packed, None])
def test_a_linear_layer_is_what_it_does_to_vectors(way):
    model = tiny_of("glm4v")
    if way is not None:
        way(model)
    rng = torch.Generator().manual_seed(1)
    head, output = head_of(model.hf, model.adapter), output_of(model, 2)
    assert head.is_plain == output.linear.is_plain == (way is None)
    for linear in (head, output.linear):
        weight = linear.weight()
        vectors, gradient = torch.randn(3, 64, generator=rng), torch.randn(3, len(weight), generator=rng)
        torch.testing.assert_close(linear.times(vectors), linear.module(vectors))  # there is no bias
        torch.testing.assert_close(weight, linear.module(torch.eye(64)).T)
        torch.testing.assert_close(linear.back(gradient), gradient @ weight, rtol=1e-4, atol=1e-4)
        numbers = torch.tensor([[5, 0], [5, 7], [1, 5]])
        torch.testing.assert_close(linear.rows(numbers[:, 0]), weight[numbers[:, 0]])
        shares = torch.rand(3, 2, generator=rng)
        torch.testing.assert_close(linear.mix(shares, numbers), (shares[..., None] * weight[numbers]).sum(1))


class Squared(nn.Linear):
    def forward(self, states):
        return super().forward(states).square()


class Broken(nn.Module):
    def forward(self, states):
        raise NotImplementedError("no kernel\nfor this machine")


@pytest.mark.parametrize(
    ("part", "wrong", "message"),
    [
        (
            "o_proj",
            Squared(64, 64),
            "output projection of layer 1, a Squared, does not add up what it is given",
        ),
        (
            "o_proj",
            Broken(),
            r"layer 1, a Broken, fails on 64 numbers in float32 .no kernel.; expected a linear layer",
        ),
        ("o_proj", nn.Linear(64, 64, device="meta"), "layer 1, a Linear, has no weights"),
        ("head", Broken(), "The model's head, a Broken, fails"),
        ("norm", nn.LayerNorm(64), "final norm, a LayerNorm, is not the RMS norm of its family"),
    ],
)
def test_what_cannot_be_read_is_refused_when_the_model_is_loaded(part, wrong, message):
    model = tiny_of("qwen3_vl")
    if part == "o_proj":
        model.adapter.self_attention(model.adapter.layers(model.hf)[1]).o_proj = wrong
    elif part == "head":
        model.hf.lm_head = wrong
    else:
        model.adapter.text_model(model.hf).norm = wrong
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        again(model)
    assert "\n" not in str(caught.value)


def test_loading_plain_weights_touches_none_of_them(monkeypatch):
    model = tiny_of("qwen3_vl")
    monkeypatch.setattr(nn.Linear, "forward", lambda *_: pytest.fail("a weight was read"))
    again(model)


def test_a_capture_of_an_adapted_model_changes_nothing_of_what_it_writes(family):
    base = tiny_of(family)
    model = load((lora(tiny_of(family)), (base.tokenizer, base.image_processor)))
    inputs = model.inputs(list(PICTURES), QUESTION)
    options = {"max_new_tokens": 6, "do_sample": False}
    plain = model.hf.generate(**inputs, **options)
    with AttentionCapture(model, inputs):
        assert torch.equal(model.hf.generate(**inputs, **options), plain)
