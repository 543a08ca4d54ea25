import json

import numpy as np

from pipeline.tables.output.training_rows import training_row, training_rows_file


def test_a_row_as_the_trainer_reads_it() -> None:
    score = float(np.float32(0.1))
    kept = {"prompt": "Is it?", "type": None, "label": 1}
    line = training_row("熊\n?", [("a bear", score)], [("b", -2.0), ("c", 1e-30)], kept)
    assert line.decode() == (
        '{"query": "熊\\n?", "pos": ["a bear"], "neg": ["b", "c"], "pos_scores": [0.100000001],'
        ' "neg_scores": [-2.0, 1e-30], "prompt": "Is it?"}\n'
    )
    assert np.float32(json.loads(line)["pos_scores"][0]) == np.float32(0.1)


def test_files_end_as_the_trainer_wants_them() -> None:
    assert training_rows_file("shard-000000") == "training_rows/shard-000000.jsonl"
