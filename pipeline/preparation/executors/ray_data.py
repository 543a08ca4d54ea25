"""A Ray cluster: read -> shuffle by passage, join -> shuffle by query, join, order, write.

Candidates and texts travel in one dataset, so that a shuffle brings both sides of a join into one block. The
shuffles are Ray Data's own: what moves lies in the object store, which spills to disk what it can't hold.
"""

from collections.abc import Iterator
from functools import partial

import ray
from ray.data import DataContext

from pipeline.capacity import nodes, wait_for_a_cpu
from pipeline.cluster import join, own_errors
from pipeline.errors import ConfigError
from pipeline.preparation.plan import BATCH_BYTES, Preparation, partitions
from pipeline.preparation.tasks import PartReport, join_passages, read_file_ranges, write_part
from pipeline.tables.output.attempts import forget_attempts
from pipeline.tables.output.directory import Directory

_NO_PROGRESS_S = 7200
"""Ray ends what makes none for so long: a shuffle hands nothing on until it has read everything."""

_SLOW = (
    "or waited for memory: one query or passage with very many candidates makes a task that no node holds."
    " Take larger nodes, or look for an id that stands for something missing"
)
_GROW_S = 900
"""How long a cluster without a CPU may take to grow."""


def connect(preparation: Preparation) -> None:
    join(_NO_PROGRESS_S)
    wait_for_a_cpu(_GROW_S)
    _check_memory(preparation)


def work(output: str, preparation: Preparation) -> Iterator[PartReport]:
    forget_attempts(Directory(output))  # of a driver that died: machines die with it, through no file's fault
    DataContext.get_current().shuffle_input_batch_bytes = BATCH_BYTES
    with own_errors(_SLOW):
        for row in _dataset(output, preparation).iter_rows():
            yield PartReport.model_validate_json(row["report"])


def _check_memory(preparation: Preparation) -> None:
    """Refuse what would wait for ever: Ray gives a task no less than the memory it asks for."""
    largest = max(node.memory for node in nodes())
    if preparation.task_bytes > largest:
        raise ConfigError(
            f"a task of this shuffle needs {preparation.task_bytes / 2**20:.0f} MiB of memory, and"
            f" Ray's largest node here gives {largest / 2**20:.0f} MiB; take larger nodes"
        )


def _dataset(output: str, preparation: Preparation) -> ray.data.Dataset:
    """One row a file that was written."""
    if preparation.passages is None:
        rows = _read(output, preparation, ["candidates", "queries"])
    else:
        rows = _by_key(
            _read(output, preparation, ["candidates", "passages"]), preparation.by_passage_bytes
        ).map_batches(
            partial(join_passages, preparation=preparation.for_workers()),
            batch_size=None,
            batch_format="pyarrow",
        )
        if preparation.queries is not None:
            rows = rows.union(_read(output, preparation, ["queries"]))
    write = partial(write_part, output=output, preparation=preparation.for_workers())
    return _by_key(rows, preparation.by_query_bytes).map_batches(
        write, batch_size=None, batch_format="pyarrow"
    )


def _read(output: str, preparation: Preparation, fields: list[str]) -> ray.data.Dataset:
    reads = preparation.reads(fields)
    return ray.data.from_items(reads, override_num_blocks=len(reads)).map_batches(
        partial(read_file_ranges, output=output, preparation=preparation.for_workers()),
        batch_size=1,
        batch_format="pyarrow",
    )


def _by_key(rows: ray.data.Dataset, size_bytes: int) -> ray.data.Dataset:
    """Each partition is one block, which batch_size=None hands on whole (as Dataset.map_groups relies on)."""
    return rows.repartition(partitions(size_bytes), keys=["key"])
