"""Relevance judgments as ir_measures takes them."""

from ir_measures import Qrel

from pipeline.tables.input.qrels import read_judgments


def read_qrels(url: str) -> list[Qrel]:
    """As `read_judgments`."""
    return [
        Qrel(judgment.query_id, judgment.passage_id, judgment.relevance, judgment.iteration)
        for judgment in read_judgments(url)
    ]
