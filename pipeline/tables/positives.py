"""Which candidates are positives: what training needs to know of a run."""

from functools import lru_cache
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from pipeline.errors import InputError
from pipeline.tables.input.files import SourceFile, find_file
from pipeline.tables.input.qrels import read_judgments
from pipeline.tables.storage import absolute


class PositivesConfig(BaseModel):
    """Which candidates of a query are its positives: by one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    label: str | None = Field(default=None, min_length=1)
    """A column of numbers or Booleans: those above 0. Of format flag_embedding, `label`."""
    qrels: str | None = Field(default=None, min_length=1)
    """Judgments, a qrels file of TREC's form or BEIR's: those with a relevance above 0."""
    first: PositiveInt | None = None
    """The best of each query, so many, where nobody judged any."""

    def for_workers(self) -> Self:
        """As processes that were started elsewhere must read it."""
        return self.model_copy(update={"qrels": self.qrels and absolute(self.qrels)})

    def files(self) -> tuple[SourceFile, ...]:
        """What tells the positives beside the table. Raises InputError where it is not there."""
        return () if self.qrels is None else (find_file(self.qrels),)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if [self.label, self.qrels, self.first].count(None) != 2:
            raise ValueError("needs one of label, qrels and first, to tell the positives by")
        return self


def check_label(label: str | None, types: pa.StructType, field: str) -> None:
    """Raises InputError where labels can't tell positives.

    types: of the kept columns; field: the config's that names the column.
    """
    if label is None:
        return
    kind = types.field(label).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InputError(
            f"{field}: column {label!r} holds {kind}; a label is a number or a Boolean, above 0 of a"
            " positive",
            field=field,
        )


def are_positive(candidates: pa.Table, config: PositivesConfig) -> npt.NDArray[np.bool_]:
    """Of each row. candidates: `query_id`, `passage_id`, `rank` and `kept`, which holds the label.

    Raises InputError for qrels that can't be read.
    """
    if config.label is not None:
        labels = pc.struct_field(candidates["kept"].combine_chunks(), config.label)
        return _true(pc.greater(labels.cast(pa.float64(), safe=False), 0))
    if config.first is not None:
        return _true(pc.less_equal(candidates["rank"], config.first))
    assert config.qrels is not None
    judged = _judged_positive(config.qrels, find_file(config.qrels).identity)
    ids = (candidates[name].to_pylist() for name in ("query_id", "passage_id"))
    return np.array(
        [(_text(query), _text(passage)) in judged for query, passage in zip(*ids, strict=True)], bool
    )


@lru_cache(maxsize=1)
def _judged_positive(url: str, _identity: str) -> frozenset[tuple[str, str]]:
    """Read once by a process, and again where the file's identity has changed: for the next job, say."""
    judgments = read_judgments(url)
    return frozenset((each.query_id, each.passage_id) for each in judgments if each.relevance > 0)


def _text(value: str | int | bytes) -> str | None:
    """An id as qrels have it; None of one that is no text, which they can't judge."""
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return None


def _true(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(values, fill_value=False).to_numpy(zero_copy_only=False), bool)
