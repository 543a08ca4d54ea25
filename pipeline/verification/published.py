"""Published scores, from model cards: of the BGE rerankers also from FlagEmbedding's README, of
ettin-reranker-32m-v1 from the article "Introducing the Ettin Reranker Family".
"""

from dataclasses import dataclass
from typing import Any

CAPITALS = [
    ("What is the capital of France?", "Paris is the capital of France."),
    ("What is the capital of France?", "The population of China is over 1.4 billion people."),
    ("What is the population of China?", "Paris is the capital of France."),
    ("What is the population of China?", "The population of China is over 1.4 billion people."),
]
BARE = [("query", "passage")]
PANDA = [
    ("what is panda?", "hi"),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear"
        " species endemic to China.",
    ),
]
BERLIN = [
    (
        "How many people live in Berlin?",
        "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
    ),
    ("How many people live in Berlin?", "Berlin is well known for its museums."),
]
APPLE = [
    (
        "Where was Apple founded?",
        "Apple Inc. was founded in Cupertino, California in 1976 by Steve Jobs, Steve Wozniak, and Ronald"
        " Wayne.",
    ),
    (
        "Where was Apple founded?",
        "The Fuji apple is an apple cultivar developed in the late 1930s and brought to market in 1962.",
    ),
]


@dataclass(frozen=True)
class Published:
    """Scores that a model's makers show, and the options they need."""

    pairs: list[tuple[str, str]]
    scores: list[float]
    """The BGE rerankers' were made in float16."""
    options: dict[str, Any]
    owner: str = "BAAI"
    """On the hub."""


_LIGHTWEIGHT = {"cutoff_layers": (28,), "compress_ratio": 2, "compress_layers": (24, 40)}
PUBLISHED = {
    "bge-reranker-base": Published(BARE, [0.4474879801273346], {}),
    "bge-reranker-large": Published(CAPITALS, [7.984375, -6.84375, -7.15234375, 5.44921875], {}),
    "bge-reranker-v2-m3": Published([*BARE, *PANDA], [-5.65234375, -8.1875, 5.26171875], {}),
    "bge-reranker-v2-gemma": Published(
        [*CAPITALS, *BARE], [9.171875, -4.49609375, -5.5234375, 10.2109375, 1.974609375], {}
    ),
    "bge-reranker-v2-minicpm-layerwise": Published(
        [*CAPITALS, *BARE],
        [1.939453125, -12.71875, -11.78125, 2.189453125, -7.06640625],
        {"cutoff_layers": (28,)},
    ),
    "bge-reranker-v2.5-gemma2-lightweight": Published(
        [*CAPITALS, *BARE], [25.375, 8.734375, 9.8359375, 26.15625, 14.734375], _LIGHTWEIGHT
    ),
    "ms-marco-MiniLM-L2-v2": Published(BERLIN, [8.510401, -4.860082], {}, "cross-encoder"),
    "ms-marco-MiniLM-L6-v2": Published(BERLIN, [8.607138, -4.320078], {}, "cross-encoder"),
    "ettin-reranker-32m-v1": Published(APPLE, [11.393298, 2.968891], {}, "cross-encoder"),
}
"""By the last part of the model's name."""
