"""The checkpoint that a training begins with: as published, or a plain encoder with a fresh head."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from pipeline.errors import ConfigError, ModelError, fields_under
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.export import copy_small_files
from pipeline.scoring import ScorerConfig, gte_config
from pipeline.scoring.checkpoint import Checkpoint, find_checkpoint
from pipeline.scoring.saved_modules import MODULES, Saved
from pipeline.scoring.weights import load_weights
from pipeline.temporary_folder import filling, new_folder

_KEPT = "the model to begin with can't be kept"


@contextmanager
def starting_point(config: FinetuneConfig) -> Iterator[ScorerConfig]:
    """The scorer to begin with. One with a fresh head lies in a folder that goes when the block ends."""
    if not config.fresh_head:
        yield config.scorer
        return
    with new_folder("rayrank-start-", _KEPT) as folder:
        with fields_under("scorer"):
            put_head(config.scorer, folder, config.training.seed)
        yield config.scorer.model_copy(update={"model": str(folder), "revision": None, "family": None})


def put_head(scorer: ScorerConfig, folder: Path, seed: int) -> None:
    """Write a plain encoder as a reranker: the same weights, and a head of one logit drawn from the seed.

    Raises ConfigError where the checkpoint has a head already, ModelError where transformers has no such head
    for it.
    """
    checkpoint = find_checkpoint(scorer)
    has_head = checkpoint.architecture.endswith(("ForSequenceClassification", "ForCausalLM"))
    if has_head or Saved.of(checkpoint).has_modular_head:
        raise ConfigError(
            f"model {checkpoint.name}: {checkpoint.architecture} has a head of its own; leave fresh_head out",
            field="model",
        )
    torch.manual_seed(seed)
    network = _with_head(checkpoint, scorer)
    is_gte = checkpoint.model_type == gte_config.MODEL_TYPE
    described = {
        **checkpoint.config.fields,
        "architectures": [gte_config.architecture_of(network) if is_gte else type(network).__name__],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    }
    described.pop("num_labels", None)
    with filling(folder, _KEPT):
        network.save_pretrained(folder)
        copy_small_files(checkpoint.path, folder, without=_of_embeddings(checkpoint))
        (folder / "config.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def _with_head(checkpoint: Checkpoint, scorer: ScorerConfig) -> Any:
    settings = checkpoint.architecture_config
    settings.num_labels = 1
    try:
        with torch.device("meta"):
            empty = transformers.AutoModelForSequenceClassification.from_config(settings)  # type: ignore[no-untyped-call]  # transformers' own
    except ValueError as error:
        raise ModelError(
            f"model {checkpoint.name}: transformers has no classifier for {checkpoint.architecture}",
            field="model",
        ) from error
    backbone = empty.base_model_prefix
    new = tuple(name for name, _ in empty.named_children() if name != backbone)
    return load_weights(
        transformers.AutoModelForSequenceClassification,
        checkpoint,
        scorer,
        unused=(*new, f"{backbone}.pooler"),
        model_config=settings,
    )


def _of_embeddings(checkpoint: Checkpoint) -> set[str]:
    """What sentence-transformers says of an embedding model, and is not true of a reranker."""
    named = {file.name for file in checkpoint.path.glob("*sentence_*.json")}
    return {MODULES, *named}
