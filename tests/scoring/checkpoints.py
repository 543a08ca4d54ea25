"""Tiny checkpoints with random weights, in the layout in which real ones are published."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from pipeline.scoring import Scorer
from tests.conftest import TINY

CORPUS = [
    "what is a panda? The giant panda is a bear native to China.",
    "rerankers read a query and a passage together and give one score",
    "Ünïcödé naïve café 什么是大熊猫 . , ! ?",
]
tokenizer_class: Any = PreTrainedTokenizerFast
"""transformers gives it no types."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="[UNK]")
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (wordpiece, {"type_vocab_size": 2}),
    "roberta": (byte_level, {"type_vocab_size": 1}),
    "xlm-roberta": (unigram, {"type_vocab_size": 1}),
    "modernbert": (byte_level, {"global_attn_every_n_layers": 2, "local_attention": 16}),
    "deberta-v2": (
        unigram,
        {
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_biased_input": False,
            "pos_att_type": "p2c|c2p",
        },
    ),
}


def as_saved(tokenizer: Tokenizer, length: int, *, types: bool = False) -> Any:
    """As transformers saves it. types: whether a pair has token types."""
    return tokenizer_class(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"] + ["token_type_ids"] * types,
    )


def make(path: Path, kind: str, auto_class: Any, **config: Any) -> Path:
    """A checkpoint of model type `kind`, with a tokenizer of the sort that this type has."""
    tokenizer, options = KINDS[kind]
    wrapped = as_saved(tokenizer(), 128, types=kind == "bert")
    settings = AutoConfig.for_model(
        kind, **SIZES, **options, vocab_size=len(wrapped), pad_token_id=0, **config
    )
    torch.manual_seed(0)
    model = auto_class.from_config(settings)
    for (
        weight
    ) in model.parameters():  # make scores differ: the usual initial weights give nearly the same one
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(path)
    wrapped.save_pretrained(path)
    return path


def make_cross_encoder(path: Path, kind: str, **config: Any) -> Path:
    return make(path, kind, AutoModelForSequenceClassification, **{"num_labels": 1, **config})


def make_trunk(path: Path, kind: str, **config: Any) -> Path:
    return make(path, kind, AutoModel, **config)


def make_modular(path: Path, kind: str, pooling: Any = "cls", *, deep: bool = True, **options: Any) -> Path:
    """A cross-encoder of modules, as sentence-transformers saves it. deep: with a head as ettin-reranker's.

    options: of CrossEncoder.
    """
    trunk = Transformer(str(make_trunk(path / "trunk", kind)), transformer_task="feature-extraction")
    width = SIZES["hidden_size"] * (1 if isinstance(pooling, str) else len(pooling))
    torch.manual_seed(1)
    more = [Dense(width, 24, bias=False, activation_function=torch.nn.GELU()), LayerNorm(24)] if deep else []
    last = Dense(24 if deep else width, 1, activation_function=None, module_output_name="scores")
    for module in (*more, last):
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    pool = Pooling(SIZES["hidden_size"], pooling)
    CrossEncoder(modules=[trunk, pool, *more, last], device="cpu", **options).save_pretrained(
        str(path / "model")
    )
    return path / "model"


def make_qwen3(path: Path, tied: bool = False) -> Path:
    """A Qwen3-Reranker."""
    return make_chatty(path, "qwen3", head_dim=8, tie_word_embeddings=tied)


def make_chatty(path: Path, kind: str, **config: Any) -> Path:
    """A causal model: byte-level BPE with Qwen's way of parting words, and the tokens of a chat."""
    tokenizer = Tokenizer(models.BPE())
    words = r"""[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([*CORPUS, *["yes", "no"] * 9, *["?\n<Document>: <Query>: "] * 9], trainer)
    wrapped = tokenizer_class(tokenizer_object=tokenizer, pad_token="<|endoftext|>")
    wrapped.save_pretrained(path)
    torch.manual_seed(0)
    settings = AutoConfig.for_model(
        kind,
        vocab_size=500,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
        **{"max_position_embeddings": 400, **config},
    )
    auto_class: Any = AutoModelForCausalLM
    auto_class.from_config(settings).save_pretrained(path)
    return path


def make_saturated(path: Path, logit: float) -> Path:
    """The tiny encoder with logits spread around `logit`, so that their sigmoids in float32 are all equal."""
    shutil.copytree(TINY, path)
    tensors = load_file(path / "model.safetensors")
    tensors["classifier.out_proj.weight"] *= 3
    tensors["classifier.out_proj.bias"] = tensors["classifier.out_proj.bias"] * 0 + logit
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def network_of(scorer: Scorer) -> Any:
    """The network that torch evaluates, where the model is a cross-encoder."""
    return scorer.model._network.run.__self__._model  # type: ignore[attr-defined]


def copied(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "model"
    shutil.copytree(source, target)
    return target


def edit(file: Path, **fields: Any) -> None:
    """Fields of a JSON file; `...` takes one away."""
    content = json.loads(file.read_text()) if file.exists() else {}
    content = {name: value for name, value in (content | fields).items() if value is not ...}
    file.write_text(json.dumps(content))
