"""Against the formulas of the published code, written anew in float64, on files as they were published."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import embedding, linear, silu
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ConfigError, ModelError
from pipeline.finetuning import flow
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.family import EmbeddingEncoder
from tests.finetuning.rows import config as training
from tests.scoring.checkpoints import CORPUS, edit, tokenizer_class

WIDTH, HEADS, SHARED, INNER, LAYERS, WORDS = 32, 4, 2, 48, 3, 400
CODE = "llama_bidirectional_model.LlamaBidirectional"
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaBidirectionalForSequenceClassification"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": f"{CODE}Config",
        "AutoModel": f"{CODE}Model",
        "AutoModelForSequenceClassification": f"{CODE}ForSequenceClassification",
    },
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": WIDTH // HEADS,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "label2id": {"LABEL_0": 0},
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama_bidirec",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": SHARED,
    "pad_token_id": 1,
    "pooling": "avg",
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 64,
        "rope_type": "llama3",
    },
    "rope_theta": 500.0,
    "temperature": 2.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.47.1",
    "use_cache": True,
    "vocab_size": WORDS,
}
"""As llama-nemotron-rerank-1b-v2's, but for sizes and what makes them matter here."""
PAIRS = [
    ("what is a panda", "hi"),
    *(("what is a panda", text) for text in CORPUS[:3]),
    ("", "\n line"),
    ("什么是大熊猫 ", ""),
]
LONG = [("a panda", " ".join(CORPUS) * 30), (" ".join(CORPUS) * 30, "a passage")]
Weights = dict[str, torch.Tensor]


def make(path: Path, **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=["<|begin_of_text|>", "<|eot_id|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*CORPUS, *["question: passage:"] * 9], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    tokenizer_class(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", pad_token="<|eot_id|>"
    ).save_pretrained(path)
    edit(path / "tokenizer_config.json", model_max_length=131072, padding_side="left")
    edit(path / "config.json", **{**CONFIG, **config})
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (WORDS, WIDTH),
        "model.norm.weight": (WIDTH,),
        "score.weight": (1, WIDTH),
    }
    for layer in (f"model.layers.{number}" for number in range(LAYERS)):
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qo"}
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (WIDTH // HEADS * SHARED, WIDTH) for part in "kv"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes |= {f"{layer}.{norm}_layernorm.weight": (WIDTH,) for norm in ("input", "post_attention")}
    torch.manual_seed(0)
    weights = {name: torch.randn(shape) * (0.3 if len(shape) > 1 else 0.1) for name, shape in shapes.items()}
    weights |= {name: 1 + weight for name, weight in weights.items() if weight.ndim == 1}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def frequencies(config: dict[str, Any]) -> torch.Tensor:
    """Of Llama 3.1's code (apply_scaling in llama_models/llama3/model.py)."""
    dim, scaling = config["head_dim"], config.get("rope_scaling")
    plain: torch.Tensor = 1.0 / config["rope_theta"] ** (torch.arange(0, dim, 2).double() / dim)
    if scaling is None:
        return plain
    low, high, length = (
        scaling[name] for name in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    scaled = []
    for frequency in plain.tolist():
        wave = 2 * math.pi / frequency
        smooth = min(1.0, max(0.0, (length / wave - low) / (high - low)))
        scaled.append((1 - smooth) * frequency / scaling["factor"] + smooth * frequency)
    return torch.tensor(scaled, dtype=torch.float64)


def states(weights: Weights, config: dict[str, Any], ids: list[int]) -> torch.Tensor:
    """Of one sequence, (tokens, width), each token seeing all."""
    weights = {name: weight.double() for name, weight in weights.items()}

    def norm(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return weights[name] * hidden / (hidden.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def turned(part: torch.Tensor) -> torch.Tensor:
        first, second = part.chunk(2, -1)
        return part * angles.cos() + torch.cat((-second, first), -1) * angles.sin()

    def parted(name: str) -> torch.Tensor:
        return linear(seen, weights[f"{layer}.self_attn.{name}_proj.weight"]).view(len(ids), -1, dim)

    dim = config["head_dim"]
    angles = torch.outer(torch.arange(len(ids)).double(), frequencies(config)).repeat(1, 2)
    hidden = embedding(torch.tensor(ids), weights["model.embed_tokens.weight"])
    for layer in (f"model.layers.{number}" for number in range(LAYERS)):
        seen = norm(hidden, f"{layer}.input_layernorm.weight")
        query, key, value = (parted(name).transpose(0, 1) for name in "qkv")
        key, value = (part.repeat_interleave(HEADS // SHARED, dim=0) for part in (key, value))
        scores = turned(query) @ turned(key).transpose(1, 2) / math.sqrt(dim)
        context = (scores.softmax(-1) @ value).transpose(0, 1).reshape(len(ids), WIDTH)
        hidden = hidden + linear(context, weights[f"{layer}.self_attn.o_proj.weight"])
        seen = norm(hidden, f"{layer}.post_attention_layernorm.weight")
        gate, up = (linear(seen, weights[f"{layer}.mlp.{part}_proj.weight"]) for part in ("gate", "up"))
        hidden = hidden + linear(silu(gate) * up, weights[f"{layer}.mlp.down_proj.weight"])
    result: torch.Tensor = norm(hidden, "model.norm.weight")
    return result


def expected(path: Path, pairs: list[tuple[str, str]], length: int = 512) -> list[float]:
    """As the model card has it: its prompt, one text, cut at the end."""
    weights, config = load_file(path / "model.safetensors"), json.loads((path / "config.json").read_text())
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    scores = []
    for query, passage in pairs:
        text = f"question:{query} \n \n passage:{passage}"
        hidden = states(weights, config, tokenizer(text, truncation=True, max_length=length)["input_ids"])
        pooled = {"avg": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[config.get("pooling", "avg")]
        score = pooled @ weights["score.weight"].double()[0] / config.get("temperature", 1.0)
        scores.append(float(score))
    return scores


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="llama-nemotron-rerank-1b-v2"),
        pytest.param({"pooling": ..., "temperature": ..., "rope_scaling": ...}, id="defaults"),
        pytest.param({"pooling": "cls"}, id="cls"),
        pytest.param({"pooling": "last"}, id="last"),
    ],
)
def test_scores_are_those_of_the_published_code(tmp_path: Path, config: dict[str, Any]) -> None:
    path = make(tmp_path, **config)
    wanted = expected(path, PAIRS + LONG)
    assert np.std(wanted) > 0.05
    for budget in (1, 300, 100_000):
        model = scorer(path, max_batch_tokens=budget)
        assert (model.family, model.encoder.max_length) == ("llama_bidirectional", 512)
        assert cast("Any", model.model)._network.drops_padding
        np.testing.assert_allclose(model.score(PAIRS + LONG), wanted, rtol=0, atol=2e-5)


def test_another_length_cuts_the_end(tmp_path: Path) -> None:
    path = make(tmp_path)
    for length in (20, 90):
        model = scorer(path, max_length=length)
        np.testing.assert_allclose(
            model.score(PAIRS + LONG), expected(path, PAIRS + LONG, length), rtol=0, atol=2e-5
        )
        assert max(map(len, model.encode(LONG).sequences.to_pylist())) == length


def test_padded_batches_have_the_same_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path)
    monkeypatch.setattr("pipeline.scoring.engines.torch.packed", lambda *_: None)
    model = scorer(path)
    assert not cast("Any", model.model)._network.drops_padding
    np.testing.assert_allclose(model.score(PAIRS + LONG), expected(path, PAIRS + LONG), rtol=0, atol=2e-5)
    np.testing.assert_allclose(model.score(PAIRS[:1]), expected(path, PAIRS[:1]), rtol=0, atol=2e-5)


def test_windows_are_scored_with_the_query(tmp_path: Path) -> None:
    path = make(tmp_path)
    model = scorer(path, long_passages={"strategy": "max"})
    first = scorer(path, long_passages={"strategy": "first"}).score(LONG[:1])
    np.testing.assert_allclose(first, expected(path, LONG[:1]), rtol=0, atol=2e-5)
    assert model.encode(LONG[:1]).pairs["windows"].to_pylist()[0] > 1
    assert model.score(LONG[:1]) > first


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"pooling": "weighted_avg"}, "pooling: weighted_avg is not run here, avg, cls, last are"),
        ({"temperature": 0}, "temperature: is 0, and scores are divided by it"),
        ({"temperature": "1"}, 'temperature: needs a number, not "1"'),
        ({"model_type": "llama"}, "architectures: LlamaBidirectionalForSequenceClassification is code of"),
        ({"num_attention_heads": "4"}, "transformers does not take it"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "longrope"),
    ],
)
def test_what_is_not_run_is_refused(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=rf"config\.json: .*{told}"):
        scorer(make(tmp_path, **config))


def test_two_labels_are_refused(tmp_path: Path) -> None:
    labels = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}
    with pytest.raises(ModelError, match="its head has 2 labels, a reranker has one logit"):
        scorer(make(tmp_path, **labels))


def test_modules_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (path / "modules.json").write_text(json.dumps([module]))
    with pytest.raises(ModelError, match=r"modules\.json: names Transformer; llama_bidirectional puts pairs"):
        scorer(path)


def test_a_tokenizer_that_ends_texts_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    end = {"SpecialToken": {"id": "<|eot_id|>", "type_id": 0}}
    tokenizer["post_processor"]["single"].append(end)
    tokenizer["post_processor"]["special_tokens"]["<|eot_id|>"] = {
        "id": "<|eot_id|>",
        "ids": [1],
        "tokens": ["<|eot_id|>"],
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="its tokenizer ends a text with a token of its own"):
        scorer(path).score(PAIRS)


def test_the_longer_text_is_not_cut_first(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="truncation longest_first: the text of query and passage is cut"):
        scorer(make(tmp_path), truncation="longest_first")


def test_what_is_trained_has_the_published_layout(tmp_path: Path) -> None:
    base = make(tmp_path / "base")
    flow.run(training(tmp_path, scorer={"model": str(base), "device": "cpu"}))
    made, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out/model", base))
    assert {name: tensor.shape for name, tensor in made.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    settings = json.loads((tmp_path / "out/model/config.json").read_text())
    assert settings == json.loads((base / "config.json").read_text()) | {"torch_dtype": "float32"}
    found = scorer(tmp_path / "out/model").score(PAIRS)
    np.testing.assert_allclose(found, expected(tmp_path / "out/model", PAIRS), rtol=0, atol=2e-5)
    assert np.abs(found - scorer(base).score(PAIRS)).max() > 0.01


def test_an_embedding_model_of_it_runs_as_a_bi_encoder(tmp_path: Path) -> None:
    """As llama-nemotron-embed-1b-v2: prompts, the mean of all tokens, a length of one."""
    path = make(tmp_path, architectures=["LlamaBidirectionalModel"])
    weights = load_file(path / "model.safetensors")
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items() if name[:5] != "score"}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for number, (place, kind) in enumerate(kinds.items())
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    edit(path / "1_Pooling/config.json", word_embedding_dimension=WIDTH, pooling_mode_mean_tokens=True)
    prompts = {"query": "query: ", "document": "passage: "}
    edit(path / "config_sentence_transformers.json", prompts=prompts, similarity_fn_name="cosine")
    edit(path / "sentence_bert_config.json", max_seq_length=512)
    model = scorer(path)
    assert (model.family, model.encoder.max_length) == ("bi_encoder", 512)
    assert cast("Any", model.model)._network.drops_padding
    texts = [passage for _, passage in PAIRS + LONG]
    sequences, _, _ = cast("EmbeddingEncoder", model.encoder).encode_texts(texts, "passage")
    settings = json.loads((path / "config.json").read_text())
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    pooled = [states(named, settings, ids).mean(0) for ids in sequences.to_pylist()]
    np.testing.assert_allclose(
        model.embed(texts, "passage"), [(one / one.norm()).numpy() for one in pooled], rtol=0, atol=1e-5
    )
