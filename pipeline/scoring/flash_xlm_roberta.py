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
    from transformers import conversion_mapping as mapping  # noqa: PLC0415  (2 s, where weights load alone)
    from transformers import core_model_loading as loading  # noqa: PLC0415  (the same)

    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    name = "FlashXLMRoberta"
    mapping.register_checkpoint_conversion_mapping(
        name,
        [
            *(loading.WeightRenaming(theirs, here) for theirs, here in _NAMES.items()),
            loading.WeightConverter("mixer.Wqkv", parts, operations=[loading.Chunk(dim=0)]),
        ],
    )
    return type(name, (transformers.XLMRobertaForSequenceClassification,), {})
