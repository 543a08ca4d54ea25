"""OpenVINO, on CPUs. The network is traced and converted here, from the loaded weights."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Computation, Inputs, Output
from pipeline.temporary_folder import filling, new_folder

INSTALL = "pip install 'rayrank[openvino]'"

_TRACED = {
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
}
"""By config.json's model_type, those whose traces give torch's scores at every length; the tests hold it."""
_FAMILIES = ("sequence_classification", "modular_head", "bi_encoder")
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
_ATTENTION = "rayrank_openvino"
_HIDDEN = -1e30
_GRAPH, _WEIGHTS = "model.xml", "model.bin"


def is_available() -> bool:
    return find_spec("openvino") is not None


def supports(family: str, checkpoint: Checkpoint, config: ScorerConfig) -> str | None:
    if family not in _FAMILIES:
        return f"the family {family} is not run by it, {', '.join(_FAMILIES)} are; leave engine out"
    if checkpoint.model_type not in _TRACED:
        known = ", ".join(sorted(_TRACED))
        return f"{checkpoint.name} is a {checkpoint.model_type}; it runs {known}. Leave engine out"
    if config.trust_remote_code:
        return "runs no remote code; leave trust_remote_code out"
    if config.device not in ("auto", "cpu"):
        return f"runs on CPUs, not on {config.device}; set device to cpu, or leave engine out"
    if config.dtype not in (*_PRECISIONS, "auto"):
        return f"computes in {' or '.join(_PRECISIONS)}, not in {config.dtype}"
    return None


def prepare(network: Any, output: Output, device: torch.device, dtype: torch.dtype) -> Computation:
    """With dtype bfloat16 the head runs in it, too: OpenVINO has one precision for a whole network."""
    if device.type != "cpu":
        raise ConfigError(
            f"engine openvino: runs on CPUs, and device auto is {device} here; set it to cpu", field="engine"
        )
    return _compiled(_converted(network, output), dtype)


def quantize(network: Any, output: Output, batches: Sequence[Inputs]) -> dict[str, bytes]:
    """By NNCF's rules for transformers: static ranges, smoothed activations, int8 in matrix products."""
    openvino = _openvino()
    import nncf  # noqa: PLC0415  (an extra, for those who use it)

    has_types = _has_types(network)
    samples = nncf.Dataset(batches, lambda batch: _arrays(batch.ids, batch.mask, batch.more, has_types))
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level sets all handlers
    model = _converted(network, output)
    with redirect_stdout(io.StringIO()):  # bars of its progress
        quantized = nncf.quantize(
            model, samples, subset_size=len(batches), model_type=nncf.ModelType.TRANSFORMER
        )
    failed = "the calibrated model can't be kept"
    with new_folder("rayrank-calibrated-", failed) as folder:
        with filling(folder, failed, RuntimeError):  # OpenVINO's, which does not say why
            openvino.save_model(quantized, folder / _GRAPH, compress_to_fp16=False)
        return {name: (folder / name).read_bytes() for name in (_GRAPH, _WEIGHTS)}


def load_quantized(files: dict[str, bytes], dtype: torch.dtype) -> Computation:
    try:
        model = _core().read_model(files[_GRAPH], files[_WEIGHTS])
    except (KeyError, RuntimeError) as error:
        raise ModelError(
            f"quantization.path: OpenVINO does not read it: {error}", field="quantization.path"
        ) from error
    return _compiled(model, dtype)


def capabilities() -> list[str]:
    """What this machine's chip computes natively, by OpenVINO's names."""
    found: list[str] = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("openvino", "nncf")}


@cache
def _core() -> Any:
    """One for the process, never given up.

    With its first network a core replaces the stack on which its thread handles signals. Given up by another
    thread, by the garbage collector for one, it leaves that thread without memory there, and the next signal
    ends the process (OpenVINO 2026.4).
    """
    return _openvino().Core()


def _openvino() -> Any:
    """The library, kept from sending usage data.

    It and NNCF send some at each conversion unless the package openvino_telemetry can't be imported, for
    which both are made. None is how Python marks such a module.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # typeshed has no None there
    import openvino  # noqa: PLC0415  (an extra, for those who use it)

    return openvino


class _Network(torch.nn.Module):
    """A network by position, as it is traced."""

    def __init__(self, network: Any, output: Output) -> None:
        super().__init__()
        self._network, self._output = network, output

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None = None
    ) -> torch.Tensor:
        more = {} if types is None else {"token_type_ids": types}
        result: torch.Tensor = self._network(input_ids=ids, attention_mask=mask, return_dict=True, **more)[
            self._output
        ]
        return result


def _converted(network: Any, output: Output) -> Any:
    """An openvino.Model of (batch, length) inputs of any sizes: ids, mask and, where it has some, types."""
    openvino = _openvino()
    if network._supports_attention_backend:
        transformers.AttentionInterface.register(_ATTENTION, _attend)
        AttentionMaskInterface.register(_ATTENTION, eager_mask)
        network.set_attn_implementation(_ATTENTION)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    inputs = [mask] * (3 if _has_types(network) else 2)
    with _log_as_it_was(), warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of each branch; the tests try other shapes
        try:
            return openvino.convert_model(
                _Network(network.eval(), output),
                example_input=tuple(inputs),
                input=[([-1, -1], openvino.Type.i64)] * len(inputs),
            )
        except Exception as error:  # the tracer and each of its operators raise what they like
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                f"engine openvino: {type(network).__name__} can't be converted: {reason}; leave engine out",
                field="engine",
            ) from error


@contextmanager
def _log_as_it_was() -> Iterator[None]:
    """The converter sets up the root logger for itself, and leaves it so where it fails."""
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(before[0])
        root.filters, root.handlers = before[1:]


def _has_types(network: Any) -> bool:
    takes_them = "token_type_ids" in signature(network.forward).parameters
    return takes_them and (getattr(network.config, "type_vocab_size", None) or 0) > 1


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As torch's, but a token that may attend to none, as padding in a sliding window, becomes no NaN.

    The mask adds a number that is finite in bfloat16, too.
    """
    hidden = attention_mask.clamp(min=_HIDDEN)
    return sdpa_attention_forward(module, query, key, value, hidden, **options)


def _compiled(model: Any, dtype: torch.dtype) -> Computation:
    """A network whose inputs are those of `_converted`, on as many threads as torch would take here."""
    if dtype == torch.bfloat16 and "BF16" not in capabilities():
        raise ConfigError(
            "engine openvino: this chip computes no bfloat16; set dtype to float32", field="engine"
        )
    settings = {
        # By itself it takes bfloat16 where the chip has it.
        "INFERENCE_PRECISION_HINT": _PRECISIONS[str(dtype).removeprefix("torch.")],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        # Two processes would pin their threads to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return Computation(_runner(_core().compile_model(model, "CPU", settings)))


def _runner(compiled: Any) -> Callable[..., torch.Tensor]:
    request, has_types = compiled.create_infer_request(), len(compiled.inputs) > 2

    def run(ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        (output,) = request.infer(_arrays(ids, mask, more, has_types), share_inputs=True).to_tuple()
        return torch.from_numpy(output)

    return run


def _arrays(
    ids: torch.Tensor, mask: torch.Tensor, more: Mapping[str, torch.Tensor], has_types: bool
) -> list[npt.NDArray[np.int64]]:
    """A batch as the converted network takes it. Where nobody gives types, all are of type 0."""
    types = [more.get("token_type_ids", torch.zeros_like(ids))] if has_types else []
    return [values.numpy() for values in (ids, mask, *types)]
