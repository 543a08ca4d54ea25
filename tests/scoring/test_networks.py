"""A checkpoint's network, as training and export want it."""

import gc
import weakref
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA, MINILM
from tests.scoring.checkpoints import make_qwen3

CHECKPOINTS = [*sorted(path.name for path in DATA.glob("tiny-*")), MINILM, "qwen3"]
PAIRS = [("what is a panda?", "The giant panda is a bear.")]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    model: str = request.param
    if model == "qwen3":
        model = str(make_qwen3(tmp_path_factory.mktemp(model)))
    elif model != MINILM:
        model = str(DATA / model)
    return Scorer(ScorerConfig(model=model, device="cpu"))


def test_its_tensors_are_the_checkpoints(scorer: Scorer) -> None:
    network = scorer.load_network()
    held = load_file(scorer.checkpoint.path / "model.safetensors")
    names = set(held) - {"embeddings.position_ids"}  # an older transformers saved a constant
    tensors = network.state_dict()
    tied = {"lm_head.weight"} if "lm_head.weight" not in names else set()
    assert tensors.keys() - tied == names
    for name in names:
        torch.testing.assert_close(tensors[name], held[name].float(), atol=0, rtol=0)


def test_gradients_flow_to_every_weight_that_takes_part(scorer: Scorer) -> None:
    network: Any = scorer.load_network()
    ids = torch.tensor(scorer.encode(PAIRS).sequences.to_pylist()[:1])
    backbone = getattr(network, network.base_model_prefix, network)
    backbone(input_ids=ids)[0].float().square().sum().backward()
    without = [name for name, weight in backbone.named_parameters() if weight.grad is None]
    assert all("pooler" in name for name in without), without
    assert {str(weight.dtype) for weight in network.parameters()} == {"torch.float32"}


def test_minicpms_factors_act_on_what_its_modules_give() -> None:
    """The network's last hidden state, times the head, is the score."""
    scorer = Scorer(ScorerConfig(model=str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise"), device="cpu"))
    network: Any = scorer.load_network()
    with torch.no_grad():
        hidden = network.model(input_ids=torch.tensor(scorer.encode(PAIRS).sequences.to_pylist()))[0]
        score = network.lm_head[-1]["linear_head"](hidden[:, -1])
    torch.testing.assert_close(score[:, 0], torch.from_numpy(scorer.score(PAIRS)), atol=1e-4, rtol=1e-4)


def test_a_scorer_that_is_dropped_leaves_no_weights(scorer: Scorer) -> None:
    """Not even until garbage is collected: on a card the next model needs the room now."""
    made = Scorer(scorer.config)
    gc.collect()
    gc.disable()
    try:
        before = set(map(id, _modules()))
        made.score(PAIRS)
        left = [weakref.ref(one) for one in _modules() if id(one) not in before]
        assert left
        del made
        assert not [one for one in left if one() is not None]
    finally:
        gc.enable()


def _modules() -> list[torch.nn.Module]:
    # By its class: isinstance would ask objects that answer with a warning.
    return [one for one in gc.get_objects() if issubclass(type(one), torch.nn.Module)]
