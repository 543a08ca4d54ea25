"""Which losses does FlagEmbedding's own trainer see, step by step?

It writes tests/data/finetuning/flag_embedding_losses.json, which tests/finetuning/test_parity.py holds our
training against. Run it from the repository root, in an environment of its own: Python 3.11 with
FlagEmbedding 1.4.2, transformers 4.46.0, peft 0.13.2, accelerate, datasets and torch (the losses there are
from 2.13.0, on a CPU):

    python benchmarks/flag_embedding_losses.py

FlagEmbedding's runners, datasets, collators, models and trainers work as released, on the tiny checkpoints
and the groups of tests/data (rows of FlagEmbedding's own examples, MIT licence, fewer and cut short). What is
changed is not their mathematics:

- rows come in the order of the file, and again from its start, instead of shuffled;
- dropout is 0, so that another implementation can have the same losses;
- losses are taken in full, where the trainer's log rounds them.

The file has

- `reference`: versions; `options`: what all cases share, in FlagEmbedding's names;
- `sequences`: the token ids of each pair that was drawn, by checkpoint, row, "pos" or "neg", and index in it;
- `cases`, by name: `checkpoint`, `adapter`, `all_heads`, the case's own `options`, `optimizer` as it was
  built (`not_decayed` names the parameters without weight decay), and `steps`, one an optimizer step:
  `batches` (of each group its row, and the indices of its positive and its negatives), `losses`, one a batch,
  `learning_rate` as the step used it, and `grad_norm` before clipping. Where a step has several batches this
  is the norm of the sum of their gradients: transformers 4.46.0 does not divide it, later versions do.

FlagEmbedding trains a layerwise model by the score after its last layer alone: its trainer asks for no cutoff
layers, and the model's default is the last one. With `all_heads` the model is asked for all of them, which is
what the loss is written for.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import SequentialSampler
from transformers import AutoConfig

try:
    from FlagEmbedding.abc.finetune.reranker import (
        AbsDataset,
        AbsRerankerDataArguments,
        AbsRerankerModelArguments,
        AbsRerankerTrainingArguments,
    )
    from FlagEmbedding.finetune.reranker.decoder_only import (
        base as decoder,
    )
    from FlagEmbedding.finetune.reranker.decoder_only import layerwise
    from FlagEmbedding.finetune.reranker.decoder_only.layerwise.configuration_minicpm_reranker import (
        LayerWiseMiniCPMConfig,
    )
    from FlagEmbedding.finetune.reranker.encoder_only import (
        base as encoder,
    )
except ImportError as missing:
    raise SystemExit("FlagEmbedding 1.4.2 is not installed: see the first lines of this file") from missing

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
GROUPS = DATA / "finetuning" / "groups.jsonl"
LOSSES = DATA / "finetuning" / "flag_embedding_losses.json"

ENCODER = "tiny-bge-reranker"
GEMMA = "tiny-bge-reranker-v2-gemma"
MINICPM = "tiny-bge-reranker-v2-minicpm-layerwise"
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "attention_dropout": 0.0}

TRAINING: dict[str, Any] = {
    "seed": 12,
    "max_steps": 20,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "dataloader_drop_last": True,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.1,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
}
TEXTS: dict[str, Any] = {"train_group_size": 4, "query_max_len": 32, "passage_max_len": 96, "sep_token": "\n"}
# Instructions as in FlagEmbedding's examples. The lengths cut passages by their own limit, but no pair by the
# sum: FlagEmbedding counts a decoder's prompt into it in training and not in scoring.
PROMPTED: dict[str, Any] = {
    "query_instruction_for_rerank": "A: ",
    "passage_instruction_for_rerank": "B: ",
    "query_max_len": 150,
    "passage_max_len": 20,
    "use_lora": False,
}
HEADS = {"model_type": "from_finetuned_model", "start_layer": 2, "head_multi": True, "head_type": "simple"}
DISTILLED = {"knowledge_distillation": True}


class Case(NamedTuple):
    checkpoint: str
    options: dict[str, Any]
    """Beside TRAINING and TEXTS."""
    all_heads: bool = False
    adapter: str | None = None
    """LoRA weights to begin with, beside the checkpoint; its own are drawn at random."""


CASES = {
    "encoder": Case(ENCODER, {}),
    "encoder_distilled": Case(ENCODER, DISTILLED),
    "encoder_accumulated": Case(ENCODER, {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}),
    "decoder": Case(GEMMA, PROMPTED),
    "decoder_distilled": Case(GEMMA, PROMPTED | DISTILLED),
    "decoder_lora": Case(GEMMA, PROMPTED | {"use_lora": True}, adapter=f"adapter-{GEMMA}"),
    "layerwise": Case(MINICPM, PROMPTED | HEADS),
    "layerwise_all_heads": Case(MINICPM, PROMPTED | HEADS, all_heads=True),
    "layerwise_all_heads_distilled": Case(MINICPM, PROMPTED | HEADS | DISTILLED, all_heads=True),
}
RUNNERS = {
    ENCODER: (encoder.EncoderOnlyRerankerRunner, AbsRerankerModelArguments),
    GEMMA: (decoder.DecoderOnlyRerankerRunner, decoder.RerankerModelArguments),
    MINICPM: (layerwise.DecoderOnlyRerankerRunner, layerwise.RerankerModelArguments),
}


class Draws:
    """Stands for the module `random` where FlagEmbedding draws passages; remembers what was drawn."""

    def __init__(self) -> None:
        self.positives: list[int] = []
        self.negatives: list[list[int]] = []

    def choice(self, indices: list[int]) -> int:
        self.positives.append(random.choice(indices))
        return self.positives[-1]

    def sample(self, indices: list[int], count: int) -> list[int]:
        self.negatives.append(random.sample(indices, count))
        return self.negatives[-1]


class Recorder:
    """Follows one training: what was drawn, what it cost."""

    def __init__(self, runner: Any) -> None:
        self.batches: list[list[dict[str, Any]]] = []
        self.sequences: dict[str, dict[str, dict[str, list[int]]]] = {}
        self.losses: list[float] = []
        self._draws = AbsDataset.random = Draws()
        self._rows = len(runner.train_dataset)
        trainer = self._trainer = runner.trainer
        trainer.data_collator = partial(self._collate, trainer.data_collator)
        trainer.compute_loss = partial(self._compute_loss, trainer.compute_loss)

    def _collate(self, collate: Callable[[Any], Any], features: list[Any]) -> Any:
        groups: list[dict[str, Any]] = []
        for sequences, _teacher_scores in features:
            count = sum(map(len, self.batches)) + len(groups)
            row = count % self._rows
            positive, negatives = self._draws.positives[count], self._draws.negatives[count]
            groups.append({"row": row, "pos": positive, "neg": negatives})
            kept = self.sequences.setdefault(str(row), {"pos": {}, "neg": {}})
            kept["pos"][str(positive)] = list(sequences[0]["input_ids"])
            for index, sequence in zip(negatives, sequences[1:], strict=True):
                kept["neg"][str(index)] = list(sequence["input_ids"])
        self.batches.append(groups)
        return collate(features)

    def _compute_loss(self, compute: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loss = compute(*args, **options)
        self.losses.append(loss.item())
        return loss

    def steps(self) -> Iterator[dict[str, Any]]:
        accumulated = self._trainer.args.gradient_accumulation_steps
        schedule = self._trainer.lr_scheduler
        norms = [entry["grad_norm"] for entry in self._trainer.state.log_history if "grad_norm" in entry]
        for step, norm in enumerate(norms):
            taken = slice(step * accumulated, (step + 1) * accumulated)
            yield {
                "batches": self.batches[taken],
                "losses": [rounded(loss) for loss in self.losses[taken]],
                "learning_rate": rounded(schedule.base_lrs[0] * schedule.lr_lambdas[0](step)),
                "grad_norm": rounded(norm),
            }


def rounded(value: float) -> float:
    return float(f"{value:.8g}")


def build(case: Case, directory: Path) -> Any:
    """FlagEmbedding's runner; `directory` takes what it writes."""
    make_runner, model_arguments = RUNNERS[case.checkpoint]
    options = TRAINING | TEXTS | case.options
    config = json.loads((DATA / case.checkpoint / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | NO_DROPOUT))

    def of(arguments: Any) -> dict[str, Any]:
        return {name: options[name] for name in arguments.__dataclass_fields__ if name in options}

    model = {"model_name_or_path": str(DATA / case.checkpoint), "config_name": str(directory)}
    if case.checkpoint == GEMMA:
        model["model_type"] = "decoder"
    if case.adapter:
        model["from_peft"] = str(DATA / case.adapter)
    data = {"train_data": [str(GROUPS)], "cache_path": str(directory / "cache")}
    training = {
        "output_dir": str(directory / "out"),
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    runner = make_runner(
        model_arguments(**model | of(model_arguments)),
        AbsRerankerDataArguments(**data | of(AbsRerankerDataArguments)),
        AbsRerankerTrainingArguments(**training | of(AbsRerankerTrainingArguments)),
    )
    runner.trainer._get_train_sampler = partial(SequentialSampler, runner.train_dataset)
    if case.all_heads:
        network, config = runner.model.model, runner.model.config
        layers = list(range(config.start_layer, config.num_hidden_layers + 1))
        network.forward = partial(network.forward, cutoff_layers=layers)
    return runner


def train(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """The case as the file has it, and its sequences."""
    with tempfile.TemporaryDirectory() as directory:
        runner = build(case, Path(directory))
        recorder = Recorder(runner)
        runner.trainer.train()
    trainer = runner.trainer
    names = {name for name, _ in runner.model.named_parameters()}
    decayed = set(trainer.get_decay_parameter_names(runner.model))
    optimizer = trainer.optimizer.optimizer
    defaults = {name: optimizer.defaults[name] for name in ("betas", "eps", "amsgrad")}
    result = {
        "checkpoint": case.checkpoint,
        "adapter": case.adapter,
        "options": case.options,
        "all_heads": case.all_heads,
        "optimizer": {"class": type(optimizer).__name__, **defaults, "not_decayed": sorted(names - decayed)},
        "steps": list(recorder.steps()),
    }
    return result, recorder.sequences


def main() -> None:
    torch.set_num_threads(1)
    AutoConfig.register("minicpm", LayerWiseMiniCPMConfig)
    packages = ("FlagEmbedding", "transformers", "accelerate", "peft", "torch")
    document: dict[str, Any] = {
        "reference": ", ".join(f"{name} {version(name)}" for name in packages) + ", float32 on CPU",
        "options": TRAINING | TEXTS | {"dropout": 0.0},
        "sequences": {},
        "cases": {},
    }
    for name, case in CASES.items():
        document["cases"][name], sequences = train(case)
        losses = [sum(step["losses"]) / len(step["losses"]) for step in document["cases"][name]["steps"]]
        print(f"{name}: " + " ".join(f"{loss:.4f}" for loss in losses))
        kept = document["sequences"].setdefault(case.checkpoint, {})
        for row, sides in sequences.items():
            for side, drawn in sides.items():
                kept.setdefault(row, {"pos": {}, "neg": {}})[side] |= drawn
    LOSSES.write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
