"""On a GPU long lists go in parts: here with small parts, and with a CPU that passes for one."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.errors import ScoringError
from pipeline.scoring import Scorer, ScorerConfig, scorer
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.parts import score_in_parts
from pipeline.scoring.results import Scored
from tests.conftest import MINILM, TINY

Encode = Callable[[list[tuple[str, str]]], EncodedPairs]
Forward = Callable[[EncodedPairs], Scored]
PAIRS = [(query, f"river bank {'heat ' * count}") for count in range(9) for query in ("heat", "a panda")]


def of(model: str = TINY, **options: object) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": model, "device": "cpu", **options}))


@pytest.mark.parametrize("size", [1, 4, 5, 18, 100])
def test_parts_give_the_scores_of_the_whole_and_equal_pairs_equal_ones(size: int) -> None:
    tiny = of()
    pairs = [*PAIRS, *PAIRS[::-1], ("heat", "")]
    found = score_in_parts(pairs, tiny.encode, tiny.forward, size)
    np.testing.assert_allclose(found, tiny.forward(tiny.encode(pairs)).scores, atol=1e-6)
    np.testing.assert_array_equal(found[:18], found[18:36][::-1])


def test_several_cutoffs_keep_their_columns() -> None:
    tiny = of(f"{TINY}-v2-minicpm-layerwise", cutoff_layers=[2, 3])
    found = score_in_parts(PAIRS, tiny.encode, tiny.forward, 4)
    np.testing.assert_allclose(found, tiny.forward(tiny.encode(PAIRS)).scores, atol=1e-6)
    assert found.shape == (18, 2)


def test_a_pair_that_fails_is_named_by_its_place_in_the_whole_list() -> None:
    tiny = of(truncation="error")
    twice = [PAIRS[0], PAIRS[1], PAIRS[0], PAIRS[3], PAIRS[4]]

    def failing(encoded: EncodedPairs) -> Scored:
        if len(encoded) == 2 and encoded.tokens.sum() == tiny.encode(PAIRS[3:5]).tokens.sum():
            raise ScoringError(0, "no such card")
        return tiny.forward(encoded)

    with pytest.raises(ScoringError, match="pair 3: no such card"):
        score_in_parts(twice, tiny.encode, failing, 2)
    with pytest.raises(ScoringError, match=r"pair 5: .*tokens"):
        score_in_parts([*twice, ("heat", "river " * 900), PAIRS[6]], tiny.encode, tiny.forward, 2)


def test_a_scorer_takes_parts_on_a_gpu_alone_and_never_to_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[int]()

    def noting(pairs: list[tuple[str, str]], encode: Encode, forward: Forward) -> npt.NDArray[np.float32]:
        seen.append(len(pairs))
        return score_in_parts(pairs, encode, forward, 4)

    monkeypatch.setattr(scorer, "score_in_parts", noting)
    monkeypatch.setattr(scorer, "PART_PAIRS", 10)
    tiny, embedding = of(), of(MINILM)
    expected = tiny.score(PAIRS)
    assert not seen
    tiny.config = tiny.config.model_copy(update={"device": "auto"})
    embedding.config = embedding.config.model_copy(update={"device": "auto"})
    _ = tiny.model, embedding.model
    monkeypatch.setattr(scorer, "resolve_device", lambda _: torch.device("cuda"))
    np.testing.assert_allclose(tiny.score(iter(PAIRS)), expected, atol=1e-6)
    assert seen == [18]
    tiny.score(PAIRS[:10])
    embedding.score(PAIRS)
    assert seen == [18]
