"""Packed batches against transformers' own padded ones."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
)

from pipeline.scoring import packed_attention
from pipeline.scoring.packing import packed

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LENGTHS = [40, 33, 33, 33, 20, 7, 7, 2]
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "camembert": {},
    "electra": {},
    "gte": {},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "roberta": {},
    "xlm-roberta": {},
}


@pytest.fixture(autouse=True)
def chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """On which float32 is not prepacked, so that its rows are not filled up."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)


def make(model_type: str, auto: Any = AutoModelForSequenceClassification, **options: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=60,
        initializer_range=0.3,
        num_labels=1,
        pad_token_id=1,
        **KINDS.get(model_type, {}),
        **options,
    )
    model: Any = auto.from_config(config).eval()
    for weight in model.parameters():  # ModernBERT's initial ones give nearly the same score to all
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)
    return model


def batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(LENGTHS[0]) < lengths).long()
    ids = torch.randint(5, 300, mask.shape, generator=torch.Generator().manual_seed(1))
    ids[1, 5] = model.config.pad_token_id  # a text may hold it, written out
    return ids * mask + (1 - mask) * model.config.pad_token_id, mask


def without_padding(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, output: str, **more: torch.Tensor
) -> torch.Tensor:
    """Laid as for float32, and as for bfloat16, whose rows are filled up; both run in float32."""
    found = []
    for dtype, tokens in ((torch.float32, sum(LENGTHS)), (torch.bfloat16, -(-sum(LENGTHS) // 32) * 32)):
        network = packed(deepcopy(model), output, CPU, dtype)
        assert network is not None
        laid = network.lay(ids, mask, **more)
        assert all(laid[name].shape == (1, tokens) for name in ("ids", "positions", *more))
        found.append(network.run(**laid))
    assert sum(LENGTHS) % 32
    assert torch.allclose(found[0], found[1], rtol=0, atol=1e-5)
    return found[0]


@pytest.mark.parametrize("model_type", KINDS)
@pytest.mark.parametrize("has_token_types", [False, True])
def test_logits_are_those_of_the_padded_batch(model_type: str, has_token_types: bool) -> None:
    model = make(model_type)
    ids, mask = batch(model)
    more = {}
    if has_token_types and model_type != "modernbert":
        second_from = 1 if model.config.type_vocab_size > 1 else 1000
        more["token_type_ids"] = (torch.arange(ids.shape[1]) >= second_from).long() * mask
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask, **more).logits
        found = without_padding(model, ids, mask, "logits", **more)
    assert padded.std() > 0.05
    assert torch.allclose(found, padded, rtol=0, atol=1e-5)


def test_a_head_that_takes_the_mean_finds_all_tokens_in_their_rows() -> None:
    model = make("modernbert", classifier_pooling="mean")
    ids, mask = batch(model)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).logits
        assert torch.allclose(without_padding(model, ids, mask, "logits"), padded, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", KINDS)
def test_hidden_states_are_those_of_the_padded_batch(model_type: str) -> None:
    model = make(model_type, AutoModel)
    ids, mask = batch(model)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).last_hidden_state
        found = without_padding(model, ids, mask, "last_hidden_state")
    assert found.shape == padded.shape
    real = mask.bool()
    assert torch.allclose(found[real], padded[real], rtol=0, atol=1e-5)


def test_a_sequence_without_tokens_is_one_padding_token() -> None:
    model = make("bert")
    ids, mask = torch.ones(2, 3, dtype=torch.int64), torch.tensor([[1, 1, 1], [0, 0, 0]])
    network = packed(model, "logits", CPU, torch.float32)
    assert network is not None
    laid = network.lay(ids, mask)
    assert laid["bounds"].tolist() == [0, 3, 4]
    with torch.inference_mode():
        alone = network.run(**network.lay(ids[1:, :1], mask[1:, :1]))
        assert torch.allclose(network.run(**laid)[1:], alone, rtol=0, atol=1e-5)


def test_sequences_do_not_see_each_other() -> None:
    model = make("bert")
    ids, mask = batch(model)
    network = packed(model, "logits", CPU, torch.float32)
    assert network is not None
    with torch.inference_mode():
        together = network.run(**network.lay(ids, mask))
        alone = network.run(**network.lay(ids[3:4, :33], mask[3:4, :33]))
    assert torch.allclose(alone[0], together[3], rtol=0, atol=1e-5)


def test_what_was_not_read_keeps_its_padding() -> None:
    model = DistilBertModel(DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=64))
    assert packed(model, "last_hidden_state", CPU, torch.float32) is None
    assert packed(make("bert", is_decoder=True), "logits", CPU, torch.float32) is None
    assert packed(make("llama", AutoModel), "last_hidden_state", CPU, torch.float32) is None


def reference(
    parts: tuple[torch.Tensor, ...], bounds: list[int], scale: float, window: tuple[int, int]
) -> torch.Tensor:
    """(tokens, heads, width) each; what varlen_attn is documented to give."""
    before, after = window
    results = []
    for first, end in pairwise(bounds):
        q, k, v = (part[first:end].transpose(0, 1) for part in parts)
        place = torch.arange(end - first)
        distance = place - place[:, None]
        seen = torch.ones_like(distance, dtype=torch.bool)
        seen &= (distance >= -before) | (before < 0)
        seen &= (distance <= after) | (after < 0)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=scale)
        results.append(mixed.transpose(0, 1))
    return torch.cat(results)


def of_2_10(  # noqa: PLR0917  (as torch has it)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: None = None,
) -> torch.Tensor:
    assert torch.equal(cu_seq_q, cu_seq_k)
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    window = (-1, 0) if is_causal else (-1, -1)
    return reference((query, key, value), cu_seq_q.tolist(), query.shape[-1] ** -0.5, window)


def of_2_13(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: None = None,
    block_table: None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    assert isinstance(window_size, tuple)  # torch compares it with (-1, 0)
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k == int(cu_seq_q.diff().max())
    own = query.shape[-1] ** -0.5
    return reference((query, key, value), cu_seq_q.tolist(), own if scale is None else scale, window_size)


Varlen = Callable[..., torch.Tensor]


@pytest.fixture(params=[of_2_10, of_2_13])
def function(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Varlen:
    """A card that has varlen_attn as an older or a newer torch has it."""
    found: Varlen = request.param
    monkeypatch.setattr(packed_attention, "varlen_function", lambda: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    return found


def test_the_installed_torch_has_one_of_these_signatures() -> None:
    installed = packed_attention.varlen_function()
    assert installed is not None
    assert set(packed_attention.parameters(installed)) == set(packed_attention.parameters(of_2_13))


@pytest.mark.parametrize("model_type", KINDS)
def test_with_varlen_attention_logits_are_the_same(function: Varlen, model_type: str) -> None:
    model = make(model_type)
    local = model_type == "modernbert"
    if local and function is of_2_10:
        assert packed(model, "logits", CUDA, torch.float16) is None
        return
    ids, mask = batch(model)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).logits
        network = packed(model, "logits", CUDA, torch.float16)
        assert network is not None
        assert model.config._attn_implementation == packed_attention.VARLEN
        found = network.run(**network.lay(ids, mask))
    assert torch.allclose(found, padded, rtol=0, atol=1e-5)


def test_keys_that_heads_share_go_to_varlen_attention_once_a_head(function: Varlen) -> None:
    model = make("llama", AutoModel, num_key_value_heads=2, is_causal=False)
    ids, mask = batch(model)
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask).last_hidden_state
        network = packed(model, "last_hidden_state", CUDA, torch.float16)
        assert network is not None
        found = network.run(**network.lay(ids, mask))
    assert function is packed_attention.varlen_function()
    assert torch.allclose(found, padded * mask[:, :, None], rtol=0, atol=1e-5)


def test_a_scale_that_is_not_varlens_own(function: Varlen) -> None:
    parts = tuple(torch.randn(9, 2, 8) for _ in range(3))
    spans = packed_attention.Spans([(5, 1), (4, 1)], torch.tensor([0, 5, 9], dtype=torch.int32), 5)
    found = packed_attention.varlen(function, (parts[0], parts[1], parts[2]), spans, 0.11)
    assert torch.allclose(found, reference(parts, [0, 5, 9], 0.11, (-1, -1)), atol=1e-6)


@pytest.mark.parametrize(
    ("device", "dtype", "head_width", "capability"),
    [
        ("cuda", torch.float32, 64, (9, 0)),
        ("cuda", torch.bfloat16, 264, (9, 0)),
        ("cuda", torch.bfloat16, 12, (9, 0)),
        ("cuda", torch.float16, 64, (7, 5)),
        ("mps", torch.float16, 64, (9, 0)),
    ],
)
def test_where_varlen_attention_does_not_run_batches_stay_padded(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    dtype: torch.dtype,
    head_width: int,
    capability: tuple[int, int],
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    choose = packed_attention.implementation
    assert choose(torch.device(device), dtype, head_width, windows=False) is None
    assert choose(CPU, dtype, head_width, windows=False) == packed_attention.RUNS


def test_a_torch_without_varlen_attention_stays_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    choose = packed_attention.implementation
    assert choose(CUDA, torch.bfloat16, 64, windows=True) == packed_attention.VARLEN
    monkeypatch.setattr(packed_attention, "varlen_function", lambda: None)
    assert choose(CUDA, torch.bfloat16, 64, windows=True) is None


@pytest.mark.parametrize("model_type", KINDS)
@pytest.mark.parametrize("output", ["logits", "last_hidden_state"])
def test_no_step_on_the_device_waits_for_a_value(
    monkeypatch: pytest.MonkeyPatch, model_type: str, output: str
) -> None:
    """Tensors without values stand for those of a card: what asks for a value fails, as does what mixes both.

    torch's own varlen_attn tells here what comes out of it.
    """
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    model = make(model_type, AutoModelForSequenceClassification if output == "logits" else AutoModel)
    ids, mask = batch(model)
    network = packed(model.half().to("meta"), output, CUDA, torch.float16)
    assert network is not None
    laid = network.lay(ids, mask)
    on_device: dict[str, Any] = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in laid.items()
    }
    with torch.inference_mode():
        found = network.run(**on_device)
    assert found.device.type == "meta"
    assert found.shape == ((len(LENGTHS), 1) if output == "logits" else (*ids.shape, 32))
