"""Interrupts where Python code can't bear them, each in a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import last_heartbeat

SIGNALS = {"SIGTERM": 143, "SIGINT": 130}
COMMAND = """
import os, signal, sys, time
from pathlib import Path
from pipeline.command import run, Status
from pipeline.errors import InputError
from pipeline.interruption import raise_interrupts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it

def get():
    os.kill(os.getpid(), signal.{name})

class Finalized:
    def __del__(self):
        get()

def is_empty(value):
    get()
    return False

def make_another(held):
    try:
        get()
    finally:
        raise InputError("what a clean-up makes of it")

def lose(held):
    Finalized()
    held.add(1)
    print("went on")

def serialize(held):
    from pydantic import BaseModel, Field
    class Model(BaseModel):
        value: int = Field(default=0, exclude_if=is_empty)
    Model().model_dump_json()

def work():
    raise_interrupts()
    with lease(Directory({folder!r}), 2, 0) as held:
        {how}(held)
    return Status.FINISHED

sys.exit(run(work, "the same command goes on"))
"""


@pytest.mark.parametrize("how", ["make_another", "lose", "serialize"])
@pytest.mark.parametrize("name", SIGNALS)
def test_what_code_makes_of_an_interrupt_is_one(tmp_path: Path, name: str, how: str) -> None:
    program = COMMAND.format(name=name, how=how, folder=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (SIGNALS[name], ""), done.stderr
    assert done.stderr.splitlines()[-1] == "interrupted; the same command goes on"
    heartbeat = last_heartbeat(Directory(str(tmp_path / "out")))
    assert heartbeat is not None
    assert heartbeat.state == "interrupted"


def test_after_the_work_a_signal_ends_the_process_as_it_did() -> None:
    program = """
import os, signal
from pipeline.command import run, Status
from pipeline.interruption import raise_interrupts
assert run(lambda: raise_interrupts() or Status.FINISHED) == 0
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


def test_a_program_that_calls_jobs_goes_on_after_an_interrupt(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pipeline.interruption import raise_interrupts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease, last_heartbeat

signal.signal(signal.SIGINT, signal.default_int_handler)

def job(folder, interrupt):
    raise_interrupts()
    with lease(Directory(folder), 2, 0) as held:
        held.add(1)
        if interrupt:
            os.kill(os.getpid(), interrupt)
    print(last_heartbeat(Directory(folder)).state)

for interrupt in (signal.SIGINT, signal.SIGTERM):
    try:
        job({str(tmp_path / "a")!r}, interrupt)
    except KeyboardInterrupt:
        print("interrupted")
    job({str(tmp_path / "b")!r}, None)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["interrupted", "finished"] * 2, done.stderr
