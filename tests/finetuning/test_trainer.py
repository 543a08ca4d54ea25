"""A step over fixed groups: the scores that are trained are those of scoring, for every family."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from pipeline.errors import ConfigError, DeviceError, ModelError, TrainingError
from pipeline.finetuning import losses
from pipeline.finetuning.config import DataConfig, LossConfig, TrainingConfig
from pipeline.finetuning.export import export
from pipeline.finetuning.sampling import Group
from pipeline.finetuning.student import GroupEncoder, Student, scorer_for_training
from pipeline.finetuning.trainer import Trainer, schedule
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA, MINILM, TINY
from tests.scoring.checkpoints import make_chatty, make_cross_encoder, make_modular, make_qwen3
from tests.scoring.families.test_logit_score import LIKE_MXBAI, saved

GROUPS = [
    Group("what is a panda?", ("the giant panda is a bear", "hi", "a bridge of stone"), (3.0, 1.0, 0.0)),
    Group("who?", ("me", "you and all the others that were there", "he"), (2.0, 1.0, 0.0)),
]
CPU = torch.device("cpu")
GEMMA, MINICPM, GEMMA2 = (
    str(DATA / f"tiny-bge-reranker-{name}")
    for name in ("v2-gemma", "v2-minicpm-layerwise", "v2.5-gemma2-lightweight")
)
COMPRESSED = {"compress_layers": (3,), "compress_ratio": 2, "head_index": "layer"}


KINDS = ["encoder", "bert", "modular", "gemma", "qwen3", "logit_score", "mxbai", "minicpm", "gemma2"]


@pytest.fixture(params=KINDS)
def scorer_config(request: pytest.FixtureRequest, tmp_path: Path) -> ScorerConfig:
    made: dict[str, dict[str, Any]] = {
        "encoder": {"model": TINY},
        "gemma": {"model": GEMMA},
        "minicpm": {"model": MINICPM},
        "gemma2": {"model": GEMMA2, **COMPRESSED},
    }
    if request.param == "bert":  # with token types
        made["bert"] = {"model": str(make_cross_encoder(tmp_path, "bert"))}
    if request.param == "modular":
        made["modular"] = {"model": str(make_modular(tmp_path, "modernbert"))}
    if request.param == "qwen3":
        made["qwen3"] = {"model": str(make_qwen3(tmp_path))}
    if request.param == "logit_score":
        made["logit_score"] = {"model": str(saved(tmp_path, "qwen2", LIKE_MXBAI))}
    if request.param == "mxbai":
        made["mxbai"] = {"model": str(make_chatty(tmp_path, "qwen2")), "family": "mxbai_rerank_v2"}
    return ScorerConfig(device="cpu", **made[request.param])


def trainer(
    scorer: Scorer, loss: LossConfig | None = None, *, dropout: bool = False, **options: Any
) -> tuple[Trainer, Student]:
    """Without dropout losses can be told beforehand."""
    training = TrainingConfig(learning_rate=1e-3, **options)
    torch.manual_seed(0)
    student = Student(scorer, training, CPU)
    for module in student.module.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    return Trainer(student, GroupEncoder(scorer), training, loss or LossConfig(), steps=10), student


def tiny(**fields: Any) -> Scorer:
    return scorer_for_training(ScorerConfig(model=TINY, device="cpu", **fields), DataConfig(path="-"))


def lengths_for(name: str) -> dict[str, Any]:
    """For the model in a test's name: some have positions for no more, two cut no query on its own."""
    lengths = {"bert": 100, "modular": 100, "mxbai": 100, "qwen3": 300, "logit_score": 300}
    return next(({"max_len": length} for kind, length in lengths.items() if kind in name), {})


def test_a_step_trains_the_scores_that_scoring_gives(
    scorer_config: ScorerConfig, request: pytest.FixtureRequest
) -> None:
    lengths = lengths_for(request.node.name)
    scorer = scorer_for_training(scorer_config, DataConfig(path="-", **lengths))
    made, student = trainer(scorer)
    encoded = GroupEncoder(scorer).encode(GROUPS)
    given = student.scores(encoded)
    expected = scorer.forward(encoded).scores
    np.testing.assert_allclose(given[:, -1].detach().numpy(), expected, atol=1e-5)
    loss = losses.objective(given.view(2, 3, -1), None, LossConfig()).item()
    told = [made.step(GROUPS).loss for _ in range(4)]
    assert told[0] == pytest.approx(loss, abs=1e-5)
    assert told[-1] < told[0]


def test_what_lora_trains_scores_alike_when_it_is_merged_and_written(
    scorer_config: ScorerConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    lengths = lengths_for(request.node.name)
    scorer = scorer_for_training(scorer_config, DataConfig(path="-", **lengths))
    _, student = trainer(scorer, use_lora=True, lora_rank=4)
    with torch.no_grad():
        for name, each in student.trained.items():
            if "lora_B" in name:
                each.normal_(std=0.1)
    student.module.eval()
    encoded = GroupEncoder(scorer).encode(GROUPS)
    trained = student.scores(encoded)[:, -1].detach().numpy()
    export(student.merged(), scorer.checkpoint, tmp_path / "made", student.says)
    # It says itself which head is a layer's.
    update = {"model": str(tmp_path / "made"), "head_index": None}
    made = Scorer(scorer.config.model_copy(update=update))
    np.testing.assert_allclose(made.forward(encoded).scores, trained, atol=1e-4)
    assert np.abs(trained - scorer.forward(encoded).scores).max() > 1e-3, "the factors change nothing"


@pytest.mark.parametrize(("kind", "pooling"), [("modernbert", "cls"), ("bert", "mean")])
def test_a_trained_head_of_modules_is_what_sentence_transformers_loads(
    tmp_path: Path, kind: str, pooling: str
) -> None:
    """All of it: no part of the backbone is left without a gradient, and none of the head as it was."""
    model = str(make_modular(tmp_path, kind, pooling))
    scorer = scorer_for_training(ScorerConfig(model=model, device="cpu"), DataConfig(path="-", max_len=100))
    made, student = trainer(scorer)
    before = {name: each.detach().clone() for name, each in student.trained.items()}
    for _ in range(2):
        made.step(GROUPS)
    held = {name for name, each in student.trained.items() if torch.equal(each, before[name])}
    # The loss takes no notice of what is added to all scores: the last bias has a gradient of rounding alone.
    assert not {name for name in held if "embeddings" not in name and not name.endswith("linear.bias")}
    export(student.merged(), scorer.checkpoint, tmp_path / "made", student.says)
    pairs = [(group.query, passage) for group in GROUPS for passage in group.passages]
    theirs = CrossEncoder(str(tmp_path / "made"), device="cpu").predict(
        pairs, activation_fn=torch.nn.Identity()
    )
    ours = Scorer(ScorerConfig(model=str(tmp_path / "made"), device="cpu"))
    np.testing.assert_allclose(ours.score(pairs), theirs, atol=1e-5, rtol=1e-5)
    assert np.abs(theirs - scorer.score(pairs)).max() > 1e-3


def test_memory_that_runs_out_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = trainer(tiny())

    def no_room(_: object) -> None:
        torch.empty(2**48, dtype=torch.uint8)

    monkeypatch.setattr(made._encoder, "encode", no_room)
    told = r"^step 1: the memory of cpu ran out. Lower training.per_device_train_batch_size"
    with pytest.raises(TrainingError, match=told):
        made.step(GROUPS)


def test_a_card_that_fails_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = trainer(tiny())
    monkeypatch.setattr(made, "_device", torch.device("cuda"))
    monkeypatch.setattr(made, "_step", Mock(side_effect=torch.AcceleratorError("CUDA error: unknown error")))
    with pytest.raises(DeviceError, match=r"^the device cuda failed in step 1: CUDA error: unknown error$"):
        made.step(GROUPS)
    for lack in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"):
        monkeypatch.setattr(made, "_step", Mock(side_effect=RuntimeError(lack)))
        with pytest.raises(TrainingError, match=r"^step 1: the memory of cuda ran out"):
            made.step(GROUPS)


def test_a_family_that_cuts_pairs_as_one_text_needs_its_length(tmp_path: Path) -> None:
    config = ScorerConfig(model=str(make_qwen3(tmp_path)), device="cpu")
    lengths: tuple[dict[str, Any], ...] = ({}, {"query_max_len": 32}, {"passage_max_len": 128})
    for given in lengths:
        with pytest.raises(ConfigError, match=r"^data.max_len: needed, in place of query_max_len"):
            scorer_for_training(config, DataConfig(path="-", **given))


def test_small_batches_make_the_same_step_as_a_large_one() -> None:
    three = [*GROUPS, Group("panda", ("a bear", "a bridge", "a stone"))]
    weights = []
    for size in (3, 2):  # two groups and one: each counts the same
        made, student = trainer(tiny(), per_device_train_batch_size=size, gradient_accumulation_steps=2)
        assert made.step(three).pairs == 9
        weights.append(student.module.classifier.out_proj.weight.detach().clone())
    torch.testing.assert_close(*weights)


def test_pairs_of_unlike_lengths_go_apart_and_their_scores_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = scorer_for_training(ScorerConfig(model=TINY, device="cpu"), DataConfig(path="-"))
    student = Student(scorer, TrainingConfig(), torch.device("cpu"))
    student.module.eval()
    pairs = [("a", "word " * count) for count in (3, 90, 1, 70, 2, 80)]
    encoded = scorer.encode(pairs)
    whole = student.scores(encoded)
    shapes: list[int] = []
    student.module.register_forward_pre_hook(
        lambda _module, _args, named: shapes.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    monkeypatch.setattr("pipeline.finetuning.student._PART_TOKENS", 1)
    apart = student.scores(encoded)
    assert len(shapes) > 2
    assert shapes == sorted(shapes, reverse=True)
    torch.testing.assert_close(apart, whole, atol=1e-5, rtol=0)


def test_a_teachers_scores_reach_the_loss() -> None:
    made, student = trainer(tiny(), LossConfig(name="mse"))
    scores = student.scores(GroupEncoder(tiny()).encode(GROUPS)).detach().view(2, 3)
    expected = (scores - torch.tensor([group.scores for group in GROUPS])).square().mean().item()
    assert made.step(GROUPS).loss == pytest.approx(expected, abs=1e-5)


def test_gradient_checkpointing_trains_the_same_in_bfloat16(
    scorer_config: ScorerConfig, request: pytest.FixtureRequest
) -> None:
    """Attention is computed a second time on the way back, and must be the same there."""
    lengths = lengths_for(request.node.name)
    scorer = scorer_for_training(scorer_config, DataConfig(path="-", **lengths))
    told = []
    for checkpointing in (False, True):
        made, _ = trainer(scorer, dtype="bfloat16", gradient_checkpointing=checkpointing)
        told.append([made.step(GROUPS).loss for _ in range(3)])
    assert told[1] == pytest.approx(told[0], abs=1e-3)
    assert told[0][-1] < told[0][0]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_training_needs_of_a_state_is_in_it(tmp_path: Path, dtype: str) -> None:
    made, _ = trainer(tiny(), dropout=True, dtype=dtype)
    made.step(GROUPS)
    torch.save(made.state(), tmp_path / "state.pt")
    expected = [made.step(GROUPS) for _ in range(3)]
    again, _ = trainer(tiny(), dropout=True, dtype=dtype)
    again.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [again.step(GROUPS) for _ in range(3)] == expected


def test_a_loss_that_is_no_number_stops_before_the_weights_move() -> None:
    made, student = trainer(tiny(), LossConfig(name="mse"))
    before = student.module.classifier.out_proj.weight.detach().clone()
    broken = Group("q", ("a", "b"), (float("inf"), 0.0))
    with pytest.raises(TrainingError, match=r"^step 1: the loss is inf. Take a lower training.learning_rate"):
        made.step([broken])
    torch.testing.assert_close(student.module.classifier.out_proj.weight.detach(), before)


def test_the_learning_rate_goes_up_and_then_down_as_transformers_has_it() -> None:
    assert [schedule(step, 10, 0.2) for step in (0, 1, 2, 6, 9)] == [0, 0.5, 1, 0.5, 0.125]
    assert [schedule(step, 4, 0.0) for step in range(4)] == [1, 0.75, 0.5, 0.25]


def test_biases_and_norms_do_not_decay() -> None:
    made, student = trainer(tiny(), weight_decay=0.1)
    names = {id(each): name for name, each in student.trained.items()}
    groups = made.state()["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    decayed = len(groups[0]["params"])
    norms = [name for name in names.values() if name.endswith("bias") or "LayerNorm" in name]
    assert decayed + len(norms) == len(names)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ({}, {"max_length": 160, "query_max_length": 64, "passage_max_length": 144}),
        ({"query_max_len": 16, "passage_max_len": 40}, {"max_length": 56, "query_max_length": 26}),
        ({"max_len": 100}, {"max_length": 100, "query_max_length": None}),
    ],
)
def test_lengths_are_cut_as_in_flag_embedding(lengths: dict[str, Any], expected: dict[str, Any]) -> None:
    config = scorer_for_training(
        ScorerConfig(model=TINY, device="cpu"), DataConfig(path="-", **lengths)
    ).config
    assert config.model_dump(include=set(expected)) == expected


def test_a_rows_own_prompts_count_where_the_scorer_has_an_instruction() -> None:
    own = Group("q", ("a", "b"), query_prompt="find: ", passage_prompt="passage: ")
    plain = Group("q", ("a", "b"))
    without, having = GroupEncoder(tiny()), GroupEncoder(tiny(query_instruction_for_rerank="question: "))
    assert without.encode([own]).sequences == without.encode([plain]).sequences
    found = Group("find: q", ("a", "b"))
    assert having.encode([own]).sequences == without.encode([found]).sequences
    assert having.ignored == {
        "passage_prompt": "scorer.passage_instruction_for_rerank is not set",
        "prompt": "the family sequence_classification has no prompt",
    }


def test_a_family_that_scores_no_pair_by_a_head_is_refused() -> None:
    message = r"^scorer.model .*: the family bi_encoder is not trained here. .*fresh_head"
    with pytest.raises(ConfigError, match=message):
        scorer_for_training(ScorerConfig(model=MINILM, device="cpu"), DataConfig(path="-"))


def test_more_tokens_than_the_model_has_positions_for_are_refused(tmp_path: Path) -> None:
    scorer = ScorerConfig(model=str(make_cross_encoder(tmp_path, "bert")), device="cpu")
    with pytest.raises(ModelError, match=r"^data.query_max_len \+ passage_max_len 160: .* has 130 positions"):
        scorer_for_training(scorer, DataConfig(path="-"))
    with pytest.raises(ModelError, match=r"^data.max_len 200: .* has 130 positions"):
        scorer_for_training(scorer, DataConfig(path="-", max_len=200))
