"""What gpu.py runs: tiny checkpoints as the tests build them, published shapes, peers, random texts."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.scoring import ScorerConfig
from pipeline.scoring.headed_decoder import HeadedDecoder
from tests.conftest import TINY
from tests.scoring.checkpoints import (
    SPECIAL,
    make_chatty,
    make_cross_encoder,
    make_modular,
    make_qwen3,
    make_trunk,
)
from tests.scoring.families.test_flag_llm import made as make_flag_llm
from tests.scoring.families.test_llama_bidirectional import make as make_llama
from tests.scoring.families.test_logit_score import LIKE_MXBAI
from tests.scoring.families.test_logit_score import saved as make_logit_score
from tests.scoring.test_gte_config import make as make_gte

Pairs = list[tuple[str, str]]
Call = Callable[[Pairs], Any]
SEED = 20
MAX_LENGTH = 512


def checkpoints(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, path and options: every family, and every way through attention."""
    yield "xlm-roberta", TINY, {}
    yield "xlm-roberta, wider heads", str(make_encoder(folder / "wide", "base", "cpu", tiny=True)), {}
    for kind in ("bert", "modernbert", "deberta-v2"):
        yield kind, str(make_cross_encoder(folder / kind, kind)), {}
    for kind in ("bert", "modernbert"):
        options = {"family": "bi_encoder", "max_length": 64}
        yield f"{kind}, embedding", str(make_trunk(folder / f"embedding-{kind}", kind)), options
    yield "flag_llm", f"{TINY}-v2-gemma", {}
    yield "minicpm_layerwise", f"{TINY}-v2-minicpm-layerwise", {"cutoff_layers": [3]}
    for ratio in (1, 2):
        options = {"compress_ratio": ratio, "compress_layers": [2]}
        yield f"gemma2_lightweight, ratio {ratio}", f"{TINY}-v2.5-gemma2-lightweight", options
    yield "qwen3", str(make_qwen3(folder / "qwen3")), {}
    yield "GTE", str(make_gte(folder / "gte")), {}
    yield "llama_bidirectional", str(make_llama(folder / "llama")), {}
    yield "modular_head", str(make_modular(folder / "modular", "modernbert", ["cls", "mean"])), {}
    yield "logit_score", str(make_logit_score(folder / "logit_score", "qwen3", LIKE_MXBAI)), {}
    yield "flag_llm, Llama", str(make_flag_llm(folder / "flag_llm", "llama")), {"family": "flag_llm"}
    options = {"family": "mxbai_rerank_v2"}
    yield "mxbai_rerank_v2", str(make_chatty(folder / "mxbai", "qwen2")), options


class Encoder(NamedTuple):
    width: int
    layers: int
    heads: int
    positions: int

    @staticmethod
    def flop(config: Any, lengths: npt.NDArray[Any]) -> float:
        return _flop(
            config.num_hidden_layers,
            4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size,
            config.hidden_size,
            lengths,
        )


def _flop(layers: int, weights: int, attention_width: int, lengths: npt.NDArray[Any]) -> float:
    lengths = lengths.astype(np.float64)
    return float(2 * layers * (weights * lengths.sum() + 2 * attention_width * (lengths**2).sum()))


ENCODERS = {  # the one that most people use first: time may end
    "bge-reranker-v2-m3": Encoder(1024, 24, 16, 8194),
    "bge-reranker-base": Encoder(768, 12, 12, 514),
    "bge-reranker-large": Encoder(1024, 24, 16, 514),
}


def make_encoder(folder: Path, name: str, device: str, *, tiny: bool, embeds: bool = False) -> Path:
    """A checkpoint in a published shape; `base` is that of bge-reranker-base. Made once.

    embeds: without the head that scores.
    """
    name = name if name in ENCODERS else f"bge-reranker-{name}"
    path, shape = folder / (f"{name}-embeds" if embeds else name), ENCODERS[name]
    if path.exists():
        return path
    words = 200 if tiny else 250_002
    _tokenizer(words).save_pretrained(path)
    _name_as_before(path / "tokenizer_config.json")
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "initializer_range": 0.2,  # narrower, all scores were one
    }
    if not tiny:
        sizes = {
            "hidden_size": shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": 4 * shape.width,
        }
    config = transformers.XLMRobertaConfig(
        **sizes,
        vocab_size=words,
        max_position_embeddings=shape.positions,
        type_vocab_size=1,
        pad_token_id=0,
        id2label={0: "relevance"},
    )
    with torch.device(device):  # where the numbers are drawn in seconds
        torch.manual_seed(SEED)
        kind = transformers.XLMRobertaModel if embeds else transformers.XLMRobertaForSequenceClassification
        network: Any = kind(config)
    network.to(torch.bfloat16).save_pretrained(path)
    return path


def _name_as_before(file: Path) -> None:
    """Transformers 4, which FlagEmbedding runs on, does not know the class that transformers 5 names."""
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"})
    )


def _tokenizer(words: int) -> transformers.PreTrainedTokenizerFast:
    """Of XLM-R's kind, and as large. Each of `w0`, `w1`, ... is a token."""
    names = [*SPECIAL, *(f"▁w{number}" for number in range(words - len(SPECIAL)))]
    tokenizer = Tokenizer(models.Unigram([(name, -10.0) for name in names], SPECIAL.index("[UNK]")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    # transformers gives it no types.
    return transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


class Decoder(NamedTuple):
    backbone: Any
    config: Any
    sizes: dict[str, int]
    cutoffs: tuple[int, ...]
    ratios: tuple[int, ...] = (1,)
    more: Mapping[str, Any] = MappingProxyType({})


def _sizes(
    width: int, layers: int, heads: int, inner: int, keys: int, head: int, words: int
) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "num_key_value_heads": keys,
        "head_dim": head,
        "vocab_size": words,
    }


DECODERS = {
    "gemma-2b": Decoder(
        transformers.GemmaModel,
        transformers.GemmaConfig,
        _sizes(2048, 18, 8, 16384, 1, 256, 256_000),
        (18,),
    ),
    "minicpm-2.4b": Decoder(
        transformers.LlamaModel,
        transformers.LlamaConfig,
        _sizes(2304, 40, 36, 5760, 36, 64, 122_753),
        (16, 28, 40),
    ),
    "gemma2-9b": Decoder(
        transformers.Gemma2Model,
        transformers.Gemma2Config,
        _sizes(3584, 42, 16, 14336, 8, 256, 256_000),
        (25, 42),
        (1, 2, 4),
        {"attn_logit_softcapping": None, "layer_types": "full_attention"},
    ),
}


TINY_CUTOFFS = (2, 3)


class Decoding:
    """A decoder in a published shape up to a cutoff, and pairs for it: several candidates a query.

    Layers above the cutoff are not made, as Scorer does not load them.
    """

    def __init__(self, shape: Decoder, cutoff: int, device: str, dtype: str, *, tiny: bool) -> None:
        sizes = shape.sizes
        if tiny:
            sizes = _sizes(64, 3, 4, 128, min(4, sizes["num_key_value_heads"]), 16, 200)
        sizes = sizes | {"num_hidden_layers": cutoff}
        more = dict(shape.more)
        if "layer_types" in more:
            more["layer_types"] = [more["layer_types"]] * sizes["num_hidden_layers"]
        self._device, self._dtype, self._sizes, self._cutoff = device, dtype, sizes, cutoff
        before = torch.get_default_dtype()
        torch.set_default_dtype(getattr(torch, dtype))
        try:
            with torch.device(device):
                torch.manual_seed(SEED)
                self._backbone = shape.backbone(shape.config(**sizes, **more))
        finally:
            torch.set_default_dtype(before)
        self._backbone.config._attn_implementation = "sdpa"
        self._encode(*((1, 3) if tiny else (8, 64)))

    def _encode(self, queries: int, candidates: int) -> None:
        chance, words = np.random.default_rng(SEED), self._sizes["vocab_size"]
        self._query, self._prompt = 24, 32
        passages = np.clip(chance.lognormal(4.9, 0.4, queries * candidates), 10, 440).astype(int)
        sequences = []
        for index, length in enumerate(passages):
            query = np.random.default_rng(index // candidates).integers(3, words, self._query)
            rest = chance.integers(3, words, length + self._prompt)
            sequences.append(np.concatenate([query, rest]).astype(np.int32))
        self.pairs, self._lengths = len(sequences), passages + self._query + self._prompt
        self._sequences = pa.array(sequences, pa.list_(pa.int32()))
        counts = {"query_length": self._query, "prompt_length": self._prompt}
        columns = {name: np.full(len(sequences), count, np.int32) for name, count in counts.items()}
        self._inputs = pa.table(columns)
        self.padding = ""

    def model(self, ratio: int) -> HeadedDecoder:
        heads = torch.randn(1, self._sizes["hidden_size"])
        options = {"device": self._device, "dtype": self._dtype, "compress_ratio": ratio}
        config = ScorerConfig.model_validate({"model": "random", **options})
        compressed = (min(8, self._cutoff - 1),)
        return HeadedDecoder(self._backbone, heads, config, [self._cutoff], compressed)

    def score(self, model: HeadedDecoder) -> None:
        done = model.forward(self._sequences, self._inputs)
        assert np.isfinite(done.scores).all()
        self.padding = f"{1 - done.tokens / done.padded_tokens:.1%}"

    def flop(self) -> float:
        """Of reading every token: a beginning that is read once for many makes the share larger."""
        sizes = self._sizes
        width, head = sizes["hidden_size"], sizes["head_dim"]
        wide, keys = sizes["num_attention_heads"] * head, sizes["num_key_value_heads"] * head
        weights = 2 * width * (wide + keys) + 3 * width * sizes["intermediate_size"]
        return _flop(self._cutoff, weights, wide // 2, self._lengths)  # causal: half of the pairs of tokens


def peers(path: Path, device: str, dtype: str, sizes: tuple[int, ...]) -> dict[str, Call]:
    """sentence-transformers, where it is installed, at several batch sizes."""
    found = dict[str, Call]()
    if find_spec("sentence_transformers"):
        peer = import_module("sentence_transformers").CrossEncoder(
            str(path),
            device=device,
            max_length=MAX_LENGTH,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
        for size in sizes:
            found[f"sentence-transformers, {size}"] = partial(peer.predict, batch_size=size)
    return found


def random_pairs(count: int) -> Pairs:
    """Words of `_tokenizer`'s; no two pairs are equal."""
    chance = np.random.default_rng(SEED)
    lengths = np.clip(chance.lognormal(5.0, 0.5, count), 5, MAX_LENGTH).astype(int)
    return [(_text(chance, 12), _text(chance, length)) for length in lengths]


def _text(chance: np.random.Generator, words: int) -> str:
    return " ".join(f"w{number}" for number in chance.integers(150, size=words))
