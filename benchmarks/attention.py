"""Torch's attention on a CPU by the number of keys, as it is and filled up to a multiple of 16.

`python -m benchmarks.attention --dtype bfloat16`. One sequence, 12 heads of width 64, one thread: a layer of
bge-reranker-base. The best of five rounds, taken in turns.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

HEADS, WIDTH, STEP = 12, 64, 16
LENGTHS = (73, 121, 183, 250, 284, 500)
ROUNDS, CALLS = 5, 20


def time_calls(call: Callable[[], torch.Tensor]) -> float:
    """Milliseconds a call."""
    begun = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - begun) / CALLS * 1e3


def ways(length: int, dtype: torch.dtype) -> list[Callable[[], torch.Tensor]]:
    """Attention of so many tokens, as it is and with its keys filled up."""
    keys = length + -length % STEP
    # Tokens lie in rows, as a linear layer gives them.
    query, key, value = (
        torch.randn(1, keys, HEADS, WIDTH).to(dtype).transpose(1, 2)[:, :, :rows]
        for rows in (length, keys, keys)
    )
    mask = (torch.arange(keys) < length)[None]
    return [
        lambda: scaled_dot_product_attention(query, key[:, :, :length], value[:, :, :length]),
        lambda: scaled_dot_product_attention(query, key, value, mask),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    dtype = getattr(torch, parser.parse_args().dtype)
    torch.set_num_threads(1)
    print("keys  as they are, ms  filled up, ms")
    with torch.inference_mode():
        for length in LENGTHS:
            calls = ways(length, dtype)
            for call in calls:
                time_calls(call)  # warm
            rounds = [[time_calls(call) for call in calls] for _ in range(ROUNDS)]
            best = [min(times) for times in zip(*rounds, strict=True)]
            print(f"{length:4}  {best[0]:15.2f}  {best[1]:13.2f}", flush=True)


if __name__ == "__main__":
    main()
