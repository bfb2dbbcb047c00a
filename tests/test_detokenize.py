"""Text of ids taken one at a time, against `tokenizer.decode` of all of them."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from eyeline.detokenize import UNKNOWN, Detokenizer

CORPUS = (
    "The tallest bar is 24. Fig. 2 shows 3.14, e.g. the red one.\n\nSo the answer is: 你好。 😀 👩‍👩‍👧 é",
    "<think>\nBar 1 is milk.\n</think>\n\n<answer>\n```python\nplt.bar(x)\n```</answer>",
)


def byte_level(
    special: tuple[str, ...] = ("<|im_end|>",), plain: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer as Qwen and GLM have: 256 bytes, some merges, added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[0])


def sentencepiece(metaspace: bool) -> PreTrainedTokenizerFast:
    """A tokenizer with spaces as `▁` and bytes as `<0x0A>`, as Llama 2 and Gemma have."""
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "▁▁", "▁the", "▁bar", "bar", "s", ".", "▁<", "think", ">", "é", "。", "a", "b", UNKNOWN]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    )
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
        )  # fmt: skip
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {
    "byte-level": byte_level(plain=("<think>", "</think>")),
    "strip": sentencepiece(metaspace=False),
    "metaspace": sentencepiece(metaspace=True),
}


def slow(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150)
@given(data=st.data())
def test_pieces_joined_are_the_decoded_text_whatever_the_ids(name, data):
    tokenizer = TOKENIZERS[name]
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 2), max_size=40))
    detokenizer = Detokenizer(tokenizer)
    pieces = [piece for token_id in ids for piece in detokenizer.push(token_id)] + detokenizer.finish()
    assert "".join(text for text, _ in pieces) == slow(tokenizer, ids)
    ends = [end for _, end in pieces]
    assert ends == sorted(ends)
    assert all(0 < end <= len(ids) for end in ends)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200)
@given(text=st.text(max_size=30))
@example(text=" the bars. 👩‍👩‍👧 é\n\n 你好。")
def test_encoded_text_comes_back_and_never_later_than_a_prefix_shows_it(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    detokenizer = Detokenizer(tokenizer)
    written = ""
    for count, token_id in enumerate(ids, start=1):
        written += "".join(piece for piece, _ in detokenizer.push(token_id))
        so_far = slow(tokenizer, ids[:count])
        assert so_far.startswith(written)
        if name == "byte-level":  # all but an incomplete character
            assert written == so_far[: len(so_far) - so_far.endswith(UNKNOWN)]
    written += "".join(piece for piece, _ in detokenizer.finish())
    assert written == slow(tokenizer, ids)


def test_an_emoji_split_over_tokens_is_shown_whole_and_ends_after_its_last_token():
    tokenizer = byte_level()
    ids = tokenizer.convert_tokens_to_ids(["a", "ð", "Ł", "ĺ", "Ģ", "b"])  # the four bytes of 😀
    assert slow(tokenizer, ids) == "a😀b"
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token_id) for token_id in ids] == [
        [("a", 1)],
        [],
        [],
        [],
        [("😀", 5)],
        [("b", 6)],
    ]


def test_half_an_emoji_is_flushed_at_the_end_as_decode_shows_it():
    tokenizer = byte_level()
    ids = [*tokenizer.convert_tokens_to_ids(["a", "ð", "Ł"]), tokenizer.eos_token_id]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token_id) for token_id in ids] == [[("a", 1)], [], [], []]
    assert detokenizer.finish() == [(UNKNOWN, 3)]
    assert detokenizer.finish() == []


def test_the_leading_space_of_a_word_is_dropped_only_at_the_start():
    for name in ("strip", "metaspace"):
        tokenizer = TOKENIZERS[name]
        detokenizer = Detokenizer(tokenizer)
        ids = tokenizer.convert_tokens_to_ids(["▁the", "▁bar", "s", "▁bar"])
        assert "".join(text for token_id in ids for text, _ in detokenizer.push(token_id)) == "the bars bar"


def test_a_step_costs_the_same_however_long_the_text_and_however_broken_its_bytes():
    tokenizer = byte_level()
    lengths = []

    class Counted(Detokenizer):
        def _decode(self, ids):
            lengths.append(len(ids))
            return super()._decode(ids)

    for ids in (
        tokenizer(CORPUS[0])["input_ids"] * 20,
        tokenizer.convert_tokens_to_ids(["ÿ", "ð", "Ł"]) * 300,
    ):
        detokenizer = Counted(tokenizer)
        lengths.clear()
        for token_id in ids:
            detokenizer.push(token_id)
        assert max(lengths) <= 9
        assert len(lengths) <= 2 * len(ids)
        kept = [value for value in vars(detokenizer).values() if isinstance(value, list)]
        assert max(map(len, kept)) <= 9  # nothing that a step reads or copies grows with the text
