"""Equal pairs of a call go through the model once, and get one score, bit for bit."""

import os
import random
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.copies import distinct, distinct_sequences
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.lean_imports import lean_imports
from pipeline.scoring.truncation import Fit
from tests.conftest import MINILM, TINY
from tests.scoring.checkpoints import KINDS, make_cross_encoder, make_qwen3, network_of

WORDS = ["river", "bank", "flow", "heat", "boundary", "layer", "shock", "panda", "bamboo", "of", "the", "a"]
MEAN = {"long_passages": {"strategy": "mean", "window": 7, "stride": 5}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "packed": (TINY, {}),
    "packed-windows": (TINY, MEAN),
    "packed-normalize": (TINY, {"normalize": True, "max_batch_tokens": 200}),
    "padded": ("deberta-v2", {}),
    "modernbert": ("modernbert", {}),
    "gemma": (f"{TINY}-v2-gemma", {}),
    "gemma-prefixes": (f"{TINY}-v2-gemma", {"max_batch_tokens": 60}),
    "minicpm-cutoffs": (f"{TINY}-v2-minicpm-layerwise", {"cutoff_layers": [3, 5]} | MEAN),
    "gemma2-compressed": (f"{TINY}-v2.5-gemma2-lightweight", {"compress_ratio": 2, "compress_layers": [2]}),
    "qwen3": ("qwen3", {"max_batch_tokens": 100}),
    "bi_encoder": (MINILM, {}),
    "bi_encoder-windows": (MINILM, MEAN),
}


@pytest.fixture(scope="module", params=CASES)
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    model, options = CASES[request.param]
    if model in KINDS:
        model = str(make_cross_encoder(tmp_path_factory.mktemp(model), model))
    if model == "qwen3":
        model = str(make_qwen3(tmp_path_factory.mktemp(model)))
    made = Scorer(ScorerConfig.model_validate({"model": model, "device": "cpu", **options}))
    with lean_imports():  # for the process that is started below
        _ = made.model
    return made


@cache
def distinct_pairs() -> list[tuple[str, str]]:
    """Of many lengths, several a query, and some empty."""
    chance = random.Random(7)
    queries = ["", *(" ".join(chance.choices(WORDS, k=count)) for count in (1, 2, 3, 6))]
    passages = [" ".join(chance.choices(WORDS, k=count)) for count in (0, 1, 2, 3, 5, 8, 13, 21, 34, 50)]
    pairs = list(dict.fromkeys((query, passage) for query in queries for passage in passages))
    return chance.sample(pairs, 24)


@settings(max_examples=4, deadline=None)
@given(chance=st.randoms(use_true_random=False))
def test_copies_score_as_one_another_and_are_counted(scorer: Scorer, chance: random.Random) -> None:
    source = distinct_pairs()
    pairs = source + [chance.choice(source) for _ in range(chance.randint(0, 60))]
    chance.shuffle(pairs)
    once = list(dict.fromkeys(pairs))
    scored, alone = (scorer.forward(scorer.encode(call)) for call in (pairs, once))
    for pair in once:
        of_pair = scored.scores[[index for index, other in enumerate(pairs) if other == pair]]
        assert len({score.tobytes() for score in of_pair}) == 1, pair
    assert scored.copies == len(pairs) - len(once)
    assert alone.copies == 0
    assert (scored.tokens, scored.padded_tokens) == (alone.tokens, alone.padded_tokens)
    in_order = alone.scores[[once.index(pair) for pair in pairs]]
    np.testing.assert_array_equal(scored.scores, in_order)


def test_copies_of_several_requests_in_one_batch_are_copies(scorer: Scorer) -> None:
    """What the endpoint does: encoded apart, scored together."""
    pairs = distinct_pairs()
    requests = [pairs[:9], [pairs[3]], pairs[5:12], pairs[:2] * 3]
    whole = scorer.forward(EncodedPairs.concat([scorer.encode(request) for request in requests]))
    flat = [pair for request in requests for pair in request]
    for index, pair in enumerate(flat):
        assert whole.scores[index].tobytes() == whole.scores[flat.index(pair)].tobytes()
    assert whole.copies == len(flat) - len(set(flat))


def test_where_the_arithmetic_depends_on_the_place_in_a_batch_copies_score_alike() -> None:
    """MKL's path for all chips shows it: equal rows of a product differ in the last bit."""
    names = [f"{__file__}::{COPIES}[{case}]" for case in SHOWN]
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", *names]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"MKL_CBWR": "COMPATIBLE"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"{len(SHOWN)} passed" in done.stdout


SHOWN = ("packed", "padded", "gemma2-compressed", "bi_encoder-windows")
COPIES = test_copies_score_as_one_another_and_are_counted.__name__


def encoded(windows: list[int], ids: list[list[int]], **columns: list[int]) -> EncodedPairs:
    fits = [Fit((0, 0), [(0, 0)] * count, 0, 0) for count in windows]
    return EncodedPairs.of(fits, [np.array(sequence, np.int32) for sequence in ids], {**columns})


def test_where_all_are_distinct_nothing_is_copied() -> None:
    pairs = encoded([1, 1, 1], [[], [1], [1, 2]], kind=[0, 0, 0])
    once = distinct(pairs)
    assert once.sequences is pairs.sequences
    assert once.inputs is pairs.inputs
    assert once.copies == 0


def test_equal_sequences_with_other_columns_are_no_copies() -> None:
    once = distinct(encoded([1] * 5, [[1, 2], [3], [1, 2], [1, 2], [3]], kind=[0, 5, 1, 0, 5]))
    assert once.sequences.to_pylist() == [[1, 2], [3], [1, 2]]
    assert once.inputs["kind"].to_pylist() == [0, 5, 1]
    assert (once.firsts.tolist(), once.places.tolist()) == ([0, 1, 2], [0, 1, 2, 0, 1])
    assert (once.first_pairs.tolist(), once.copies) == ([0, 1, 2, 0, 1], 2)


def test_a_pair_is_a_copy_where_all_its_windows_are() -> None:
    once = distinct(encoded([2, 1, 2, 1], [[1], [2], [1], [1], [2], [2]], kind=[0] * 6))
    assert once.sequences.to_pylist() == [[1], [2]]
    # The second pair's only window is another pair's first one; the third is as the first, window for window.
    assert (once.first_pairs.tolist(), once.copies) == ([0, 1, 0, 3], 1)


def test_shared_sequences_are_read_where_they_are_now() -> None:
    pairs = encoded([1] * 4, [[7], [8], [9]], query_sequence=[0, 1, 0, 1], passage_sequence=[2, 0, 2, 2])
    joined = EncodedPairs.concat([pairs, pairs])
    once = distinct(joined)
    assert once.sequences.to_pylist() == [[7], [8], [9]]
    assert once.inputs.to_pydict() == {"query_sequence": [0, 1, 1], "passage_sequence": [2, 0, 2]}
    assert once.copies == 5


def test_sequences_of_a_slice() -> None:
    array = pa.array([[7, 7], [1, 2, 3], [4], [1, 2, 3], [], []], pa.list_(pa.int32())).slice(1)
    sequences, places = distinct_sequences(array)
    assert sequences.to_pylist() == [[1, 2, 3], [4], []]
    assert places.tolist() == [0, 1, 0, 2, 2]


def test_an_error_names_the_first_pair_that_has_the_sequence() -> None:
    model = Scorer(ScorerConfig(model=TINY, device="cpu"))
    pairs = [("a", "b"), ("a", "b"), ("a", "c d"), ("a", "c d")]
    whole = model.encode(pairs)
    bad = whole.sequences[2].as_py()[-2]
    weights = network_of(model).get_input_embeddings().weight
    weights.data[bad] = float("nan")
    with pytest.raises(ScoringError, match="pair 2: its score is nan"):
        model.forward(whole)


def test_a_large_call_is_looked_through_in_a_moment_beside_its_encoding() -> None:
    """20,000 pairs of 200 tokens; measured against a copy of their token ids in Python's hands."""
    lengths = np.random.default_rng(0).integers(20, 380, 20_000)
    ids = np.random.default_rng(1).integers(0, 30_000, int(lengths.sum()), np.int32)
    sequences = pa.ListArray.from_arrays(
        pa.array(np.append(0, np.cumsum(lengths)), pa.int32()), pa.array(ids)
    )
    pairs = pa.table({"windows": pa.array(np.ones(20_000, np.int32))})
    call = EncodedPairs(sequences, pa.table({"type_one_start": pa.array(lengths, pa.int32())}), pairs)

    def seconds(work: Any) -> float:
        begin = time.process_time()
        work()
        return time.process_time() - begin

    looked_through = min(seconds(lambda: distinct(call)) for _ in range(3))
    as_bytes = min(
        seconds(lambda: len({sequence.values.to_numpy().tobytes() for sequence in sequences}))
        for _ in range(2)
    )
    assert looked_through < as_bytes
