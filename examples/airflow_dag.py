"""Airflow 3: rerank each night's candidates on a standing Ray cluster. Copy it beside nightly.py.

Where a night begins with documents, a second task finds the candidates before: see the end.

The cluster's address is the environment's RAY_JOBS_ADDRESS; where it asks for a token, RAY_AUTH_MODE and
RAY_AUTH_TOKEN are read by Ray itself.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from nightly import REJECTS, MistakeError, connect, job_name, stop, work
from ray.job_submission import JobSubmissionClient


class Rayrank(BaseOperator):  # type: ignore[misc]  # Airflow is not installed where types are checked
    """One date. A try that follows another, or that comes after a lost worker, goes on with the same job."""

    template_fields = ("run_date",)

    def __init__(
        self, *, config: str, command: str = "rerank", run_date: str = "{{ ds }}", **more: Any
    ) -> None:
        super().__init__(**more)
        self.config, self.command, self.run_date = config, command, run_date

    def execute(self, context: Any) -> int:  # noqa: ARG002  (Airflow's signature)
        try:
            status = work(_client(), self.command, self.config, self.run_date)
        except MistakeError as error:
            raise AirflowFailException(str(error)) from error  # no further tries
        if status == REJECTS:
            self.log.warning("finished, but some rows were rejected: see rejects/ in the output")
        return status

    def on_kill(self) -> None:
        stop(_client(), job_name(self.command, self.config, self.run_date))


def _client() -> JobSubmissionClient:
    return connect(os.environ["RAY_JOBS_ADDRESS"])


with DAG(
    "rerank",
    schedule="0 3 * * *",
    start_date=datetime(2026, 11, 20, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
):
    Rayrank(task_id="rerank", config="/rayrank/configs/rerank/corpus.yaml")
    # From documents, in place of the line above:
    # first = Rayrank(task_id="retrieve", command="retrieve", config="/rayrank/configs/retrieve/corpus.yaml")
    # first >> Rayrank(task_id="rerank", config="/rayrank/configs/rerank/retrieved.yaml")
