"""XLM-RoBERTa under the names that flash-attn's code gives its tensors: jina-reranker-v2-base-multilingual.

That code lies beside the checkpoint (modeling_xlm_roberta.py) and computes the same network, where positions
are absolute.
"""

from functools import cache
from typing import Any

import transformers

from pipeline.scoring.checkpoint import Checkpoint

_MARK = ".mixer.Wqkv.weight"
_LAYER, _LAYER_HERE = r"encoder\.layers\.(\d+)\.", r"encoder.layer.\1."
_NAMES = {
    r"roberta\.emb_ln": "roberta.embeddings.LayerNorm",
    rf"{_LAYER}mixer\.out_proj": rf"{_LAYER_HERE}attention.output.dense",
    rf"{_LAYER}norm1": rf"{_LAYER_HERE}attention.output.LayerNorm",
    rf"{_LAYER}mlp\.fc1": rf"{_LAYER_HERE}intermediate.dense",
    rf"{_LAYER}mlp\.fc2": rf"{_LAYER_HERE}output.dense",
    rf"{_LAYER}norm2": rf"{_LAYER_HERE}output.LayerNorm",
    rf"{_LAYER}mixer\.Wqkv": rf"{_LAYER_HERE}mixer.Wqkv",
}
"""The checkpoint's names, to those of transformers; its queries, keys and values are one tensor."""


def is_named_so(checkpoint: Checkpoint) -> bool:
    return any(name.endswith(_MARK) for name in checkpoint.stored_tensors)


def check(checkpoint: Checkpoint) -> None:
    """Raises ModelError where it is another network."""
    positions = checkpoint.config.text("position_embedding_type")
    if checkpoint.model_type != "xlm-roberta" or positions not in (None, "absolute"):
        raise checkpoint.config.wrong(
            "position_embedding_type",
            f"a {checkpoint.model_type} of flash-attn's code with {positions} positions is not run here, an"
            " xlm-roberta with absolute ones is",
        )


@cache
def network_class() -> Any:
    """XLMRobertaForSequenceClassification, of which transformers reads and writes other names."""
    # Slow to import, and needed where weights load.
    from transformers.conversion_mapping import register_checkpoint_conversion_mapping  # noqa: PLC0415
    from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming  # noqa: PLC0415

    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    name = "FlashXLMRoberta"
    register_checkpoint_conversion_mapping(
        name,
        [
            *(WeightRenaming(theirs, here) for theirs, here in _NAMES.items()),
            WeightConverter("mixer.Wqkv", parts, operations=[Chunk(dim=0)]),
        ],
    )
    return type(name, (transformers.XLMRobertaForSequenceClassification,), {})
