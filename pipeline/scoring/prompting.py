r"""How the decoder rerankers put a pair: one text of query, passage and a closing prompt.

Follows FlagEmbedding 1.4.2 (inference/reranker/decoder_only/base.py): every part is tokenized on its own,
`[bos] A: query`, `\n B: passage`, `\n prompt`. As there, bos, query, separator and passage may take
max_length plus the tokens of a separator and the prompt; the closing prompt comes on top. Other makers have
other texts in the same places.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.encoding import (
    EncodedPairs,
    IntArray,
    passage_offsets,
    token_ids,
    with_instruction,
)
from pipeline.scoring.tokenizer_files import token_text
from pipeline.scoring.truncation import Truncation, check_positions, check_room

PROMPT_OPTIONS = frozenset(
    {
        "truncation",
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


class PromptForm(NamedTuple):
    """What its makers put around query and passage, beside the prompt."""

    begin: str | None = None
    """Null: the begin token."""
    query: str = "A: "
    passage: str = "B: "
    end: str = ""
    max_length: int = 512
    is_around: bool = False
    """Whether all of it comes on top of max_length, which query, separator and passage have to themselves."""


FLAG_EMBEDDING = PromptForm()


class PromptEncoder:
    """Pairs as prompts. Its `inputs`: query_length (begin, query, separator) and prompt_length."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: ScorerConfig,
        default_prompt: str,
        form: PromptForm = FLAG_EMBEDDING,
    ) -> None:
        self._config, self._form = config, form
        self._tokenizer = checkpoint.tokenizer
        bos = _bos(checkpoint, self._tokenizer) if form.begin is None else []
        self._begin = np.array([*bos, *self._ids(form.begin or "")], np.int32)
        self._separator = self._ids("\n")
        prompt = self._ids(default_prompt if config.prompt is None else config.prompt)
        self._end = np.concatenate([self._separator, prompt, self._ids(form.end)])
        own, self._max_positions = checkpoint.tokenizer_max_length, checkpoint.max_positions
        around = len(self._begin) + len(self._end) if form.is_around else 0
        otherwise = min(form.max_length, own or form.max_length, (self._max_positions or 2**31) - around)
        self.max_length = checkpoint.length_limit(config.max_length, otherwise)
        # The reference leaves the prompt out of max_length, and adds its room to the passage's.
        published = config.truncation == "flag_embedding"
        self._room = self.max_length - len(self._begin)
        if published and form.is_around:
            self._room = self.max_length - len(self._separator)
        else:
            self._room += len(prompt) if published else -len(self._separator) - len(self._end)
        self._check_room()
        self._truncation = Truncation(config, self.max_length)

    def encode(self, queries: Sequence[str], passages: Sequence[str]) -> EncodedPairs:
        queries, passages = self._with_instructions(queries, passages)
        query_ids, passage_ids = token_ids(self._tokenizer, queries), token_ids(self._tokenizer, passages)
        fits, sequences, query_lengths = [], [], []
        for index, (query_text, passage_text) in enumerate(zip(queries, passages, strict=True)):
            query, passage = query_ids[query_text], passage_ids[passage_text]
            fit = self._truncation.fit(index, len(query), len(passage), self._room, len(self._separator))
            before = [self._begin, query[slice(*fit.query)], self._separator]
            fits.append(fit)
            sequences += [np.concatenate([*before, passage[slice(*span)], self._end]) for span in fit.windows]
            check_positions(index, len(sequences[-1]), self._max_positions)
            query_lengths += [sum(map(len, before))] * len(fit.windows)
        prompt_lengths = [len(self._end)] * len(sequences)
        return EncodedPairs.of(
            fits, sequences, {"query_length": query_lengths, "prompt_length": prompt_lengths}
        )

    def passage_offsets(self, _query: str, passage: str) -> list[tuple[int, int]]:
        return passage_offsets(
            self._tokenizer, lambda text: self._with_instructions([], [text])[1][0], passage
        )

    def _check_room(self) -> None:
        """Raises ConfigError where nothing of a query or a passage would be read after `A: ` or `B: `."""
        queries, passages = self._with_instructions([""], [""])
        query, passage = len(self._ids(queries[0])), len(self._ids(passages[0]))
        if self._config.truncation == "flag_embedding":
            query_room, passage_room = self.max_length * 3 // 4, self.max_length
        else:
            query_room, passage_room = self._room - passage - 1, self._room - query - 1
        check_room(min(query_room - query, passage_room - passage), 1, self.max_length)

    def _with_instructions(
        self, queries: Sequence[str], passages: Sequence[str]
    ) -> tuple[Sequence[str], Sequence[str]]:
        config = self._config
        return (
            with_instruction(
                queries,
                _or(config.query_instruction_for_rerank, self._form.query),
                config.query_instruction_format,
            ),
            with_instruction(
                passages,
                _or(config.passage_instruction_for_rerank, self._form.passage),
                config.passage_instruction_format,
            ),
        )

    def _ids(self, text: str) -> IntArray:
        return token_ids(self._tokenizer, [text])[text]


def first_token(checkpoint: Checkpoint, text: str) -> int:
    """The id with which `text` begins. Raises ModelError where the tokenizer has none for it."""
    ids = token_ids(checkpoint.tokenizer, [text])[text]
    unknown = getattr(checkpoint.tokenizer.model, "unk_token", None)
    if not len(ids) or (unknown is not None and ids[0] == checkpoint.tokenizer.token_to_id(unknown)):
        raise ModelError(f"{checkpoint.name}: its tokenizer has no token for {text!r}")
    return int(ids[0])


def _bos(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """The begin token, unless the tokenizer has none or pads with it."""
    names = checkpoint.read_object("tokenizer_config.json")
    more = checkpoint.read_optional("special_tokens_map.json")
    told = more.fields | names.fields
    if "bos_token" not in told:  # transformers takes the one of tokenizer_class
        raise names.wrong("bos_token", "is not there: write the begin token, or null where prompts have none")
    bos, pad = (token_text(names, name, told.get(name)) for name in ("bos_token", "pad_token"))
    if bos is None or bos == pad:
        return []
    token = tokenizer.token_to_id(bos)
    if token is None:
        raise ModelError(f"{checkpoint.name}: tokenizer.json lacks the begin token {bos!r}")
    return [token]


def _or(instruction: str | None, default: str) -> str:
    return default if instruction is None else instruction
