"""The process at hand, all rows in its memory at once: for small tables, which it makes at once."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.interruption import raise_interrupts
from pipeline.preparation.plan import Preparation
from pipeline.preparation.tasks import PartReport, join_passages, read_file_ranges, write_part

_LARGEST_BYTES = 2**30
"""An Arrow text array ends at 2 GiB, and sizes are estimates."""


def connect(preparation: Preparation) -> None:
    size_bytes = max(preparation.by_passage_bytes, preparation.by_query_bytes)
    if size_bytes > _LARGEST_BYTES:
        raise ConfigError(
            f"executor here: holds all rows in memory, about {size_bytes / 2**30:.1f} GiB of them, and takes"
            f" at most {_LARGEST_BYTES / 2**30:g} GiB; set executor to ray_data"
        )
    raise_interrupts()


def work(output: str, preparation: Preparation) -> Iterator[PartReport]:
    if preparation.passages is None:
        rows = _read(output, preparation, ["candidates", "queries"])
    else:
        both = pa.concat_tables(_read(output, preparation, ["candidates", "passages"]))
        rows = list(join_passages(both, preparation))
        if preparation.queries is not None:
            rows += _read(output, preparation, ["queries"])
    for row in write_part(pa.concat_tables(rows), output, preparation).to_pylist():
        yield PartReport.model_validate_json(row["report"])


def _read(output: str, preparation: Preparation, fields: list[str]) -> list[pa.Table]:
    return [
        rows
        for read in preparation.reads(fields)
        for rows in read_file_ranges(pa.Table.from_pylist([read]), output, preparation)
    ]
