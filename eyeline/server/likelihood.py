"""How likely tokens were, as OpenAI's API says it."""

from collections.abc import Sequence
from typing import Any

from eyeline.decoding import Likely
from eyeline.vocabulary import Vocabulary

LEAST = -9999.0  # JSON has no infinity; OpenAI's API says this in its place


def describe(vocabulary: Vocabulary, ids: Sequence[int], likely: Sequence[Likely]) -> list[dict[str, Any]]:
    """An entry of `logprobs.content` for each id; none where it was not asked how likely they are."""
    return [
        {
            **_entry(vocabulary, token_id, each.log_prob),
            "top_logprobs": [_entry(vocabulary, other, log_prob) for other, log_prob in each.top],
        }
        for token_id, each in zip(ids, likely, strict=False)
    ]


def _entry(vocabulary: Vocabulary, token_id: int, log_prob: float) -> dict[str, Any]:
    """`bytes` are the token's own, also where they are not the whole of a character."""
    content = vocabulary.bytes_of(token_id)
    return {
        "token": content.decode("utf-8", "replace"),
        "logprob": max(log_prob, LEAST),
        "bytes": list(content),
    }
