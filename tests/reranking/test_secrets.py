"""A table behind a signed web address: the signature is used, never kept, and may change between starts."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import rerank
from pipeline.errors import InputError
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from tests.reranking.jobs import config, data_of

ROWS = [
    {"query_id": number // 2, "query": "a panda", "passage_id": f"p{number}", "passage": f"a bear {number}"}
    for number in range(8)
]
CONTENT = gzip.compress(
    b"".join(json.dumps(row).encode() + b"\n" for row in [*ROWS, {**ROWS[7], "passage": None}]), mtime=0
)


class Store(BaseHTTPRequestHandler):
    """Answers who signed, as S3 does: GET alone, with ranges."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "X-Amz-Signature=secret" not in self.path:
            self.send_error(403)
            return
        start, stop = 0, len(CONTENT)
        if asked := self.headers.get("Range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(stop, int(last or stop) + 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(CONTENT)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:stop])

    def handle(self) -> None:
        with suppress(ConnectionResetError):  # who asks for the size leaves before the content
            super().handle()

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def place() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/t.jsonl.gz"
    server.shutdown()
    thread.join()
    server.server_close()


def signed(place: str, signature: str, folder: Path) -> RerankConfig:
    query = f"X-Amz-Credential=AKIA/20261126/s3&X-Amz-Signature=secret{signature}&X-Amz-Expires=900"
    job = config(folder / "in", input={"path": f"{place}?{query}", "format": "jsonl"}, shard_pairs=5)
    assert job.input.path.endswith(query)
    return job


def test_a_signature_is_kept_nowhere_and_decides_nothing(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = signed(place, "1", tmp_path)
    job = tmp_path / "job.json"  # JSON is YAML
    job.write_text(first.model_dump_json(exclude_defaults=True))
    assert rerank.main(["--config", str(job), "--dry-run"]) == 0
    assert rerank.main(["--config", str(job)]) == 3  # one row has no passage
    output = tmp_path / "out"
    data = data_of(output)
    for name in ("_SUCCESS", "run/shard-000001.parquet", "summary.json"):  # as a job that was killed
        (output / name).unlink()
    (output / "_manifest/done/shard-000001.json").unlink()
    assert len(list((output / "_manifest/done").iterdir())) == 1
    summary = flow.run(signed(place, "2", tmp_path))
    assert (summary.shards_done_before, data_of(output)) == (1, data)
    assert flow.run(signed(place, "3", tmp_path)).finished_before is not None
    captured = capsys.readouterr()
    told = {"output": captured.out, "log": captured.err}
    told |= {str(file): file.read_bytes().decode("latin-1") for file in output.rglob("*") if file.is_file()}
    assert [name for name, text in told.items() if "secret" in text or "AKIA" in text] == []
    assert place in told["output"] + told[str(output / "_manifest/plan.json")]
    assert place in (output / "report.html").read_text()


def test_a_signature_is_in_no_error(place: str, tmp_path: Path) -> None:
    refused = signed(place, "1", tmp_path).model_dump(mode="json")
    refused["input"]["path"] = refused["input"]["path"].replace("secret1", "5ec2e7")
    with pytest.raises(InputError, match=r"t.jsonl.gz: no such file") as error:
        flow.run(RerankConfig.model_validate(refused))
    assert "5ec2e7" not in str(error.value)
