"""Arrow's types: those that differ in memory only, and what two have in common where no value is lost."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Without chunks, dictionaries, extensions and the large and view variants: the values are the same."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return _cast(whole, plain_type(whole.type), safe=False)


def _cast(column: pa.Array, data_type: pa.DataType, *, safe: bool = True) -> pa.Array:
    """A cast to its own type breaks lists in which something is null everywhere (pyarrow 26)."""
    return column if column.type == data_type else column.cast(data_type, safe=safe)


def column_of(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Null where the table gained the column after this file was written."""
    return rows[name] if name in rows.column_names else pa.chunked_array([pa.nulls(rows.num_rows)])


def plain_bytes(column: pa.Array) -> int:
    """What a column takes once it is `plain`: a dictionary's texts as often as they stand there."""
    if pa.types.is_dictionary(column.type) and plain_type(column.type) in (pa.string(), pa.binary()):
        lengths = pc.binary_length(column.dictionary)
        return int(pc.sum(lengths.take(column.indices)).as_py() or 0)
    if is_list(column.type):
        if column.null_count == len(column):  # which can't be flattened where an extension is in it
            return 4 * len(column)
        return plain_bytes(pc.list_flatten(column)) + 4 * len(column)
    if pa.types.is_struct(column.type):
        return sum(map(plain_bytes, column.flatten()))
    return int(column.nbytes)


def plain_type(data_type: pa.DataType) -> pa.DataType:
    if isinstance(data_type, pa.BaseExtensionType):  # uuid, json: Ray's shuffle knows none
        data_type = data_type.storage_type
    if pa.types.is_dictionary(data_type):
        return plain_type(data_type.value_type)
    if pa.types.is_large_string(data_type) or pa.types.is_string_view(data_type):
        return pa.string()
    if pa.types.is_large_binary(data_type) or pa.types.is_binary_view(data_type):
        return pa.binary()
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return pa.list_(data_type.value_field.with_type(plain_type(data_type.value_type)))
    if pa.types.is_struct(data_type):
        return pa.struct([each.with_type(plain_type(each.type)) for each in data_type])
    return with_fields(data_type, lambda each: each.with_type(plain_type(each.type)))


def wide_type(data_type: pa.DataType) -> pa.DataType:
    """With texts that may take more than 2 GiB together."""
    if pa.types.is_string(data_type):
        return pa.large_string()
    if pa.types.is_binary(data_type):
        return pa.large_binary()
    return with_fields(data_type, lambda each: each.with_type(wide_type(each.type)))


def is_list(data_type: pa.DataType) -> bool:
    """Of every kind of list, which differ in memory, or in that all have one length."""
    types = pa.types
    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_kind(data_type) for is_kind in (*kinds, types.is_list_view, types.is_large_list_view))


def fields_of(data_type: pa.DataType) -> list[pa.Field]:
    """Those of a struct, the item of a list, key and item of a map; none of any other type."""
    if pa.types.is_map(data_type):
        return [data_type.key_field, data_type.item_field]
    return [data_type.field(number) for number in range(data_type.num_fields)]


def with_fields(data_type: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """The type with each of `fields_of` changed; any other type as it is."""
    types = pa.types
    fields = [change(each) for each in fields_of(data_type)]
    if types.is_struct(data_type):
        return pa.struct(fields)
    if types.is_map(data_type):
        return pa.map_(*fields)
    if types.is_fixed_size_list(data_type):
        return pa.list_(fields[0], data_type.list_size)
    if types.is_large_list(data_type):
        return pa.large_list(fields[0])
    return pa.list_(fields[0]) if types.is_list(data_type) else data_type


def has_dictionary_inside(data_type: pa.DataType) -> bool:
    """Whether a list, struct or map has one in it."""
    inside = [each.type for each in fields_of(data_type)]
    return any(pa.types.is_dictionary(each) or has_dictionary_inside(each) for each in inside)


def as_lists(column: pa.Array, data_type: pa.DataType) -> pa.Array:
    """Lists of any kind, or nulls, as plain lists of `data_type`, a null one without items behind it.

    In Arrow a null list may have some, and one of fixed size always has. Casts are not to be trusted with
    either, nor with views (pyarrow 26).
    """
    if pa.types.is_null(column.type):
        return column.cast(data_type)
    valid = column.is_valid()
    lists = column.filter(valid)
    ends = pc.cumulative_sum(pc.list_value_length(lists).cast(pa.int64()))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(pa.int32())
    plain_lists = _cast(pa.ListArray.from_arrays(offsets, pc.list_flatten(lists)), data_type)
    if not column.null_count:
        return plain_lists
    at = pc.subtract(pc.cumulative_sum(valid.cast(pa.int64())), 1)
    return plain_lists.take(pc.if_else(valid, at, None))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; null where there is none.

    A column without any value (Arrow's null type, which pandas and Spark leave in an empty partition) goes
    with every type, also inside lists and structs. Otherwise as pyarrow's permissive promotion: integers and
    floats of other widths, times of other units. Whether each value fits is seen when it is cast (`as_type`).
    """
    if one == other:
        return one
    if _is_another_value(one, other):
        return None
    try:
        schemas = [pa.schema([("value", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except (
        pa.ArrowTypeError,
        pa.ArrowInvalid,
    ):  # how pyarrow says no; the latter of decimals of too many digits
        return None


def as_type(column: pa.Array, data_type: pa.DataType, place: str) -> pa.Array:
    """The column in a type of `common_type`. Raises InputError naming `place` where it can't hold a value."""
    if column.null_count == len(column):
        return pa.nulls(len(column), data_type)
    try:
        return _cast(column, data_type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{place} is {column.type} here and {data_type} in the table as a whole, which can't hold it:"
            f" {str(error).rstrip('.')}. Write the column in one type"
        ) from error


def _is_another_value(one: pa.DataType, other: pa.DataType) -> bool:
    """A decimal as a float is another number, and bytes are no text, which no cast tells; inside, too."""
    types = pa.types
    if types.is_struct(one) and types.is_struct(other):
        theirs = {each.name: each.type for each in other}
        pairs = [(each.type, theirs[each.name]) for each in one if each.name in theirs]
    else:
        ours, others = fields_of(one), fields_of(other)
        pairs = [(a.type, b.type) for a, b in zip(ours, others, strict=False)]
    return any(
        (types.is_decimal(a) and types.is_floating(b)) or (_is_bytes(a) and types.is_string(b))
        for a, b in ((one, other), (other, one))
    ) or any(_is_another_value(a, b) for a, b in pairs)


def _is_bytes(data_type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(data_type) or pa.types.is_fixed_size_binary(data_type))
