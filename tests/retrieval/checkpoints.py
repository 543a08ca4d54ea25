"""A tiny checkpoint that embeds texts."""

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from tests.scoring.checkpoints import make_trunk


def large_embedder(path: Path, times: float, similarity: str = "cosine") -> str:
    """Its embeddings are not normalized, and as many times as large as its trunk's. Gives the path."""
    make_trunk(path, "bert")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    types = [{"path": place, "type": f"sentence_transformers.models.{kind}"} for place, kind in modules]
    (path / "modules.json").write_text(json.dumps(types))
    (path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True}
    (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    (path / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": similarity}))
    weights = load_file(path / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] *= times
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return str(path)
