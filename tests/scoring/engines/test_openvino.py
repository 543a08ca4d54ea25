"""OpenVINO against torch, on tiny checkpoints of every architecture that it is said to run."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.engines import openvino as engine
from tests.conftest import DATA, MINILM, ROOT, TINY
from tests.scoring.checkpoints import KINDS, SIZES, make_cross_encoder, make_trunk, wordpiece

_MORE_KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "camembert": KINDS["roberta"],
    "electra": KINDS["bert"],
    "mpnet": (wordpiece, {}),
    "distilbert": (wordpiece, {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
}
_TEXT = "what is a panda bear native to China rerankers read passage together 什么是大熊猫 naïve café"


def pairs() -> list[tuple[str, str]]:
    """Of many lengths, an empty one among them."""
    drawn, words = random.Random(1), _TEXT.split()

    def text(most: int) -> str:
        return " ".join(drawn.choices(words, k=drawn.randint(1, most)))

    return [("", ""), *((text(8), text(50)) for _ in range(20))]


def scorer(model: str | Path, **options: Any) -> Scorer:
    settings = {"model": str(model), "device": "cpu", **options}
    return Scorer(ScorerConfig.model_validate(settings))


@pytest.mark.parametrize("kind", sorted(engine._TRACED))
def test_a_cross_encoder_scores_as_with_torch(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, made in _MORE_KINDS.items():
        monkeypatch.setitem(KINDS, name, made)
    # A local layer below another one: what padding became there would be read here.
    monkeypatch.setitem(SIZES, "num_hidden_layers", 4 if kind == "modernbert" else 2)
    checkpoint = make_cross_encoder(tmp_path / "model", kind)
    expected = scorer(checkpoint).score(pairs())
    np.testing.assert_allclose(
        scorer(checkpoint, engine="openvino").score(pairs()), expected, rtol=0, atol=1e-5
    )
    assert expected.std() > 0.01


def test_an_embedding_model_embeds_as_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "num_hidden_layers", 3)
    # Pooled is the mean of what a sliding window left, padding beside it.
    checkpoint = make_trunk(tmp_path / "model", "modernbert")
    options = {"family": "bi_encoder"}
    texts = [passage for _, passage in pairs()]
    expected = scorer(checkpoint, **options).embed(texts, "passage")
    got = scorer(checkpoint, engine="openvino", **options).embed(texts, "passage")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_equal_pairs_get_equal_scores_whatever_is_beside_them() -> None:
    ours = scorer(TINY, engine="openvino")
    together = ours.score([*pairs(), *pairs()[::-1]])
    np.testing.assert_array_equal(together[:21], together[:20:-1])
    alone = np.concatenate([ours.score([pair]) for pair in pairs()[:5]])
    np.testing.assert_allclose(together[:5], alone, rtol=0, atol=1e-6)


def test_it_takes_as_many_threads_as_torch_would(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    original = engine._runner

    def kept(compiled: Any) -> Any:
        names = ("INFERENCE_NUM_THREADS", "ENABLE_CPU_PINNING", "INFERENCE_PRECISION_HINT")
        taken.append([str(compiled.get_property(name)) for name in names])
        return original(compiled)

    monkeypatch.setattr(engine, "_runner", kept)
    _ = scorer(TINY, engine="openvino").model
    assert taken == [[str(torch.get_num_threads()), "False", "<Type: 'float32'>"]]


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (TINY, {"device": "cuda"}, "runs on CPUs, not on cuda; set device to cpu"),
        (TINY, {"dtype": "float16"}, "computes in float32 or bfloat16, not in float16"),
        (TINY, {"trust_remote_code": True}, "runs no remote code; leave trust_remote_code out"),
        (DATA / "tiny-bge-reranker-v2-gemma", {}, "the family flag_llm is not run by it"),
    ],
)
def test_what_it_does_not_run_is_refused_before_anything_loads(
    model: str | Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"^engine openvino: {reason}"):
        scorer(model, engine="openvino", **options)


def test_an_architecture_that_was_not_tried_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "albert", (wordpiece, {"embedding_size": 16}))
    checkpoint = make_cross_encoder(tmp_path / "model", "albert")
    with pytest.raises(ConfigError, match=r"model is a albert; it runs bert, camembert"):
        scorer(checkpoint, engine="openvino")


@pytest.mark.skipif("BF16" in engine.capabilities(), reason="this chip computes bfloat16")
def test_bfloat16_is_refused_where_the_chip_has_none() -> None:
    with pytest.raises(ConfigError, match="this chip computes no bfloat16; set dtype to float32"):
        _ = scorer(TINY, engine="openvino", dtype="bfloat16").model


_SCORES_ALONE = f"""
import sys
import torch  # whose build for CUDA asks ldconfig for libraries
seen = []
sys.addaudithook(lambda event, args: seen.append(event) if event in (
    "socket.connect", "socket.getaddrinfo", "os.fork", "subprocess.Popen", "os.posix_spawn") else None)
from pipeline.scoring import Quantization, Scorer, ScorerConfig
quantization = Quantization(kind="int8", path="unused")
config = ScorerConfig(model={TINY!r}, device="cpu", engine="openvino", quantization=quantization)
Scorer(config).calibrate([("what is it?", "a panda")] * 3 + [("a", "b")])
import nncf.telemetry
print(type(nncf.telemetry.telemetry).__name__, sys.modules["openvino_telemetry"], seen)
"""


def test_no_usage_data_leaves_the_machine(tmp_path: Path) -> None:
    """In a process of its own: NNCF sends none where it sees pytest."""
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", _SCORES_ALONE], env=environment, capture_output=True, text=True, check=True
    )
    *_, last = done.stdout.splitlines()
    assert last == "MagicMock None []", done.stdout
    assert not (tmp_path / "intel").exists()


def test_minilm_embeds_as_with_torch() -> None:
    texts = [passage for _, passage in pairs()]
    expected = scorer(MINILM).embed(texts, "passage")
    np.testing.assert_allclose(
        scorer(MINILM, engine="openvino").embed(texts, "passage"), expected, rtol=0, atol=1e-5
    )


_GIVEN_UP = f"""
import gc, signal, threading
from pipeline.scoring import Scorer, ScorerConfig
held = [Scorer(ScorerConfig(model={TINY!r}, device="cpu", engine="openvino"))]
held[0].score([("what is it?", "a panda")])

def give_up():
    held.clear()
    gc.collect()

thread = threading.Thread(target=give_up)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_is_heard_after_another_thread_gave_a_scorer_up() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _GIVEN_UP], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
