"""The command: what it prints, writes and refuses."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import evaluate as entry
from tests.conftest import DATA
from tests.outputs import finish_run
from tests.tables.output.test_run import ranked

RUN, QRELS = str(DATA / "trec_eval/results.test"), str(DATA / "trec_eval/qrels.test")


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that name qrels and a baseline, in a folder that holds the runs `a` and `b`, too."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "qrels", "q1 0 good 1\nq2 0 good 1\n")
    write(tmp_path / "first", "q1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\nq2 Q0 good 1 2 x\n")
    write(tmp_path / "a", "q1 Q0 good 1 2 x\nq1 Q0 bad 2 1 x\nq2 Q0 good 1 2 x\n")
    write(tmp_path / "b", "q1 Q0 new 1 3 x\nq1 Q0 bad 1 2 x\nq1 Q0 good 2 1 x\n")
    return ["--qrels", "qrels", "--baseline", "first", "--measures", "RR"]


def test_it_prints_and_writes_per_query(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_query = tmp_path / "per-query.tsv"
    arguments = ["--run", RUN, "--qrels", QRELS, "--baseline", RUN, "--measures", "AP P@10"]
    assert entry.main([*arguments, "--per-query", str(per_query)]) == 0
    shown = capsys.readouterr().out
    assert "AP          0.1785  0.1785  +0.0000  +0.0000 to +0.0000  1.0000    1.0000   0/3/0" in shown
    assert per_query.read_text().splitlines()[0] == "query_id\tmeasure\tbefore\tafter\tmissing_in\trun"
    assert len(per_query.read_text().splitlines()) == 1 + 2 * 3


def test_a_finished_run_becomes_a_trec_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = finish_run(f"{tmp_path}/out", ranked(0.5).drop_columns("kept"))
    assert entry.main(["--run", url, "--trec", f"{tmp_path}/new/run.trec"]) == 0
    lines = ["q Q0 b 1 0.5 rayrank", "q Q0 a 2 0.5 rayrank"]
    assert (tmp_path / "new/run.trec").read_text().splitlines() == lines
    assert capsys.readouterr().out == ""
    assert entry.main(["--run", url, "--trec", f"{tmp_path}/out/run/run.trec"]) == 2
    assert "lies inside of the output" in capsys.readouterr().err
    assert entry.main(["--run", url, "--run", url, "--trec", f"{tmp_path}/x"]) == 2
    assert "give one --run" in capsys.readouterr().err
    blank = ranked(0.5).drop_columns("kept").set_column(0, "query_id", [["a b", "q"]])
    assert entry.main(["--run", finish_run(f"{tmp_path}/blank", blank), "--trec", f"{tmp_path}/x"]) == 2
    assert "run/shard-000000.parquet row 1: query_id 'a b' is empty, has blanks" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


UNLIKE = "first and a have at most 2 passages a query: RR would look deeper; another one has 3"


def test_several_runs_stand_side_by_side(sample: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--run", "a", "--run", "b", *sample]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 judged queries",
        "1 of 2 judged queries are in b; the 1 others count as 0",
        "--common-queries measures only the 1 that all have",
        UNLIKE,
        "RR                    mean   change     95% interval          p  p (Holm)   better/same/worse",
        "  first (baseline)  0.7500",
        "  a                 1.0000  +0.2500  +0.0000 to +0.5000  1.0000    1.0000   1/1/0",
        "  b                 0.1667  -0.5833  -1.0000 to -0.1667  0.5000    1.0000   0/0/2",
    ]


def test_runs_without_a_baseline_stand_side_by_side(
    sample: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["--run", "first", "--run", "a", "--qrels", "qrels", "--measures", "RR"]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "  first  0.7500  0.5000 to 1.0000",
        "  a      1.0000  1.0000 to 1.0000",
        "--baseline RUN adds a test of each change",
    ]


@pytest.mark.parametrize("measures", [["RR", "R@100"], ["RR R@100"], ["RR,R@100"], ["RR,", "R@100"]])
def test_several_measures_and_runs_follow_their_option(
    sample: list[str], capsys: pytest.CaptureFixture[str], measures: list[str]
) -> None:
    assert entry.main(["--run", "a", "first", "--qrels", "qrels", "--measures", *measures]) == 0
    heads = [line.split() for line in capsys.readouterr().out.splitlines() if "mean" in line]
    assert [head[0] for head in heads] == ["RR", "R@100"]


def test_judgments_of_another_collection_are_told(
    sample: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(tmp_path / "others", "q1 0 elsewhere 1\nq2 0 elsewhere 1\n")
    told = (
        "0 of 2 queries have a judged passage among the first 10 of a run: are these the judgments of this"
        " collection?"
    )
    for qrels, is_told in (("others", True), ("qrels", False)):
        assert entry.main(["--run", "a", "--baseline", "first", "--qrels", qrels, "--measures", "RR"]) == 0
        assert (told in capsys.readouterr().out.splitlines()) == is_told


def test_it_tells_how_much_is_judged(sample: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--run", "b", *sample[:2], "--measures", "RR@2", "--judge-coverage"]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "b: judged: 0.0% of the top 2",
        "                 mean    95% interval",
        "RR@2           0.0000  0.0000 to 0.0000",
        "condensed RR@2 0.5000  0.0000 to 1.0000",
    ]


def test_the_json_holds_what_is_printed(sample: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--run", "a", "--run", "b", *sample, "--judge-coverage"]
    assert entry.main([*arguments, "--json", "-"]) == 0
    printed = capsys.readouterr().out
    assert entry.main([*arguments, "--json", "numbers.json"]) == 0
    found = json.loads(printed)
    assert found == json.loads(Path("numbers.json").read_text())
    assert {name: found[name] for name in ("qrels", "judged_queries", "queries", "remarks")} == {
        "qrels": "qrels",
        "judged_queries": 2,
        "queries": 2,
        "remarks": [UNLIKE],
    }
    assert [(each["run"], each["role"]) for each in found["systems"]] == [
        ("first", "baseline"),
        ("a", "run"),
        ("b", "run"),
    ]
    assert found["systems"][0]["measures"]["RR"] == {"mean": 0.75, "interval": [0.5, 1.0], "change": None}
    b = found["systems"][2]
    assert (b["missing_queries"], b["judged"]) == (1, {"all": pytest.approx(1 / 3)})
    assert b["measures"]["RR"] == {
        "mean": pytest.approx(1 / 6),
        "interval": [0.0, pytest.approx(1 / 3)],
        "change": {
            "mean": pytest.approx(-7 / 12),
            "interval": [-1.0, pytest.approx(-1 / 6)],
            "p": 0.5,
            "p_holm": 1.0,
            "better": 0,
            "same": 0,
            "worse": 2,
        },
    }
    assert b["measures"]["condensed RR"]["mean"] == 0.5


def test_it_tells_of_missing_queries_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qrels = write(tmp_path / "qrels", "".join(f"问{number} 0 good 1\n" for number in range(3)))
    run = write(tmp_path / "run", "问0 Q0 good 1 2 x\n")
    before = write(tmp_path / "before", "问0 Q0 good 1 2 x\n问1 Q0 good 1 2 x\n")
    per_query = tmp_path / "per-query.tsv"
    arguments = ["--run", run, "--qrels", qrels, "--measures", "RR"]
    assert entry.main([*arguments, "--baseline", before, "--per-query", str(per_query)]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "3 judged queries",
        "1 of 3 judged queries are in the run; the 2 others count as 0",
        "2 of 3 judged queries are in the baseline; the 1 others count as 0",
        "--common-queries measures only the 1 that all have",
    ]
    assert per_query.read_text(encoding="utf-8").splitlines()[1:] == [
        f"问0\tRR\t1.000000\t1.000000\t\t{run}",
        f"问1\tRR\t1.000000\t0.000000\trun\t{run}",
        f"问2\tRR\t0.000000\t0.000000\tbaseline run\t{run}",
    ]
    assert entry.main([*arguments, "--baseline", before, "--common-queries"]) == 0
    assert capsys.readouterr().out.startswith(
        "1 of 3 judged queries: those that the run and baseline both hold\n"
    )
    assert entry.main([*arguments, "--common-queries"]) == 0
    assert capsys.readouterr().out.splitlines()[::2] == [
        "1 of 3 judged queries: those that the run holds",
        "RR         1.0000",
    ]


def test_it_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--run", str(tmp_path), "--qrels", QRELS]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert entry.main(["--run", str(tmp_path / "nowhere"), "--qrels", QRELS]) == 2
    assert (
        "nowhere: no such folder or file; a run is the output.path of a finished job, or a TREC run\n"
        in capsys.readouterr().err
    )
    (tmp_path / "qrels").mkdir()
    for name in ("dev.tsv", "test.tsv"):
        write(tmp_path / "qrels" / name, "")
    assert entry.main(["--run", RUN, "--qrels", str(tmp_path / "qrels")]) == 2
    assert "qrels: is a folder; name one file. It holds dev.tsv, test.tsv\n" in capsys.readouterr().err
    assert entry.main(["--run", RUN, "--qrels", QRELS, "--json", str(tmp_path / "no/where")]) == 2
    assert "no/where: can't be written: No such file or directory" in capsys.readouterr().err


def test_it_writes_the_page(sample: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"query_id": ["q1"], "query": ["why?"], "passage_id": ["good"], "passage": ["because"]}
    pq.write_table(pa.table(columns), "table.parquet")
    assert entry.main(["--run", "a", *sample, "--html", "page.html", "--texts", "table.parquet"]) == 0
    assert "because" in Path("page.html").read_text()
    assert entry.main(["--run", "a", *sample, "--texts", "table.parquet"]) == 2
    assert "error: --texts: only the page of --html shows texts; give --html" in capsys.readouterr().err
