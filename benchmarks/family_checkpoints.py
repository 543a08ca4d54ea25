"""The checkpoints that families.py makes: layouts of the published decoder rerankers, sizes of their own.

Imports nothing of the project: FlagEmbedding's environment loads it, too.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

Options = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
SEED = 20
# Wider than the usual 0.02, with which all pairs score alike and a wrong input would not show.
DEVIATION = 0.1
HEADS = {"num_attention_heads": 4, "head_dim": 64, "query_pre_attn_scalar": 64}
SIZES = HEADS | {"vocab_size": 32_000, "hidden_size": 256, "num_hidden_layers": 12, "start_layer": 2}


class Family(NamedTuple):
    template: str
    """tests/data/tiny-bge-reranker-TEMPLATE has its layout and its tokenizer."""
    peer_class: str
    sizes: dict[str, int]
    settings: dict[str, Options]
    """Options, in the names that both systems share."""


CUTOFFS: dict[str, Options] = {f"cutoff {layer}": {"cutoff_layers": [layer]} for layer in (4, 8, 12)}
COMPRESSED = {
    f"ratio {ratio}, {name}": cutoff | {"compress_ratio": ratio, "compress_layers": [2]}
    for ratio in (1, 2, 4)
    for name, cutoff in CUTOFFS.items()
}
GEMMA = SIZES | {"vocab_size": 256_000, "num_hidden_layers": 18, "intermediate_size": 2048}
MINICPM, GEMMA2 = SIZES | {"intermediate_size": 640}, SIZES | {"intermediate_size": 1024}
FAMILIES = {
    "gemma": Family("v2-gemma", "FlagLLMReranker", GEMMA, {"all layers": {}}),
    "minicpm": Family("v2-minicpm-layerwise", "LayerWiseFlagLLMReranker", MINICPM, CUTOFFS),
    "gemma2": Family("v2.5-gemma2-lightweight", "LightWeightFlagLLMReranker", GEMMA2, COMPRESSED),
}


def make_checkpoint(family: Family, directory: Path) -> int:
    """Write the family's checkpoint; gives the number of its weights."""
    template = ROOT / "tests" / "data" / f"tiny-bge-reranker-{family.template}"
    for file in template.glob("*token*.json"):
        shutil.copy(file, directory)
    small = json.loads((template / "config.json").read_text())
    config = small | family.sizes
    (directory / "config.json").write_text(json.dumps(config))
    fill_up(directory / "tokenizer.json", config["vocab_size"])
    torch.manual_seed(SEED)
    # Gemma's norms multiply by 1 + weight, MiniCPM's by the weight.
    norm = 1.0 if config["model_type"] == "minicpm" else 0.0
    weights = {
        name: torch.full(shape, norm) if len(shape) == 1 else torch.randn(shape) * DEVIATION
        for name, shape in shapes(template / "model.safetensors", small, config).items()
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return sum(weight.numel() for weight in weights.values())


def fill_up(tokenizer: Path, tokens: int) -> None:
    """As many tokens as the model has embeddings, which Scorer asks for. No text comes to the new ones: no
    merge makes them.
    """
    content = json.loads(tokenizer.read_text())
    words = content["model"]["vocab"]
    words |= {f"<unused{number}>": number for number in range(len(words), tokens)}
    tokenizer.write_text(json.dumps(content))


def shapes(template: Path, small: Options, config: Options) -> dict[str, list[int]]:
    """The template's tensors, in config's sizes, those of the first layer and head as often as it asks."""
    with safe_open(template, "pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  (safetensors' files can't be iterated)
    sizes = dict(zip(_dimensions(small), _dimensions(config), strict=True))
    scaled = {name: [sizes.get(size, size) for size in shape] for name, shape in found.items()}
    layers, heads = config["num_hidden_layers"], config["num_hidden_layers"] + 1 - config["start_layer"]
    numbered = {"model.layers.0.": layers, "lm_head.0.": heads}
    others = {name: shape for name, shape in scaled.items() if not any(map(str.isdigit, name.split(".")))}
    return others | {
        name.replace(".0.", f".{number}.", 1): shape
        for name, shape in scaled.items()
        for number in range(next((count for first, count in numbered.items() if name.startswith(first)), 0))
    }


def _dimensions(config: Options) -> tuple[int, ...]:
    """Of the tensors. In templates and families alike the heads together are as wide as the model."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    keys = config["num_key_value_heads"] * width // heads
    return config["vocab_size"], config["intermediate_size"], keys, width
