"""The parts of gpu.py that tell how fast published shapes are, one model on the card at a time."""

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import transformers

from benchmarks.gpu_models import (
    DECODERS,
    ENCODERS,
    MAX_LENGTH,
    TINY_CUTOFFS,
    Decoder,
    Decoding,
    Pairs,
    make_encoder,
    peers,
    random_pairs,
)
from benchmarks.gpu_run import Lines, Run, row, table
from pipeline.scoring.encoding import EncodedPairs


def encoders(run: Run) -> Lines:
    ceiling, pairs = run.ceiling(), random_pairs(6 if run.tiny else 4096)
    sizes = (4,) if run.tiny else (64, 256, 1024)
    yield f"Ceiling: {ceiling / 1e12:.3g} Tflop/s. {len(pairs)} pairs."
    yield ""
    yield from table("model", "system", "pairs/s", "share of the ceiling", "peak GiB")
    for name in ENCODERS:
        path = make_encoder(run.folder, name, run.device, tiny=run.tiny)
        encoded = run.scorer(path, max_length=MAX_LENGTH).encode(pairs)
        flop = ENCODERS[name].flop(transformers.AutoConfig.from_pretrained(path), encoded.tokens)
        # What peers do with v2-m3's shape holds for large, which is the same.
        others = [] if name == "bge-reranker-large" else [of_peers(run, path, pairs, sizes)]
        for measured in (of_scorer(run, path, pairs, encoded), *others):
            for system, seconds, peak in measured:
                share = f"{flop / seconds / ceiling:.1%}"
                yield row(name, system, f"{len(pairs) / seconds:.1f}", share, peak)
            run.forget()


Measured = Iterator[tuple[str, float, str]]
"""Of one model, which ends with it: system, seconds, peak."""


def of_scorer(run: Run, path: Path, pairs: Pairs, encoded: EncodedPairs) -> Measured:
    scorer = run.scorer(path, max_length=MAX_LENGTH)
    yield "Scorer, tokenized before", *run.best_seconds(partial(scorer.forward, encoded))
    yield "Scorer", *run.best_seconds(partial(scorer.score, pairs))


def of_peers(run: Run, path: Path, pairs: Pairs, sizes: tuple[int, ...]) -> Measured:
    for system, score in peers(path, run.device, run.dtype, sizes).items():
        yield system, *run.best_seconds(partial(score, pairs), rounds=1)
    if run.flag_embedding is not None:
        for size, seconds in flag_embedding(run, path, pairs, sizes):
            yield f"FlagEmbedding, {size}", seconds, "–"


def flag_embedding(run: Run, path: Path, pairs: Pairs, sizes: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """Seconds by batch size, measured in an environment of its own."""
    file = run.folder / "pairs.json"
    file.write_text(json.dumps(pairs))
    script = Path(__file__).with_name("gpu_flag_embedding.py")
    command = [str(run.flag_embedding), str(script), str(path), str(file), run.device, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"FlagEmbedding: {done.stderr.strip()[-300:]}")
    yield from json.loads(done.stdout.splitlines()[-1])["seconds"].items()


def decoders(run: Run) -> Lines:
    ceiling = run.ceiling()
    yield from table("model", "cutoff", "ratio", "pairs/s", "share of the ceiling", "peak GiB", "padding")
    for name, shape in DECODERS.items():
        for cutoff in TINY_CUTOFFS[-len(shape.cutoffs) :] if run.tiny else shape.cutoffs:
            yield from decoder(run, name, shape, cutoff, ceiling)
            run.forget()


def decoder(run: Run, name: str, shape: Decoder, cutoff: int, ceiling: float) -> Lines:
    decoding = Decoding(shape, cutoff, run.device, run.dtype, tiny=run.tiny)
    for ratio in shape.ratios:
        model = decoding.model(ratio)
        seconds, peak = run.best_seconds(partial(decoding.score, model), rounds=1)
        share = f"{decoding.flop() / seconds / ceiling:.1%}" if ratio == 1 else "–"
        speed = f"{decoding.pairs / seconds:.1f}"
        yield row(name, str(cutoff), str(ratio), speed, share, peak, decoding.padding)
