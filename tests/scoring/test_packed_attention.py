"""Attention of runs on a CPU against each sequence's own, whether its keys are filled up or not."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.scoring.packed_attention import RUNS, Spans

RUNS_OF = [(37, 2), (32, 1), (5, 3), (1, 1)]
"""Length of the sequences, and their number."""
ROW = 160
"""What is left of it fills it up."""


def attend(parts: list[torch.Tensor], window: int | None) -> torch.Tensor:
    """(1, heads, tokens, width) each, to (tokens, heads, width)."""
    spans = Spans(RUNS_OF, torch.zeros(0, dtype=torch.int32), 37)
    attention = ALL_ATTENTION_FUNCTIONS[RUNS]
    attended: torch.Tensor = attention(None, *parts, None, spans=spans, scaling=0.3, sliding_window=window)[0]
    return attended[0]


def expected(parts: list[torch.Tensor], window: int | None) -> torch.Tensor:
    found, first = torch.zeros(ROW, 4, 8), 0
    for length, number in RUNS_OF:
        for _ in range(number):
            place = torch.arange(length)
            near = (place[:, None] - place).abs() < (window or length)
            query, key, value = (part[:, :, first : first + length].float() for part in parts)
            attended = scaled_dot_product_attention(query, key, value, near, scale=0.3)
            found[first : first + length] = attended[0].transpose(0, 1)
            first += length
    return found


def drawn(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 4, ROW, 8, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-6), (torch.bfloat16, 0.02)])
def test_each_sequence_attends_to_itself(dtype: torch.dtype, allowed: float, window: int | None) -> None:
    parts = drawn(dtype)
    wanted = expected(parts, window)
    assert wanted.std() > 0.2
    assert torch.allclose(attend(parts, window).float(), wanted, rtol=0, atol=allowed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_stays_in_its_sequence(dtype: torch.dtype) -> None:
    parts = drawn(dtype)
    clean = attend(parts, None)
    for part in parts:
        part[:, :, 40] = torch.nan  # of the second sequence
    found = attend(parts, None)
    assert found[37:74].isnan().all()
    others = [*range(37), *range(74, ROW)]
    assert torch.equal(found[others], clean[others])
