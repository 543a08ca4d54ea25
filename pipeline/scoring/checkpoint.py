"""Find a checkpoint on disk, in a Python package or on a hub, and tell what it is."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.config import ScorerConfig

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_COUNTS_FROM_PAD = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's directory. `name` is what the user called it, for messages."""

    name: str
    path: Path
    revision: str | None = None
    """The hub's commit; null where the checkpoint did not come from a hub."""
    trust_remote_code: bool = False

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, as published."""
        return dict(self.read_json("config.json"))

    @property
    def architecture(self) -> str:
        return str((self.config.get("architectures") or ["unknown"])[0])

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the model has positions for; null where nothing bounds it."""
        positions = self.config.get("max_position_embeddings")
        if positions is None or self.config.get("position_biased_input") is False:
            return None
        # These number positions from pad_token_id + 1 (create_position_ids_from_input_ids in transformers).
        if self.config.get("model_type") in _COUNTS_FROM_PAD:
            pad = self.config.get("pad_token_id")
            return int(positions) - (1 if pad is None else int(pad)) - 1
        return int(positions)

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

    def check_weights(self) -> None:
        """Raises ModelError where there are no weights that load without running code."""
        if not list(self.path.glob("*.safetensors")):
            raise ModelError(
                f"{self.name}: no *.safetensors in {self.path}. Pickled weights (pytorch_model.bin) can run"
                " code when they load; convert them once with save_pretrained(...)"
            )

    @property
    def address(self) -> str:
        """What leads to it from another process: the hub id, or the directory."""
        return self.name if self.revision else str(self.path.absolute())

    @cached_property
    def fingerprint(self) -> str:
        """Of the content, wherever it lies: the hub's commit, or a hash of all that is loaded."""
        if self.revision:
            return f"commit:{self.revision}"
        digest = hashlib.sha256()
        for file in sorted(self.path.rglob("*")):
            if file.suffix in {".json", ".safetensors", ".txt", ".model", ".py"} and file.is_file():
                with file.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                digest.update(f"{file.relative_to(self.path)} {content}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Without padding or truncation. Loaded once, for encoders of all limits.

        tokenizer.json is taken as published: transformers 5 rebuilds some tokenizers from their vocabulary,
        and what is rebuilt need not give the ids with which the scores were published.
        """
        file = self.path / "tokenizer.json"
        tokenizer = _tokenizer_of(file) if file.is_file() else self._converted_tokenizer()
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def has_token_types(self) -> bool:
        """Whether passage tokens are of type 1, as in BERT: model and tokenizer must both know types."""
        if int(self.config.get("type_vocab_size") or 0) < 2:
            return False
        return "token_type_ids" in self._auto_tokenizer().model_input_names

    def _converted_tokenizer(self) -> Tokenizer:
        backend = getattr(self._auto_tokenizer(), "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ModelError(f"{self.name}: no tokenizer.json, and its tokenizer can't be made into one")
        return backend

    def _auto_tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.path, trust_remote_code=self.trust_remote_code)

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError as error:
            raise ModelError(f"{self.name}: no {name} in {self.path}; is it a checkpoint?") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.path / name}: not JSON: {error}") from error


def _tokenizer_of(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"{file}: not a tokenizer: {error}") from error


def find_checkpoint(config: ScorerConfig) -> Checkpoint:
    """Where `config.model` lies, downloaded first where it is a hub id.

    Raises ModelError where there is no such directory, package or repository, or the hub can't be reached.
    """
    return _find(config.model, config.revision, config)


def find_adapter(config: ScorerConfig) -> Checkpoint | None:
    """The same for `config.peft_path`."""
    return None if config.peft_path is None else _find(config.peft_path, config.peft_revision, config)


def _find(name: str, revision: str | None, config: ScorerConfig) -> Checkpoint:
    path = Path(name).expanduser()
    package = name.startswith("package:")
    if not package and not path.is_dir():
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(f"{name}: no such directory")
        path, commit = _on_hub(name, revision, config)
        return Checkpoint(name, path, commit, config.trust_remote_code)
    if revision is not None:
        raise ModelError(f"{name}: is no hub id, and has no revision {revision!r}")
    return Checkpoint(name, _in_package(name) if package else path, None, config.trust_remote_code)


def _in_package(model: str) -> Path:
    package, _, subdirectory = model.removeprefix("package:").partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{model}: no Python package {package!r} is installed here")
    path = Path(spec.submodule_search_locations[0]) / subdirectory
    if not path.is_dir():
        raise ModelError(f"{model}: the package has no directory {subdirectory!r}")
    return path


def _on_hub(model: str, revision: str | None, config: ScorerConfig) -> tuple[Path, str]:
    try:
        path = huggingface_hub.snapshot_download(
            model,
            revision=revision,
            local_files_only=config.local_files_only,
            allow_patterns=_HUB_FILES + (["*.py"] if config.trust_remote_code else []),
        )
    except HFValidationError as error:
        raise ModelError(f"{model}: neither a directory nor a hub id") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"{model}: no such directory, not in the hub's local cache, and the hub can't be reached (or"
            " local_files_only is set). Give a directory, or fill the cache where the hub can be reached"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"{model}: no such directory, and the hub answers: {error}") from error
    return Path(path), Path(path).name
