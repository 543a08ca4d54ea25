"""A job over the golden pairs, in this process unless told otherwise, and what it wrote."""

from pathlib import Path
from typing import Any

from pipeline.reranking.config import RerankConfig
from tests.conftest import TINY

WAITING_AFTER_TWO_SHARDS = """
import sys, threading
from pipeline import rerank
from pipeline.tables.output.lease import Lease

add = Lease.add


def add_two(lease, pairs):
    add(lease, pairs)
    if lease._heartbeat.shards_done == 2:
        threading.Event().wait()


Lease.add = add_two
sys.exit(rerank.main(sys.argv[1:]))
"""
"""The command, but for a job that is not over before it is killed, however fast the machine is."""


def config(table: Path, out: str = "out", **sections: Any) -> RerankConfig:
    output = {"path": str(table.parent / out), **sections.pop("output", {})}
    scorer = {"model": TINY, "device": "cpu", **sections.pop("scorer", {})}
    scored_by = {} if "levels" in sections else {"scorer": scorer}
    settings = {
        "input": {"path": str(table)},
        "output": output,
        **scored_by,
        "shard_pairs": 8,
        "executor": "here",
        **sections,
    }
    return RerankConfig.model_validate(settings)


def data_of(output: Path) -> dict[str, bytes]:
    """What a reader reads, by name; markers and the summary hold times."""
    folders = ("run", "rejects", "scores")
    files = [*(file for folder in folders for file in output.glob(f"{folder}/*")), *output.glob("run.trec")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}
