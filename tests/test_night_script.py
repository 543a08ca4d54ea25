"""configs/kuberay/night.sh: the two commands of a night that begins with documents, and what it ends with."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import rerank, retrieve
from pipeline.config_file import load
from pipeline.reranking.config import load_config
from pipeline.retrieval import flow
from pipeline.retrieval.config import RetrieveConfig
from tests.conftest import ROOT, TINY
from tests.retrieval.tables import write_texts

SCRIPT = ROOT / "configs/kuberay/night.sh"
STAND_IN = """#!/bin/sh
# Notes how it was called, and ends with the next status of the list.
echo "$@" >> calls
read -r status rest < statuses
echo "$rest" > statuses
exit "$status"
"""


def night(folder: Path, statuses: str, **flags: str) -> tuple[int, list[list[str]]]:
    """(its status, the commands that it started), where these end with `statuses`."""
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    (folder / "statuses").write_text(f"{statuses}\n")
    ended = subprocess.run(
        ["bash", SCRIPT, "2026-11-20"],
        cwd=folder,
        env=os.environ | flags | {"PATH": f"{folder}:{os.environ['PATH']}"},
        timeout=60,
        check=False,
    )
    return ended.returncode, [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.mark.parametrize(
    ("statuses", "status", "started"),
    [
        ("75 0 0", 0, ["plan", "retrieve", "rerank"]),
        ("75 3 3", 0, ["plan", "retrieve", "rerank"]),
        ("2", 2, ["plan"]),
        ("1", 1, ["plan"]),
        *((f"75 {failed}", failed, ["plan", "retrieve"]) for failed in (1, 2, 75, 143)),
        *((f"75 0 {failed}", failed, ["plan", "retrieve", "rerank"]) for failed in (1, 2, 4, 75, 143)),
    ],
)
def test_it_ends_with_the_status_of_what_failed(
    tmp_path: Path, statuses: str, status: int, started: list[str]
) -> None:
    ended, calls = night(tmp_path, statuses)
    names = [
        "plan" if "--dry-run" in call else call[call.index("-m") + 1].removeprefix("pipeline.")
        for call in calls
    ]
    assert (ended, names) == (status, started)


def test_the_commands_take_what_it_gives(tmp_path: Path) -> None:
    flags = {"FIRST_FLAGS": "--check-bytes", "JOB_FLAGS": "--set reuse=s3://search/reranked/2026-11-19/"}
    status, (plan, first, job) = night(tmp_path, "75 0 0", **flags)
    assert status == 0
    asked = retrieve.parse(first[2:])
    assert (asked.config, asked.check_bytes) == (SCRIPT.parent / "first.yaml", True)
    stage = load(RetrieveConfig, ROOT / "configs/retrieve/corpus.yaml", asked.overrides)
    for command, dry in ((plan, True), (job, False)):
        options = rerank.parse(command[2:])
        assert (options.config, options.dry_run) == (SCRIPT.parent / "job.yaml", dry)
        config = load_config(ROOT / "configs/rerank/retrieved.yaml", options.overrides)
        read = "/not/there/yet/2026-11-20" if dry else f"{stage.output.path}candidates/"
        assert config.input.path == read
        assert config.reuse == "s3://search/reranked/2026-11-19/"


def test_what_the_first_stage_mends_does_not_stop_the_night(tmp_path: Path) -> None:
    """The real commands, after a night whose candidates were cut."""
    write_texts(tmp_path, {"p1": "a bridge of stone", "p2": "a panda"}, {"q1": "stone bridge"})
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "first.yaml").write_text(f"""\
passages: {{path: {tmp_path}/corpus.jsonl, format: jsonl}}
queries: {{path: {tmp_path}/queries.jsonl, format: jsonl}}
sources: {{words: {{bm25: {{}}}}}}
output: {{path: "{tmp_path}/first/{{run_date}}/"}}
executor: here
""")
    (tmp_path / "job.yaml").write_text(f"""\
input: {{path: "{tmp_path}/first/{{run_date}}/candidates/"}}
output: {{path: "{tmp_path}/reranked/{{run_date}}/"}}
scorer: {{model: {TINY}}}
executor: here
""")
    flow.run(load(RetrieveConfig, tmp_path / "first.yaml", ["run_date=2026-11-20"]))
    (table,) = (tmp_path / "first/2026-11-20/candidates").iterdir()
    whole = table.read_bytes()
    table.write_bytes(whole[:100])
    ended = subprocess.run(
        ["bash", tmp_path / "night.sh", "2026-11-20"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "error" not in ended.stderr
    assert table.read_bytes() == whole
    assert (tmp_path / "reranked/2026-11-20/_SUCCESS").is_file()


def test_the_pages_repairs_are_nights_with_flags(tmp_path: Path) -> None:
    """Its blocks of bash, run with a stand-in for kubectl, on the manifest with the page's entrypoint."""
    page = (ROOT / "docs/kubernetes-documents.md").read_text()
    entrypoint = "  entrypoint: bash /config/night.sh RUN_DATE"
    assert f"{entrypoint}\n" in page
    (tmp_path / "configs/kuberay").mkdir(parents=True)
    (tmp_path / "configs/kuberay/rerank-job.yaml").write_text(f"name: rerank-RUN_DATE\n{entrypoint}\n")
    (tmp_path / "kubectl").write_text(
        '#!/bin/sh\necho "$1 $3" >> asked\n[ "$1 $3" != \'apply -\' ] || cat >> applied\n'
    )
    (tmp_path / "kubectl").chmod(0o755)
    blocks = re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    subprocess.run(
        ["bash", "-euc", "".join(blocks)],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=True,
    )
    assert (tmp_path / "asked").read_text().count("apply -\n") == 4
    applied = (tmp_path / "applied").read_text().splitlines()
    found = []
    for name, line in zip(applied[::2], applied[1::2], strict=True):
        words = shlex.split(line.removeprefix("  entrypoint: "))
        *before, bash, script, date = words
        assert (name, bash, script) == (f"name: rerank-{date}", "bash", "/config/night.sh")
        assert before[:1] in (["env"], [])
        flags = dict(word.split("=", 1) for word in before[1:])
        (tmp_path / "calls").unlink(missing_ok=True)
        status, calls = night(tmp_path, "75 0 0", **flags)
        assert status == 0, calls
        found.append((date, len(calls)))
        for call in calls:
            (retrieve if "pipeline.retrieve" in call else rerank).parse(call[2:])
    assert found == [("2026-11-20", 3), ("2026-11-21", 3), ("2026-11-20", 2), ("2026-11-21", 3)]
