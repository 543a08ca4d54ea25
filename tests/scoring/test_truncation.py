from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.errors import ConfigError, ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.config import LongPassages
from pipeline.scoring.copies import distinct
from pipeline.scoring.truncation import Truncation, best_windows
from tests.conftest import TINY


def text_of(tokens: int) -> str:
    """The tiny tokenizer makes a token of the text's beginning and of every letter."""
    return "a" * (tokens - 1)


LONG = text_of(900)


def scorer(**options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": TINY, "device": "cpu", **options}))


def cuts(model: Scorer, *pairs: tuple[str, str]) -> list[tuple[int, int, int]]:
    rows = model.encode(pairs).pairs.to_pylist()
    return [(row["query_cut"], row["passage_cut"], row["windows"]) for row in rows]


def windows_of(passage: int, room: int, **options: Any) -> list[tuple[int, int]]:
    config = ScorerConfig(model="m", long_passages=LongPassages(strategy="max", **options))
    return Truncation(config, 512).windows(0, passage, room)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(4, 60), st.sampled_from(["left", "right"]))
def test_longest_first_cuts_as_the_tokenizers_library_does(
    query: int, passage: int, max_length: int, side: Literal["left", "right"]
) -> None:
    config = ScorerConfig(model="m", truncation="longest_first", truncation_side=side)
    fit = Truncation(config, max_length).fit(0, query, passage, max_length - 4)
    tokenizer = Tokenizer.from_file(f"{TINY}/tokenizer.json")
    tokenizer.enable_truncation(max_length, strategy="longest_first", direction=side)
    pair = tokenizer.encode(text_of(query), text_of(passage))
    kept = [pair.sequence_ids.count(part) for part in (0, 1)]
    first = (query - kept[0], passage - kept[1]) if side == "left" else (0, 0)
    assert fit.query == (first[0], first[0] + kept[0])
    assert fit.windows == [(first[1], first[1] + kept[1])]
    assert (fit.query_cut, fit.passage_cut) == (query - kept[0], passage - kept[1])


def test_what_is_cut_is_told_for_each_pair() -> None:
    assert cuts(scorer(), ("a", ""), ("a", "hi")) == [(0, 0, 1), (0, 0, 1)]
    kept = 512 - 4
    assert cuts(scorer(), (text_of(3), LONG)) == [(0, 900 - kept + 3, 1)]
    assert cuts(scorer(query_max_length=10), (LONG, "hi")) == [(900 - 10, 0, 1)]
    both = cuts(scorer(truncation="longest_first"), (LONG, LONG))
    assert both == [(900 - kept // 2, 900 - kept // 2, 1)]


def test_the_left_side_is_cut_where_asked_for() -> None:
    def ids(**options: Any) -> list[int]:
        found: list[int] = scorer(**options).encode([("q", "abcdef")]).sequences.to_pylist()[0]
        return found

    whole = ids()
    assert ids(passage_max_length=3) == [*whole[:-5], whole[-1]]
    assert ids(passage_max_length=3, truncation_side="left") == [*whole[:-8], *whole[-4:]]
    assert cuts(scorer(truncation_side="left", max_length=32), ("a", LONG)) == [(0, 900 - 32 + 4 + 2, 1)]
    windows = ScorerConfig(
        model="m", truncation_side="left", passage_max_length=9, long_passages=LongPassages(strategy="max")
    )
    assert Truncation(windows, 512).windows(0, 12, 5) == [(3, 8), (8, 12)]


def test_error_refuses_what_does_not_fit_and_scores_what_does() -> None:
    strict = scorer(truncation="error", max_length=32)
    assert strict.score([(text_of(25), "hi")]).shape == (1,)
    with pytest.raises(
        ScoringError, match=r"pair 1: query of 2 and passage of 900 tokens don't fit: 0 and 874 "
    ):
        strict.encode([("a", "a"), ("a", LONG)])
    with pytest.raises(ScoringError, match="pair 0: query of 5 "):
        scorer(truncation="error", query_max_length=4).encode([(text_of(5), "hi")])


def test_windows_cover_a_passage_without_a_gap() -> None:
    assert windows_of(10, room=100) == [(0, 10)]
    assert windows_of(10, room=4) == [(0, 4), (4, 8), (8, 10)]
    assert windows_of(10, room=4, stride=3) == [(0, 4), (3, 7), (6, 10)]
    assert windows_of(11, room=100, window=4, stride=2) == [(0, 4), (2, 6), (4, 8), (6, 10), (8, 11)]
    assert windows_of(9, room=2, window=8, stride=6) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert windows_of(0, room=4) == [(0, 0)]


@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_every_token_is_in_a_window(passage: int, room: int, window: int, stride: int) -> None:
    spans = windows_of(passage, room, window=window, stride=min(window, stride))
    assert {token for span in spans for token in range(*span)} == set(range(passage))
    assert all(stop - start <= min(room, window) for start, stop in spans)


def test_a_stride_above_the_window_is_refused() -> None:
    with pytest.raises(ConfigError, match="stride 9 is above window 8: no window would read between"):
        LongPassages(strategy="max", window=8, stride=9)


def test_best_windows() -> None:
    scores, counts = np.array([1, 5, 5, 2, -3, -1], np.float32), np.array([3, 1, 2], np.int32)
    best, winners = best_windows(scores, counts, "max")
    assert (best.tolist(), winners.tolist()) == ([5, 2, -1], [1, 0, 1])
    mean, winners = best_windows(scores, counts, "mean")
    np.testing.assert_allclose(mean, [11 / 3, 2, -2])
    assert winners.tolist() == [1, 0, 1]
    several, winners = best_windows(np.stack([scores, -scores], axis=1), counts, "max")
    assert several.tolist() == [[5, -1], [2, -2], [-1, 3]]
    assert winners.tolist() == [[1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize("model", ["", "-v2-gemma", "-v2-minicpm-layerwise", "-v2.5-gemma2-lightweight"])
def test_a_long_passage_scores_as_its_best_window_does(model: str) -> None:
    path, query = TINY + model, "what is a panda?"
    parts = [f"{text} " * 12 for text in ("The giant panda", "a bear native to", "China capital Paris")]
    options = {"model": path, "max_length": 512}
    plain = scorer(**options)
    long_passages = {"window": 20, "stride": 20}
    found = {
        strategy: scorer(**options, long_passages={"strategy": strategy, **long_passages})
        for strategy in ("max", "mean", "first")
    }
    pairs = [(query, "".join(parts)), (query, "hi"), (query, parts[1])]
    encoded = found["max"].encode(pairs)
    scored = found["max"].forward(encoded)
    counts = encoded.pairs["windows"].to_pylist()
    assert counts[0] > 3
    assert counts[1] == 1
    once = distinct(encoded)
    by_window = found["max"].model.forward(once.sequences, once.inputs).scores[once.places]
    starts = np.cumsum(counts) - counts
    for pair, (start, count) in enumerate(zip(starts, counts, strict=True)):
        of_pair = by_window[start : start + count]
        assert scored.scores[pair] == of_pair.max()
        assert scored.windows[pair] == of_pair.argmax()
    means = [by_window[start : start + count].mean() for start, count in zip(starts, counts, strict=True)]
    np.testing.assert_allclose(found["mean"].score(pairs), means, atol=1e-5, rtol=0)
    np.testing.assert_allclose(found["first"].score(pairs), by_window[starts], atol=1e-5, rtol=0)
    assert found["first"].encode(pairs).pairs["passage_cut"].to_pylist()[0] > 40
    assert encoded.pairs["passage_cut"].to_pylist() == [0, 0, 0]
    np.testing.assert_allclose(scored.scores[1], plain.score(pairs)[1], atol=1e-5, rtol=0)


def test_a_mean_of_windows_is_normalized_once() -> None:
    windows = {"strategy": "mean", "window": 8, "stride": 8}
    pairs = [("what is a panda?", "The giant panda is a bear " * 4)]
    raw = scorer(long_passages=windows).score(pairs).astype(np.float64)
    normalized = scorer(long_passages=windows, normalize=True).score(pairs)
    np.testing.assert_allclose(normalized, 1 / (1 + np.exp(-raw)), atol=1e-6)


def test_windows_leave_a_long_query_whole_unless_it_is_limited() -> None:
    windows = {"strategy": "max", "window": 20}
    query = text_of(451)
    assert cuts(scorer(long_passages=windows), (query, "hi")) == [(451 - 384, 0, 1)]
    for truncation in ("longest_first", "error"):
        assert cuts(scorer(long_passages=windows, truncation=truncation), (query, "hi")) == [(0, 0, 1)]


@pytest.mark.parametrize("truncation", ["longest_first", "error"])
def test_decoders_stay_within_max_length_but_for_flag_embedding(truncation: str) -> None:
    model = scorer(model=f"{TINY}-v2-gemma", max_length=128, truncation=truncation)
    passage = LONG if truncation == "longest_first" else "hi"
    assert len(model.encode([("a", passage)]).sequences[0]) <= 128


def test_decoders_that_have_no_positions_left_say_so() -> None:
    model = scorer(model=f"{TINY}-v2-minicpm-layerwise", query_max_length=5000, max_length=128)
    with pytest.raises(ScoringError, match="pair 0: .* tokens for a model of 2048 positions"):
        model.encode([("word " * 3000, "hi")])


def test_a_query_that_leaves_windows_no_room_is_named() -> None:
    model = scorer(max_length=12, query_max_length=8, long_passages={"strategy": "max"})
    with pytest.raises(ScoringError, match="pair 1: there is no room for a window"):
        model.encode([("a", "hi"), (text_of(9), "hi")])
    with pytest.raises(ConfigError, match="no such option"):
        scorer(compress_ratio=2)


def test_rank_tells_the_window_and_the_cut() -> None:
    best = scorer(max_length=32, long_passages={"strategy": "max"}).rank("a", [LONG, "hi"])
    assert {passage.index: passage.passage_cut for passage in best} == {0: 0, 1: 0}
    assert {passage.index: passage.window > 0 for passage in best} == {0: True, 1: False}
    cut = scorer(max_length=32).rank("a", [LONG, "hi"])
    assert {passage.index: passage.passage_cut for passage in cut} == {0: 874, 1: 0}
