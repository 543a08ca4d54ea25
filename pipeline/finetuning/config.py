"""What `finetune` reads, what it trains and how, and where the checkpoint goes.

Options that FlagEmbedding or transformers' TrainingArguments have keep their names.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from pipeline.config_file import flatten
from pipeline.mining.config import PLACES, JudgedRunConfig
from pipeline.placement import ActorsConfig
from pipeline.scoring.config import ScorerConfig
from pipeline.tables.config import InputConfig
from pipeline.tables.input.limits import Limits

LossName = Literal[
    "cross_entropy", "binary_cross_entropy", "kl_divergence", "mse", "margin_mse", "listnet", "lambdarank"
]
_TAUGHT = {"kl_divergence", "mse", "margin_mse", "listnet", "lambdarank"}
_SET_ELSEWHERE = {
    "max_length": "data.query_max_len and data.passage_max_len, or data.max_len, say how long a pair is",
    "query_max_length": "data.query_max_len says how long a query is",
    "passage_max_length": "data.passage_max_len says how long a passage is",
    "long_passages": "a pair is trained on in one piece",
    "normalize": "losses are of raw scores",
    "cutoff_layers": "all heads are trained together; leave it out here, and set it when you score",
    "peft_path": "merge the adapter into its model first, and train that",
    "engine": "torch alone trains",
}
"""Options of a scorer that training has no use for, with the reason."""
_COMPARED_BY_CONTENT = {"model", "revision", "local_files_only"}
"""Where weights lie: what is found there is compared itself."""


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataConfig(_Section):
    """Rows to train on: `query`, `pos`, `neg`, and where there is a teacher `pos_scores`, `neg_scores`."""

    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {"max_length": "max_len"}

    path: str | None = Field(default=None, min_length=1)
    """JSON lines as FlagEmbedding has them: a file, a directory (searched to its depths) or a glob; a local
    path or any fsspec or pyarrow URL."""
    mined: JudgedRunConfig | None = None
    """In place of path: a run or a candidate table, and what tells its positives. Its rows are those that
    `mine` would write; the run's scores are the teacher's."""
    train_group_size: int = Field(default=8, ge=2)
    """Passages a query: one of its positives, and negatives. Where a row has too few, they come again."""
    query_max_len: PositiveInt | None = None
    """Tokens of the query. Null: 32."""
    passage_max_len: PositiveInt | None = None
    """Tokens of the passage. Null: 128. As in FlagEmbedding a pair may have the sum of both; a query may take
    a quarter of the passage's tokens more, a passage half of the query's. A decoder's prompt comes on top, as
    it does in scoring; FlagEmbedding's trainer counts it in."""
    max_len: PositiveInt | None = None
    """Tokens of a pair, cut as the scorer cuts it when it scores, in place of the other two."""
    limits: Limits = Limits()
    """How large a thing in a file of `path` may be."""

    @model_validator(mode="after")
    def _rows_are_there_or_mined(self) -> Self:
        if (self.path is None) == (self.mined is None):
            raise ValueError("needs either path, files of rows, or mined, a run with judgments")
        if self.mined is not None and self.limits != Limits():
            raise ValueError("limits goes with path; a run has its own, mined.input.limits")
        return self

    @property
    def source(self) -> str:
        """Where the rows come from, for people."""
        path = self.path if self.mined is None else self.mined.input.path
        assert path is not None
        return path

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> Self:
        if self.max_len and (self.query_max_len or self.passage_max_len):
            raise ValueError(
                "max_len is the length of a pair: give it alone, or query_max_len and passage_max_len"
            )
        return self


class LossConfig(_Section):
    """What is minimized."""

    name: LossName = "cross_entropy"
    """cross_entropy: over the group, the positive first. binary_cross_entropy: of each pair alone.
    kl_divergence: from the teacher's scores over the group. mse: of a pair's score and the teacher's.
    margin_mse: of their distances from the positive's. listnet, lambdarank: of graded labels, which stand
    where a teacher's scores do."""
    knowledge_distillation: bool = False
    """FlagEmbedding's: to the cross-entropy is added the one against the softmax of the teacher's scores."""
    temperature: PositiveFloat = 1.0
    """kl_divergence: both scores are divided by it; the loss is multiplied by its square."""
    weight: float = Field(default=1.0, gt=0, le=1)
    """kl_divergence: its share of the loss. The rest is the cross-entropy's."""

    @model_validator(mode="after")
    def _options_go_with_the_loss(self) -> Self:
        if self.knowledge_distillation and self.name != "cross_entropy":
            raise ValueError(f"knowledge_distillation goes with cross_entropy; {self.name} is another loss")
        if self.name != "kl_divergence" and (self.temperature != 1 or self.weight != 1):
            raise ValueError(f"temperature and weight go with kl_divergence, not with {self.name}")
        return self

    @property
    def needs_scores(self) -> bool:
        """Whether every row must have pos_scores and neg_scores."""
        return self.knowledge_distillation or self.name in _TAUGHT


class TrainingConfig(_Section):
    """How it is minimized."""

    learning_rate: PositiveFloat = 5e-5
    """Of AdamW, at its highest."""
    num_train_epochs: PositiveInt = 1
    """How many times each row is taken."""
    max_steps: PositiveInt | None = None
    """In place of num_train_epochs: as many steps of the optimizer, over as many epochs as they take."""
    per_device_train_batch_size: PositiveInt = 8
    """Groups that go through a network at once."""
    gradient_accumulation_steps: PositiveInt = 1
    """Such batches a step. A step's loss is the mean over all its groups. Actors share a step's groups: how
    many there are changes nothing of what is learned."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate grows from 0; in the others it falls to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of all but biases and the weights of norms."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients whose norm is larger are scaled down to it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In which products are computed; weights and the optimizer's state are float32, and so is attention on a
    CPU, where it is faster. float16 scales the loss."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: less memory, a third more time."""
    use_lora: bool = False
    """Train low-rank factors beside frozen weights, and the heads. The checkpoint has them merged in."""
    lora_rank: PositiveInt = 64
    """Columns of the factors: how much an adapter can learn."""
    lora_alpha: PositiveInt = 16
    """The factors' product is multiplied by lora_alpha / lora_rank."""
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a layer's inputs that its factors do not see."""
    target_modules: tuple[str, ...] | None = Field(default=None, min_length=1, strict=False)
    """The linear layers that get factors, by the ends of their names. Null: all of the backbone."""
    save_steps: PositiveInt = 100
    """Steps from one checkpoint to the next, from which a killed job goes on."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Of the order of rows, the choice of negatives, dropout and fresh heads."""

    @property
    def groups_per_step(self) -> int:
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class HeldOutConfig(_Section):
    """A candidate table with judgments that nothing is trained on: which checkpoint is the best?"""

    candidates: InputConfig
    qrels: str = Field(min_length=1)
    """Judgments, a qrels file of TREC's form or BEIR's. Queries that are in both count."""
    every_steps: PositiveInt = 100
    """Steps from one measurement (nDCG@10) to the next; the last step is always measured."""
    patience: PositiveInt | None = None
    """Stop after so many measurements in a row that were no better than the best. Null: never."""


class CheckpointConfig(_Section):
    """Where the checkpoint goes."""

    path: str = Field(min_length=1)
    """A directory that is empty, new, or holds an earlier attempt at this very job."""


class FinetuneConfig(_Section):
    """A whole training."""

    # What FlagEmbedding's trainer and transformers' call an option, wherever it is written.
    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {
        "model_name_or_path": "scorer.model",
        "model_type": "scorer.family, read from the checkpoint's own files",
        **dict.fromkeys(("config_name", "tokenizer_name"), "not needed: scorer.model has them"),
        "use_flash_attn": "not needed: attention is computed as the device does it best",
        "train_data": "data.path",
        "max_example_num_per_dataset": "not supported: give data.path fewer rows",
        "cache_path": "the environment's TMPDIR",
        "cache_dir": "the environment's HF_HUB_CACHE",
        "token": "the environment's HF_TOKEN",
        "pad_to_multiple_of": "not needed: batches are laid out for the device",
        "sep_token": "not needed: it is built in, as in scoring",
        "shuffle_ratio": "not supported: texts are read as they stand",
        "output_dir": "output.path",
        "overwrite_output_dir": "not needed: the same command goes on; else take another output.path",
        "resume_from_checkpoint": "not needed: the same command goes on from the last checkpoint",
        **dict.fromkeys(("num_epochs", "epochs"), "training.num_train_epochs"),
        "steps": "training.max_steps",
        "batch_size": "training.per_device_train_batch_size",
        "warmup_steps": "training.warmup_ratio, a share of the steps",
        "lr_scheduler_type": "not supported: the rate falls linearly to 0",
        "optim": "not supported: AdamW trains",
        **dict.fromkeys(("bf16", "use_bf16"), "training.dtype: bfloat16"),
        **dict.fromkeys(("fp16", "use_fp16"), "training.dtype: float16"),
        **dict.fromkeys(
            ("deepspeed", "fsdp", "ddp_find_unused_parameters"),
            "actors; each has the whole model, and they share a step's groups",
        ),
        "num_workers": "actors.min and actors.max",
        "dataloader_drop_last": "not needed: a last batch keeps its groups whole",
        "dataloader_num_workers": "not needed: rows are read beforehand",
        **dict.fromkeys(("logging_steps", "logging_dir"), "not needed: OUTPUT/metrics.jsonl has every step"),
        "report_to": "not needed: TensorBoard's files are written where it is installed",
        **dict.fromkeys(
            ("save_strategy", "save_total_limit"), "training.save_steps; old checkpoints are removed"
        ),
        **dict.fromkeys(("eval_steps", "eval_strategy", "evaluation_strategy"), "held_out.every_steps"),
        "early_stopping_patience": "held_out.patience",
        **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), "held_out, by nDCG@10"),
        "save_merged_lora_model": "not needed: OUTPUT/model has the factors merged in",
        **dict.fromkeys(
            ("from_peft", "raw_peft"), "not supported: merge the adapter into scorer.model first"
        ),
        "modules_to_save": "not needed: heads are trained with use_lora, too",
        **dict.fromkeys(
            ("start_layer", "head_multi", "head_type"), "not needed: the checkpoint has its heads"
        ),
    }

    data: DataConfig
    scorer: ScorerConfig
    """The reranker to begin with, with the prompts to train it for. With held-out data it is scored as this
    says: `dtype`, `device`, `max_batch_tokens`."""
    fresh_head: bool = False
    """Put a new head of one logit on a plain encoder (BERT, XLM-R, ModernBERT, ...) and begin with that."""
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    held_out: HeldOutConfig | None = None
    output: CheckpointConfig
    num_cpus: PositiveInt | None = None
    """Threads. Null: one for each CPU that this process may use, or that an actor has."""
    actors: ActorsConfig | None = None
    """Train on a Ray cluster (started here where there is none), by as many actors as fit, from `min` to
    `max`. Each has the whole model. Null: in this process."""
    max_outage_s: float = Field(default=300, ge=0, le=1200)
    """How long a store that does not answer is waited for, by each request."""

    @model_validator(mode="after")
    def _scorer_says_nothing_of_training(self) -> Self:
        for name, reason in _SET_ELSEWHERE.items():
            if getattr(self.scorer, name) != ScorerConfig.model_fields[name].default:
                raise ValueError(f"scorer.{name}: {reason}")
        return self

    @model_validator(mode="after")
    def _actors_have_work(self) -> Self:
        if self.actors is None:
            return self
        groups = self.training.groups_per_step
        if self.actors.max > groups:
            raise ValueError(
                f"actors.max {self.actors.max} is more than the groups of a step, {groups}: raise"
                " training.per_device_train_batch_size or gradient_accumulation_steps"
            )
        if not (self.actors.num_cpus or self.actors.num_gpus):
            raise ValueError("actors.num_cpus 0: an actor without a GPU needs a CPU")
        if self.actors.num_gpus not in (0, 1):
            raise ValueError(
                f"actors.num_gpus {self.actors.num_gpus:g}: an actor trains on one GPU, which it has alone;"
                " give 1, or 0"
            )
        self.actors.check_device(self.scorer.device, "actors")
        return self

    def determining_fields(self) -> dict[str, Any]:
        """Dotted field to value, of what decides the weights besides what lies at the paths."""
        exclude: dict[str, Any] = {
            "data": {"path": True, "limits": True, "mined": PLACES},
            "scorer": _COMPARED_BY_CONTENT,
            "training": {"save_steps"},
            "held_out": {"candidates": PLACES["input"], "qrels": True},
            "output": True,
            "num_cpus": True,
            "actors": True,
            "max_outage_s": True,
        }
        return flatten(self.model_dump(mode="json", exclude=exclude))
