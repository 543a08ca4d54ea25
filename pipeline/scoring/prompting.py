r"""How the decoder rerankers put a pair: one text of query, passage and a closing prompt.

Follows FlagEmbedding 1.4.2 (inference/reranker/decoder_only/base.py): every piece is tokenized on its own,
`[bos] A: query`, `\n B: passage`, `\n prompt`; the query is cut to query_max_length and the passage to
max_length, then only the passage is cut until bos, query and passage fit max_length plus the room of a
separator and the prompt. Where that would leave nothing of the passage, the pair is left over-long.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import (
    EncodedPairs,
    IntArray,
    load_tokenizer,
    sequences_of,
    token_ids,
    with_instruction,
)

PROMPT_OPTIONS = frozenset(
    {
        "query_max_length",
        "normalize",
        "prompt",
        "query_instruction_for_rerank",
        "query_instruction_format",
        "passage_instruction_for_rerank",
        "passage_instruction_format",
    }
)


YES_OR_NO = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by"
    " providing a prediction of either 'Yes' or 'No'."
)


class PromptEncoder:
    """Pairs as prompts. Adds to `pairs`: query_length (bos, query, separator) and prompt_length."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig, default_prompt: str) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(checkpoint)
        self._begin = np.array(_bos(checkpoint, self._tokenizer), np.int32)
        self._separator = self._ids("\n")
        self._prompt = self._ids(default_prompt if config.prompt is None else config.prompt)
        self._max_length = checkpoint.length_limit(config.max_length, otherwise=512)
        self._query_max_length = config.query_max_length or self._max_length * 3 // 4

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        config = self._config
        queries = with_instruction(
            queries, _or(config.query_instruction_for_rerank, "A: "), config.query_instruction_format
        )
        passages = with_instruction(
            passages, _or(config.passage_instruction_for_rerank, "B: "), config.passage_instruction_format
        )
        query_ids, passage_ids = token_ids(self._tokenizer, queries), token_ids(self._tokenizer, passages)
        rows = [
            self._encode_pair(query_ids[query], passage_ids[passage])
            for query, passage in zip(queries, passages, strict=True)
        ]
        prompt_length = len(self._separator) + len(self._prompt)
        pairs = pa.table(
            {
                "truncated": pa.array([truncated for _, _, truncated in rows], pa.bool_()),
                "query_length": pa.array([length for _, length, _ in rows], pa.int32()),
                "prompt_length": pa.array([prompt_length] * len(rows), pa.int32()),
            }
        )
        return EncodedPairs(sequences_of([ids for ids, _, _ in rows]), pairs)

    def _encode_pair(self, query: IntArray, passage: IntArray) -> tuple[IntArray, int, bool]:
        """The ids, how many of them come before the passage, and whether anything was cut."""
        first = np.concatenate([self._begin, query[: self._query_max_length]])
        second = np.concatenate([self._separator, passage[: self._max_length]])
        limit = self._max_length + len(self._separator) + len(self._prompt)
        excess = len(first) + len(second) - limit
        if 0 < excess < len(second):
            second = second[:-excess]
        truncated = len(query) > self._query_max_length or len(second) < len(self._separator) + len(passage)
        ids = np.concatenate([first, second, self._separator, self._prompt])
        return ids, len(first) + len(self._separator), truncated

    def _ids(self, text: str) -> IntArray:
        return token_ids(self._tokenizer, [text])[text]


def first_token(checkpoint: Checkpoint, text: str) -> int:
    """The id with which `text` begins."""
    return int(token_ids(load_tokenizer(checkpoint), [text])[text][0])


def _bos(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """The begin token, unless the tokenizer has none or pads with it."""
    names = checkpoint.read_json("tokenizer_config.json")
    bos, pad = (_content(names.get(name)) for name in ("bos_token", "pad_token"))
    if bos is None or bos == pad:
        return []
    token = tokenizer.token_to_id(bos)
    if token is None:
        raise ModelError(f"{checkpoint.name}: tokenizer.json lacks the begin token {bos!r}")
    return [token]


def _content(token: str | dict[str, str] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def _or(instruction: str | None, default: str) -> str:
    return default if instruction is None else instruction
