"""Finished runs that no job made, for what reads runs."""

import pyarrow as pa

from pipeline.job_record import write_record
from pipeline.output import finish
from pipeline.reporting.totals import Totals
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done
from pipeline.tables.output.manifest import Manifest
from pipeline.tables.output.run import parquet_bytes, run_file
from tests.reporting.reports import report, summary
from tests.test_output import RECORD


def finish_run(url: str, *tables: pa.Table, top_k: int | None = None) -> str:
    """A run of these tables, a shard each; its URL."""
    output, totals = Directory(url), Totals()
    record = RECORD.model_copy(update={"config": {"output.top_k": top_k}, "shards": len(tables)})
    write_record(output, record)
    for index, table in enumerate(tables):
        file = run_file(f"shard-{index:06d}")
        stamp = output.write(file, parquet_bytes(table, "run"))
        done = report(index, job=record.identity, files={file: stamp})
        mark_done(output, done)
        totals.add(done)
    manifest = Manifest(job=record.identity, shards=len(tables), folders=totals.folders, files={})
    finish(output, summary(), [], complete=True, manifest=manifest)
    return output.url
