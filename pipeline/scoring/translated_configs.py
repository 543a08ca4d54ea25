"""Model types that bring code along, as the config of the network in transformers that computes the same."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import transformers

from pipeline.scoring import gte_config
from pipeline.scoring.json_object import JsonObject

LLAMA_BIDIRECTIONAL = "llama_bidirec"
"""NVIDIA's Llama in which each token attends to all: nemo_automodel/components/models/llama_bidirectional of
NVIDIA-NeMo/Automodel. The code beside its checkpoints does not load on transformers 5."""

_OF_THE_CODE = {"auto_map", "model_type", "pooling", "temperature"}


def _llama_config(config: JsonObject) -> Any:
    # A copy: transformers writes into what it is given.
    fields = {name: deepcopy(value) for name, value in config.fields.items() if name not in _OF_THE_CODE}
    try:
        return transformers.LlamaConfig.from_dict({**fields, "is_causal": False, "use_cache": False})
    except Exception as error:  # of whatever class its checks are
        raise config.unfit(error) from error


TRANSLATED: dict[str | None, Callable[[JsonObject], Any]] = {
    gte_config.MODEL_TYPE: gte_config.gte_config,
    LLAMA_BIDIRECTIONAL: _llama_config,
}
"""Each raises ModelError for what transformers' network does not compute."""
