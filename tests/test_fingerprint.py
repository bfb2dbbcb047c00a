import torch
from conftest import build_tiny, picture
from transformers import AutoModelForImageTextToText

from eyeline import load
from eyeline.capture import AttentionCapture
from eyeline.fingerprint import fingerprint


def test_the_fingerprint_survives_saving_in_bfloat16_and_loading_in_float32(tiny, tmp_path):
    half = build_tiny(tiny.adapter.family)
    half.hf.to(torch.bfloat16).save_pretrained(tmp_path)
    processors = (tiny.tokenizer, tiny.image_processor)
    assert fingerprint(half) == fingerprint(tiny)
    for dtype in (torch.float32, torch.bfloat16):
        again = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=dtype)
        assert again.dtype == dtype
        assert fingerprint(load((again, processors))) == fingerprint(tiny)


def test_the_fingerprint_does_not_depend_on_the_attention_kernel_or_on_a_capture(tiny):
    expected = fingerprint(tiny)
    model = build_tiny(tiny.adapter.family)
    model.hf.set_attn_implementation("eager")
    assert fingerprint(model) == expected
    with AttentionCapture(tiny, tiny.inputs(picture(), "How many?")):
        assert fingerprint(tiny) == expected
    list(tiny.stream(picture(), "How many?", max_new_tokens=2))
    assert fingerprint(tiny) == expected


def test_other_weights_or_another_configuration_have_another_fingerprint(tiny):
    family = tiny.adapter.family
    theta = build_tiny(family)
    theta.hf.config.text_config.rope_parameters["rope_theta"] = 2e4
    trained = build_tiny(family)
    with torch.no_grad():
        for weight in trained.hf.parameters():
            weight.mul_(1.01)
    others = [build_tiny(family, seed=1), build_tiny(family, rms_norm_eps=1e-3), theta, trained]
    assert len({fingerprint(model) for model in [tiny, *others]}) == 5
