"""The bytes of tokens are those of the text that they make, and lead back to them."""

import pytest
from conftest import tiny_tokenizer

import eyeline
from eyeline.decoding import Likely
from eyeline.server.likelihood import LEAST, describe
from eyeline.vocabulary import Vocabulary

TEXT = "Der Zähler zeigt 3 × 12 €,\n\tnämlich ∑ = 36 \N{GRINNING FACE}.</think>"


@pytest.fixture(scope="module", params=["tiny", "mini"])
def tokenizer(request):
    return tiny_tokenizer("qwen3_vl") if request.param == "tiny" else eyeline.load("mini").tokenizer


def test_the_bytes_of_all_tokens_joined_are_the_texts(tokenizer):
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    vocabulary = Vocabulary(tokenizer)
    assert b"".join(map(vocabulary.bytes_of, ids)) == TEXT.encode()
    assert vocabulary.bytes_of(len(tokenizer) + 5) == b""


def test_bytes_lead_back_to_their_token(tokenizer):
    vocabulary = Vocabulary(tokenizer)
    for token_id in range(len(tokenizer)):
        assert vocabulary.id_of(vocabulary.bytes_of(token_id)) == token_id
    assert vocabulary.id_of(b"no token has these bytes") is None


def test_a_part_of_a_character_is_described_by_its_own_bytes():
    tokenizer = tiny_tokenizer("qwen3_vl")
    first, _ = tokenizer("é", add_special_tokens=False)["input_ids"]
    likely = Likely(float("-inf"), ((first, -0.5),))
    (entry,) = describe(Vocabulary(tokenizer), [first], [likely])
    shown = {"token": "\N{REPLACEMENT CHARACTER}", "bytes": ["é".encode()[0]]}
    assert entry == {**shown, "logprob": LEAST, "top_logprobs": [{**shown, "logprob": -0.5}]}
