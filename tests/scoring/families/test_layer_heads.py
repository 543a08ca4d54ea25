"""The two decoders with heads after several layers, beyond the golden cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA
from tests.scoring.checkpoints import copied, edit

MINICPM = str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise")
GEMMA2 = str(DATA / "tiny-bge-reranker-v2.5-gemma2-lightweight")
PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "hi"),
    ("什么是大熊猫", "a longer passage " * 9),
    ("", ""),
]
AGREES = 1e-5


def scorer(model: str, **options: object) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": model, "device": "cpu", **options}))


def scores(model: str, **options: object) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return scorer(model, **options).score(PAIRS)


# The reference itself visits unsorted cutoffs in ascending order, once each, but pairs minicpm's heads with
# them in the order asked for: the wrong ones. Single cutoffs, to which these are compared, are in
# reference.json.
@pytest.mark.parametrize(("model", "more"), [(MINICPM, {}), (GEMMA2, {"head_index": "layer"})])
def test_a_column_is_the_score_of_its_layer_whatever_the_order(model: str, more: dict[str, str]) -> None:
    several = scores(model, cutoff_layers=(6, 3, 6, 4), **more)
    assert several.shape == (len(PAIRS), 4)
    for column, layer in enumerate((6, 3, 6, 4)):
        one = scores(model, cutoff_layers=(layer,), **more)
        np.testing.assert_allclose(several[:, column], one, atol=AGREES, rtol=0)


def test_the_published_head_is_the_one_at_the_cutoffs_position() -> None:
    published = scores(GEMMA2, cutoff_layers=(8,))
    by_layer = scores(GEMMA2, cutoff_layers=(8,), head_index="layer")
    assert np.abs(published - by_layer).max() > 0.01
    # After its first layer with a head, position and layer mean the same head.
    first = scores(GEMMA2, cutoff_layers=(3,), head_index="layer")
    np.testing.assert_allclose(first, scores(GEMMA2, cutoff_layers=(3,)), atol=AGREES, rtol=0)


def test_a_checkpoint_says_itself_which_head_is_a_layers(tmp_path: Path) -> None:
    trained = copied(Path(GEMMA2), tmp_path)
    edit(trained / "config.json", head_index="layer")
    by_layer = scores(GEMMA2, cutoff_layers=(8,), head_index="layer")
    np.testing.assert_array_equal(scores(str(trained), cutoff_layers=(8,)), by_layer)
    as_published = scores(str(trained), cutoff_layers=(8,), head_index="position")
    np.testing.assert_array_equal(as_published, scores(GEMMA2, cutoff_layers=(8,)))
    edit(trained / "config.json", head_index="first")
    with pytest.raises(ModelError, match=r"config.json: head_index: needs position or layer"):
        scorer(str(trained))


def test_a_published_head_does_not_depend_on_the_order_asked_for() -> None:
    ascending = scores(GEMMA2, cutoff_layers=(3, 5, 8))
    np.testing.assert_allclose(
        scores(GEMMA2, cutoff_layers=(8, 3, 8, 5)), ascending[:, [2, 0, 2, 1]], atol=AGREES, rtol=0
    )


@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_passages_shorter_than_the_ratio_and_empty_ones(ratio: int) -> None:
    options = {"compress_ratio": ratio, "compress_layers": (2, 4)}
    pairs = [("a query", ""), ("a query", "x"), ("", "two words"), ("a query", "a longer passage " * 9)]
    together = scorer(GEMMA2, **options).score(pairs)
    alone = [scorer(GEMMA2, **options).score([pair])[0] for pair in pairs]
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, atol=AGREES, rtol=0)


def test_a_ratio_of_one_compresses_nothing() -> None:
    plain = scores(GEMMA2)
    np.testing.assert_array_equal(scores(GEMMA2, compress_ratio=1, compress_layers=(2,)), plain)
    assert np.abs(scores(GEMMA2, compress_ratio=2, compress_layers=(2,)) - plain).max() > 1e-3


@pytest.mark.parametrize("cutoffs", [(3,), (3, 6)])
def test_layers_above_the_last_cutoff_are_not_loaded(cutoffs: tuple[int, ...]) -> None:
    model = scorer(MINICPM, cutoff_layers=cutoffs).model
    assert len(model._decoder._backbone.layers) == max(cutoffs)  # type: ignore[attr-defined]


def changed(tmp_path: Path, weights: dict[str, torch.Tensor], **fields: object) -> str:
    """MiniCPM with other weights and a config.json that goes with them."""
    path = copied(Path(MINICPM), tmp_path)
    edit(path / "config.json", **fields)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


def test_biases_of_attention_are_scaled_with_the_block_they_are_of(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = load_file(f"{MINICPM}/model.safetensors")
    biases = {
        key.replace("weight", "bias"): torch.randn(len(value)) / 2
        for key, value in weights.items()
        if key.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj", "o_proj"))
    }
    found = scorer(changed(tmp_path, weights | biases, attention_bias=True))
    # MiniCPM's block: residual + attention * scale_depth / sqrt(layers). Here the factor is on the output.
    network: Any = found.load_network().eval()
    for sequence, score in zip(found.encode(PAIRS).sequences.to_pylist(), found.score(PAIRS), strict=True):
        hidden = network.model(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]
        assert network.lm_head[-1]["linear_head"](hidden).item() == pytest.approx(score, abs=1e-4)


def test_heads_after_every_other_layer(tmp_path: Path) -> None:
    weights = load_file(f"{MINICPM}/model.safetensors")
    heads = {key: weights.pop(key) for key in list(weights) if key.startswith("lm_head")}
    for number, head in enumerate((0, 2, 4)):  # those after layers 2, 4 and 6
        weights[f"lm_head.{number}.linear_head.weight"] = heads[f"lm_head.{head}.linear_head.weight"]
    path = changed(tmp_path, weights, layer_sep=2)
    for cutoffs in ((2,), (4,), (6,), (6, 2)):
        expected = scores(MINICPM, cutoff_layers=cutoffs)
        np.testing.assert_allclose(scores(path, cutoff_layers=cutoffs), expected, atol=AGREES, rtol=0)
    np.testing.assert_allclose(scores(path), scores(MINICPM), atol=AGREES, rtol=0)


@pytest.mark.parametrize("model", [MINICPM, GEMMA2])
@pytest.mark.parametrize("ratio", [1, 2])
def test_candidates_of_a_query_share_its_tokens(model: str, ratio: int) -> None:
    options = {"compress_ratio": ratio, "compress_layers": (2,)} if model == GEMMA2 else {}
    pairs = [(query, "passage " * length) for query in ("a panda", "the bear") for length in range(1, 9)]
    shared, whole = (
        (found := scorer(model, max_batch_tokens=budget, **options)).forward(found.encode(pairs))
        for budget in (100, 100_000)
    )
    assert shared.tokens < whole.tokens
    np.testing.assert_allclose(shared.scores, whole.scores, atol=AGREES, rtol=0)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MINICPM, {"cutoff_layers": (1,)}, "no head after layer 1; it has heads after 2, 3, 4, 5, 6"),
        (GEMMA2, {"cutoff_layers": (4, 9)}, "no head after layer 9; it has heads after 3, 4, 5, 6, 7, 8"),
        (GEMMA2, {"compress_ratio": 2, "compress_layers": (8,)}, "no layer 8; there are 0 to 7"),
        (
            MINICPM,
            {"compress_ratio": 2},
            "compress_ratio: the family minicpm_layerwise .* has no such option",
        ),
    ],
)
def test_what_the_checkpoint_does_not_have_is_named(
    model: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        scores(model, **options)


def test_several_scores_rank_nothing() -> None:
    with pytest.raises(ConfigError, match="ask for one layer"):
        scorer(MINICPM, cutoff_layers=(3, 4)).rank("query", ["passage"])


def test_no_pairs_give_no_scores() -> None:
    assert scorer(MINICPM).score([]).shape == (0,)
    assert scorer(MINICPM, cutoff_layers=(3, 4)).score([]).shape == (0, 2)
