"""An input of a date that is not there: it is late, which is no mistake of anybody's."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import NotThereError, TemporaryError
from pipeline.reranking.config import RerankConfig


@contextmanager
def not_there_yet(config: RerankConfig) -> Iterator[None]:
    """NotThereError of a place that has the run's date in it is raised as TemporaryError."""
    try:
        yield
    except NotThereError as error:
        if config.run_date is None or str(config.run_date) not in error.place:
            raise
        raise TemporaryError(
            f"{error}. It is not there yet, since its path has the date: start again when it is written"
        ) from error
