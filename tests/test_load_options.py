"""What may be asked of loading: decided in one place, and refused in a sentence."""

import json
import re

import pytest
import torch
from command import refuse, succeed
from conftest import build_tiny, picture, tiny_config
from test_loading import save

from eyeline import load, load_options
from eyeline.adapters import ADAPTERS
from eyeline.errors import EyelineError, UnsupportedModelError
from eyeline.fingerprint import fingerprint
from eyeline.load_options import LoadOptions, place

SIZES = {"intermediate_size": 128}  # of which libraries make blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(build_tiny("qwen3_vl", **SIZES), tmp_path_factory.mktemp("models") / "model", torch.bfloat16)


def logits(model):
    with torch.inference_mode():
        return model.hf(**model.inputs(picture(), "What?")).logits[0, -1].float()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:0"}, r"'cuda:0' is not there: torch .* sees no CUDA device; give --device cpu"),
        ({"device": "mps"}, "'mps' is not there"),
        ({"device": "toaster"}, "'toaster' is no device; expected cpu, cuda"),
        ({"dtype": "int3"}, "'int3' is no dtype to run a model in; expected one of float32, bfloat16, float16"),
        ({"dtype": torch.int8}, "is no dtype to run a model in"),
        ({"device": "cpu", "device_map": "auto"}, "both given; expected one of them"),
        ({"quantize": 3}, "Weights of 3 bits cannot be made; expected 4 or 8"),
        ({"revision": "v2"}, "A revision .'v2'. is of a model on the Hub, and .* is a folder; leave it out"),
        ({"adapter": "nobody/no-such-lora"}, "nobody/no-such-lora|An adapter needs peft"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_sentence(folder, options, message):
    if options.get("device") == "cuda:0" and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(EyelineError, match=message) as caught:
        load(folder, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "packages"),
    [
        ({"device_map": "auto"}, "accelerate"),
        ({"quantize": 4}, "bitsandbytes accelerate"),
        ({"quantize": 8}, "torchao accelerate"),
        ({"adapter": "some/lora"}, "peft"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(folder, monkeypatch, options, packages):
    monkeypatch.setattr(load_options, "installed", lambda package: None)
    with pytest.raises(EyelineError, match=f"not installed; run: pip install {packages}$"):
        load(folder, **options)


def test_the_command_line_refuses_in_the_same_words(here):
    said = refuse("stream", "a.png", "What?", "--model", "model", "--device", "toaster")
    assert "'toaster' is no device; expected cpu, cuda" in said
    assert "is a folder" in refuse("stream", "a.png", "What?", "--model", "model", "--revision", "v2")


def test_the_command_line_loads_as_it_is_told(here):
    words = ("stream", "a.png", "What?", "--model", "model", "--max-new-tokens", 3, "--json")
    plain, half = succeed(*words).stdout, succeed(*words, "--dtype", "bfloat16", "--device", "cpu").stdout
    assert plain != half, "probabilities are rounded otherwise"


def test_left_alone_a_model_runs_in_float32_on_a_cpu_and_as_it_was_saved_elsewhere(monkeypatch):
    assert place(LoadOptions(device="cpu")).dtype == torch.float32
    assert place(LoadOptions(device="cpu", dtype="bfloat16")).dtype == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place(LoadOptions()) == load_options.Placement(torch.device("cuda"), None, None, None)
    assert place(LoadOptions(device="cuda:1")).for_transformers() == {"dtype": "auto"}
    with pytest.raises(EyelineError, match=r"'cuda:2' is not there: torch .* sees 2 CUDA devices"):
        place(LoadOptions(device="cuda:2"))


def test_names_of_dtypes_are_those_of_torch(folder):
    for name, dtype in load_options.DTYPES.items():
        assert load(folder, dtype=name).hf.dtype == load(folder, dtype=dtype).hf.dtype == dtype


def test_a_model_in_memory_takes_device_and_dtype_alone():
    tiny = build_tiny("qwen3_vl")
    parts = (tiny.hf, (tiny.tokenizer, tiny.image_processor))
    assert load(parts, dtype="bfloat16", device="cpu").hf.dtype == torch.bfloat16
    with pytest.raises(EyelineError, match="so quantize, revision cannot be chosen for it"):
        load(parts, quantize=4, revision="v2")


def test_weights_that_are_quantised_already_are_not_quantised_again(monkeypatch):
    class Config:
        quantization_config = {"quant_method": "awq"}  # noqa: RUF012

    with pytest.raises(UnsupportedModelError, match="quantised already"):
        place(LoadOptions(quantize=4), Config())


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe"])
def test_experts_that_libraries_would_leave_whole_are_not_said_to_be_quantised(family):
    with pytest.raises(UnsupportedModelError, match="experts share one weight"):
        place(LoadOptions(quantize=4), tiny_config(family))
    assert place(LoadOptions(), tiny_config(family)).quantisation is None


def test_a_device_map_is_a_strategy_or_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(load_options, "installed", lambda package: "1.0")
    assert place(LoadOptions(device_map="auto")).for_transformers() == {"dtype": "auto", "device_map": "auto"}
    (tmp_path / "map.json").write_text('{"model.visual": "cpu", "": "disk"}')
    assert place(LoadOptions(device_map=str(tmp_path / "map.json"))).device_map == {
        "model.visual": "cpu",
        "": "disk",
    }
    (tmp_path / "map.json").write_text('["cpu"]')
    for wrong in (str(tmp_path / "map.json"), "sideways"):
        with pytest.raises(
            EyelineError, match="expected auto, balanced, balanced_low_0, sequential, or a JSON file"
        ):
            place(LoadOptions(device_map=wrong))


def test_code_that_comes_with_a_model_is_run_only_if_the_user_says_so(tmp_path):
    folder = save(build_tiny("qwen3_vl"), tmp_path / "model")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    config |= {"image_processor_type": "Theirs", "auto_map": {"AutoImageProcessor": "theirs.Theirs"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(
        "import pathlib\npathlib.Path(__file__)\nprint('their code runs')\n"
        "from transformers import Qwen2VLImageProcessorPil\nclass Theirs(Qwen2VLImageProcessorPil): pass\n"
    )
    with pytest.raises(UnsupportedModelError, match=r"brings code of its own.*--trust-remote-code"):
        load(folder)
    assert type(load(folder, trust_remote_code=True).image_processor).__name__ == "Theirs"


def lora_of(model, folder, **options):
    """A LoRA of random weights, saved; and what the model computes with it."""
    peft = pytest.importorskip("peft", reason="needs pip install peft")
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False, **options
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model.hf, config)
    adapted.save_pretrained(folder)
    return adapted.eval()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_an_adapter_is_merged_into_the_weights_and_makes_another_model_of_it(folder, tmp_path):
    base = load(folder)
    before, known = logits(base), fingerprint(base)
    lora_of(base, tmp_path / "lora")
    expected = logits(load((base.hf, (base.tokenizer, base.image_processor))))
    model = load(folder, adapter=tmp_path / "lora")
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    assert (expected - before).abs().max() > 0.1
    assert not [name for name, _ in model.hf.named_modules() if "lora" in name]
    assert str(tmp_path / "lora") in model.name
    assert fingerprint(model) != known


def test_what_is_no_lora_of_the_model_is_refused_in_a_sentence(folder, tmp_path):
    pytest.importorskip("peft", reason="needs pip install peft")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EyelineError, match=r"no adapter_config.json; expected a LoRA that peft has saved"
    ) as caught:
        load(folder, adapter=tmp_path / "empty")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bits", "near"), [(4, 0.7), (8, 0.99)])
@pytest.mark.parametrize("library", ["bitsandbytes", "torchao"])
def test_a_quantised_model_answers_nearly_as_its_whole_weights_and_keeps_its_vision_tower(
    folder, monkeypatch, bits, near, library
):
    for package in (library, "accelerate"):
        pytest.importorskip(package, reason=f"needs pip install {package}")
    monkeypatch.setitem(load_options.BITS, bits, (library,))
    whole, model = load(folder), load(folder, quantize=bits, device="cpu")
    linears = {
        name: type(m.weight).__name__ for name, m in model.hf.named_modules() if hasattr(m, "in_features")
    }
    packed = {name for name, kind in linears.items() if kind != "Parameter"}
    assert packed
    assert not [name for name in packed if not name.startswith("model.language_model.layers")]
    together = torch.stack([logits(whole), logits(model)])
    assert torch.corrcoef(together)[0, 1] > near
    assert not torch.equal(*together)


def test_the_doctor_says_what_is_there_and_what_would_be_used():
    said = succeed("doctor").stdout
    assert torch.__version__ in said
    assert "log-sum-exp from the kernel" in " ".join(said.split()) or torch.cuda.is_available()
    assert "free memory" in said


def test_the_doctor_says_how_to_get_what_is_missing(monkeypatch):
    from eyeline import doctor

    monkeypatch.setattr(doctor, "installed", lambda package: None)
    said = " ".join(succeed("doctor").stdout.split())
    assert "pip install peft" in said.replace("│", "")
    assert "not possible yet" in said


def test_models_lists_families_and_what_is_at_hand(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "models--some--model" / "snapshots" / "abcdef0123"
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(folder)
    (tmp_path / "models--some--blind" / "snapshots" / "1").mkdir(parents=True)
    (tmp_path / "models--some--blind" / "snapshots" / "1" / "config.json").write_text(
        '{"model_type": "gpt2"}'
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    said = succeed("models").stdout
    for family in ADAPTERS:
        assert family in said
    assert "mini" in said
    assert "some/model" in said
    assert re.search(r"mini .* its own .*shipped", said)
    assert re.search(r"some/model .* general ", said)
    assert "blind" not in said
