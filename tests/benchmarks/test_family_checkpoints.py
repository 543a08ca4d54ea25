import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from benchmarks.family_checkpoints import FAMILIES, ROOT, make_checkpoint
from pipeline.scoring import Scorer, ScorerConfig

NARROW = {"hidden_size": 16, "num_attention_heads": 4, "head_dim": 4, "query_pre_attn_scalar": 4}


@pytest.mark.parametrize("name", FAMILIES)
def test_scorer_loads_what_is_measured(tmp_path: Path, name: str) -> None:
    """The vocabulary is as large as in the benchmark, the layers are narrower and fewer."""
    family = FAMILIES[name]
    sizes = family.sizes | NARROW | {"num_hidden_layers": 4, "intermediate_size": 32}
    make_checkpoint(family._replace(sizes=sizes), tmp_path)
    layers = None if name == "gemma" else (4,)
    scorer = Scorer(ScorerConfig(model=str(tmp_path), device="cpu", cutoff_layers=layers))
    scores = scorer.score([("what is a wing", "a wing lifts"), ("heat", "heat flows along a plate")])
    assert np.isfinite(scores).all()


def test_a_filled_up_tokenizer_makes_of_a_text_what_it_made_before(tmp_path: Path) -> None:
    family = FAMILIES["gemma"]
    make_checkpoint(family._replace(sizes=family.sizes | NARROW | {"num_hidden_layers": 1}), tmp_path)
    template = ROOT / "tests/data" / f"tiny-bge-reranker-{family.template}" / "tokenizer.json"
    text = "A: heat flows along a plate\nB: <unused2000> is no token of a text 大熊猫"
    made, before = (Tokenizer.from_file(str(file)) for file in (tmp_path / "tokenizer.json", template))
    assert made.encode(text).ids == before.encode(text).ids
    assert made.get_vocab_size() == json.loads((tmp_path / "config.json").read_text())["vocab_size"]
