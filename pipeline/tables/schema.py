"""Column names and Arrow schemas of what is read and written, in one place.

run (a row a kept candidate, a query's rows together in rank order):
    query_id, passage_id: as they came; score: float32, higher is better; rank: int32, 1-based;
    query_cut, passage_cut: int32, tokens that the model did not see; window: int32, the number of the
    passage's window that scored best, from 0; score_N: float32, the score after layer N, where several cutoff
    layers are asked for (`score` is the last one's); raw_score: float32, what `score` is the sigmoid of and
    what ranks, where scores are normalized; kept columns
    of a scorer that fuses: score is the fused one, which ranks; scorer_score, and scorer_ before score_N and
    raw_score: the scorer's own
    of a cascade: score is 1 / rank; the cuts and the window are of the last level that saw the candidate;
    level_N_score, level_N_rank, and level_N_ before score_N, raw_score and fused (float32, what ranks at a
    level that fuses): level N's own, from 0, null where it did not see the candidate
rejects (a row a candidate that could not be scored, or a line of texts that can't be used):
    file; row: 1-based, the line of a text file or the row of a Parquet file; item: 1-based position in a
    nested row's list; query_id, passage_id where they could be read; reason: one of REASONS; field: of
    invalid_text and invalid_id, which one is: query_id, query, passage_id, passage, title, or a kept column,
    by its name in the output; null where a whole line is no text, of other reasons, and where a trainer reads
"""

from collections.abc import Sequence

import pyarrow as pa

RAW_SCORE, FUSED = "raw_score", "fused"
OF_THE_SCORER = "scorer_"
"""The prefix of the columns that are the scorer's own, where `score` is a fused one."""
FIRST_STAGE_SCORE = "first_stage_score"
"""float64, of a table that tells it: a column more between reading and scoring. Also what `retrieve` calls
its column, and the run the one that was fused."""
RUN_COLUMNS = ("query_id", "passage_id", "score", "rank", "query_cut", "passage_cut", "window")

REASONS = {
    "malformed_row": "not a row of this format",
    "null_query_id": "query id is null or missing",
    "null_query": "query is null or missing",
    "null_candidates": "neither a list of candidates nor a passage",
    "no_positives": "pos is missing, empty or no list",
    "no_negatives": "neg is missing, empty or no list",
    "invalid_scores": "pos_scores or neg_scores is no list of numbers, one for each passage",
    "null_passage_id": "passage id is null or missing",
    "null_passage": "passage is null or missing",
    "invalid_id": "id is of another type than most of the table's, or of its first 1,000 rows",
    "invalid_text": "a text, an id or a column to keep is no text, or not valid Unicode",
    "no_first_stage_score": "the first stage's score, which fuse needs, is missing or no finite number",
    "duplicate_pair": "the same query and passage id stand in an earlier row",
    "duplicate_passage_id": "the same passage id stands in an earlier row",
    "duplicate_query_id": "the same query id stands in an earlier row",
    "no_query_text": "the table of queries has no text for this id",
    "no_passage_text": "the table of passages has no text for this id",
    "no_scores": "pos_scores or neg_scores is missing, which the loss needs",
}


def candidates_schema(query_id: pa.DataType, passage_id: pa.DataType, kept: pa.StructType) -> pa.Schema:
    """A flat table between reading and scoring; `row` and `item` as in rejects."""
    return pa.schema(
        [
            ("query_id", query_id),
            ("query", pa.string()),
            ("passage_id", passage_id),
            ("passage", pa.string()),
            ("kept", kept),
            ("row", pa.int64()),
            ("item", pa.int32()),
        ]
    )


def rejects_schema(query_id: pa.DataType, passage_id: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            ("file", pa.string()),
            ("row", pa.int64()),
            ("item", pa.int32()),
            ("query_id", query_id),
            ("passage_id", passage_id),
            ("reason", pa.string()),
            ("field", pa.string()),
        ]
    )


def run_schema(
    query_id: pa.DataType, passage_id: pa.DataType, more: Sequence[pa.Field], kept: pa.StructType
) -> pa.Schema:
    """more: the columns that this run has beside RUN_COLUMNS and the kept ones."""
    results = {field.name: field.type for field in result_schema(())}
    types = results | {"query_id": query_id, "passage_id": passage_id, "rank": pa.int32()}
    return pa.schema([*((name, types[name]) for name in RUN_COLUMNS), *more, *kept])


def result_schema(more_scores: Sequence[str]) -> pa.Schema:
    """What scoring gives for a pair, in any order of pairs. more_scores: columns beside `score`."""
    cuts = [(name, pa.int32()) for name in ("query_cut", "passage_cut", "window")]
    return pa.schema([("score", pa.float32()), *cuts, *((name, pa.float32()) for name in more_scores)])


def layer_columns(cutoff_layers: Sequence[int]) -> list[str]:
    """The columns of the scores after each of several cutoff layers; none for one."""
    return [f"score_{layer}" for layer in cutoff_layers] if len(cutoff_layers) > 1 else []


def score_columns(cutoff_layers: Sequence[int], *, normalized: bool) -> list[str]:
    """All columns of scores that a run has beside `score`."""
    return [*layer_columns(cutoff_layers), *([RAW_SCORE] if normalized else [])]


def level_prefix(level: int) -> str:
    """Of the columns that are one level's of a cascade. Levels are numbered from 0, as in the config."""
    return f"level_{level}_"


def is_id(data_type: pa.DataType) -> bool:
    return is_text(data_type) or pa.types.is_integer(data_type) or pa.types.is_binary(data_type)


def is_text(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))
