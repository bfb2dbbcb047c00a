"""The miniatures: of each the class, its traits, how it speaks, and the stages that train it. `mini.py` trains them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

from eyeline.scenes import FAMILIES
from eyeline.scenes.canvas import CELL
from eyeline.training.mini_data import DRAWN, corpus
from eyeline.training.speech import COSMOS, GLM4V, MIMO_VL, QWEN3_VL, Speech
from eyeline.training.visual_tokens import PATCH

QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
GLM_SPECIAL = (
    "<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>",
)  # fmt: skip
GLM_MARKERS = ("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>")
SHARPER = 2.0  # gains of the queries' norms
PIXELS = {"shortest_edge": 64 * CELL**2, "longest_edge": 144 * CELL**2}  # of an image


@dataclass(frozen=True)
class Stage:
    """One stage of training; rates are peak learning rates of a warm-up, hold and linear decay to zero."""

    name: str
    steps: int
    batch: int  # images
    questions: int  # of each image, in one sequence
    practice: float  # rows without images for each image: conversations about other scenes, and drills
    rate: float
    vision_rate: float  # of the vision blocks; 0 freezes them
    dense: float  # weight of the dense labels' loss
    wild: bool = False  # scenes as people photograph them
    long: float = 0.0  # share of long scenes
    manners: bool = False  # asked with the text before or after the image, with and without a system prompt
    decay: float = 0.35  # last share of the steps, over which rates fall to zero
    families: tuple[str, ...] = ()  # of scenes, where others are drawn than the miniature's


@dataclass(frozen=True)
class Mini:
    """One miniature of a published model."""

    speech: Speech
    special: tuple[str, ...]  # tokens that are left out of the text
    markers: tuple[str, ...]  # tokens that are not
    build: Callable[[PreTrainedTokenizerFast], Any]
    stages: tuple[Stage, ...]
    first: int = 0  # number of the first scene
    begins_with: str = ""  # the stage with which it begins where it starts from another model's weights
    borrow: (
        Callable[[dict[str, Tensor], Any, PreTrainedTokenizerFast, PreTrainedTokenizerFast], None] | None
    ) = None
    long_words: bool = False  # whether its tokenizer knows what long scenes say
    glm_pixels: bool = False
    families: tuple[str, ...] = DRAWN  # of scenes, as often as each is drawn


def build_tokenizer(mini: Mini, scenes: int = 600) -> PreTrainedTokenizerFast:
    """Byte-level BPE over what `scenes` of each family say; digits stay apart, words that scenes use are one token."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\n+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus(scenes, is_long=mini.long_words), trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in mini.special])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in mini.markers])
    ends = mini.speech.thought.endswith("<|im_end|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>" if ends else "<|endoftext|>", pad_token="<|endoftext|>",
        chat_template=mini.speech.template(), clean_up_tokenization_spaces=False, model_max_length=8192,
    )  # fmt: skip


def build_image_processor(mini: Mini) -> Any:
    """64 to 144 visual tokens of 32 x 32 pixels an image."""
    build: Any = Glm4vImageProcessorPil if mini.glm_pixels else Qwen2VLImageProcessor
    return build(
        size=PIXELS,
        patch_size=PATCH,
        temporal_patch_size=1,
        merge_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def _ids(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> Iterator[int]:
    for token in tokens:
        found: Any = tokenizer.convert_tokens_to_ids(token)
        yield found


def _ends(model: Any, ends: list[int] | int, pad: int) -> Any:
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = pad
    return model


def qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    pad, _, end, starts, stops, image, video = _ids(tokenizer, *QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 208, "num_hidden_layers": 6,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 8192,
            "rope_parameters": rope, "bos_token_id": None, "eos_token_id": end, "pad_token_id": pad,
        },
        vision_config={
            "depth": 5, "hidden_size": 192, "intermediate_size": 384, "num_heads": 6, "patch_size": PATCH,
            "spatial_merge_size": 2, "temporal_patch_size": 1, "out_hidden_size": 256, "num_position_embeddings": 576,
            "deepstack_visual_indexes": [3],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=starts, vision_end_token_id=stops,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        # Normed queries and keys of 32 dimensions have logits below 6, and nothing can be picked out of a few hundred tokens
        # so; the gains would grow by themselves, but in many thousand steps.
        for layer in model.model.language_model.layers:
            layer.self_attn.q_norm.weight.mul_(SHARPER)
    return _ends(model, end, pad)


def glm4v(tokenizer: PreTrainedTokenizerFast) -> Glm4vForConditionalGeneration:
    """Norm after attention and feed-forward layer, gate and up in one matrix, half of each head turned by its position."""
    names = "<|endoftext|>", "<|user|>", "<|observation|>", "</answer>"
    pad, user, observation, answered = _ids(tokenizer, *names)
    starts, stops, video_starts, video_stops, image, video = _ids(tokenizer, *GLM_SPECIAL[7:])
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 3, 3],
        "partial_rotary_factor": 0.5,
    }
    ends = [pad, user, observation, answered]
    config = Glm4vConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 256, "intermediate_size": 208, "num_hidden_layers": 6,
            "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 8192,
            "rope_parameters": rope, "eos_token_id": ends, "pad_token_id": pad,
        },
        vision_config={
            "depth": 5, "hidden_size": 192, "intermediate_size": 256, "num_heads": 6, "patch_size": PATCH,
            "spatial_merge_size": 2, "temporal_patch_size": 1, "out_hidden_size": 256, "image_size": 24 * PATCH,
        },
        image_token_id=image, video_token_id=video, image_start_token_id=starts, image_end_token_id=stops,
        video_start_token_id=video_starts, video_end_token_id=video_stops, tie_word_embeddings=False,
    )  # fmt: skip
    return _ends(Glm4vForConditionalGeneration(config), ends, pad)


def qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Deep and narrow: 22 layers of width 128; most blocks of the vision tower see windows of 4 x 4 visual tokens."""
    pad, _, end, starts, stops, image, video = _ids(tokenizer, *QWEN_SPECIAL)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 22,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 8192,
            "rope_parameters": rope, "bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad,
        },
        vision_config={
            "depth": 5, "hidden_size": 160, "intermediate_size": 320, "num_heads": 5, "patch_size": PATCH,
            "spatial_merge_size": 2, "temporal_patch_size": 1, "out_hidden_size": 128, "window_size": 4 * CELL,
            "fullatt_block_indexes": [1, 4],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=starts, vision_end_token_id=stops,
        tie_word_embeddings=False,
    )  # fmt: skip
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for (
            layer
        ) in model.model.language_model.layers:  # so that 22 layers begin as a small change of what goes in
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
                matrix.weight.mul_((2 * 22) ** -0.5)
    return _ends(model, [end, pad], pad)


SAME = {  # tokens that mean what one of Qwen's means
    "<|user|>": "<|im_start|>", "<|assistant|>": "<|im_start|>", "<|system|>": "<|im_start|>", "</answer>": "<|im_end|>",
    "<|begin_of_image|>": "<|vision_start|>", "<|end_of_image|>": "<|vision_end|>", "<|image|>": "<|image_pad|>",
}  # fmt: skip


def borrow_for_glm4v(
    theirs: dict[str, Tensor],
    model: Any,
    their_words: PreTrainedTokenizerFast,
    words: PreTrainedTokenizerFast,
) -> None:
    """Takes over from `qwen3-vl-mini` every matrix that has the same part, and the rows of tokens that mean the same."""
    state = model.state_dict()
    known = their_words.get_vocab()
    with torch.no_grad():
        for name, value in state.items():
            if name.endswith("gate_up_proj.weight"):
                parts = [name.replace("gate_up", part) for part in ("gate", "up")]
                value.copy_(torch.cat([theirs[part] for part in parts]))
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                for token, row in words.get_vocab().items():
                    other = known.get(token, known.get(SAME.get(token, "")))
                    if other is not None:
                        value[row] = theirs[name][other]
            else:
                source = theirs.get(name.replace("embeddings.position_embedding", "pos_embed"))
                if source is not None and source.shape == value.shape:
                    value.copy_(source)


ASKED: dict[str, Any] = {
    "batch": 12,
    "questions": 3,
    "dense": 0.2,
    "wild": True,
    "long": 0.5,
    "manners": True,
}
LONG = Stage("long", steps=20_000, practice=0.75, rate=2.5e-4, vision_rate=1e-4, decay=1e-3, **ASKED)
SETTLE = Stage("settle", steps=500, practice=0.75, rate=2e-4, vision_rate=8e-5, decay=1.0, **ASKED)
LOOK = Stage(
    "look",
    steps=3000,
    batch=12,
    questions=0,
    practice=0.0,
    rate=1e-3,
    vision_rate=8e-4,
    dense=1.0,
    wild=True,
    decay=0.5,
)
AGAIN = replace(
    LONG, name="again", steps=2000, rate=5e-4, vision_rate=2.5e-4, decay=0.6, dense=0.3, long=0.15
)
MINIS = {
    "qwen3-vl-mini": Mini(
        QWEN3_VL, QWEN_SPECIAL, ("<think>", "</think>"), qwen3_vl,
        (
            Stage("vision", steps=1900, batch=12, questions=0, practice=0.0, rate=2e-3, vision_rate=1.5e-3, dense=1.0),
            Stage(
                "language", steps=350, batch=4, questions=3, practice=12.0, rate=1.2e-3, vision_rate=0.0, dense=0.3, decay=0.01,
            ),
            Stage("all", steps=580, batch=12, questions=3, practice=3.0, rate=5e-4, vision_rate=2.5e-4, dense=0.3, decay=0.7),
            Stage(
                "wild", steps=1400, batch=12, questions=3, practice=1.0, rate=5e-4, vision_rate=2.5e-4, dense=0.3, wild=True,
                decay=0.6,
            ),
            LONG, SETTLE,
        ),
        first=4_000_000, begins_with="long",
    ),
    "glm4v-mini": Mini(
        GLM4V, GLM_SPECIAL, GLM_MARKERS, glm4v,
        (
            Stage("vision", steps=2500, batch=12, questions=0, practice=0.0, rate=2e-3, vision_rate=1.5e-3, dense=1.0, wild=True),
            Stage(
                "language", steps=1200, batch=6, questions=3, practice=6.0, rate=1e-3, vision_rate=0.0, dense=0.3, wild=True,
                decay=0.01,
            ),
            replace(LONG, steps=1680),
            LOOK,
            replace(AGAIN, steps=960),
            replace(LOOK, name="closer", steps=5500, rate=1.5e-3, vision_rate=1.2e-3, decay=0.7),
            replace(AGAIN, name="last", steps=1400),
            replace(
                AGAIN, name="polish", steps=340, rate=2.5e-4, vision_rate=1.5e-4, decay=1.0, long=0.1,
                families=(*FAMILIES, *FAMILIES, *6 * ("general",), "document"),
            ),
        ),
        first=1_000_000, begins_with="vision", borrow=borrow_for_glm4v, glm_pixels=True,
        families=(*FAMILIES, *FAMILIES, "science", "code", "code", "general", "general"),
    ),
    "mimo-vl-mini": Mini(
        MIMO_VL, QWEN_SPECIAL, (), qwen2_5_vl,
        (
            Stage("vision", steps=6000, batch=12, questions=0, practice=0.0, rate=2e-3, vision_rate=2e-3, dense=1.0, wild=True),
            Stage(
                "language", steps=3000, batch=6, questions=3, practice=6.0, rate=1.5e-3, vision_rate=0.0, dense=0.3, wild=True,
                decay=0.01,
            ),
            LONG, SETTLE,
        ),
        first=2_000_000, long_words=True,
    ),
    "cosmos-mini": Mini(
        COSMOS, QWEN_SPECIAL, (), qwen2_5_vl,
        (
            Stage("long", steps=600, practice=0.5, rate=2.5e-4, vision_rate=1e-4, decay=1e-3, **ASKED),
            Stage("settle", steps=300, practice=0.5, rate=2e-4, vision_rate=8e-5, decay=1.0, **ASKED),
        ),
        first=3_000_000, begins_with="long", long_words=True,
    ),
}  # fmt: skip
