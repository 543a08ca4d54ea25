"""Which dtype attention is computed in while a step is made on a CPU."""

import pytest
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from pipeline.finetuning.attention import AttentionInFloat32


@pytest.mark.parametrize("masked", [None, torch.bool, torch.bfloat16])
def test_attention_and_its_gradients_are_those_of_float32(masked: torch.dtype | None) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 4).bfloat16().requires_grad_() for _ in range(3))
    exact_query, exact_key, exact_value = (
        each.detach().float().requires_grad_() for each in (query, key, value)
    )
    mask = exact_mask = None
    if masked is not None:
        mask = exact_mask = torch.tensor([True, True, True, False, False]).expand(2, 1, 5, 5)
    if mask is not None and masked == torch.bfloat16:
        exact_mask = torch.zeros(2, 1, 5, 5).masked_fill(~mask, float("-inf"))
        mask = exact_mask.bfloat16()
    expected = scaled_dot_product_attention(exact_query, exact_key, exact_value, attn_mask=exact_mask)
    with AttentionInFloat32(), torch.autocast("cpu", dtype=torch.bfloat16):
        attended = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # To the bit: nothing was rounded but the result.
    assert torch.equal(attended, expected.bfloat16())
    torch.autograd.backward([attended.float().sum(), expected.bfloat16().float().sum()])
    for one, exact in ((query, exact_query), (key, exact_key), (value, exact_value)):
        assert one.grad is not None
        assert exact.grad is not None
        assert torch.equal(one.grad, exact.grad.bfloat16())


def test_other_functions_are_as_they_were() -> None:
    one = torch.randn(3, 4).bfloat16()
    with AttentionInFloat32():
        product = linear(one, one)
    assert product.dtype == torch.bfloat16
    assert torch.equal(product, linear(one, one))
