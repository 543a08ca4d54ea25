"""Write training rows of the sample: its judged candidates of 20 queries, as `pipeline.finetune` takes them.

Run it from the repository root:

    python examples/build_training_rows.py

It reads qrels.txt and candidates/ beside this file and writes training_rows.jsonl there, a query a line: the
relevant passages are `pos`, the others `neg`, their judgments the scores. The queries of part-1.parquet are
left out, so that they can tell what was learned, and the Chinese ones, which the demo's model can't read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
HELD_OUT = "part-1.parquet"


def main() -> None:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (HERE / "qrels.txt").read_text(encoding="utf-8").splitlines():
        query_id, _, passage_id, relevance = line.split()
        judged[query_id][passage_id] = int(relevance)
    with (HERE / "training_rows.jsonl").open("w", encoding="utf-8") as out:
        for file in sorted((HERE / "candidates").glob("*.parquet")):
            if file.name != HELD_OUT:
                out.writelines(f"{json.dumps(row)}\n" for row in rows_of(file, judged))


def rows_of(file: Path, judged: dict[str, dict[str, int]]) -> list[dict[str, Any]]:
    """Of each English query of a candidate table, one row."""
    rows: dict[str, dict[str, Any]] = {}
    for candidate in pq.read_table(file).to_pylist():
        query, relevance = candidate["query"], judged[candidate["query_id"]][candidate["passage_id"]]
        if query.isascii():
            empty = {"query": query, "pos": [], "neg": [], "pos_scores": [], "neg_scores": []}
            row = rows.setdefault(query, empty)
            side = "pos" if relevance > 0 else "neg"
            row[side].append(candidate["passage"])
            row[f"{side}_scores"].append(relevance)
    return list(rows.values())


if __name__ == "__main__":
    main()
