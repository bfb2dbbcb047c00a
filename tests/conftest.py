"""Tiny models of the real transformers classes, one for each family, with random weights made on the spot."""

import contextlib
import functools
import inspect
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network
os.environ["EYELINE_HOME"] = os.devnull + "/none"  # nor what this user keeps

import pytest
import torch
import transformers
from hypothesis import settings
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from eyeline import Model, load

pytest_plugins = [
    "command",
    "browsing",
    "server_process",
    "hub_server",
]  # fixtures of the command line, the page, the server and the Hub
pytest.register_assert_rewrite("streams")  # whose assertions tell as much as a test's

settings.register_profile("eyeline", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("eyeline")

FAMILIES = ("qwen3_vl", "glm4v", "qwen2_5_vl")  # three architectures: what most tests run
EVERY_FAMILY = (*FAMILIES, "qwen3_vl_moe", "glm46v", "glm4v_moe")
EXACT = (  # of which every family passes the tests
    "test_adapters", "test_attention", "test_capture", "test_features", "test_ablation", "test_rereading",
    "test_stream_numbers", "test_model", "test_loading",
)  # fmt: skip
# of an estimator: a predicted value, and how far below and above it its interval ends; of effects and of contributions
SPREADS = (
    torch.tensor([[-1.0, -0.5, 0.5], [0.0, -0.25, 0.5], [2.0, -2.0, 1.0]]),
    torch.tensor([[0.0, -0.125, 0.25], [1.0, -0.5, 0.75]]),
)
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|begin_of_image|>", "<|image|>",
    "<|end_of_image|>", "<|video|>", "<|begin_of_video|>", "<|end_of_video|>",
)  # fmt: skip
# plain tokens, as in the models: `skip_special_tokens` leaves them in the text
MARKERS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@functools.cache
def tiny_tokenizer(family: str) -> transformers.PreTrainedTokenizerFast:
    """One token a byte, then the special tokens: any text can be written and read."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKERS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|user|>" if family.startswith("glm") else "<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=GLM_TEMPLATE if family.startswith("glm") else QWEN_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def tiny_image_processor(family: str):
    """A 96 x 64 image (width x height) becomes 2 rows of 3 visual tokens."""
    if family.startswith("glm"):  # its sizes count both frames of a temporal patch
        size = {"shortest_edge": 2 * 28 * 28 * 4, "longest_edge": 2 * 28 * 28 * 40}
        return transformers.Glm4vImageProcessorPil(size=size, patch_size=14, merge_size=2)
    patch = 16 if family.startswith("qwen3_vl") else 14
    cell = (2 * patch) ** 2
    return transformers.Qwen2VLImageProcessorPil(
        size={"shortest_edge": 4 * cell, "longest_edge": 40 * cell}, patch_size=patch, merge_size=2
    )


CONFIGS = {
    "qwen3_vl": transformers.Qwen3VLConfig, "qwen3_vl_moe": transformers.Qwen3VLMoeConfig,
    "glm4v": transformers.Glm4vConfig, "glm46v": transformers.Glm46VConfig, "glm4v_moe": transformers.Glm4vMoeConfig,
}  # fmt: skip


def tiny_config(family: str, **text_options) -> transformers.PreTrainedConfig:
    """The configuration of a tiny model; `text_options` replace fields of its text part."""
    tokenizer = tiny_tokenizer(family)
    ids = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
    }  # fmt: skip
    rope: dict = {"rope_type": "default", "rope_theta": 1e4}
    vision = {"depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 64}
    tokens = {"vision_start_token_id": ids("<|vision_start|>"), "vision_end_token_id": ids("<|vision_end|>")}
    tokens |= {"image_token_id": ids("<|image_pad|>"), "video_token_id": ids("<|video_pad|>")}
    experts = {"num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16}
    if family.startswith("qwen3_vl"):
        rope |= {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
        if family == "qwen3_vl_moe":
            text |= experts | {"num_experts": 5}
        text |= {"head_dim": 16, "rope_parameters": rope} | text_options
        vision |= {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        return CONFIGS[family](text_config=text, vision_config=vision, **tokens)
    if family == "qwen2_5_vl":
        rope |= {"mrope_section": [4, 2, 2]}
        text |= {"rope_parameters": rope} | text_options
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
        return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    rope |= {"mrope_section": [2, 1, 1], "partial_rotary_factor": 0.5}
    if family == "glm4v_moe":  # the first layer is dense
        text |= experts | {"n_routed_experts": 5, "n_shared_experts": 1, "attention_bias": True}
    text |= {"rope_parameters": rope} | text_options
    vision |= {"patch_size": 14, "image_size": 112}
    tokens = {
        "image_token_id": ids("<|image|>"), "image_start_token_id": ids("<|begin_of_image|>"),
        "image_end_token_id": ids("<|end_of_image|>"), "video_token_id": ids("<|video|>"),
        "video_start_token_id": ids("<|begin_of_video|>"), "video_end_token_id": ids("<|end_of_video|>"),
    }  # fmt: skip
    return CONFIGS[family](text_config=text, vision_config=vision, **tokens)


CLASSES = {
    "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
    "glm4v": transformers.Glm4vForConditionalGeneration,
    "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl_moe": transformers.Qwen3VLMoeForConditionalGeneration,
    "glm46v": transformers.Glm46VForConditionalGeneration,
    "glm4v_moe": transformers.Glm4vMoeForConditionalGeneration,
}


def build_tiny(family: str, *, seed: int = 0, **text_options) -> Model:
    """A new tiny model in float32, `eval`; the same seed gives the same weights, wherever it is called."""
    hf = CLASSES[family](tiny_config(family, **text_options)).eval()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in hf.named_parameters():  # so wide that heads differ; biases and norms not trivial
            noise = torch.randn(weight.shape, generator=rng)
            if weight.ndim > 1:  # experts stand one after the other
                width = weight.shape[-1] if weight.ndim == 3 else weight[0].numel()
                weight.copy_(noise * 1.5 * width**-0.5)
            else:
                weight.copy_(0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise)
        never = [hf.config.text_config.eos_token_id, hf.config.image_token_id, hf.config.video_token_id]
        hf.lm_head.weight[never] = 0.0  # greedy generation runs to max_new_tokens
    hf.generation_config.pad_token_id = hf.config.text_config.pad_token_id
    hf.generation_config.eos_token_id = hf.config.text_config.eos_token_id
    return load((hf, (tiny_tokenizer(family), tiny_image_processor(family))))


# what models call their cache: transformers 5.24 has renamed it
CACHE = "cache" if "cache" in inspect.signature(CLASSES["qwen3_vl"].forward).parameters else "past_key_values"

tiny_model = functools.cache(build_tiny)  # shared over the session: leave it as it was


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Image.Image:
    """An RGB image of coloured blocks, no two alike."""
    rng = torch.Generator().manual_seed(seed)
    shape = (max(1, height // 16), max(1, width // 16), 3)
    blocks = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    return Image.fromarray(blocks.numpy()).resize((width, height), Image.Resampling.NEAREST)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tiny" in metafunc.fixturenames and not hasattr(metafunc.module, "tiny"):  # one has its own
        families = EVERY_FAMILY if metafunc.module.__name__ in EXACT else FAMILIES
        metafunc.parametrize("tiny", families, indirect=True)


@pytest.fixture
def tiny(request: pytest.FixtureRequest) -> Model:
    """A tiny model of each family in turn."""
    return tiny_model(request.param)


@pytest.fixture
def image() -> Image.Image:
    return picture()


def fill(folder: Path) -> None:
    """Writes to `folder / "filler"` until the disk takes no more."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a small file system of its own, without any room left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    fill(folder)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
