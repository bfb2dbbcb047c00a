"""The bytes of each token of a vocabulary, and which token has some bytes."""

from functools import cached_property
from typing import Any

from eyeline.detokenize import byte_ids

SPACE = "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}"  # as a byte-level vocabulary writes it


def _characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table): printable ones for themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


CHARACTERS = _characters()


class Vocabulary:
    """Of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._byte_ids = byte_ids(tokenizer)
        self._added = frozenset(tokenizer.added_tokens_decoder)
        ids = tokenizer(" a", add_special_tokens=False)["input_ids"]
        self._is_byte_level = SPACE in "".join(tokenizer.convert_ids_to_tokens(ids))

    def bytes_of(self, token_id: int) -> bytes:
        """What a token adds to a text, added tokens by their name; of an id outside the vocabulary nothing."""
        piece = self._tokenizer.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if token_id in self._byte_ids:  # <0xE2>
            return bytes([int(piece[3:-1], 16)])
        if token_id in self._added:
            return piece.encode()
        if self._is_byte_level:
            return bytes(CHARACTERS[character] for character in piece if character in CHARACTERS)
        return piece.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()

    def id_of(self, content: bytes) -> int | None:
        """The token with these bytes, of several the first; None where there is none."""
        return self._ids.get(content)

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        ids: dict[bytes, int] = {}
        for token_id in range(len(self._tokenizer)):
            ids.setdefault(self.bytes_of(token_id), token_id)
        ids.pop(b"", None)
        return ids
