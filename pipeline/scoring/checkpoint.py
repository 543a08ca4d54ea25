"""Find a checkpoint on disk, in a Python package or on a hub, and tell what it is."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from pipeline.errors import ModelError
from pipeline.scoring.config import ScorerConfig

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_COUNTS_FROM_PAD = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"}
_BLOCK_BYTES, _BLOCKS = 64 * 1024, 64


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
            return int(positions) - int(self.config.get("pad_token_id", 1)) - 1
        return int(positions)

    def length_limit(self, wanted: int | None, otherwise: int) -> int:
        """Tokens a sequence may have: as wanted, else `otherwise` or what the model has positions for.

        Raises ModelError where more is wanted than the model has positions for.
        """
        positions = self.max_positions
        if wanted is not None and positions is not None and wanted > positions:
            raise ModelError(f"scorer.max_length {wanted}: {self.name} has {positions} positions")
        return wanted or min(otherwise, positions or otherwise)

    @property
    def fingerprint(self) -> str:
        """Of the content, wherever it lies: the hub's commit, or a hash of the files.

        Files up to 4 MiB are hashed whole, larger ones by 64 blocks spread evenly: training changes all of
        the weights, and a fingerprint must not take as long as loading them.
        """
        if self.revision:
            return f"commit:{self.revision}"
        digest = hashlib.sha256()
        for file in sorted(self.path.rglob("*")):
            if file.suffix in {".json", ".safetensors", ".txt", ".model"} and file.is_file():
                size = file.stat().st_size
                digest.update(f"{file.relative_to(self.path)}\0{size}\0".encode())
                with file.open("rb") as stream:
                    for offset in _block_offsets(size):
                        stream.seek(offset)
                        digest.update(stream.read(_BLOCK_BYTES))
        return f"sha256:{digest.hexdigest()}"

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_bytes())
        except FileNotFoundError as error:
            raise ModelError(f"{self.name}: no {name} in {self.path}; is it a checkpoint?") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.path / name}: not JSON: {error}") from error


def _block_offsets(size: int) -> list[int]:
    if size <= _BLOCKS * _BLOCK_BYTES:
        return list(range(0, size, _BLOCK_BYTES))
    last = size - _BLOCK_BYTES
    return [block * last // (_BLOCKS - 1) for block in range(_BLOCKS)]


def find_checkpoint(config: ScorerConfig) -> Checkpoint:
    """Where `config.model` lies, downloaded first where it is a hub id.

    Raises ModelError where there is no such directory, package or repository, or the hub can't be reached.
    """
    if config.model.startswith("package:"):
        path, revision = _in_package(config.model), None
    elif (path := Path(config.model).expanduser()).is_dir():
        revision = None
    elif config.model.startswith((".", "/", "~")) or config.model.count("/") > 1:
        raise ModelError(f"{config.model}: no such directory")
    else:
        path, revision = _on_hub(config.model, config)
    return Checkpoint(config.model, path, revision, config.trust_remote_code)


def _in_package(model: str) -> Path:
    package, _, subdirectory = model.removeprefix("package:").partition("/")
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{model}: no Python package {package!r} is installed here")
    path = Path(spec.submodule_search_locations[0]) / subdirectory
    if not path.is_dir():
        raise ModelError(f"{model}: the package has no directory {subdirectory!r}")
    return path


def _on_hub(model: str, config: ScorerConfig) -> tuple[Path, str]:
    try:
        path = huggingface_hub.snapshot_download(
            model,
            revision=config.revision,
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
