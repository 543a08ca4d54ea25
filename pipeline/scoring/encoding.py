"""Texts to token ids, and the form in which encoded pairs travel between processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from pipeline.errors import ConfigError, ScoringError, TooManyTokensError
from pipeline.scoring.truncation import Fit

IntArray = npt.NDArray[np.int32]
SEQUENCE = "_sequence"
Role = Literal["query", "passage"]
_MARK = "\0passage\0"


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as a model takes them."""

    sequences: pa.ListArray
    """Arrow list<int32>: the ids of each sequence go through the backbone once. It crosses processes without
    a copy."""
    inputs: pa.Table
    """One row for each score that the model gives, that of a pair or of one window of its passage: what a
    family's model needs to get from sequences to that score. Row i reads sequence i, unless columns named
    *_sequence tell the places of those that it reads."""
    pairs: pa.Table
    """One row for each pair, in the caller's order, as its inputs stand. All columns are int32. `query_cut`,
    `passage_cut`: the tokens that the model does not see; `passage_first`, `passage_last`: the first token of
    the passage that it sees, and the one past the last; `windows`: how many of `inputs` are the pair's."""

    @classmethod
    def of(
        cls, fits: Sequence[Fit], sequences: Sequence[IntArray], inputs: dict[str, Sequence[int]]
    ) -> "EncodedPairs":
        """fits: one a pair; sequences: token ids; inputs: columns with one number a window of each pair."""
        cuts = {
            "query_cut": [fit.query_cut for fit in fits],
            "passage_cut": [fit.passage_cut for fit in fits],
            "passage_first": [fit.windows[0][0] for fit in fits],
            "passage_last": [fit.windows[-1][1] for fit in fits],
            "windows": [len(fit.windows) for fit in fits],
        }
        return cls(sequences_of(sequences), _int32_table(inputs), _int32_table(cuts))

    def __len__(self) -> int:
        return int(self.pairs.num_rows)

    @property
    def tokens(self) -> npt.NDArray[np.int64]:
        """(pairs,): the tokens of each pair's sequences, special ones included."""
        lengths = np.diff(self.sequences.offsets.to_numpy()).astype(np.int64)
        read = sum((lengths[places] for places in self._places()), np.zeros(self.inputs.num_rows, np.int64))
        counts = self.pairs["windows"].to_numpy()
        return np.add.reduceat(read, np.cumsum(counts) - counts) if len(counts) else read

    def take(self, pairs: npt.NDArray[np.int64]) -> "EncodedPairs":
        """Some of the pairs, in the order given, with the sequences that they need."""
        counts = self.pairs["windows"].to_numpy().astype(np.int64)
        ends = np.cumsum(counts)
        rows = np.concatenate(
            [np.zeros(0, np.int64), *(np.arange(ends[pair] - counts[pair], ends[pair]) for pair in pairs)]
        )
        inputs = self.inputs.take(rows)
        shared = [name for name in inputs.column_names if name.endswith(SEQUENCE)]
        if not shared:
            return EncodedPairs(
                self.sequences.take(pa.array(rows)), inputs, self.pairs.take(pa.array(pairs, pa.int64()))
            )
        used, places = np.unique([inputs[name].to_numpy() for name in shared], return_inverse=True)
        moved = {
            name: pa.array(place, pa.int32())
            for name, place in zip(shared, places.reshape(len(shared), -1), strict=True)
        }
        kept = {name: inputs[name] for name in inputs.column_names}
        return EncodedPairs(
            self.sequences.take(pa.array(used)),
            pa.table(kept | moved),
            self.pairs.take(pa.array(pairs, pa.int64())),
        )

    @classmethod
    def concat(cls, parts: Sequence["EncodedPairs"]) -> "EncodedPairs":
        """The pairs of all parts, in order. The encoders of the parts differ in limits at most."""
        if len(parts) == 1:
            return parts[0]
        inputs, before = [], 0
        for part in parts:
            inputs.append(
                pa.table(
                    {
                        name: pc.add(column, pa.scalar(before, pa.int32()))
                        if name.endswith(SEQUENCE)
                        else column
                        for name, column in zip(part.inputs.column_names, part.inputs.columns, strict=True)
                    }
                )
            )
            before += len(part.sequences)
        return cls(
            pa.concat_arrays([part.sequences for part in parts]),
            pa.concat_tables(inputs).combine_chunks(),
            pa.concat_tables([part.pairs for part in parts]).combine_chunks(),
        )

    def _places(self) -> list[npt.NDArray[np.int32]]:
        """Of each row of `inputs`, where the sequences that it reads stand."""
        shared = [name for name in self.inputs.column_names if name.endswith(SEQUENCE)]
        return [self.inputs[name].to_numpy() for name in shared] or [
            np.arange(self.inputs.num_rows, dtype=np.int32)
        ]

    def pair_of(self, input_index: int) -> int:
        """The pair to which a row of `inputs` belongs."""
        return int(np.searchsorted(np.cumsum(self.pairs["windows"].to_numpy()), input_index, side="right"))


def _int32_table(columns: Mapping[str, Sequence[int]]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()})


def sequences_of(ids: Sequence[IntArray]) -> pa.ListArray:
    """Token ids, one array a sequence, as one Arrow list<int32>."""
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(sequence) for sequence in ids], out=offsets[1:])
    if offsets[-1] >= 2**31:
        raise TooManyTokensError(f"{offsets[-1]} tokens are too many for one call")
    values = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))


def token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, IntArray]:
    """The ids of each distinct text, without special tokens: every text is tokenized once."""
    distinct = list(dict.fromkeys(texts))
    encodings = tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
    return {
        text: np.array(encoding.ids, np.int32) for text, encoding in zip(distinct, encodings, strict=True)
    }


def passage_offsets(
    tokenizer: Tokenizer, as_read: Callable[[str], str], passage: str
) -> list[tuple[int, int]]:
    """Of each token of what is read of a passage, its first character in the passage and the one past its
    last; the same twice where it is one of what stands around the passage.

    as_read: gives a text with what stands around it, an instruction, say.
    """
    first, length = as_read(_MARK).index(_MARK), len(passage)
    offsets = tokenizer.encode(as_read(passage), add_special_tokens=False).offsets
    return [
        (min(max(0, start - first), length), min(max(0, stop - first), length)) for start, stop in offsets
    ]


def span_read(
    offsets: Callable[[str, str], list[tuple[int, int]]], query: str, passage: str, row: Mapping[str, int]
) -> tuple[int, int]:
    """Of a passage, the first character that the model sees, and the one past the last.

    offsets: an encoder's `passage_offsets`. row: the pair's in `EncodedPairs.pairs`.
    """
    if not row["passage_cut"]:
        return 0, len(passage)
    tokens = offsets(query, passage)[row["passage_first"] : row["passage_last"]]
    read = [(first, stop) for first, stop in tokens if first < stop]
    return (read[0][0], read[-1][1]) if read else (0, 0)


def with_instruction(texts: Sequence[str], instruction: str | None, form: str) -> Sequence[str]:
    return texts if instruction is None else [form.format(instruction, text) for text in texts]


def listed(given: Iterable[Any], what: str) -> list[Any]:
    """Texts or pairs that a caller hands in, as a list: what can be read once is read here.

    Arrow's, numpy's, pandas' and polars' arrays and tables give their rows. Raises ConfigError for what is no
    list of anything: one text has letters, a mapping keys, a set no order.
    """
    if isinstance(given, pa.Table | pa.RecordBatch):  # their own lists are of dicts
        return list(zip(*(column.to_pylist() for column in given.columns), strict=True))
    for method in ("to_pylist", "to_numpy", "tolist"):
        if hasattr(given, method):
            given = getattr(given, method)()
    if isinstance(given, list):
        return given
    if isinstance(given, str):
        written = "[(query, passage)]" if what == "pairs" else "[text]"
        raise ConfigError(f"{what}: one text, {given!r:.80}; write {written}")
    if isinstance(given, bytes | Mapping | Set) or not isinstance(given, Iterable):
        raise ConfigError(f"{what}: a {type(given).__name__}; give a list")
    return list(given)


def pairs_of(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """`listed`, for (query, passage) pairs. Raises ScoringError for the first that is no pair of texts."""
    # A list of the rows of a numpy array has arrays in it.
    pairs = [pair.tolist() if hasattr(pair, "tolist") else pair for pair in listed(given, "pairs")]
    for index, pair in enumerate(pairs):
        if not (isinstance(pair, tuple | list) and len(pair) == 2 and all(map(_is_text, pair))):
            way_out = "; one pair alone is written [(query, passage)]" if isinstance(pair, str) else ""
            way_out += ", and texts are embedded by embed(texts, role)" if way_out else ""
            raise ScoringError(index, f"not a (query, passage) pair of texts: {pair!r:.80}{way_out}")
    return pairs


def texts_of(given: Iterable[str]) -> list[str]:
    """`listed`, for texts. Raises ScoringError for the first that is none."""
    texts = listed(given, "texts")
    for index, text in enumerate(texts):
        if not _is_text(text):
            raise ScoringError(index, f"not a text: {text!r:.80}", "text")
    return texts


def _is_text(value: object) -> bool:
    """Lone surrogates are no text: no tokenizer takes them."""
    return isinstance(value, str) and value.encode(errors="replace").decode() == value
