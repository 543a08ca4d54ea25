"""Training rows as files, and jobs over them, in this process."""

import json
from pathlib import Path
from typing import Any

from pipeline.finetuning.config import FinetuneConfig
from tests.conftest import TINY

ROWS: list[dict[str, Any]] = [
    {
        "query": f"what is number {number}?",
        "pos": [f"number {number} is a number", f"{number} it is"],
        "neg": [f"a bridge of {number} stones", "the giant panda", "no answer here"],
        "pos_scores": [2.0, 1.5],
        "neg_scores": [0.5, -1.0, -2.0],
    }
    for number in range(6)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def config(folder: Path, **sections: Any) -> FinetuneConfig:
    """A short job over ROWS: three steps an epoch."""
    if not (folder / "rows.jsonl").exists():
        write(folder / "rows.jsonl", ROWS)
    training = {
        "learning_rate": 1e-3,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "save_steps": 2,
        **sections.pop("training", {}),
    }
    settings = {
        "data": {
            "path": str(folder / "rows.jsonl"),
            "train_group_size": 3,
            "max_len": 32,
            **sections.pop("data", {}),
        },
        "scorer": {"model": TINY, "device": "cpu", **sections.pop("scorer", {})},
        "training": training,
        "output": {"path": str(folder / "out")},
        "num_cpus": 1,
        **sections,
    }
    return FinetuneConfig.model_validate(settings)
