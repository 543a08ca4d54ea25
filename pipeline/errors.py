"""What this project raises when the cause is not a bug of its own.

RayrankError            catch this one to catch them all
|-- ConfigError         a field of the configuration: its path, the line of its file, what it takes
|   `-- TooManyTokensError    one call of a scorer has more tokens than fit in it
|-- InputError          the input: the file, and the row or column in it
|   `-- NotThereError   nothing to read lies where it leads
|-- OutputError         the output directory: what lies there and does not fit, or can't be written
|   `-- OtherFormatError      it was written by another version, in a format that is not read here
|-- ModelError          a checkpoint that can't be found, or that is no reranker this project runs
|-- TrainingError       a training that can't go on: its loss is no number
|-- ScoringError        one pair or text that has no finite score, or does not fit the model
`-- TemporaryError      what the work needs is not there for now: the same command may succeed later
    |-- LateError         an input that is not there yet
    `-- DeviceError       a GPU that failed; another process, or another GPU, may do
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.redaction import redacted


class RayrankError(Exception):
    """A message for the person who started the work: what is wrong, where, and the way out."""

    def __init__(self, message: str, field: str | None = None) -> None:
        """field: the field of a config that is at fault, where there is one. The message begins with it."""
        assert field is None or message.startswith(field), message
        message = redacted(message)
        super().__init__(message)
        self.field = field
        # Ray Data appends advice of its own to the args of what a stage raises.
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigError(RayrankError):
    """A field of the configuration is missing, unknown or out of range."""


class TooManyTokensError(ConfigError):
    """The pairs of one call have more tokens than one call can hold."""


class InputError(RayrankError):
    """The input can't be read as the candidate table (or qrels, or run) it should be."""


class NotThereError(InputError):
    """Nothing to read lies at `place`, a path or URL as it was given. It may not have been written yet."""

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.args = (place, what)  # what unpickling hands to __init__
        self.place = place


class OutputError(RayrankError):
    """The output directory holds something that this run would damage."""


class OtherFormatError(OutputError):
    """An output that another version of this program wrote, in a format that this one does not read."""


class ModelError(RayrankError):
    """The checkpoint can't be loaded, or its kind is not supported."""


class TrainingError(RayrankError):
    """The training can't go on. What was saved before is whole."""


class ScoringError(RayrankError):
    """A pair, or a text, can't be scored. `index` is its position among those that were handed in."""

    def __init__(self, index: int, reason: str, what: str = "pair") -> None:
        super().__init__(f"{what} {index}: {reason}")
        self.args = (index, reason, what)  # what unpickling hands to __init__
        self.index = index
        self.reason = reason


class TemporaryError(RayrankError):
    """What the work needs is not there for now, and may be there later: a cluster, room on it, a store, an
    output that another start holds. All others fail again as long as nobody mends what they name.

    Where the two can't be told apart, it is this one: a try too many costs less than a night.
    """


class LateError(TemporaryError):
    """An input that nobody has written yet. Whoever has read it before knows that it is gone."""

    def __init__(self, lack: str, advice: str) -> None:
        """lack: what is not there; advice: what follows it in the message."""
        super().__init__(f"{lack}{advice}")
        self.args = (lack, advice)  # what unpickling hands to __init__
        self.lack = lack


class DeviceError(TemporaryError):
    """A GPU failed. It computes nothing for this process any more, so the process should end."""


@contextmanager
def fields_under(parent: str) -> Iterator[None]:
    """An error of a field of a config names it as a field of `parent`, the config that holds that one.

    For whoever knows the nesting: `max_length 600: ...` becomes `scorer.max_length 600: ...`.
    """
    try:
        yield
    except RayrankError as error:
        if error.field is not None:
            error.field, error.message = f"{parent}.{error.field}", f"{parent}.{error.message}"
        raise
