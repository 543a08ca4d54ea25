"""What sentence-transformers saved beside a model: modules, prompts, lengths, how embeddings compare.

Follows sentence_transformers 6.2 (base/model.py, base/modules/transformer.py, cross_encoder/model.py). It
reads these files where there is a modules.json, and not otherwise. What is not honoured is refused by name.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokenizers import Tokenizer, normalizers

from pipeline.errors import ModelError
from pipeline.scoring.checkpoint import COUNTS_FROM_PAD, Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.json_object import JsonObject, read_json

MODULES, _MODEL = "modules.json", "config_sentence_transformers.json"
_TRANSFORMERS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The first of these that holds anything is read."""
_HONOURED = {"max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"}
_MESSAGES = ("auto", "flat", "structured")
_OF_LENGTH = {"padding", "truncation", "max_length", "return_tensors", "restore_suffix"}
_FOR_SPEED_ALONE = {"unpad_inputs"}
_ACTIVATIONS = ("torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid")
"""None changes an order: scores are what goes into them, and the option normalize is the sigmoid."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint's modules.json and the files that belong to it; `kinds` is empty where there is none."""

    path: Path | None = None
    kinds: tuple[str, ...] = ()
    """The modules' classes, in order."""
    paths: tuple[str, ...] = ()
    """The directory of each, below the checkpoint's."""
    model: JsonObject | None = None
    """config_sentence_transformers.json"""
    transformer: JsonObject | None = None
    """sentence_bert_config.json, or another of its names"""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Saved":
        """Raises ModelError where a file has another shape, or a module is not sentence-transformers' own."""
        path = checkpoint.path / MODULES
        if not path.exists():
            return cls()
        modules = read_json(path)
        if not isinstance(modules, list) or not modules or not all(map(_is_module, modules)):
            raise ModelError(f"{path}: needs a list of modules, each with the texts `type` and `path`")
        for module in modules:
            if not module["type"].startswith("sentence_transformers."):
                raise ModelError(
                    f"{path}: {module['type']} is code of the checkpoint's own, which is not run here"
                )
            place = PurePosixPath(module["path"])
            if place.is_absolute() or ".." in place.parts:
                raise ModelError(f"{path}: {module['path']} leads out of the checkpoint")
        read = (checkpoint.read_optional(name) for name in _TRANSFORMERS)
        return cls(
            path,
            tuple(module["type"].rpartition(".")[2] for module in modules),
            tuple(module["path"] for module in modules),
            checkpoint.read_optional(_MODEL),
            next((one for one in read if one.fields), None),
        )

    @property
    def pools(self) -> bool:
        """Whether it is an embedding model, whatever its architecture was made for."""
        return "Pooling" in self.kinds

    @property
    def has_modular_head(self) -> bool:
        """Whether it is a cross-encoder whose score comes from modules behind the Transformer, Pooling and
        Dense for example. A LogitScore, which reads a language model's logits, is no such head.
        """
        return self.model_type == "CrossEncoder" and len(self.kinds) > 1 and "LogitScore" not in self.kinds

    @property
    def model_type(self) -> str:
        """SentenceTransformer, CrossEncoder, SparseEncoder, ...; older files don't say, and are the first."""
        return (self.model and self.model.text("model_type")) or "SentenceTransformer"

    def check_transformer(self, task: str, output: str, *, chats: bool = False) -> None:
        """Raises ModelError for settings of the Transformer module that change what it computes.

        task, output: what is computed here, in sentence-transformers' words. chats: whether texts are put by
        a chat template.
        """
        settings = self.transformer
        if settings is None:
            return
        for name, value in settings.fields.items():
            if name in _HONOURED | _FOR_SPEED_ALONE or value in (None, {}, []):
                continue
            # sentence-transformers takes this from the caller alone.
            if isinstance(value, dict) and value.keys() <= {"trust_remote_code"}:
                continue
            if chats and name == "processing_kwargs" and not self._options_beside_chats():
                continue
            raise settings.wrong(name, "is not run here")
        if settings.text("transformer_task") not in (None, task):
            raise settings.wrong("transformer_task", f"is not run here, {task} is")
        known = {"text", "message"} if chats else {"text"}
        wanted = {"method": "forward", "method_output_name": output}
        for modality, how in self.modalities.items():
            told = {**how} if isinstance(how, dict) else {}
            form = told.pop("format", "auto") if modality == "message" else "auto"
            if modality not in known or told != wanted or form not in _MESSAGES:
                raise settings.wrong("modality_config", f"{modality} is not run here, texts are")

    @property
    def modalities(self) -> dict[str, Any]:
        """What its Transformer takes, and how: `text` as it is, `message` by a chat template."""
        return self.transformer.object("modality_config") if self.transformer is not None else {}

    @property
    def chat_options(self) -> dict[str, Any]:
        """What the chat template is given beside the messages."""
        options = self.transformer.object("processing_kwargs") if self.transformer is not None else {}
        given = options.get("chat_template")
        return {**given} if isinstance(given, dict) else {}

    def _options_beside_chats(self) -> set[str]:
        """Options that cut and pad, which is done otherwise here."""
        assert self.transformer is not None
        options = self.transformer.object("processing_kwargs")
        return (set(options) - {"chat_template"}) | (_OF_LENGTH & self.chat_options.keys())

    @property
    def told_length(self) -> int | None:
        """max_seq_length, which counts before the tokenizer's own length; null where it is not told."""
        return self.transformer.integer("max_seq_length", least=1) if self.transformer is not None else None

    def max_length(self, checkpoint: Checkpoint) -> int:
        """The length to which sentence-transformers cuts a text, or a pair, special tokens included."""
        if self.told_length is not None:
            return self.told_length
        positions = checkpoint.config.integer("max_position_embeddings", least=1)
        lengths = [one for one in (checkpoint.tokenizer_max_length, positions) if one is not None]
        return min(lengths, default=512)

    def tokenizer_of(self, checkpoint: Checkpoint) -> Tokenizer:
        """As the Transformer module has it: do_lower_case puts a Lowercase before all else."""
        if self.transformer is None or not self.transformer.flag("do_lower_case"):
            return checkpoint.tokenizer
        key = "lower-cased tokenizer"
        if key not in checkpoint.shared:
            checkpoint.shared[key] = _lower_cased(checkpoint.tokenizer)
        made: Tokenizer = checkpoint.shared[key]
        return made

    @property
    def prompts(self) -> dict[str, str]:
        """By name; without those that are empty."""
        prompts = self.model.object("prompts") if self.model is not None else {}
        for name, prompt in prompts.items():
            if prompt is not None and not isinstance(prompt, str):
                raise self._wrong("prompts", f"{name} needs a text")
        return {name: prompt for name, prompt in prompts.items() if prompt}

    @property
    def default_prompt(self) -> str | None:
        """The prompt before all texts for which nothing else is asked."""
        name = self.model.text("default_prompt_name") if self.model is not None else None
        if name is None:
            return None
        if name not in (self.model.object("prompts") if self.model is not None else {}):
            raise self._wrong("default_prompt_name", f"names {name!r}, which prompts has not")
        return self.prompts.get(name)

    def role_prompts(self) -> tuple[str | None, str | None]:
        """The prompts of queries and of passages, as encode_query and encode_document take them.

        Raises ModelError where there is a default prompt and these would go past it: sentence-transformers
        has two answers then, that of `encode` and that of the two.
        """
        prompts, default = self.prompts, self.default_prompt
        if "document" not in prompts and (other := prompts.keys() & {"passage", "corpus"}):
            raise self._wrong(
                "prompts", f"sentence-transformers reads `document`, not `{min(other)}`; rename it"
            )
        roles = prompts.get("query"), prompts.get("document")
        if default is not None and roles != (default, default):
            raise self._wrong(
                "default_prompt_name",
                "queries and passages have other prompts than this one, or none; set it to null, and give the"
                " prompts `query` and `document` what goes before each",
            )
        return roles

    @property
    def similarity(self) -> str:
        """cosine, dot, euclidean or manhattan; cosine where nothing is said."""
        name = self.model.text("similarity_fn_name") if self.model is not None else None
        if name not in (None, "cosine", "dot", "euclidean", "manhattan"):
            raise self._wrong("similarity_fn_name", f"{name!r} is not run here")
        return name or "cosine"

    @property
    def truncate_dim(self) -> int | None:
        """How many numbers of an embedding count; null: all."""
        return self.model.integer("truncate_dim", least=1) if self.model is not None else None

    def check_activation(self, checkpoint: Checkpoint) -> None:
        """Raises ModelError for one that is no sigmoid: the score would not be what the checkpoint means."""
        config = checkpoint.config
        named = config.object("sentence_transformers").get("activation_fn")
        places = [
            (config, "sentence_transformers", named),
            (
                config,
                "sbert_ce_default_activation_function",
                config.text("sbert_ce_default_activation_function"),
            ),
        ]
        if self.model is not None:
            places.append((self.model, "activation_fn", self.model.text("activation_fn")))
        for file, name, activation in places:
            if activation not in (None, *_ACTIVATIONS):
                raise file.wrong(name, f"the activation function {activation} is not run here")

    def _wrong(self, name: str, what: str) -> ModelError:
        assert self.model is not None
        return self.model.wrong(name, what)


def logit_tokens(checkpoint: Checkpoint, saved: Saved) -> tuple[int, int | None] | None:
    """The tokens whose logits a LogitScore compares, the second perhaps none; None without such a module.

    Its form: sentence_transformers 6.2, cross_encoder/modules/logit_score.py. Raises ModelError where they
    are no tokens of the model.
    """
    if "LogitScore" not in saved.kinds:
        return None
    settings = checkpoint.read_object(f"{saved.paths[saved.kinds.index('LogitScore')]}/config.json")
    rows, yes, no = (
        checkpoint.config.required_integer("vocab_size"),
        settings.required_integer("true_token_id", least=0),
        settings.integer("false_token_id"),
    )
    for name, token in (("true_token_id", yes), ("false_token_id", no)):
        if token is not None and token >= rows:
            raise settings.wrong(name, f"{token} is no token, there are {rows}")
    if settings.text("module_input_name") not in (None, "causal_logits"):
        raise settings.wrong("module_input_name", "is not run here, causal_logits are")
    return yes, no


def check_sides(checkpoint: Checkpoint, config: ScorerConfig, *, pads: bool, chats: bool = False) -> None:
    """Raises ModelError where the tokenizer cuts, or pads, on another side than is done here.

    pads: whether padding on the left would move positions, as it does where they are learned. chats: whether
    a pair stands in a chat, which would be cut at its beginning; here it is not, whatever the option says.
    """
    settings = checkpoint.tokenizer_config
    if checkpoint.side_of("truncation") == "left":
        if chats:
            raise settings.wrong(
                "truncation_side", "is left, by which long chats lose their beginning; set it to right"
            )
        if config.truncation_side != "left":
            raise settings.wrong("truncation_side", "is left: set the option truncation_side to left as well")
    rotary = any(name.startswith("rope") for name in checkpoint.config.fields)
    counts = checkpoint.model_type in COUNTS_FROM_PAD
    if pads and checkpoint.side_of("padding") == "left" and not rotary and not counts:
        raise settings.wrong("padding_side", "is left, where the positions of a text depend on its batch")


def refuse_modules(saved: Saved, family: str) -> None:
    """For families whose pairs are put together otherwise than in sentence-transformers."""
    if saved.kinds:
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; the family {family} scores as FlagEmbedding does,"
            " without them"
        )


def _lower_cased(tokenizer: Tokenizer) -> Tokenizer:
    parts = tokenizer.normalizer
    # The library's stubs don't say that a Sequence has a length and items.
    before = [parts[i] for i in range(len(parts))] if isinstance(parts, normalizers.Sequence) else [parts]
    before = [part for part in before if part is not None]
    if not any(isinstance(part, normalizers.Lowercase) for part in before):
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])
    return tokenizer


def _is_module(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in ("type", "path"))
