"""Checkpoints of which the tests of variants change copies, and what another library scores of these."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer
from transformers import BertTokenizer

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import make_cross_encoder, make_trunk

Scores = npt.NDArray[np.float32]
PAIRS = [
    ("What is a Panda?", "The giant panda is a bear native to China."),
    ("Ünïcödé naïve CAFÉ", "什么是大熊猫 rerankers read"),
    ("ΟΔΟΣ one", "give ONE score, two  blanks\nand a line"),
    ("a", ""),
    ("a query", "a passage and " * 30),
]
AGREES = 1e-5
GEMMA, MINICPM, GEMMA2 = (
    f"tiny-bge-reranker-{name}" for name in ("v2-gemma", "v2-minicpm-layerwise", "v2.5-gemma2-lightweight")
)


def ours(path: Path, **options: Any) -> Scores:
    config = ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options})
    return Scorer(config).score(PAIRS)


def cross_encoder(path: Path) -> Scores:
    """Pair by pair, since what a pair's padding does is not the pair's."""
    peer = CrossEncoder(str(path), device="cpu")
    return np.concatenate([peer.predict([pair], activation_fn=torch.nn.Identity()) for pair in PAIRS])


def bi_encoder(path: Path) -> Scores:
    peer = SentenceTransformer(str(path), device="cpu")
    scores = [
        peer.similarity(peer.encode_query([query]), peer.encode_document([passage]))[0, 0]
        for query, passage in PAIRS
    ]
    return np.array([float(score) for score in scores], np.float32)


def same_or_refused(path: Path, reference: Callable[[Path], Scores], *named: str, **options: Any) -> None:
    """named: words of which a refusal has one."""
    try:
        scores = ours(path, **options)
    except ModelError as error:
        message = str(error)
    else:
        np.testing.assert_allclose(scores, reference(path), atol=AGREES, rtol=AGREES)
        return
    assert "\n" not in message
    assert any(word in message for word in named), message


def bert_words(path: Path) -> None:
    """The tokenizer in the checkpoint, as one of BERT's own class, which reads its options."""
    vocabulary = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=128).save_pretrained(path)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_cross_encoder(tmp_path_factory.mktemp("classifier"), "bert")
    bert_words(path)
    return path


@pytest.fixture(scope="module")
def saved_classifier(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Path:
    path = tmp_path_factory.mktemp("saved")
    CrossEncoder(str(classifier), device="cpu", max_length=48).save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw, path = (tmp_path_factory.mktemp(name) for name in ("raw", "embedder"))
    make_trunk(raw, "bert")
    bert_words(raw)
    SentenceTransformer(str(raw), device="cpu").save_pretrained(str(path))
    return path
