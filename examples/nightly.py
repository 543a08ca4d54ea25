"""One date's work as jobs of a standing Ray cluster: one at a time, however often it is asked for.

    python nightly.py --address http://HEAD:8265 --config /on/the/cluster/job.yaml --run-date 2026-11-20

It waits for the job and ends with its exit status. With `--command retrieve` it is the first stage of that
date. `work` does the same for schedulers in Python, such as airflow_dag.py. Both need just `pip install
'ray[default]'` of the cluster's version.
"""

import argparse
import os
import re
import shlex
import sys
import time
from datetime import date
from hashlib import sha256
from pathlib import PurePosixPath

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from requests.exceptions import InvalidURL, RequestException

MISTAKE, REJECTS, TRY_AGAIN = 2, 3, 75
"""Exit statuses of the commands."""
COMMANDS = ("rerank", "retrieve")
_DROPPED_POLLS = 5
"""In a row, before the cluster is given up: a proxy or a busy head drops one now and then."""


class MistakeError(RuntimeError):
    """The config, the input or the model is wrong: another try would end the same way."""


def connect(address: str) -> JobSubmissionClient:
    """A client of the cluster at `address`. Ray's own would go where the environment says, if it does."""
    names = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    set_ones = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        return JobSubmissionClient(address)
    finally:
        os.environ |= set_ones


def work(client: JobSubmissionClient, command: str, config: str, run_date: str) -> int:
    """Do one date. Returns 0, or REJECTS where all is done but for rows that can't be used.

    command: of COMMANDS. config: its path on the cluster. Raises MistakeError, or RuntimeError or
    RequestException for what another try may mend: it goes on from what is done.
    """
    line = job_command(command, config, run_date)
    status = run(client, job_name(command, config, run_date), line)
    if status == MISTAKE:
        raise MistakeError(f"{line}: see the message above")
    if status == TRY_AGAIN:
        raise RuntimeError(f"{line}: what it needs is not there for now, see the message above")
    if status not in (0, REJECTS):
        raise RuntimeError(f"{line}: exit status {status}")
    return status


def job_name(command: str, config: str, run_date: str) -> str:
    """Such as rerank-corpus-3f0c2b1a-2026-11-20: two configs of one date are two jobs.

    The name is a part of URLs and of names of files.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(config).stem)[:40]
    return f"{command}-{stem}-{sha256(os.fsencode(config)).hexdigest()[:8]}-{run_date}"


def job_command(command: str, config: str, run_date: str) -> str:
    return f"python -m pipeline.{command} --config {shlex.quote(config)} --set run_date={run_date}"


def run(client: JobSubmissionClient, name: str, command: str, poll_s: float = 5) -> int:
    """Run a command as the cluster's job NAME-1, print its log as it grows, and return its exit status.

    Where NAME-1 runs already, it is waited for; where it has ended, NAME-2 is started: Ray refuses an id
    twice, and one that was deleted stays half taken for a moment. Raises RuntimeError where the job was
    stopped or its machine died: there is no exit status. RequestException where the cluster went away.
    """
    before = _attempts(client, name)
    number = max(before, default=0)
    if number == 0 or before[number].status.is_terminal():
        number += 1
        client.submit_job(entrypoint=command, submission_id=f"{name}-{number}")
    job_id = f"{name}-{number}"
    printed = dropped = 0
    while True:
        try:
            job = client.get_job_info(job_id)  # first: what a job says before its end is in the log by then
            log = client.get_job_logs(job_id)
        except (RequestException, RuntimeError):
            dropped += 1
            if dropped == _DROPPED_POLLS:
                raise
            time.sleep(poll_s)
            continue
        dropped = 0
        print(log[printed:], end="", flush=True)
        printed = len(log)
        if job.status.is_terminal():
            break
        time.sleep(poll_s)
    if job.driver_exit_code is None:
        raise RuntimeError(f"{job_id}: {job.status}: {job.message}")
    return job.driver_exit_code


def stop(client: JobSubmissionClient, name: str) -> None:
    """Stop the job if it runs: it gets SIGTERM, and three seconds."""
    for number, job in _attempts(client, name).items():
        if not job.status.is_terminal():
            client.stop_job(f"{name}-{number}")


def _attempts(client: JobSubmissionClient, name: str) -> dict[int, JobDetails]:
    """By number."""
    ids = {job.submission_id: job for job in client.list_jobs() if job.submission_id}
    numbers = {job_id.removeprefix(f"{name}-"): job for job_id, job in ids.items()}
    return {int(number): job for number, job in numbers.items() if number.isdecimal()}


def main(arguments: list[str]) -> int:
    """Returns the job's exit status; TRY_AGAIN where there is none, or the cluster does not answer."""
    parser = argparse.ArgumentParser(
        description="Do one date's work as a job of a Ray cluster, and wait for it."
    )
    parser.add_argument(
        "--address", required=True, type=_address, help="of the cluster's jobs, such as http://HEAD:8265"
    )
    parser.add_argument("--config", required=True, help="a YAML file, by its path on the cluster")
    parser.add_argument("--command", choices=COMMANDS, default="rerank", help="of pipeline; default: rerank")
    parser.add_argument("--run-date", required=True, type=_date, help="such as 2026-11-20")
    given = parser.parse_args(arguments)
    try:
        client = connect(given.address)
        line = job_command(given.command, given.config, given.run_date)
        return run(client, job_name(given.command, given.config, given.run_date), line)
    except AuthenticationError as error:
        print(f"error: {given.address}: {error}; set RAY_AUTH_MODE=token", file=sys.stderr)
        return MISTAKE
    except InvalidURL as error:
        print(f"error: --address: {error}", file=sys.stderr)
        return MISTAKE
    except (ConnectionError, RequestException, RuntimeError) as error:
        print(f"error: {given.address}: {error}", file=sys.stderr)
        return TRY_AGAIN


def _address(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text}: needs http:// or https:// before it")
    return text


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: needs a date such as 2026-11-20") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
