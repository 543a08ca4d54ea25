"""What a model card tells of instructions and prompts."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.finetuning import flow
from pipeline.finetuning.prompts import RowPrompts
from pipeline.finetuning.sampling import Row
from pipeline.scoring import ScorerConfig
from tests.conftest import DATA, TINY
from tests.finetuning.rows import ROWS, config, write

GEMMA = str(DATA / "tiny-bge-reranker-v2-gemma")


def card(folder: Path, own: list[dict[str, Any]], **scorer: Any) -> str:
    """Of a training with rows that have these fields besides."""
    write(folder / "rows.jsonl", [row | more for row, more in zip(ROWS, own, strict=True)])
    flow.run(config(folder, scorer=scorer, training={"max_steps": 1}))
    text = (folder / "out/model/README.md").read_text()
    return text.split("## Instructions and prompts\n\n")[1].split("\nThe options that are not")[0]


def test_without_any_it_says_so(tmp_path: Path) -> None:
    assert card(tmp_path, [{}] * 6) == (
        "None was set, and no row had one of its own. Set none when you score with it.\n"
    )


def test_the_configs_and_the_rows_own_are_told_with_their_rows(tmp_path: Path) -> None:
    own = [{"query_prompt": "Find: "}] * 4 + [{}, {"passage_prompt": "ignored", "prompt": "Is it?"}]
    told = card(tmp_path, own, model=TINY, query_instruction_for_rerank='Say "what": ')
    assert told.splitlines()[2:] == [
        '- `query_instruction_for_rerank`: `"Find: "` in 4 rows, which have it as `query_prompt`;'
        ' `"Say \\"what\\": "` in 2 rows',
        '- `query_instruction_format`: `"{}{}"`',
        "- the `passage_prompt` of 1 rows was ignored: scorer.passage_instruction_for_rerank is not set",
        "- the `prompt` of 1 rows was ignored: the family sequence_classification has no prompt",
    ]


def test_a_decoders_prompts_are_told(tmp_path: Path) -> None:
    own: list[dict[str, Any]] = [{"prompt": "Is it?"}] * 2 + [{}] * 4
    told = card(tmp_path, own, model=GEMMA, passage_instruction_for_rerank="P: ")
    assert told.splitlines()[2:] == [
        '- `passage_instruction_for_rerank`: `"P: "` in all rows',
        '- `passage_instruction_format`: `"{}{}"`',
        '- `prompt`: `"Is it?"` in 2 rows, which have it as `prompt`; not set in 4 rows',
    ]


def test_of_many_texts_the_most_common_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.finetuning.prompts._KNOWN", 4)
    prompts = RowPrompts()
    for text in "abacdabefa":
        prompts.add(Row("q", ("p",), ("n",), prompt=text))
    (line,) = prompts.told(10, ScorerConfig(model=GEMMA), {"query_prompt": "", "passage_prompt": ""})
    assert line == (
        '- `prompt`: `"a"` in 4 rows, which have it as `prompt`; `"b"` in 2 rows, which have it as `prompt`;'
        ' `"c"` in 1 rows, which have it as `prompt`; others in 3 rows'
    )
