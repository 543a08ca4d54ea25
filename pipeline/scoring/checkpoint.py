"""Find a checkpoint on disk, in a Python package or on a hub, and tell what it is."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import httpx2
import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from tokenizers import Tokenizer

from pipeline.errors import ModelError, RayrankError, TemporaryError
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.json_object import JsonObject
from pipeline.scoring.loaded_files import CODE, SUFFIXES, check_plain, digest_of
from pipeline.scoring.tokenizer_files import auto_tokenizer, check_tokenizer_files, load_tokenizer, own_sides
from pipeline.scoring.translated_configs import TRANSLATED
from pipeline.scoring.weight_files import StoredTensor, stored_tensors

_IMPLEMENTATIONS = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
"""Those that are torch alone: for others transformers may load compiled code from a hub."""
_NO_LENGTH = 10**9
"""transformers writes 1e30 for no limit."""
COUNTS_FROM_PAD = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}
"""Model types that number positions by the tokens that are not padding."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's directory. `name` is what the user called it, for messages."""

    name: str
    path: Path
    revision: str | None = None
    """The hub's commit; null where the checkpoint did not come from a hub."""
    trust_remote_code: bool = False

    @cached_property
    def config(self) -> JsonObject:
        """config.json, as published. Raises ModelError where a file beside it is a named pipe or a device."""
        config = self.read_object("config.json")
        check_plain(self.path)
        return config

    @cached_property
    def tokenizer_config(self) -> JsonObject:
        """tokenizer_config.json; no fields where there is none."""
        return self.read_optional("tokenizer_config.json")

    @property
    def architecture(self) -> str:
        return (self.config.texts("architectures") or ["unknown"])[0]

    @property
    def model_type(self) -> str | None:
        return self.config.text("model_type")

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model has positions for; null where nothing bounds it."""
        positions = self.config.integer("max_position_embeddings", least=1)
        if positions is None or self.config.flag("position_biased_input") is False:
            return None
        # These number positions from pad_token_id + 1 (create_position_ids_from_input_ids in transformers).
        if self.model_type in COUNTS_FROM_PAD:
            pad = self.config.integer("pad_token_id")
            return positions - (1 if pad is None else pad) - 1
        return positions

    def side_of(self, what: Literal["truncation", "padding"]) -> str:
        """`left` or `right`: the side on which its tokenizer cuts, or pads. tokenizer_config.json has the
        first word, as in transformers, and tokenizer.json the second.
        """
        told = self.tokenizer_config.text(f"{what}_side")
        return str(told or self._own_sides.get(what) or "right").lower()

    @cached_property
    def _own_sides(self) -> dict[str, Any]:
        """Of tokenizer.json, which has megabytes."""
        return own_sides(self.path)

    @property
    def tokenizer_max_length(self) -> int | None:
        """Tokens to which the checkpoint's tokenizer cuts; null where it cuts nothing."""
        length = self.tokenizer_config.integer("model_max_length", least=1)
        return None if length is None or length > _NO_LENGTH else length

    def length_limit(self, wanted: int | None, otherwise: int) -> int:
        """Tokens a sequence may have: as wanted, else `otherwise` or what the model has positions for.

        Raises ModelError where more is wanted than the model has positions for.
        """
        positions = self.max_positions
        if wanted is not None and positions is not None and wanted > positions:
            raise ModelError(
                f"max_length {wanted}: {self.name} has {positions} positions", field="max_length"
            )
        return wanted or min(otherwise, positions or otherwise)

    def check(self) -> None:
        """Raises ModelError for what its files ask for and nothing here does, and for weights that lack."""
        config = self.config
        quantization = config.fields.get("quantization_config") or config.fields.get("compression_config")
        if quantization is not None:
            method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
            raise config.wrong(
                "quantization_config", f"quantized with {method}; take the original checkpoint of {self.name}"
            )
        for name in ("attn_implementation", "_attn_implementation", "experts_implementation"):
            kernel = config.fields.get(name)
            if kernel not in _IMPLEMENTATIONS:
                raise config.wrong(name, f"{kernel!r} is not run here, eager and sdpa are; remove the field")
        if "transformers_weights" in config.fields:
            raise config.wrong(
                "transformers_weights", "names other weights; they are loaded under their usual name"
            )
        if (self.path / "adapter_config.json").exists():
            raise ModelError(
                f"{self.path}: has an adapter_config.json beside the model: give an adapter's directory as"
                " peft_path, the model's as model"
            )
        self.read_optional("generation_config.json")
        check_tokenizer_files(self.path)
        _ = self.stored_tensors

    @cached_property
    def architecture_config(self) -> Any:
        """config.json as transformers takes it. Raises ModelError where it does not."""
        if self.model_type in TRANSLATED:
            return TRANSLATED[self.model_type](self.config)
        try:
            return transformers.AutoConfig.from_pretrained(
                self.path, trust_remote_code=self.trust_remote_code
            )
        except Exception as error:  # of whatever class its checks are
            raise self.config.unfit(error) from error

    @cached_property
    def stored_tensors(self) -> dict[str, StoredTensor]:
        """The tensors that will be loaded, by name. Raises ModelError where they are not all there."""
        return stored_tensors(self.path)

    @property
    def address(self) -> str:
        """What leads to it from another process: the hub id, or the directory."""
        return self.name if self.revision else str(self.path.absolute())

    @cached_property
    def fingerprint(self) -> str:
        """Of the content, wherever it lies: the hub's commit, or a hash of all that is loaded."""
        if self.revision:
            return f"commit:{self.revision}"
        return f"sha256:{digest_of(self.path)}"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Without padding or truncation. Loaded once, for encoders of all limits.

        Raises ModelError where there is none, or where it is not the model's: an id past the last embedding.
        """
        runs_code = self.trust_remote_code and self.model_type not in TRANSLATED
        made = load_tokenizer(self.path, self.model_type, trust_remote_code=runs_code)
        words, rows = made.get_vocab(), self.config.integer("vocab_size", least=1)
        last = max(words, key=words.__getitem__)
        if rows is not None and words[last] >= rows:
            raise ModelError(
                f"{self.name}: its tokenizer has the token {last!r} with id {words[last]}, the model"
                f" embeddings for {rows} tokens (vocab_size); they don't belong together"
            )
        if rows is not None and len(words) < rows // 2:
            raise ModelError(
                f"{self.name}: its tokenizer has {len(words)} tokens, the model embeddings for {rows}"
                " (vocab_size); the vocabulary is cut off, or of another model"
            )
        return made

    @cached_property
    def shared(self) -> dict[Hashable, Any]:
        """What encoders of all limits share, for whoever makes it to keep: it takes time, or memory."""
        return {}

    @cached_property
    def has_token_types(self) -> bool:
        """Whether passage tokens are of type 1, as in BERT: model and tokenizer must both know types."""
        if (self.config.integer("type_vocab_size") or 0) < 2:
            return False
        made = auto_tokenizer(self.path, trust_remote_code=self.trust_remote_code)
        return "token_type_ids" in made.model_input_names

    def read_object(self, name: str) -> JsonObject:
        """One of its JSON files. Raises ModelError where it is not there, or no object."""
        return JsonObject.read(self.path / name)

    def read_optional(self, name: str) -> JsonObject:
        """The same; no fields where there is no such file."""
        return JsonObject.read_optional(self.path / name)


def find_checkpoint(config: ScorerConfig) -> Checkpoint:
    """Where `config.model` lies, downloaded first where it is a hub id.

    Raises ModelError where there is no such directory, package or repository, TemporaryError where the hub
    can't be reached.
    """
    return _find(config.model, config.revision, config)


def find_adapter(config: ScorerConfig) -> Checkpoint | None:
    """The same for `config.peft_path`."""
    return None if config.peft_path is None else _find(config.peft_path, config.peft_revision, config)


def _find(name: str, revision: str | None, config: ScorerConfig) -> Checkpoint:
    path = Path(name).expanduser()
    package = name.startswith("package:")
    if not package and not _is_directory(path):
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(f"{name}: no such directory")
        path, commit = _on_hub(name, revision, config)
        return Checkpoint(name, path, commit, config.trust_remote_code)
    if revision is not None:
        raise ModelError(f"{name}: is no hub id, and has no revision {revision!r}")
    return Checkpoint(name, _in_package(name) if package else path, None, config.trust_remote_code)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # of a name that is too long for one
        return False


def _in_package(model: str) -> Path:
    package, _, subdirectory = model.removeprefix("package:").partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{model}: no Python package {package!r} is installed here")
    if subdirectory.startswith("/") or ".." in Path(subdirectory).parts:
        raise ModelError(f"{model}: leads out of the package; write package:NAME/SUBDIR")
    path = Path(spec.submodule_search_locations[0]) / subdirectory
    if not _is_directory(path):
        raise ModelError(f"{model}: the package has no directory {subdirectory!r}")
    return path


def _on_hub(model: str, revision: str | None, config: ScorerConfig) -> tuple[Path, str]:
    suffixes = SUFFIXES if config.trust_remote_code else SUFFIXES - {CODE}
    try:
        path = huggingface_hub.snapshot_download(
            model,
            revision=revision,
            local_files_only=config.local_files_only,
            allow_patterns=[f"*{suffix}" for suffix in suffixes],
        )
    except HFValidationError as error:
        raise ModelError(f"{model}: neither a directory nor a hub id") from error
    except LocalEntryNotFoundError as error:
        raise _for_hub(error.__cause__)(
            f"{model}: no such directory, not in the hub's local cache, and the hub can't be reached (or"
            " local_files_only is set). Give a directory, or fill the cache where the hub can be reached"
        ) from error
    except (HfHubHTTPError, httpx2.TransportError, OSError) as error:
        raise _for_hub(error)(f"{model}: no such directory, and the hub answers: {error}") from error
    return Path(path), Path(path).name


def _for_hub(error: BaseException | None) -> type[RayrankError]:
    """Which error of ours the hub's is: whether it may answer later."""
    if isinstance(error, HfHubHTTPError):
        away = error.response.status_code >= 500 or error.response.status_code == 429
    else:
        away = isinstance(error, httpx2.TransportError)
    return TemporaryError if away else ModelError
