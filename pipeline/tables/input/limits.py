"""Bounds of what one thing in a file may take in memory, so that a small file can't exhaust it."""

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from pipeline.errors import InputError

FREE_BYTES = 64 * 2**20
"""What anything may expand to, however small it was."""


class Limits(BaseModel):
    """What is larger is refused. Reading takes a small multiple of the largest thing that these let pass."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    max_line_bytes: PositiveInt = 64 * 2**20
    """A line of a text file, or a record of CSV."""
    max_expansion: PositiveInt = 200
    """What a compressed file, or what is read at a time of a Parquet file, becomes, in times of its size.
    Up to 64 MiB of it are free."""
    max_page_bytes: PositiveInt = 256 * 2**20
    """A page of a Parquet column, decompressed, and so each value in it."""
    max_json_depth: int = Field(default=100, ge=1, le=500)
    """Lists and objects in each other, on a line of JSON."""

    def exceeded(self, place: str, what: str, name: str) -> InputError:
        """The error for a thing that is beyond the limit `name`."""
        return InputError(
            f"{place}: {what} for limits.{name}, which is {getattr(self, name)}. If it is meant, raise that"
            " field of the table's config"
        )

    def check_expansion(self, place: str, size: int, compressed: int) -> None:
        """Raises InputError where so many bytes came of so many compressed ones."""
        if size > max(FREE_BYTES, self.max_expansion * compressed):
            raise self.exceeded(
                place, f"{size >> 20} MiB come of {compressed} bytes, too many", "max_expansion"
            )


DEFAULT_LIMITS = Limits()
