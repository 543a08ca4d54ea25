"""What a trunk can read after its vocabulary has grown, and what its warm-up learns from."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from benchmarks.warm_up import trunk_without_dropout
from benchmarks.warm_up_characters import FEWEST, PIECE, SCALE, TABLE, pieces, rows, with_characters
from benchmarks.warm_up_fusion import bm25

TEXTS = ["离婚 divorce", "离家 of привет ꙮꙮ"]


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trunk_without_dropout(tmp_path_factory.mktemp("trunk") / "trunk")


def test_a_trunk_reads_the_characters_that_it_is_given_and_all_that_it_knew_as_before(trunk: Path) -> None:
    before = Tokenizer.from_file(str(trunk / "tokenizer.json"))
    before.no_padding()
    known = load_file(trunk / "model.safetensors")[TABLE]
    assert "[UNK]" in before.encode("离婚").tokens
    assert with_characters(trunk, TEXTS) == 4
    after = Tokenizer.from_file(str(trunk / "tokenizer.json"))
    after.no_padding()
    assert after.encode(TEXTS[0]).tokens == ["[CLS]", "离", "婚", "divorce", "[SEP]"]
    assert after.encode("ꙮꙮ привет").tokens[1:3] == ["ꙮ", "##ꙮ"]
    assert after.encode("divorce of привет").ids == before.encode("divorce of привет").ids
    table = load_file(trunk / "model.safetensors")[TABLE]
    assert len(table) == after.get_vocab_size() == len(known) + 4
    torch.testing.assert_close(table[: len(known)], known)
    assert not torch.equal(table[-1], table[-2])


def test_pieces_have_all_characters_once() -> None:
    passage = "".join(map(chr, range(0x4E00, 0x4E00 + 2 * PIECE + 5)))
    assert "".join(pieces(passage)) == passage
    assert [len(piece) for piece in pieces(passage)] == [PIECE, PIECE, 5]


def test_a_row_has_the_best_piece_first_and_bm25_s_scores() -> None:
    draw = random.Random(3)
    letters = [chr(0x4E00 + each) for each in range(150)]
    passages = ["".join(draw.choices(letters, k=PIECE)) for _ in range(FEWEST)]
    questions = [passages[7][5:15], passages[9][20:32]]
    found = [*rows(questions, passages, 10, draw)]
    assert [row["query"] for row in found[:2]] == questions
    assert found[0]["pos"] == [passages[7]]
    assert len(found) == 12
    for row in found:
        scores = np.array(row["pos_scores"] + row["neg_scores"])
        given = row["pos"] + row["neg"]
        assert len({*given[:7]}) == 7
        expected = bm25([row["query"]], passages)[0][[passages.index(each) for each in given]]
        np.testing.assert_allclose(scores, expected / expected[0] * SCALE, atol=1e-3)
        assert scores[0] == SCALE == scores.max()
    for row in found[2:]:
        assert not any(row["query"] in piece for piece in row["pos"] + row["neg"]), "a span's own piece"


def test_too_few_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="have 351 pieces of more than 30 characters: 20 spans need 352"):
        next(rows(["离婚"], ["离" * PIECE] * (FEWEST - 1), 20, random.Random(3)))
