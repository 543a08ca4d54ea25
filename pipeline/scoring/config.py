"""What a scorer needs to know: which checkpoint, on which device, with which options."""

from typing import ClassVar, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from pipeline.config_problems import Config
from pipeline.scoring.names_elsewhere import OPTIONS

Dtype = Literal["float32", "bfloat16", "float16"]


class LongPassages(Config):
    """Score a passage that is longer than a window, or than fits, window by window."""

    strategy: Literal["max", "mean", "first"]
    """The passage's score: its best window's, the mean of all, or the first one's."""
    window: PositiveInt | None = None
    """Passage tokens a window. Null, or more than fits: what the query leaves room for."""
    stride: PositiveInt | None = None
    """Tokens from one window's start to the next one's. Null: the window, so that none overlap."""

    @model_validator(mode="after")
    def _leaves_no_gap(self) -> Self:
        if self.window and self.stride and self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} is above window {self.window}: no window would read between"
            )
        return self


class Limits(Config):
    """What is cut of a pair, where one call differs from the config. Null: as the config has it."""

    max_length: PositiveInt | None = None
    """Tokens of a pair, at most the model's positions. The scorer's own, where that is lower."""
    passage_max_length: PositiveInt | None = None
    """Tokens of the passage. The config's, where that is lower."""
    truncation: Literal["flag_embedding", "longest_first", "error", "cut"] | None = None
    """What is cut of a pair that is too long. `cut`: as the config has it, or as without the option where
    that is error."""
    truncation_side: Literal["left", "right"] | None = None
    """From which end."""

    def applied_to(self, config: "ScorerConfig") -> "ScorerConfig":
        update = self.model_dump(exclude_none=True)
        if self.passage_max_length is not None and config.passage_max_length is not None:
            update["passage_max_length"] = min(self.passage_max_length, config.passage_max_length)
        if self.truncation == "cut":
            del update["truncation"]
            update |= {"truncation": None} if config.truncation == "error" else {}
        return config.model_copy(update=update)


class Quantization(Config):
    """Compute in integers."""

    kind: Literal["int8"]
    """Weights and activations in int8, calibrated on real pairs."""
    path: str = Field(min_length=1)
    """The calibrated model, one file. A job makes it from its own pairs before it starts, where there is none
    yet; for a job it may be a URL."""
    calibration_pairs: PositiveInt = 300
    """From how many pairs, spread over the job's table."""
    fingerprint: str | None = None
    """`sha256:...` of the file that must lie there. Null: any."""


class ScorerConfig(Config):
    """Options keep the names that FlagEmbedding gives them, where it has them."""

    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = OPTIONS

    model: str = Field(min_length=1)
    """A directory, a hub id (`BAAI/bge-reranker-v2-m3`), or `package:NAME/SUBDIR` for a checkpoint
    that an installed Python package carries."""
    family: str | None = None
    """Null: read from the checkpoint's own config.json."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    local_files_only: bool = False
    """Take the hub's files from the local cache, ask no hub."""
    trust_remote_code: bool = False
    """Run model code that the checkpoint brings along. No BGE reranker needs it here."""
    peft_path: str | None = None
    """A LoRA adapter (directory or hub id), merged into the weights at load."""
    peft_revision: str | None = None
    """Branch, tag or commit of the adapter on the hub."""

    engine: str = "torch"
    """What computes the network: torch, or another module of pipeline/scoring/engines."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU where there is one."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Of the backbone, whatever the checkpoint was saved in. The head always runs in float32. `auto`: the
    fastest that the device computes natively, bfloat16 where its chip has it, else float16 on a GPU and
    float32 on a CPU. A job and a deployment settle it once, for all their processes."""
    quantization: Quantization | None = None
    """Null: in `dtype`. For engine openvino alone."""
    max_batch_tokens: PositiveInt | None = None
    """Padded tokens a forward pass may hold; null: chosen from the device and its memory."""

    max_length: PositiveInt | None = None
    """Tokens of a pair (bi_encoder: of a text), special tokens included; with truncation flag_embedding the
    prompt of decoder rerankers comes on top. Null: 512 (qwen3: 8192), or less if the checkpoint says so;
    where sentence-transformers saved it, what that has. Never more than the model has positions for: where
    these are rotary, sentence-transformers takes a max_seq_length above max_position_embeddings."""
    query_max_length: PositiveInt | None = None
    """Tokens of the query. Null: three quarters of max_length; with other than flag_embedding, none."""
    passage_max_length: PositiveInt | None = None
    """Tokens of the passage. Null: what the query leaves of max_length."""
    truncation: Literal["flag_embedding", "longest_first", "error"] | None = None
    """What is cut of a pair that is too long. flag_embedding: the query to query_max_length, then only the
    passage, as the published scores were made. longest_first: the longer of the two, as
    text-embeddings-inference, sentence-transformers and vLLM do. error: nothing; such a pair is refused.
    Null: longest_first for cross-encoders that sentence-transformers saved, unless long_passages is set;
    else flag_embedding."""
    truncation_side: Literal["left", "right"] = "right"
    """From which end query and passage are cut. What parts them in a decoder's prompt stays; where the
    tokenizer cuts on the left, FlagEmbedding cuts it first."""
    long_passages: LongPassages | None = None
    """Null: a passage that is too long is cut."""
    normalize: bool = False
    """Show the score through a sigmoid. Ranks are by the score without it."""

    prompt: str | None = None
    """What the decoder rerankers read last. Null: the one the checkpoint was trained with."""
    cutoff_layers: tuple[PositiveInt, ...] | None = Field(default=None, min_length=1, strict=False)
    """Layers after which to score (minicpm_layerwise, gemma2_lightweight). Null: the last."""
    compress_layers: tuple[int, ...] = Field(default=(8,), strict=False)
    """Layers before which gemma2_lightweight compresses the passage, where compress_ratio is above 1."""
    compress_ratio: Literal[1, 2, 4, 8] = 1
    """Passage tokens that become one."""
    head_index: Literal["position", "layer"] | None = None
    """gemma2_lightweight: which head a cutoff uses. Its `position` among the cutoffs asked for is what the
    published scores were made with; `layer` takes the head that was trained for the layer. Null: what the
    checkpoint's config.json says, as one that `pipeline.finetune` trained does, else `position`."""

    query_instruction_for_rerank: str | None = None
    """What goes before the query. Null: nothing, or what the decoder rerankers were trained with."""
    query_instruction_for_retrieval: str | None = None
    """For bi_encoder, as the BGE embedding models document it."""
    query_instruction_format: str = "{}{}"
    """How instruction and query become one text: two `{}`, the instruction's first."""
    passage_instruction_for_rerank: str | None = None
    """The same for the passage."""
    passage_instruction_format: str = "{}{}"
    """How instruction and passage become one text."""

    @model_validator(mode="after")
    def _revises_what_there_is(self) -> Self:
        if self.peft_revision is not None and self.peft_path is None:
            raise ValueError("peft_revision is of an adapter: give its peft_path")
        return self

    @field_validator("query_instruction_format", "passage_instruction_format")
    @classmethod
    def _has_two_places(cls, value: str) -> str:
        try:
            fits = value.format("\0", "\1").count("\0") == 1 == value.format("\0", "\1").count("\1")
        except (IndexError, KeyError, ValueError):
            fits = False
        if not fits:
            raise ValueError("needs two places, '{}{}', for the instruction and the text")
        # FlagEmbedding takes a written "\n" for a line break, as YAML and shells often leave it.
        return value.replace("\\n", "\n")
