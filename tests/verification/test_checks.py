"""The certificate of parity, with a real job and a real server."""

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from pipeline import verify
from pipeline.command import Status
from pipeline.errors import ConfigError
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig, dtype
from pipeline.verification import checks
from pipeline.verification.published import BARE, PUBLISHED, Published
from tests.conftest import DATA, TINY, golden_cases
from tests.serve.local import serving

GEMMA2 = "tiny-bge-reranker-v2.5-gemma2-lightweight"


class Server(ThreadingHTTPServer):
    """text-embeddings-inference's /rerank over a scorer; its results are sorted, and `shift` off."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scorer = Scorer(ScorerConfig(model=TINY, device="cpu"))
        self.shift = shift
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/rerank"
        assert request["raw_scores"] is True
        ranked = self.server.scorer.rank(request["query"], request["texts"])
        body = json.dumps(
            [{"index": one.index, "score": one.score + self.server.shift} for one in ranked]
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(params=[0.0, 0.01])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as running:
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def config_file(path: Path, model: str, **scorer: Any) -> str:
    config = {
        # Verifying asks for no table: what the job will read later need not be there yet.
        "input": {"path": str(path / "not/there/yet")},
        "output": {
            "path": str(path / "out"),
            "top_k": 1,
            "keep_columns": {"mine": "yours"},
            "training_rows": {"label": "mine"},
        },
        "qrels": str(path / "of-another-table.txt"),
        "fuse": {"first_stage": 1},
        "scorer": {"model": model, "device": "cpu", **scorer},
        "executor": "here",
    }
    (path / "job.yaml").write_text(yaml.safe_dump(config))
    return str(path / "job.yaml")


@pytest.mark.parametrize("model", [TINY, str(DATA / GEMMA2)])
def test_the_job_scores_as_this_process_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    mine = tmp_path / "out.verify/mine.txt"
    mine.parent.mkdir()
    mine.write_text("keep")
    scorer = {"truncation": "error"} if model == TINY else {"cutoff_layers": [5, 7]}
    assert verify.main(["--config", config_file(tmp_path, model, **scorer)]) == Status.FINISHED
    title, job, service, published = capsys.readouterr().out.splitlines()
    assert title == f"{model} in float32: largest difference from scores made here"
    pairs = len(checks.PAIRS) - (model == TINY)
    assert job.startswith("job        agrees: ")
    assert job.endswith(f"of 0.0001 allowed, {pairs} pairs")
    assert service == "service    not compared: not asked for: --service URL"
    assert published == f"published  not compared: {Path(model).name} has no scores to compare with"
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml", "out.verify"}
    assert mine.read_text() == "keep"


def test_a_service_is_compared_and_another_score_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: Server
) -> None:
    status = verify.main(["--config", config_file(tmp_path, TINY), "--service", server.url])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("service"))
    assert (status, line.split()[1]) == ((1, "DIFFERS:") if server.shift else (0, "agrees:"))


def test_the_endpoint_of_this_project_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a-key-of-enough-length"
    monkeypatch.setenv("KEYS", f"verify:{key}")
    with serving({"tiny": {"model": TINY}}, keys={"env": "KEYS"}) as endpoint:
        arguments = ["--config", config_file(tmp_path, TINY), "--service", endpoint.url]
        assert verify.main(arguments) == 2
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv("RAYRANK_API_KEY", key)
        assert verify.main(arguments) == 0
    assert "service    agrees" in capsys.readouterr().out


def test_a_service_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server() as there:
        url = there.url
    assert verify.main(["--config", config_file(tmp_path, TINY), "--service", url]) == 75
    assert f"error: {url}: no scores from its /rerank: ConnectError" in capsys.readouterr().err


def test_published_scores_are_compared_by_the_models_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = next(case for case in golden_cases(GEMMA2) if case.options.get("compress_ratio") == 4)
    published = Published(case.pairs, case.scores.tolist(), case.options)
    monkeypatch.setitem(PUBLISHED, GEMMA2, published)
    # The job's own options are others than those of the published scores.
    file = config_file(tmp_path, str(DATA / GEMMA2), cutoff_layers=[4], normalize=True)
    assert verify.main(["--config", file]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("published  agrees: ")
    assert line.endswith("of 0.03 allowed, 32 pairs")


def test_other_weights_under_a_published_name_are_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(TINY, tmp_path / "bge-reranker-base")
    file = config_file(tmp_path, str(tmp_path / "bge-reranker-base"))
    assert verify.main(["--config", file]) == Status.DIFFERS
    line = capsys.readouterr().out.splitlines()[-1]
    made = Scorer(ScorerConfig(model=TINY, device="cpu")).score(BARE)[0]
    assert line.startswith("published  DIFFERS: ")
    assert line.endswith(
        f"(taken for BAAI/bge-reranker-base by its name; the worst pair: {made:.4g} here, 0.4475 published)"
    )


def test_an_adapter_makes_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(TINY, tmp_path / "bge-reranker-base")
    adapter = str(DATA / "adapter-tiny-bge-reranker")
    file = config_file(tmp_path, str(tmp_path / "bge-reranker-base"), peft_path=adapter)
    assert verify.main(["--config", file]) == 0
    assert "bge-reranker-base with an adapter is another model" in capsys.readouterr().out


def test_a_mistake_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--config", str(tmp_path / "nowhere.yaml")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/nowhere.yaml: No such file or directory\n"


def test_a_cascade_is_certified_scorer_by_scorer(tmp_path: Path) -> None:
    settings = {
        "input": {"path": "in/"},
        "output": {"path": str(tmp_path / "out")},
        "levels": [{"scorer": {"model": TINY}}],
    }
    with pytest.raises(ConfigError, match=r"^levels: scores of one scorer are certified"):
        next(checks.verify(RerankConfig.model_validate(settings), None))


def test_auto_is_one_dtype_for_all_and_float32_for_published_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtype, "has_bfloat16", lambda _: True)
    case = golden_cases("tiny-bge-reranker")[0]
    scores = Scorer(ScorerConfig(model=TINY, device="cpu")).score(case.pairs).tolist()
    known = Published(case.pairs, scores, {})
    monkeypatch.setitem(PUBLISHED, Path(TINY).name, known)
    assert verify.main(["--config", config_file(tmp_path, TINY, dtype="auto")]) == Status.FINISHED
    told = capsys.readouterr().out
    assert f"{TINY} in bfloat16: " in told
    assert "of 0.1 allowed" in told
    assert "published  agrees: 0.0e+00 of 0.03 allowed" in told


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "many"])
def test_fewer_queries_than_one_are_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        verify.main(["--config", "nowhere.yaml", f"--queries={number}"])
    assert f"--queries: needs a whole number, 1 or more, not '{number}'" in capsys.readouterr().err
