"""What this project raises when the cause is not a bug of its own.

RayrankError            catch this one to catch them all
|-- ConfigError         a field of the configuration: its path, the line of its file, what it takes
|-- InputError          the input: the file, and the row or column in it
|-- OutputError         the output directory: what lies there and does not fit
|-- ModelError          a checkpoint that can't be found, or that is no reranker this project runs
`-- ScoringError        one pair that has no finite score, or does not fit the model
"""


class RayrankError(Exception):
    """A message for the person who started the work: what is wrong, where, and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Ray Data appends advice of its own to the args of what a stage raises.
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigError(RayrankError):
    """A field of the configuration is missing, unknown or out of range."""


class InputError(RayrankError):
    """The input can't be read as the candidate table (or qrels, or run) it should be."""


class OutputError(RayrankError):
    """The output directory holds something that this run would damage."""


class ModelError(RayrankError):
    """The checkpoint can't be loaded, or its kind is not supported."""


class ScoringError(RayrankError):
    """A pair can't be scored. `index` is its position among the pairs that were handed in."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"pair {index}: {reason}")
        self.args = (index, reason)  # what unpickling hands to __init__
        self.index = index
        self.reason = reason
