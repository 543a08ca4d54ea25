"""Writes reference.json and the LoRA adapters beside it: more scores of the reference implementation.

Run it in an environment of its own: Python 3.11 with FlagEmbedding 1.4.2, transformers 4.46.0, peft 0.13.2
and torch (the scores here are from 2.13.0, on a CPU). It takes the tiny checkpoints that lie beside it:

    python make_reference.py

It writes, into its own directory,

- adapter-CHECKPOINT/, one for each checkpoint: a LoRA adapter as FlagEmbedding's finetuning makes them
  (finetune/reranker/decoder_only/*/load_model.py), with random weights in place of trained ones;
- reference.json, in the format of golden.json: `pairs`, and `cases` with `checkpoint`, `options` (the
  reference's option names), `adapter` (a directory beside it, where one was loaded) and `scores` (a number a
  pair, or a list a layer where several cutoff layers are asked for).

The pairs are not those of golden.json but the edges: empty, blank, tiny, over-long, foreign.
"""

import json
import random
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from FlagEmbedding import (
    FlagLLMReranker,
    FlagReranker,
    LayerWiseFlagLLMReranker,
    LightWeightFlagLLMReranker,
)
from peft import LoraConfig, PeftModel, TaskType, get_peft_model

HERE = Path(__file__).parent
SEED = 446

ENCODER = "tiny-bge-reranker"
GEMMA = "tiny-bge-reranker-v2-gemma"
MINICPM = "tiny-bge-reranker-v2-minicpm-layerwise"
GEMMA2 = "tiny-bge-reranker-v2.5-gemma2-lightweight"

SCORERS = {
    ENCODER: FlagReranker,
    GEMMA: FlagLLMReranker,
    MINICPM: LayerWiseFlagLLMReranker,
    GEMMA2: LightWeightFlagLLMReranker,
}

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    # peft itself adds the classification head to the modules that are saved whole.
    ENCODER: {"task_type": TaskType.SEQ_CLS, "target_modules": ["query", "key", "value"]},
    GEMMA: {
        "task_type": TaskType.CAUSAL_LM,
        "target_modules": [*ATTENTION, "down_proj", "up_proj", "gate_proj"],
    },
    # FlagEmbedding's users train the heads of the layerwise models either whole or with LoRA.
    MINICPM: {
        "task_type": TaskType.CAUSAL_LM,
        "target_modules": ATTENTION,
        "modules_to_save": ["linear_head"],
    },
    GEMMA2: {"task_type": TaskType.CAUSAL_LM, "target_modules": [*ATTENTION, "linear_head"]},
}

# Each is one token in the decoders' vocabularies, with the space before it.
WORDS = """
    answer answers bear because bridges build capital cells china city clicks concrete contains cost
    determine documents either endemic engineers engines fold france from giant given how inside its
    judgments large lifetime living material models mountain near ocean own panda paris passage population
    predict prediction proteins providing query questions rank relevance river scientists search species
    steel strength study the trained using weight what whether while wood
"""
# Each is one token in the encoder's vocabulary as well.
SHORT_WORDS = "answer predict an"


class Case(NamedTuple):
    checkpoint: str
    options: dict[str, Any]
    adapter: str | None = None


def pairs() -> list[tuple[str, str]]:
    draw = random.Random(SEED)

    def words(count: int, among: str = WORDS) -> str:
        return " ".join(draw.choices(among.split(), k=count))

    # With the "B:" before it, a passage of n words is n + 1 tokens to the decoders: below, at and above the
    # compress ratios 2, 4 and 8.
    sized = [(words(4), words(count)) for count in (1, 2, 3, 4, 6, 7, 15, 31)]
    return [
        ("", "paris is the capital of france"),
        ("what is the population of china", ""),
        ("", ""),
        *sized,
        ("what is panda", " \t  "),
        ("\n\nwhat is panda\n", "\n\nthe giant panda is a bear\nspecies\n\n"),
        ("中国的人口是什么", "中国人口超过十四亿。北京是中国的首都，熊猫是大型动物。"),
        ("フランスの首都はどこですか", "パリはフランスの首都です。東京ではない。"),
        ("🐼 🚀", "👩‍🔬 studies 🐼🐼 in 🇨🇳 🎋"),
        ("naïve café in Zürich", "Ångström, crème brûlée, cafe\u0301 and Ünïcödé: ﬁne"),
        ("bear bear bear", "bear " * 60),
        ("rank(query, passage)", "def rank(query, passage):\n    return {'yes': 1}[query] >= 0.5  # no\n"),
        ("<s>panda</s>", "<bos>bear<eos> <unk> <pad>"),
        (words(6), words(1500)),
        (words(800), words(5)),
        (words(800), words(1500)),
        (words(386, SHORT_WORDS), words(40)),
    ]


def encoder_cases() -> Iterator[Case]:
    yield Case(ENCODER, {})
    yield Case(ENCODER, {"max_length": 40})
    yield Case(ENCODER, {"max_length": 24, "query_max_length": 8})
    yield Case(ENCODER, {"max_length": 24, "query_max_length": 40})
    yield Case(ENCODER, {"normalize": True})
    yield Case(ENCODER, {}, adapter_of(ENCODER))
    yield Case(ENCODER, {"max_length": 40}, adapter_of(ENCODER))


def gemma_cases() -> Iterator[Case]:
    instructions = {
        "query_instruction_for_rerank": "query: ",
        "passage_instruction_for_rerank": "a passage is ",
    }
    yield Case(GEMMA, {})
    yield Case(GEMMA, {"max_length": 48})
    yield Case(GEMMA, {"max_length": 32, "query_max_length": 8})
    yield Case(GEMMA, {"max_length": 32, "query_max_length": 64})
    yield Case(GEMMA, instructions)
    yield Case(GEMMA, {"normalize": True})
    yield Case(GEMMA, {}, adapter_of(GEMMA))
    yield Case(GEMMA, {"max_length": 48}, adapter_of(GEMMA))


def minicpm_cases() -> Iterator[Case]:
    for cutoff in range(2, 7):
        yield Case(MINICPM, {"cutoff_layers": [cutoff]})
    yield Case(MINICPM, {"cutoff_layers": [2, 3, 4, 5, 6]})
    yield Case(MINICPM, {"cutoff_layers": [4], "max_length": 48})
    yield Case(MINICPM, {"max_length": 32, "query_max_length": 64})
    yield Case(MINICPM, {"normalize": True})
    yield Case(MINICPM, {}, adapter_of(MINICPM))
    yield Case(MINICPM, {"cutoff_layers": [3]}, adapter_of(MINICPM))
    yield Case(MINICPM, {"cutoff_layers": [2, 4, 6]}, adapter_of(MINICPM))


def gemma2_cases() -> Iterator[Case]:
    def compressed(ratio: int, layers: list[int], cutoffs: list[int], adapter: str | None = None) -> Case:
        options = {"compress_ratio": ratio, "compress_layers": layers, "cutoff_layers": cutoffs}
        return Case(GEMMA2, options, adapter)

    yield Case(GEMMA2, {})
    for cutoff in range(3, 9):
        yield Case(GEMMA2, {"cutoff_layers": [cutoff]})
    yield Case(GEMMA2, {"cutoff_layers": [3, 8]})
    yield Case(GEMMA2, {"cutoff_layers": [3, 5, 8]})
    yield compressed(1, [2, 4], [8])
    yield compressed(2, [2], [5])
    yield compressed(2, [2, 4], [8])
    yield compressed(2, [3, 5, 7], [6])
    yield compressed(4, [2], [8])
    yield compressed(4, [2, 4], [6])
    yield compressed(4, [3, 5, 7], [7])
    yield compressed(8, [2], [4])
    yield compressed(8, [2, 4], [5])
    yield compressed(8, [3, 5, 7], [8])
    yield compressed(2, [2, 4], [3, 5, 8])
    yield compressed(4, [3, 5], [3, 8])
    yield compressed(2, [5], [5])  # the cutoff comes first: nothing is compressed
    yield compressed(4, [0, 3], [8])  # before the first layer nothing is compressed
    yield Case(GEMMA2, {"max_length": 48})
    yield Case(GEMMA2, {"max_length": 48, "compress_ratio": 4, "compress_layers": [2, 4]})
    yield Case(
        GEMMA2, {"max_length": 32, "query_max_length": 64, "compress_ratio": 2, "compress_layers": [3]}
    )
    bare = {"query_instruction_for_rerank": "", "passage_instruction_for_rerank": ""}
    yield Case(GEMMA2, bare | {"compress_ratio": 4, "compress_layers": [2]})
    yield Case(GEMMA2, {"normalize": True, "compress_ratio": 2, "compress_layers": [3]})
    yield Case(GEMMA2, {}, adapter_of(GEMMA2))
    yield Case(GEMMA2, {"cutoff_layers": [5]}, adapter_of(GEMMA2))
    yield compressed(2, [3], [4, 6], adapter_of(GEMMA2))


def adapter_of(checkpoint: str) -> str:
    return f"adapter-{checkpoint}"


def write_adapter(checkpoint: str) -> None:
    """Random weights all through: LoRA's own, and noise on the modules that are saved whole."""
    torch.manual_seed(SEED)
    base = SCORERS[checkpoint](str(HERE / checkpoint), devices="cpu").model
    config = LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, **ADAPTERS[checkpoint])
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    directory = HERE / adapter_of(checkpoint)
    model.save_pretrained(str(directory))
    (directory / "README.md").unlink()
    anonymize(directory / "adapter_config.json")


def anonymize(path: Path) -> None:
    """No path of this machine, and the same bytes in every run."""
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = None
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2) + "\n")


def load(case: Case) -> Any:
    options = dict(case.options)
    adapter = case.adapter and str(HERE / case.adapter)
    if adapter and case.checkpoint != ENCODER:
        options["peft_path"] = adapter
    scorer = SCORERS[case.checkpoint](str(HERE / case.checkpoint), use_fp16=False, devices="cpu", **options)
    if adapter and case.checkpoint == ENCODER:
        # FlagReranker would take peft_path and ignore it; this is what its siblings do.
        scorer.model = PeftModel.from_pretrained(scorer.model, adapter).merge_and_unload()
    return scorer


def rounded(scores: Any) -> Any:
    if isinstance(scores, Iterable):
        return [rounded(score) for score in scores]
    return float(f"{scores:.7g}")


def write_reference(path: Path) -> None:
    packages = ("FlagEmbedding", "transformers", "peft", "torch")
    reference = ", ".join([f"{name} {version(name)}" for name in packages]) + ", float32 on CPU"
    texts = pairs()
    results = []
    for case in [*encoder_cases(), *gemma_cases(), *minicpm_cases(), *gemma2_cases()]:
        result = {key: value for key, value in case._asdict().items() if value is not None}
        results.append(result | {"scores": rounded(load(case).compute_score(texts))})
    document = {"reference": reference, "seed": SEED, "pairs": texts, "cases": results}
    path.write_text(json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    for checkpoint in SCORERS:
        write_adapter(checkpoint)
    write_reference(HERE / "reference.json")


if __name__ == "__main__":
    main()
