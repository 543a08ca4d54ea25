"""A checkpoint's tokenizer: the one that transformers makes of its files, and never an empty one.

One exception. transformers 5 builds some tokenizers anew from their vocabulary, and what is built need not
give the ids with which the scores of the BGE rerankers were published (LlamaTokenizer: other ids for nearly
every text). For these classes tokenizer.json is taken as published, and tokenizer_config.json must agree.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer

from pipeline.errors import ModelError
from pipeline.scoring.json_object import JsonObject, read_bytes, read_json

_TOKENIZER, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_AS_PUBLISHED = {"GemmaTokenizer": "BPE", "LlamaTokenizer": "BPE", "XLMRobertaTokenizer": "Unigram"}
"""Classes, and the kind of vocabulary that each has."""
_ALSO_READ = ("special_tokens_map.json", "added_tokens.json")
_SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def load_tokenizer(directory: Path, model_type: str | None, *, trust_remote_code: bool) -> Tokenizer:
    """Without padding or truncation. Raises ModelError where the files hold no tokenizer, or disagree."""
    settings = check_tokenizer_files(directory)
    kind = _AS_PUBLISHED.get(_class_name(settings, model_type))
    published = _published(directory)
    if published is not None and type(published.model).__name__ == kind:
        _check_agrees(published, settings, directory / _TOKENIZER)
        tokenizer = published
    else:
        tokenizer = _as_in_transformers(directory, trust_remote_code=trust_remote_code)
        if published is not None and not _knows(tokenizer, published):
            raise settings.wrong("tokenizer_class", f"makes a tokenizer of other words than {_TOKENIZER} has")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if not _has_words(tokenizer):
        raise ModelError(f"{directory}: its tokenizer has an empty vocabulary")
    return tokenizer


def check_tokenizer_files(directory: Path) -> JsonObject:
    """tokenizer_config.json, where the files can be those of a tokenizer. Reads no vocabulary.

    Raises ModelError where there is none, or one is a directory, a Git LFS pointer, or JSON of another shape.
    """
    settings = JsonObject.read_optional(directory / _CONFIG)
    settings.text("tokenizer_class")
    for name in _ALSO_READ:
        JsonObject.read_optional(directory / name)
    file = directory / _TOKENIZER
    if file.is_dir():
        raise ModelError(f"{file}: is a directory, not a tokenizer")
    if file.exists() or file.is_symlink():
        read_bytes(file, 64)
        return settings
    models = sorted(directory.glob("*.model"))
    for vocabulary in [*models, *directory.glob("vocab*"), *directory.glob("merges.txt")]:
        read_bytes(vocabulary, 64)
    if not models and not list(directory.glob("vocab*")) and not list(directory.glob("*.codes")):
        raise ModelError(f"{directory}: no tokenizer: neither {_TOKENIZER} nor a vocabulary is there")
    missing = [name for name in ("sentencepiece", "google.protobuf") if models and not _is_installed(name)]
    if missing:
        raise ModelError(
            f"{models[0]}: without {_TOKENIZER}, reading it needs sentencepiece and protobuf: pip install"
            f" sentencepiece protobuf; or make {_TOKENIZER} where they are, with"
            " AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    return settings


def own_sides(directory: Path) -> dict[str, Any]:
    """Where tokenizer.json has it cut (`truncation`) and pad (`padding`); None where it does not say."""
    if not (directory / _TOKENIZER).is_file():
        return {}
    tokenizer = JsonObject.read(directory / _TOKENIZER)
    return {what: tokenizer.object(what).get("direction") for what in ("truncation", "padding")}


def auto_tokenizer(directory: Path, *, trust_remote_code: bool) -> Any:
    """The one that transformers makes. Raises ModelError with its reason where it makes none."""
    config = JsonObject.read_optional(directory / "config.json")
    model_type = config.text("model_type")
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if model_type not in transformers.CONFIG_MAPPING and not trust_remote_code:
        # It would read config.json as of no type, which fails for some rotary embeddings.
        named = {"tokenizer_class": config.text("tokenizer_class")}
        options["config"] = transformers.PreTrainedConfig.from_dict(named)
    try:
        return transformers.AutoTokenizer.from_pretrained(directory, **options)
    except Exception as error:  # the libraries below raise whatever comes to their mind, bare Exception too
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{directory}: transformers makes no tokenizer of its files: {reason}") from error


def _as_in_transformers(directory: Path, *, trust_remote_code: bool) -> Tokenizer:
    made = auto_tokenizer(directory, trust_remote_code=trust_remote_code)
    # Of no file at all transformers makes a tokenizer that knows its special tokens and nothing else.
    names = {name for key, name in made.vocab_files_names.items() if key != "tokenizer_file"}
    if not (directory / _TOKENIZER).is_file() and not any((directory / name).is_file() for name in names):
        raise ModelError(
            f"{directory}: no tokenizer: {type(made).__name__} needs {_TOKENIZER}"
            + "".join(f" or {name}" for name in sorted(names))
        )
    backend = getattr(made, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise ModelError(f"{directory}: no {_TOKENIZER}, and its tokenizer can't be made into one")
    return backend


def _published(directory: Path) -> Tokenizer | None:
    file = directory / _TOKENIZER
    if not file.is_file():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"{file}: not a tokenizer: {error}") from error


def _check_agrees(tokenizer: Tokenizer, settings: JsonObject, file: Path) -> None:
    """Raises ModelError where tokenizer_config.json would have transformers make another tokenizer."""
    if settings.flag("add_prefix_space") is False and _prepends(read_json(file)):
        raise settings.wrong("add_prefix_space", f"is false, but {_TOKENIZER} puts a space before each text")
    for number, token in settings.object("added_tokens_decoder").items():
        content = token_text(settings, f"added_tokens_decoder {number}", token)
        if str(tokenizer.token_to_id(content or "")) != number:
            raise settings.wrong(
                "added_tokens_decoder", f"{_TOKENIZER} has no {content!r} with the id {number}"
            )
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    special: dict[str, Any] = {
        f"{name}_token": [settings.fields.get(f"{name}_token")] for name in _SPECIAL_TOKENS
    }
    for name in ("extra_special_tokens", "additional_special_tokens"):
        more = settings.fields.get(name) or []
        special[name] = list(more.values()) if isinstance(more, dict) else more
    for name, tokens in special.items():
        for token in tokens if isinstance(tokens, list) else [tokens]:
            content = token_text(settings, name, token)
            if content is not None and content not in known:
                raise settings.wrong(name, f"{_TOKENIZER} has no special token {content!r}")
    if type(tokenizer.model).__name__ == _AS_PUBLISHED["XLMRobertaTokenizer"]:
        pair = tokenizer.encode("a", "b")
        around = [number for number, part in zip(pair.ids, pair.special_tokens_mask, strict=True) if part]
        ends = [
            tokenizer.token_to_id(token_text(settings, name, settings.fields.get(name)) or otherwise)
            for name, otherwise in (("bos_token", "<s>"), ("eos_token", "</s>"))
        ]
        if around != [ends[0], *[ends[1]] * 3]:
            raise settings.wrong("bos_token and eos_token", f"{_TOKENIZER} puts other tokens around a pair")


def token_text(settings: JsonObject, name: str, token: Any) -> str | None:
    """A special token as tokenizer_config.json writes it: its text, or an object with `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    if token is not None and not isinstance(content, str):
        raise settings.wrong(name, "needs a text, or an object with `content`")
    return content


def _class_name(settings: JsonObject, model_type: str | None) -> str:
    by_type = transformers.models.auto.tokenization_auto.TOKENIZER_MAPPING_NAMES
    return (settings.text("tokenizer_class") or by_type.get(model_type or "") or "").removesuffix("Fast")


def _knows(tokenizer: Tokenizer, published: Tokenizer) -> bool:
    """Whether it has the words of the published one, and parts a text into them in its way."""
    same_kind = type(tokenizer.model) is type(published.model)
    return same_kind and published.get_vocab().items() <= tokenizer.get_vocab().items()


def _prepends(node: Any) -> bool:
    """Whether a tokenizer.json has a part that puts a space before each text."""
    if isinstance(node, list):
        return any(map(_prepends, node))
    if not isinstance(node, dict):
        return False
    if node.get("type") == "Prepend" or node.get("prepend_scheme") in ("always", "first"):
        return True
    return any(
        _prepends(node.get(part)) for part in ("normalizer", "pre_tokenizer", "normalizers", "pretokenizers")
    )


def _has_words(tokenizer: Tokenizer) -> bool:
    """Whether it knows more than its special tokens."""
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return any(number not in special for number in tokenizer.get_vocab(with_added_tokens=False).values())


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
