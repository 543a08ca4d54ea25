"""A server with keys and narrow limits, for the dialects' errors."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.conftest import TINY
from tests.serve.local import LocalServer, serving

KEY = "a-key-of-16-characters"
WRONG_KEY = (
    "needs a valid API key: `Authorization: Bearer KEY`, with the part after the colon of the server's"
    " `name:key`"
)
MAX_PASSAGES = 4
MAX_BODY_BYTES = 5000
TOO_MANY = (
    "5 documents are more than the 4 allowed (api.max_passages of the server's config): send fewer at a time"
)
TOO_LARGE = (
    "the body is larger than the 5000 bytes allowed (api.max_body_bytes of the server's config): send fewer"
    " or shorter texts"
)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """`tiny`, and `broken`, of which nearly all scores are NaN.

    Asks for KEY; a second key has one request a minute.
    """
    broken = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(TINY, broken)
    _break(broken)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIALECT_KEYS", f"team:{KEY},hasty:hasty-{KEY}")
        with serving(
            {"tiny": {"model": TINY}, "broken": {"model": str(broken)}},
            keys={"env": "DIALECT_KEYS"},
            max_passages=MAX_PASSAGES,
            max_body_bytes=MAX_BODY_BYTES,
            limits_of={"hasty": {"requests_per_minute": 1}},
        ) as made:
            yield made


def _break(model: Path) -> None:
    """Of all words but those of ("a", "b"): a model that scores no pair would not load."""
    tensors = load_file(model / "model.safetensors")
    words = tensors["roberta.embeddings.word_embeddings.weight"]
    kept = Tokenizer.from_file(str(model / "tokenizer.json")).encode("a", "b").ids
    whole = words[kept].clone()
    words.fill_(float("nan"))
    words[kept] = whole
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def strict(guarded: LocalServer) -> Iterator[httpx2.Client]:
    """Whose requests carry KEY."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=guarded.url, timeout=30, headers=headers) as made:
        yield made
