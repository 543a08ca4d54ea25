"""Pairs whose texts stand in a frame of fixed ones; the whole is tokenized at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from pipeline.errors import ScoringError
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import EncodedPairs, IntArray
from pipeline.scoring.truncation import Fit, Truncation, check_room

_FILLER = "0"
"""A text as any other: what is behind it is tokenized as behind a passage."""


class PairFrame(NamedTuple):
    """The fixed texts around query and passage."""

    before: str
    between: str
    after: str
    is_query_first: bool
    strips: bool
    """Whether blanks around a text are left out."""

    def text(self, query: str, passage: str) -> tuple[str, int, int]:
        """The whole text, and where the passage begins and ends in it."""
        if self.strips:
            query, passage = query.strip(), passage.strip()
        if self.is_query_first:
            head = f"{self.before}{query}{self.between}"
            return f"{head}{passage}{self.after}", len(head), len(head) + len(passage)
        stop = len(self.before) + len(passage)
        return f"{self.before}{passage}{self.between}{query}{self.after}", len(self.before), stop


class Parts(NamedTuple):
    """The tokens of a pair. One that holds a text's beginning and what is before it is the text's, as is one
    that holds the passage's end.
    """

    before: IntArray
    """What stands before the first text."""
    head: IntArray
    """From there to the passage: the query, where it is first."""
    passage: IntArray
    rest: IntArray


class FrameEncoder:
    """Pairs in a frame. Its `inputs`: query_length, all before the passage, prompt_length, all after it."""

    def __init__(
        self,
        frame: PairFrame,
        tokenizer: Tokenizer,
        max_length: int,
        config: ScorerConfig,
        *,
        special_tokens: bool = False,
    ) -> None:
        """special_tokens: whether the tokenizer's own go before the text, as it puts them there."""
        self._frame, self._tokenizer, self.max_length = frame, tokenizer, max_length
        self._special_tokens = special_tokens
        self._truncation = Truncation(config, max_length)
        self._after = self._rest("")
        empty, _, _ = self._frame.text("", "")
        check_room(self.max_length - len(self._encoded(empty).ids), 1, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        framed = [self._frame.text(*pair) for pair in zip(queries, passages, strict=True)]
        texts = [text for text, _, _ in framed]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=self._special_tokens)
        fits, sequences, before, after = [], [], [], []
        for index, (encoding, (_, begin, end)) in enumerate(zip(encodings, framed, strict=True)):
            parts = self._parts(encoding, begin, end)
            if len(encoding.ids) > self.max_length:
                rest = self._after if self._frame.is_query_first else self._rest(queries[index])
                parts = parts._replace(rest=rest)
            fit = self._fit(index, parts)
            head = np.concatenate([parts.before, parts.head[slice(*fit.query)]])
            sequences += [
                np.concatenate([head, parts.passage[slice(*span)], parts.rest]) for span in fit.windows
            ]
            fits.append(fit)
            before += [len(head)] * len(fit.windows)
            after += [len(parts.rest)] * len(fit.windows)
        return EncodedPairs.of(fits, sequences, {"query_length": before, "prompt_length": after})

    def passage_offsets(self, query: str, passage: str) -> list[tuple[int, int]]:
        text, begin, end = self._frame.text(query, passage)
        encoding = self._encoded(text)
        parts = self._parts(encoding, begin, end)
        first, last = len(parts.before) + len(parts.head), len(encoding.ids) - len(parts.rest)
        left_out, length = passage.index(text[begin:end]), len(passage)
        return [
            (min(max(0, start - begin) + left_out, length), min(max(0, stop - begin) + left_out, length))
            for start, stop in encoding.offsets[first:last]
        ]

    def _fit(self, index: int, parts: Parts) -> Fit:
        room = self.max_length - len(parts.before) - len(parts.rest)
        if room < 0:
            raise ScoringError(
                index, "the query leaves the passage no room: raise max_length or shorten the query"
            )
        query, passage = len(parts.head), len(parts.passage)
        return self._truncation.fit_apart(index, query, passage, room, room - min(query, room))

    def _parts(self, encoding: Encoding, begin: int, end: int) -> Parts:
        """begin, end: of the passage, in the text."""
        ids, offsets = np.array(encoding.ids, np.int32), np.array(encoding.offsets).reshape(-1, 2)
        starts, stops = offsets[:, 0], offsets[:, 1]
        first = int(np.searchsorted(stops, begin, side="right"))
        last = max(first, int(np.searchsorted(starts, end)))
        fixed = min(first, int(np.searchsorted(stops, len(self._frame.before), side="right")))
        return Parts(ids[:fixed], ids[fixed:first], ids[first:last], ids[last:])

    def _rest(self, query: str) -> IntArray:
        """What stands behind a passage, the query where it is second."""
        text, begin, end = self._frame.text(query, _FILLER)
        return self._parts(self._encoded(text), begin, end).rest

    def _encoded(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=self._special_tokens)
