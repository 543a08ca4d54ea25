"""One run of gpu.py: on which device, in which folder, how it measures, and how it tells."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.dtype import fastest_dtype

Lines = Iterator[str]
"""Of a part of the note, one after another as they are known."""


class Run(NamedTuple):
    device: str
    tiny: bool
    folder: Path
    flag_embedding: str | None = None

    @property
    def on_cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def dtype(self) -> str:
        """Cards before Ampere have no bfloat16."""
        return fastest_dtype(self.device) if self.on_cuda else "float32"

    def scorer(self, model: str | Path, **options: Any) -> Scorer:
        known = {"device": self.device, "dtype": self.dtype, **options}
        return Scorer(ScorerConfig.model_validate({"model": str(model), **known}))

    def best_seconds(self, work: Callable[[], object], rounds: int = 2) -> tuple[float, str]:
        """Of some rounds after one to warm up; and the peak of memory in GiB."""
        work()
        self._wait()
        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()
        taken = []
        for _ in range(rounds):
            begin = perf_counter()
            work()
            self._wait()
            taken.append(perf_counter() - begin)
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if self.on_cuda else "–"
        return min(taken), peak

    def forget(self) -> None:
        """Give back the memory of models that nothing holds any more: a Scorer is part of a cycle, and would
        stand on the card while another is measured.
        """
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()

    def _wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()

    def ceiling(self) -> float:
        """Flop a second of matrix products in the run's dtype."""
        size = 128 if self.tiny else 8192
        left, right = torch.randn(2, size, size, device=self.device, dtype=getattr(torch, self.dtype))
        seconds, _ = self.best_seconds(lambda: [left @ right for _ in range(10)], rounds=5)
        return 20 * size**3 / seconds


def table(*titles: str) -> Lines:
    yield row(*titles)
    yield row(*["---"] * len(titles))


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
