"""Alibaba's GTE models (gte-multilingual-reranker-base, gte-*-v1.5), whose files bring code along (model type
`new`), as the `gte` of transformers, which is the same network.

The code is Alibaba-NLP/new-impl on the hub, modeling.py; transformers renames the tensors
(conversion_mapping.py).
"""

from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from pipeline.scoring.json_object import JsonObject

MODEL_TYPE = "new"
_AS_HERE: dict[str, Any] = {
    "position_embedding_type": "rope",
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "logn_attention_scale": False,
}
"""Options of the code that transformers has no other value for. Absent, they are these."""
_OF_THE_CODE = {*_AS_HERE, "auto_map", "model_type", "rope_scaling", "rope_theta", "use_cache"}


def gte_config(config: JsonObject) -> Any:
    """config.json of model type `new` as transformers' GteConfig.

    Raises ModelError for what transformers' network does not compute.
    """
    fields = config.fields
    for name, here in _AS_HERE.items():
        value = fields.get(name, here)
        if value != here:
            raise config.wrong(name, f"{value!r} is not run here, {here!r} is")
    theta = config.required_number("rope_theta")
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if fields.get("rope_scaling") is not None:
        scaling = config.object("rope_scaling")
        factor: Any = scaling.get("factor")
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool) and factor > 0
        if scaling.get("type") != "ntk" or scaling.get("mixed_b") is not None or not is_number:
            raise config.wrong("rope_scaling", f"{scaling} is not run here, type ntk with a factor is")
        # NTKScalingRotaryEmbedding: it scales at every length.
        width = config.required_integer("hidden_size") // config.required_integer("num_attention_heads")
        rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / width)}
    kept = {name: value for name, value in fields.items() if name not in _OF_THE_CODE}
    try:
        return transformers.GteConfig(**kept, rope_parameters=rope)
    except Exception as error:  # of whatever class its checks are
        raise config.unfit(error) from error


def architecture_of(network: Any) -> str:
    """The name that the published code has for a class of transformers."""
    return type(network).__name__.replace("Gte", "New")


def name_as_published(weights: Path) -> None:
    """Of a network that transformers saved: it puts the prefix on all tensors, and beside its own."""
    tensors = {name.removeprefix("new."): tensor for name, tensor in load_file(weights).items()}
    published = {name.replace("gte.", "new.", 1): tensor for name, tensor in tensors.items()}
    save_file(published, weights, metadata={"format": "pt"})
