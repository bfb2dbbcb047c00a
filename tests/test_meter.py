"""The meter against counts that are known beforehand, for every kind of method."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import picture, tiny_model

from eyeline.evaluation import meter as metering
from eyeline.evaluation.baselines import baseline
from eyeline.evaluation.baselines.gradient import differentiable, integrated_gradients
from eyeline.evaluation.meter import Meter
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import read, see, teacher_force

TRACE = torch.arange(40, 60)
SPANS = [Span(0, "thinking", 0, 8, "", False), Span(1, "thinking", 8, 15, "", False)]
REGIONS = Regions((torch.arange(6).view(2, 3),), 6)  # of the tiny image
MIB = 2**20
measures_memory = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/proc/self/clear_refs").exists(), reason="needs /proc of Linux"
)


def asked(model: Model):
    return model.inputs(picture(), "What is this?")


def attribute(model: Model, name: str, hide: str = "pixels"):
    return baseline(name, hide)(model, asked(model), TRACE, SPANS, REGIONS)


def hooks(model: Model):
    adapter = model.adapter
    return [
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for module in (adapter.text_model(model.hf), adapter.vision_tower(model.hf))
    ]


@pytest.mark.parametrize(
    ("name", "forward", "backward", "vision"),
    [
        ("random", 0, 0, 0),
        ("raw-attention", 1, 0, 1),
        ("rollout", 1, 0, 1),
        ("tam", 1, 0, 1),
        ("tam-mean", 1, 0, 1),
        ("ifr", 1, 0, 1),
        ("centre", 0, 0, 0),
        ("exhaustive", 7, 0, 7),  # the unablated row among them
        ("regression-32", 33, 0, 33),
        ("input-gradient", 1, 2, 1),
        ("attn-lrp", 1, 2, 1),
        ("cp-lrp", 1, 2, 1),
    ],
)
def test_passes_are_counted_as_each_method_needs_them(tiny, name, forward, backward, vision):
    with Meter(tiny) as meter:
        attribute(tiny, name)
    cost = meter.cost
    assert (cost.forward_passes, cost.backward_passes, cost.vision_passes) == (forward, backward, vision)
    assert cost.seconds > 0


def test_each_step_of_integrated_gradients_has_its_own_passes():
    model = tiny_model("qwen3_vl")
    with Meter(model) as meter:
        integrated_gradients(model, asked(model), TRACE, SPANS, REGIONS, steps=3)
    assert (meter.cost.forward_passes, meter.cost.backward_passes) == (3, 6)


def test_rows_that_go_on_from_a_cache_count_as_their_share(tiny):
    inputs = asked(tiny)
    length = inputs["input_ids"].shape[1] + len(TRACE) - 1
    prefix = int(tiny.image_grids(inputs)[0].positions[-1]) + 1
    with Meter(tiny) as meter:
        attribute(tiny, "exhaustive", "attention")
    assert meter.cost.forward_passes == pytest.approx((prefix + 7 * (length - prefix)) / length, rel=1e-9)
    assert meter.cost.vision_passes == 1


def test_a_generation_is_one_pass_over_what_it_wrote(tiny):
    with Meter(tiny) as meter:
        tiny.hf.generate(**asked(tiny), do_sample=False, max_new_tokens=5)
    assert (meter.cost.forward_passes, meter.cost.backward_passes, meter.cost.vision_passes) == (1, 0, 1)


def test_each_image_of_a_prompt_is_a_pass_of_the_tower(tiny):
    inputs = tiny.inputs([picture(), picture(seed=1)], "And these?")
    with Meter(tiny) as meter, torch.inference_mode():
        tiny.hf.model(**inputs)
    assert (meter.cost.forward_passes, meter.cost.vision_passes) == (1, 2)


def test_batches_of_any_gradient_count_their_rows_and_other_threads_count_too():
    model = tiny_model("qwen3_vl")
    trace = teacher_force(model, asked(model), TRACE)

    def differentiate():
        with differentiable(model):
            vision = see(model, trace, trace.pixel_values.repeat(3, 1, 1))
            features = vision.features.detach().requires_grad_()
            states, _ = read(model, trace, type(vision)(features, vision.deepstack), 3, use_cache=False)
            states.square().sum().backward()

    with Meter(model) as meter:
        thread = threading.Thread(target=differentiate)
        thread.start()
        thread.join()
    assert (meter.cost.forward_passes, meter.cost.backward_passes, meter.cost.vision_passes) == (3, 3, 3)


def test_numbers_stay_the_same_to_the_bit(tiny):
    for name in ("attn-lrp", "exhaustive"):
        alone = attribute(tiny, name)
        with Meter(tiny):
            metered = attribute(tiny, name)
        assert torch.equal(alone, metered)


def test_hooks_are_gone_after_an_exception_and_what_was_done_is_told():
    model = tiny_model("qwen3_vl")
    before = hooks(model)
    trace = teacher_force(model, asked(model), TRACE)
    kept = []

    def fail():
        vision = see(model, trace, trace.pixel_values[None])
        vision.features.requires_grad_()
        kept.append(read(model, trace, vision, 1, use_cache=False)[0])
        assert hooks(model) != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Meter(model) as meter, differentiable(model):
        fail()
    assert hooks(model) == before
    assert (meter.cost.forward_passes, meter.cost.backward_passes) == (1, 0)
    kept[0].sum().backward()  # of a pass in the block, after it
    attribute(model, "raw-attention")
    assert meter._backward == []
    assert len(meter._forward) == 1


def test_a_meter_that_cannot_begin_leaves_no_hook(monkeypatch):
    model = tiny_model("qwen3_vl")
    before = hooks(model)
    monkeypatch.setitem(metering.MEMORY, "cpu", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError), Meter(model):
        pass
    assert hooks(model) == before


@measures_memory
def test_memory_sees_the_peak_and_not_the_end():
    with Meter(tiny_model("qwen3_vl")) as meter:
        torch.ones(96 * MIB // 4)
    assert 90 * MIB < meter.cost.extra_memory_bytes < 110 * MIB
    with Meter(tiny_model("qwen3_vl")) as meter:  # an earlier peak is none of this block's
        torch.ones(MIB // 4)
    assert meter.cost.extra_memory_bytes < 10 * MIB


@measures_memory
def test_memory_that_the_allocator_held_unused_hides_nothing():
    def allocate() -> list[torch.Tensor]:
        return [torch.ones(25_000) for _ in range(480)]  # 100 KB each, of the heap

    blocks = allocate()
    kept = blocks[::48]  # between the others: keeps the heap from shrinking
    del blocks
    with Meter(tiny_model("qwen3_vl")) as meter:
        allocate()
    assert len(kept) == 10
    assert 40 * MIB < meter.cost.extra_memory_bytes < 60 * MIB


def test_memory_is_unknown_where_the_kernel_tells_none(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with Meter(tiny_model("qwen3_vl")) as meter:
        attribute(tiny_model("qwen3_vl"), "raw-attention")
    assert meter.cost.extra_memory_bytes is None
    assert meter.cost.forward_passes == 1


def test_the_clock_waits_for_the_models_devices_before_it_is_read(monkeypatch):
    class Parts:
        def parameters(self):
            yield from (
                SimpleNamespace(device=torch.device(name)) for name in ("cpu", "cuda:0", "cuda:1", "cuda:0")
            )

    called = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: called.append(device.index))
    monkeypatch.setattr(metering, "time", SimpleNamespace(perf_counter=lambda: called.append("read") or 1.5))
    assert metering.clock(replace(tiny_model("qwen3_vl"), hf=Parts())) == 1.5
    assert sorted(called[:-1]) == [0, 1]
    assert called[-1] == "read"
