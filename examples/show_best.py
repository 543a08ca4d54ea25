"""Print the best passages of some queries of a run: `python examples/show_best.py out/demo q02 q27`.

Texts come from passages.jsonl and queries.jsonl beside this file.
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
TOP_K = 3


def main(output: str, query_ids: list[str]) -> None:
    queries, passages = (texts(HERE / f"{name}.jsonl") for name in ("queries", "passages"))
    if not (Path(output) / "run").is_dir():
        sys.exit(f"{output}: has no run/: it is no output of `pipeline.rerank`")
    for query_id in query_ids:
        if query_id not in queries:
            sys.exit(f"{query_id}: no query of examples/queries.jsonl")
        best = pq.read_table(
            Path(output) / "run", filters=[("query_id", "==", query_id), ("rank", "<=", TOP_K)]
        )
        print(f"\n{query_id}: {queries[query_id]}")
        for row in best.sort_by("rank").to_pylist():
            text = textwrap.shorten(passages[row["passage_id"]], 90, placeholder=" ...")
            print(f"  {row['rank']}. {row['score']:.3f}  {text}")


def texts(path: Path) -> dict[str, str]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["_id"]: row["text"] for row in rows}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the best passages of some queries of a run.")
    parser.add_argument("output", help="of a job on the sample texts, such as out/demo")
    parser.add_argument("query_id", nargs="+", help="such as q02")
    given = parser.parse_args()
    main(given.output, given.query_id)
