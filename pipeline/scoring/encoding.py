"""Texts to token ids, and the form in which encoded pairs travel between processes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.truncation import Fit

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as a model takes them.

    sequences: Arrow list<int32>; each one's ids go through the trunk once. It crosses processes without
        a copy.
    inputs: one row a score that the model gives: a pair, or one window of its passage. What a family's
        model needs to get from sequences to that score.
    pairs: one row a pair, in the caller's order, its inputs in the same order. `query_cut`, `passage_cut`:
        the tokens that the model does not see; `windows`: how many of `inputs` are the pair's. All int32.
    """

    sequences: pa.ListArray
    inputs: pa.Table
    pairs: pa.Table

    @classmethod
    def of(
        cls, fits: Sequence[Fit], sequences: Sequence[IntArray], inputs: dict[str, Sequence[int]]
    ) -> "EncodedPairs":
        """fits: one a pair; sequences: token ids; inputs: columns with one number a window of each pair."""
        cuts = {
            "query_cut": [fit.query_cut for fit in fits],
            "passage_cut": [fit.passage_cut for fit in fits],
            "windows": [len(fit.windows) for fit in fits],
        }
        return cls(sequences_of(sequences), _int32_table(inputs), _int32_table(cuts))

    def __len__(self) -> int:
        return int(self.pairs.num_rows)

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
        raise ConfigError(f"shard_pairs: {offsets[-1]} tokens are too many for one shard; lower it")
    values = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's tokenizer, without padding or truncation.

    tokenizer.json is taken as published: transformers 5 rebuilds some tokenizers from their vocabulary,
    and what is rebuilt need not give the ids with which the scores were published.
    """
    file = checkpoint.path / "tokenizer.json"
    if file.is_file():
        tokenizer = _from_file(file)
    else:
        converted = AutoTokenizer.from_pretrained(
            checkpoint.path, trust_remote_code=checkpoint.trust_remote_code
        )
        backend = getattr(converted, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(
                f"{checkpoint.name}: no tokenizer.json, and its tokenizer can't be made into one"
            )
        tokenizer = backend
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _from_file(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"{file}: not a tokenizer: {error}") from error


def token_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, IntArray]:
    """The ids of each distinct text, without special tokens: every text is tokenized once."""
    distinct = list(dict.fromkeys(texts))
    encodings = tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
    return {
        text: np.array(encoding.ids, np.int32) for text, encoding in zip(distinct, encodings, strict=True)
    }


def with_instruction(texts: Sequence[str], instruction: str | None, form: str) -> Sequence[str]:
    return texts if instruction is None else [form.format(instruction, text) for text in texts]
