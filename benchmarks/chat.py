"""How fast does Scorer score with a causal reranker that sentence-transformers saved (family logit_score),
beside that library's CrossEncoder.predict?

Run it from the repository root, in an environment with sentence-transformers:

    PYTHONPATH=. python benchmarks/chat.py --collection DIR [--queries 2] [--candidates 50] [--rounds 3]
        [--threads 2] [--layers 12] [--width 384] [--dtype float32]

DIR is a collection: docs.jsonl, queries.jsonl, run.bm25.txt. Queries are drawn with a fixed seed; each brings
its first candidates, in the order of the run, and pairs have at most 512 tokens. The checkpoint is a Qwen2
with random weights, a tokenizer of the collection's own words, and the template of a chat about query and
passage. Both systems run in one process on the same threads and take turns, in an order that rotates; the
clock covers the scoring call alone, tokenization included. The peer takes its turns at its default batch size
and at its fastest (see benchmarks/scorer.py).
"""

import argparse
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from benchmarks.collection import SEED, rows_of, with_files
from benchmarks.families import draw_candidates
from benchmarks.scorer import (
    MAX_LENGTH,
    System,
    of_peer,
    print_machine,
    take_turns,
)
from pipeline.scoring import Scorer, ScorerConfig

OURS, PEER = "Scorer", "sentence-transformers"
WORDS, PAD = 8000, "<|endoftext|>"
TEMPLATE = (
    "Judge whether the document answers the query. Note that the answer can only be yes or no.\n"
    "query: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "document: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}\n"
    "answer:"
)


def make_chat(path: Path, texts: Iterable[str], layers: int, width: int) -> Path:
    """Saved by the peer itself, with random weights. texts: those that its tokenizer learns from."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=[PAD], show_progress=False)
    tokenizer.train_from_iterator([*texts, *["yes", "no"] * 9], trainer)
    wrapped_class: Any = PreTrainedTokenizerFast
    wrapped = wrapped_class(tokenizer_object=tokenizer, pad_token=PAD, model_max_length=MAX_LENGTH)
    wrapped.chat_template = TEMPLATE
    torch.manual_seed(SEED)
    config = Qwen2Config(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        max_position_embeddings=1024,
        initializer_range=0.1,  # wider than usual, so that pairs score apart
    )
    Qwen2ForCausalLM(config).save_pretrained(path / "chat")
    wrapped.save_pretrained(path / "chat")
    asked = Transformer(str(path / "chat"), transformer_task="text-generation")
    words = tokenizer.get_vocab()
    answer = LogitScore(words["yes"], words["no"])
    CrossEncoder(modules=[asked, answer], device="cpu").save_pretrained(str(path / "saved"))
    return path / "saved"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Scorer beside sentence-transformers on a causal reranker")
    parser.add_argument(
        "--collection", type=with_files("run.bm25.txt"), required=True, help="docs, queries and a BM25 run"
    )
    numbers = {"queries": 2, "candidates": 50, "rounds": 3, "threads": 2, "layers": 12, "width": 384}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # The tokenizers library has a pool of its own, which would take every core.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    drawn = draw_candidates(arguments.collection, arguments.queries, arguments.candidates)
    pairs = [pair for each in drawn for pair in each]
    with tempfile.TemporaryDirectory() as directory:
        texts = [row["text"] for row in rows_of(arguments.collection / "docs.jsonl")]
        path = make_chat(Path(directory), texts, arguments.layers, arguments.width)
        scorer = Scorer(ScorerConfig(model=str(path), device="cpu", dtype=arguments.dtype))
        kwargs = {"dtype": getattr(torch, arguments.dtype)}
        peer = CrossEncoder(
            str(path), device="cpu", activation_fn=torch.nn.Identity(), model_kwargs=kwargs
        ).predict
        systems: dict[str, System] = {OURS: scorer.score} | of_peer(PEER, peer, pairs)
        for system in systems.values():
            system(pairs[:8])
        speeds, scores = take_turns(systems, pairs, arguments.rounds)
        tokens = scorer.encode(pairs).tokens
        read = scorer.forward(scorer.encode(pairs)).tokens
    print_machine(arguments.threads)
    print(f"Qwen2, {arguments.layers} layers of width {arguments.width}, {arguments.dtype}", end="; ")
    print(
        f"{len(drawn)} queries, {len(pairs)} pairs of {tokens.mean():.0f} tokens; {arguments.rounds} rounds"
    )
    print(f"tokens that {OURS} need not read again: {1 - read / tokens.sum():.1%}")
    print(f"\n{'system, batch size':32}{'best pairs/s':>14}{'median pairs/s':>16}{OURS + ' is times':>18}")
    for name, found in speeds.items():
        times = max(speeds[OURS]) / max(found)
        print(f"{name:32}{max(found):14.1f}{np.median(found):16.1f}{times:18.2f}")
    difference, deviation = np.abs(scores[OURS] - scores[PEER]).max(), scores[OURS].std()
    print(f"\nlargest difference of the scores: {difference:.1e}; their standard deviation: {deviation:.2f}")


if __name__ == "__main__":
    main()
