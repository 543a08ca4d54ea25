"""Secrets that stand in URLs, taken out of all that is kept, shown or logged.

What is left names the same place: a file's identity goes by it, since a signature changes every hour.
"""

import re
from typing import Any
from urllib.parse import unquote

_HIDDEN = "***"
_SCHEME = r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{0,20}://"
# An apostrophe before a letter or digit is a part of a path or password, and not the end of what is quoted.
_LOGIN = re.compile(rf"""({_SCHEME})((?:[^\s/?#"'<>]|'(?=\w))*)@""", re.IGNORECASE)
_QUERY = re.compile(rf"""({_SCHEME}(?:[^\s?"'<>\\]|'(?=\w))*)\?([^\s"'<>\\]*)""", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[:;,.)\]}]*$")
_PARAMETERS = re.compile(r"&amp;|&")
_SIGNED_WITH = ("x-amz-", "x-goog-", "x-oss-", "x-obs-", "x-cos-", "x-tos-", "q-")
"""How the parameters of a signed URL begin, in the stores that have names of their own for them."""
_SIGNATURES = {"signature", "sig"}
_OF_A_SIGNATURE = {
    *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "key-pair-id", "policy", "expires", "signature"),
    *("security-token", "sig", "se", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr"),
    *("sr", "srt", "ss", "st", "sv"),
}
"""What goes with a signature of S3's second version, CloudFront, Google, Alibaba or Azure."""
_SECRET = re.compile(
    r"(api|access|subscription|secret|private)[-_]?key|^key$|^code$|token(?!i[sz]er)|secret|passw|pass$|pwd"
    r"|credential|signature|^sig$|auth(?!or(?!i[sz]))"
)


def redacted(text: str) -> str:
    """The text, its URLs without passwords, tokens and signatures, as often as this is done to it."""
    if "://" not in text:
        return text
    return _QUERY.sub(_without_signature, _LOGIN.sub(_without_password, text))


def redacted_values(tree: Any) -> Any:
    """The same for every text in nested mappings and lists, their keys included."""
    if isinstance(tree, dict):
        return {redacted_values(key): redacted_values(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(map(redacted_values, tree))
    return redacted(tree) if isinstance(tree, str) else tree


def _without_password(match: re.Match[str]) -> str:
    """A name alone is kept, which for some stores is a container's; in a web address it is a token."""
    scheme, login = match.groups()
    name, colon, _ = login.partition(":")
    if colon:
        return f"{scheme}{name}:{_HIDDEN}@"
    return f"{scheme}{_HIDDEN}@" if scheme.lower().startswith("http") else match.group()


def _without_signature(match: re.Match[str]) -> str:
    place, query = match.groups()
    end = _PUNCTUATION.search(query)
    assert end is not None  # of an expression that matches the empty text
    parameters = _PARAMETERS.split(query[: end.start()])
    names = [unquote(each.partition("=")[0]).lower() for each in parameters]
    signed = not _SIGNATURES.isdisjoint(names)
    kept = [
        f"{each.partition('=')[0]}={_HIDDEN}" if _SECRET.search(name) else each
        for each, name in zip(parameters, names, strict=True)
        if not (name.startswith(_SIGNED_WITH) or (signed and name in _OF_A_SIGNATURE))
    ]
    if kept == parameters:
        return match.group()
    return f"{place}{'?' if kept else ''}{'&'.join(kept)}{end.group()}"
