import pytest

from pipeline.errors import InputError
from pipeline.redaction import redacted, redacted_values

S3 = "X-Amz-Algorithm=HMAC&X-Amz-Credential=AKIA%2F20261126&X-Amz-Expires=900&X-Amz-Signature=5ec2e7"
SIGNED = {
    f"https://b.s3.amazonaws.com/t.parquet?{S3}": "https://b.s3.amazonaws.com/t.parquet",
    f"https://b.s3.amazonaws.com/t.parquet?versionId=7&{S3}": "https://b.s3.amazonaws.com/t.parquet?versionId=7",
    "https://b.s3.amazonaws.com/t?AWSAccessKeyId=AKIA&Signature=5ec2e7&Expires=9": "https://b.s3.amazonaws.com/t",
    "https://a.blob.core.windows.net/c/t?sv=2024&st=x&se=y&sr=b&sp=r&sig=5ec2e7": "https://a.blob.core.windows.net/c/t",
    "https://storage.googleapis.com/b/t?X-Goog-Signature=5ec2e7&X-Goog-Date=x": "https://storage.googleapis.com/b/t",
    "https://host/t?id=5&token=5ec2e7&page=2": "https://host/t?id=5&token=***&page=2",
    "https://host/t?api_key=5ec2e7": "https://host/t?api_key=***",
    "ftp://me:5ec2e7@host/t": "ftp://me:***@host/t",
    "https://me:5ec2e7@host/t?id=1": "https://me:***@host/t?id=1",
    "https://5ec2e7@host/t": "https://***@host/t",
    "https://host/o'brien/t?sig=5ec2e7": "https://host/o'brien/t",
    "http://me:5'ec2e7@host/t?key=5ec2e7&id=1": "http://me:***@host/t?key=***&id=1",
    "https://host/t?code=5ec2e7&author=smith": "https://host/t?code=***&author=smith",
    "https://host/t?Authorization=5ec2e7&tokenizer=bpe": "https://host/t?Authorization=***&tokenizer=bpe",
}


@pytest.mark.parametrize(("url", "shown"), SIGNED.items())
def test_what_is_secret_is_left_out_wherever_a_url_stands(url: str, shown: str) -> None:
    for text in ("{}", "{}: can't be read", "a '{}' b", '["file", "{}"]', "({}), <{}>", "{} from row 1"):
        told = redacted(text.replace("{}", url))
        assert told == text.replace("{}", shown)
        assert "5ec2e7" not in told
        assert redacted(told) == told
    assert "5ec2e7" not in redacted(url.replace("&", "&amp;"))
    assert str(InputError(f"{url}: no such file")) == f"{shown}: no such file"


@pytest.mark.parametrize(
    "text",
    [
        "abfss://container@account.dfs.core.windows.net/t",
        "s3://bucket/lang=en/t?.parquet",
        "https://host/t?id=5&sv=2&expires=never&page=2",
        "a: b@c ? token=5",
        "/data/t.parquet",
        "catalog://prod/search.candidates",
    ],
)
def test_all_else_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_texts_in_mappings_and_lists() -> None:
    tree = {"ftp://a:b@c": ["ftp://a:b@c", 7, None, ("x",)]}
    assert redacted_values(tree) == {"ftp://a:***@c": ["ftp://a:***@c", 7, None, ("x",)]}


def test_long_texts_take_no_longer_than_their_length() -> None:
    assert redacted("a." * 100_000 + " s3://x").endswith(" s3://x")
