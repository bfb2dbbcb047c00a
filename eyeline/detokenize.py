"""Generated token ids to text, one id at a time: what `tokenizer.decode` gives, as early as possible.

Each step decodes a window: the last token whose text is complete, as context (a sentencepiece tokenizer drops
a space at the very start that it keeps anywhere else), and the tokens after it. Markers, channels and spans
are left to `eyeline.spans`.
"""

from typing import Any

Piece = tuple[str, int]  # text, and the position after the last token that holds a part of it
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # what incomplete UTF-8 decodes to
MAX_WINDOW = 8  # tokens; reached only where bytes do not become characters


class Detokenizer:
    """The text of a growing sequence of ids.

    All pieces joined equal `decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)`. A
    character whose bytes are not all there is held back. So is a run of sentencepiece byte tokens (`<0xE2>`)
    until another token ends it, because one invalid byte makes the whole run unreadable.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._size = len(tokenizer)  # pyright: ignore[reportArgumentType]
        added = tokenizer.added_tokens_decoder  # pyright: ignore[reportAttributeAccessIssue]
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._byte_ids = byte_ids(tokenizer)
        self._lengths: dict[int, int] = {}  # characters of a token decoded alone
        self._count = 0  # ids taken
        self._window: list[int] = []
        self._end = 0  # position after the window's last token
        self._shown = 0  # characters of the window's text that are context, or given out
        self._holding = False  # the window's text ends in a character that may be incomplete
        self._run: list[int] = []  # byte tokens after the window, and the position after each
        self._run_ends: list[int] = []

    def push(self, token_id: int) -> list[Piece]:
        """Takes the next id and returns the text that it completes."""
        self._count += 1
        if token_id in self.special_ids or token_id >= self._size:  # `decode` leaves these out
            return []
        if token_id in self._byte_ids:
            self._run.append(token_id)
            self._run_ends.append(self._count)
            return []
        pieces = self._end_run()
        self._window.append(token_id)
        self._end = self._count
        text = self._decode(self._window)
        self._holding = not self._byte_ids and text.endswith(UNKNOWN)
        known = len(text) - self._holding
        if known > self._shown:
            pieces.append((text[self._shown : known], self._count))
            self._shown = known
            if not self._holding:
                self._restart(token_id)
        if len(self._window) > MAX_WINDOW and self._holding:
            self._window = self._window[-4:]  # an incomplete character has at most three bytes
            self._shown = len(self._decode(self._window)) - 1
        return pieces

    def finish(self) -> list[Piece]:
        """Returns what was held back, as `decode` shows it."""
        pieces = self._end_run()
        if self._holding:
            pieces.append((UNKNOWN, self._end))
            self._shown += 1
            self._holding = False
        return pieces

    def _end_run(self) -> list[Piece]:
        if not self._run:
            return []
        text = self._decode(self._window + self._run)[self._shown :]
        readable = len(text) != len(self._run)  # else each byte is a character: all ASCII, or all unreadable
        sizes = [len(character.encode()) if readable else 1 for character in text]
        last_byte = len(self._run) - sum(sizes) - 1  # a space dropped at the start has no character
        pieces: list[Piece] = []
        for character, size in zip(text, sizes, strict=True):
            last_byte += size
            pieces.append((character, self._run_ends[last_byte]))
        self._end = self._run_ends[-1]
        self._restart(self._run[-1])
        self._run, self._run_ends = [], []
        return pieces

    def _restart(self, token_id: int) -> None:
        """Makes one token the context of the following ones."""
        if token_id not in self._lengths:
            self._lengths[token_id] = len(self._decode([token_id]))
        self._window = [token_id]
        self._shown = self._lengths[token_id]

    def _decode(self, ids: list[int]) -> str:
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text


def byte_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of `<0x00>` to `<0xFF>` where the tokenizer decodes them to bytes."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    ids = tokenizer.convert_tokens_to_ids(names)
    assert isinstance(ids, list)
    return frozenset(
        token_id
        for name, token_id in zip(names, ids, strict=True)
        if token_id is not None
        and token_id != tokenizer.unk_token_id
        and tokenizer.decode([token_id]) != name
    )
