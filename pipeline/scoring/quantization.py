"""A network in int8, calibrated on pairs: made once, kept as one file, and the same for all who read it.

The file is a zip archive, stored: `calibration.json`, and what the engine keeps.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import BaseModel

from pipeline.errors import ModelError
from pipeline.plain_file import open_plain
from pipeline.scoring.config import Quantization
from pipeline.scoring.engine import Computation, Inputs, Output, QuantizingEngine

_HEADER, _FORMAT = "calibration.json", 1
_FIELD = "quantization.path"
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Header(BaseModel):
    """Of what a file is, and how it came to be."""

    format_version: int
    engine: str
    checkpoint: str
    """Fingerprint of the weights."""
    calibration_pairs: int
    """As the config had it; a table may hold fewer."""
    tokens: str
    """Fingerprint of the pairs that it was calibrated on, as their token ids."""
    versions: dict[str, str]


class Quantized(NamedTuple):
    """A calibrated model, as read."""

    header: Header
    files: dict[str, bytes]

    @classmethod
    def read(cls, quantization: Quantization, engine: str, checkpoint: str) -> Self:
        """Raises ModelError where the file is not there, damaged, or of another model than `checkpoint`."""
        data = stored_bytes(quantization)
        if quantization.fingerprint not in (None, fingerprint_of(data)):
            raise _wrong(quantization, f"is {fingerprint_of(data)}, and not {quantization.fingerprint}")
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                files = {name: archive.read(name) for name in archive.namelist()}
            header = Header.model_validate_json(files.pop(_HEADER))
        # A damaged archive may say that it is encrypted, compressed in another way, or of a negative length.
        except (
            zipfile.BadZipFile,
            zlib.error,
            KeyError,
            ValueError,
            RuntimeError,
            EOFError,
            OSError,
        ) as error:
            raise _wrong(quantization, "is no calibrated model, or damaged; remove it") from error
        for what, made, needed in (
            ("format", header.format_version, _FORMAT),
            ("engine", header.engine, engine),
            ("checkpoint", header.checkpoint, checkpoint),
            ("calibration_pairs", header.calibration_pairs, quantization.calibration_pairs),
        ):
            if made != needed:
                raise _wrong(quantization, f"was made with {what} {made}, not {needed}; take another path")
        return cls(header, files)


class Reading:
    """An engine that computes a quantized network."""

    def __init__(self, engine: QuantizingEngine, quantized: Quantized) -> None:
        self.__name__, self.INSTALL = engine.__name__, engine.INSTALL
        self.is_available, self.supports = engine.is_available, engine.supports
        self._engine, self._files = engine, quantized.files

    def prepare(
        self, _network: Any, _output: Output, _device: torch.device, dtype: torch.dtype
    ) -> Computation:
        return self._engine.load_quantized(self._files, dtype)


class Recording:
    """An engine that computes nothing: it keeps the network, and the batches that come to it."""

    def __init__(self, engine: QuantizingEngine) -> None:
        self.__name__, self.INSTALL = engine.__name__, engine.INSTALL
        self.is_available, self.supports = engine.is_available, engine.supports
        self._engine = engine
        self._batches: list[Inputs] = []
        self._quantize: Callable[[], dict[str, bytes]] | None = None

    def prepare(
        self, network: Any, output: Output, _device: torch.device, _dtype: torch.dtype
    ) -> Computation:
        def run(ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
            self._batches.append(Inputs(ids, mask, more))
            last = (1,) if output == "logits" else (ids.shape[1], network.config.hidden_size)
            return torch.zeros(len(ids), *last)

        self._quantize = lambda: self._engine.quantize(network, output, self._batches)
        return Computation(run)

    def quantized(self, header: Header) -> bytes:
        """The file, of the network that was prepared and the batches that came since."""
        assert self._quantize is not None
        return _packed(header, self._quantize())

    @property
    def tokens(self) -> str:
        """Fingerprint of the batches."""
        digest = hashlib.sha256()
        for batch in self._batches:
            digest.update(repr(tuple(batch.ids.shape)).encode() + batch.ids.numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def stored_bytes(quantization: Quantization) -> bytes:
    """The file. Raises ModelError where there is none."""
    try:
        with open_plain(Path(quantization.path).expanduser()) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise _wrong(
            quantization,
            "no calibrated model; a job with this scorer makes it, from its own pairs, before it starts",
        ) from error
    except OSError as error:
        raise _wrong(quantization, f"can't be read: {error.strerror}") from error


def fingerprint_of(data: bytes) -> str:
    """Of a calibrated model's file."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def header_of(engine: QuantizingEngine, checkpoint: str, quantization: Quantization, tokens: str) -> Header:
    return Header(
        format_version=_FORMAT,
        engine=engine.__name__.rpartition(".")[2],
        checkpoint=checkpoint,
        calibration_pairs=quantization.calibration_pairs,
        tokens=tokens,
        versions=engine.versions(),
    )


def _packed(header: Header, files: dict[str, bytes]) -> bytes:
    """The same bytes for the same content: no clock is in them."""
    packed = io.BytesIO()
    contents: Sequence[tuple[str, bytes]] = [
        (_HEADER, header.model_dump_json(indent=2).encode()),
        *files.items(),
    ]
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in contents:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return packed.getvalue()


def _wrong(quantization: Quantization, what: str) -> ModelError:
    return ModelError(f"{_FIELD}: {quantization.path}: {what}", field=_FIELD)
