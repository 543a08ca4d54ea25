"""How fast is FlagEmbedding on this GPU? For an environment of its own: it needs transformers 4.

    python benchmarks/gpu_flag_embedding.py CHECKPOINT PAIRS.json DEVICE BATCH_SIZE [BATCH_SIZE ...]

gpu.py runs it. PAIRS.json is a list of (query, passage). It prints JSON: seconds by batch size, the better of
two rounds after one to warm up, and the versions.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from FlagEmbedding import FlagReranker


def main() -> None:
    checkpoint, pairs_file, device, *sizes = sys.argv[1:]
    pairs = json.loads(Path(pairs_file).read_text())
    model = FlagReranker(checkpoint, use_fp16=device != "cpu", devices=device, max_length=512)
    model.compute_score(pairs[:64])
    found = {size: min(seconds(model, pairs, int(size)) for _ in range(2)) for size in sizes}
    versions = {name: version(name) for name in ("FlagEmbedding", "transformers", "torch")}
    print(json.dumps({"seconds": found, "versions": versions}))


def seconds(model: FlagReranker, pairs: list[list[str]], size: int) -> float:
    begin = perf_counter()
    model.compute_score(pairs, batch_size=size)  # its scores are on the CPU when it returns
    return perf_counter() - begin


if __name__ == "__main__":
    main()
