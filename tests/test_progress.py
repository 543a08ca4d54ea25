import io

from pipeline.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_the_job_is() -> None:
    terminal = Terminal()
    progress = Progress(shards=2, pairs=30, stream=terminal)
    progress.add(20)
    assert "1/2 shards  20/30 pairs" in terminal.getvalue()
    assert "pairs/s" in terminal.getvalue()
    progress.close()
    assert terminal.getvalue().endswith("\n")


def test_nothing_else_sees_anything() -> None:
    pipe = io.StringIO()
    progress = Progress(shards=1, pairs=1, stream=pipe)
    progress.add(1)
    progress.close()
    assert pipe.getvalue() == ""
