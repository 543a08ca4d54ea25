"""A trained network in the layout in which rerankers are published: config, safetensors, tokenizer."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.scoring import gte_config
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.weight_files import WEIGHTS

_SMALL = {".json", ".txt", ".model", ".codes", ".jinja", ".py"}
_DESCRIBES_WEIGHTS = ".index.json"


def export(network: Any, start: Checkpoint, folder: Path, says: Mapping[str, str]) -> None:
    """Write `network`, which grew out of the checkpoint `start`, so that whatever loads that loads this.

    All but the weights stays as it was: transformers would write a config.json that its older versions, on
    which FlagEmbedding runs, misread (rope_parameters), and for a family of ours one of its backbone.

    says: what config.json says besides, as the family asks of what was trained.
    """
    network.save_pretrained(folder)
    if start.model_type == gte_config.MODEL_TYPE:
        gte_config.name_as_published(folder / WEIGHTS)
    (folder / "generation_config.json").unlink(missing_ok=True)
    copy_small_files(start.path, folder)
    described = {**start.config.fields, **says}
    # transformers loads in the dtype that stands here; the weights are float32.
    described |= {name: "float32" for name in ("dtype", "torch_dtype") if name in described}
    (folder / "config.json").write_text(json.dumps(described, indent=2), encoding="utf-8")


def copy_small_files(source: Path, target: Path, without: Collection[str] = ()) -> None:
    """What stands beside the weights of a checkpoint, folders of modules included, but no model card."""
    for file in sorted(source.rglob("*")):
        name = file.relative_to(source)
        is_shown = not any(part.startswith((".", "_")) for part in name.parts)
        if file.suffix not in _SMALL or file.name.endswith(_DESCRIBES_WEIGHTS) or not is_shown:
            continue
        if file.name not in without and not (without and len(name.parts) > 1):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / name)
