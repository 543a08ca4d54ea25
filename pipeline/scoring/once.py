"""Equal pairs, and equal texts, go through the model once; what fails is told by its place in the call."""

import numpy as np
import pyarrow as pa

from pipeline.errors import ScoringError
from pipeline.scoring.copies import distinct, distinct_sequences
from pipeline.scoring.encoding import EncodedPairs, IntArray
from pipeline.scoring.family import EmbeddingModel, Model
from pipeline.scoring.results import Embedded, Heard, Scored
from pipeline.scoring.truncation import best_windows


def score_once(model: Model, encoded: EncodedPairs, strategy: str, dtype: str) -> Scored:
    """Equal pairs get the same score, bit for bit.

    strategy: of passages in several windows. dtype: the model's, for the message of what is no number.
    Raises ScoringError for the first pair that fails or has no finite score.
    """
    once = distinct(encoded)

    def error_of(row: int, reason: str) -> ScoringError:
        return ScoringError(encoded.pair_of(int(once.firsts[row])), reason)

    try:
        scores, tokens, padded_tokens = model.forward(once.sequences, once.inputs)
    except ScoringError as error:
        raise error_of(error.index, error.reason) from error
    broken = np.argwhere(~np.isfinite(scores))
    if broken.size:
        way_out = "are the model's weights whole?" if dtype == "float32" else "try dtype float32"
        raise error_of(int(broken[0][0]), f"its score is {scores[tuple(broken[0])]}; {way_out}")
    counts = encoded.pairs["windows"].to_numpy()
    scores, windows = best_windows(scores[once.places], counts, strategy)
    return Scored(scores[once.first_pairs], windows, tokens, padded_tokens, once.copies)


def embed_once(
    model: EmbeddingModel,
    encoded: pa.ListArray,
    counts: IntArray,
    cuts: IntArray,
    heard: Heard | None = None,
) -> Embedded:
    """encoded, counts, cuts: what `EmbeddingEncoder.encode_texts` gives.

    Raises ScoringError for the first text that fails or has no finite embedding.
    """
    sequences, places = distinct_sequences(encoded)

    def error_of(sequence: int, reason: str) -> ScoringError:
        text = np.searchsorted(np.cumsum(counts), sequence, side="right")
        return ScoringError(int(text), reason, "text")

    try:
        embeddings, tokens, _ = model.embed(sequences, heard)
    except ScoringError as error:
        raise error_of(int(np.flatnonzero(places == error.index)[0]), error.reason) from error
    embeddings = embeddings[places]
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if broken.size:
        raise error_of(int(broken[0]), "its embedding is not finite")
    return Embedded(embeddings, counts, cuts, tokens)
