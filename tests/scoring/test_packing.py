"""Packed batches against transformers' own padded ones."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from pipeline.scoring.packing import PackedClassifier, can_pack

LENGTHS = [40, 33, 33, 33, 20, 7, 7, 2]


def make(model_type: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=60,
        initializer_range=0.3,
        num_labels=1,
    )
    auto: Any = AutoModelForSequenceClassification
    return auto.from_config(config).eval()


def batch(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor(LENGTHS)[:, None]
    mask = (torch.arange(LENGTHS[0]) < lengths).long()
    ids = torch.randint(5, 300, mask.shape, generator=torch.Generator().manual_seed(1))
    ids[1, 5] = model.config.pad_token_id  # a text may hold it, written out
    return ids * mask + (1 - mask) * model.config.pad_token_id, mask


@pytest.mark.parametrize("model_type", ["bert", "camembert", "electra", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("has_token_types", [False, True])
def test_logits_are_those_of_the_padded_batch(model_type: str, has_token_types: bool) -> None:
    model = make(model_type)
    assert can_pack(model, torch.device("cpu"))
    assert not can_pack(model, torch.device("cuda"))
    ids, mask = batch(model)
    more = {}
    if has_token_types:
        second_from = 1 if model.config.type_vocab_size > 1 else 1000
        more["token_type_ids"] = (torch.arange(ids.shape[1]) >= second_from).long() * mask
    with torch.inference_mode():
        padded = model(input_ids=ids, attention_mask=mask, **more).logits
        packed = PackedClassifier(model).logits(ids, mask, **more)
    assert padded.std() > 0.05
    assert torch.allclose(packed, padded, rtol=0, atol=1e-5)


def test_sequences_do_not_see_each_other() -> None:
    model = make("bert")
    ids, mask = batch(model)
    packed = PackedClassifier(model)
    with torch.inference_mode():
        together = packed.logits(ids, mask)
        alone = packed.logits(ids[3:4, :33], mask[3:4, :33])
    assert torch.allclose(alone[0], together[3], rtol=0, atol=1e-5)


def test_what_was_not_read_keeps_its_padding() -> None:
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=4, hidden_dim=64, vocab_size=300)
    model = DistilBertForSequenceClassification(config)
    assert not can_pack(model, torch.device("cpu"))
