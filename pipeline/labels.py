"""Label values of Prometheus metrics. Ray takes them in ASCII alone, and fails where it exports them."""

from urllib.parse import quote

_AS_IT_IS = "".join(map(chr, range(ord(" "), ord("~") + 1)))


def label(text: str) -> str:
    """The text as a label's value: percent-encoded where it is not printable ASCII."""
    return quote(text, safe=_AS_IT_IS, errors="surrogatepass")
