"""Writes Delta tables with column mapping, as Databricks does: data files tell columns in their own way."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_TYPES = {pa.string(): "string", pa.int64(): "long", pa.float64(): "double", pa.float32(): "float"}


class MappedTable:
    """A table whose columns, and the fields in them, are told by `mode`: name or id."""

    def __init__(self, path: Path, schema: pa.Schema, mode: str, partition_by: str | None = None) -> None:
        self.path, self._mode, self._partition_by = path, mode, partition_by
        self._numbers, self._commits, self._files = 0, 0, 0
        self._fields = [self._declared(each) for each in schema]
        protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
        features = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
        self._commit({"protocol": {**protocol, **features}}, self._metadata())

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Appends a data file; of a partition, the column's value in the first row counts."""
        partitions = {}
        columns = list[tuple[pa.Field, pa.Array]]()
        for declared in self._fields:
            values = [row.get(declared["name"]) for row in rows]
            if declared["name"] == self._partition_by:
                partitions[_name(declared)] = values[0]
            else:
                held = self._held(declared)
                columns.append(
                    (held, pa.array([_in_file(value, declared["type"]) for value in values], held.type))
                )
        self._files += 1
        file = self.path / f"part-{self._files}.parquet"
        pq.write_table(
            pa.table([each for _, each in columns], pa.schema([each for each, _ in columns])), file
        )
        added = {"path": file.name, "partitionValues": partitions, "size": file.stat().st_size}
        stats = json.dumps({"numRecords": len(rows)})
        self._commit({"add": {**added, "modificationTime": 1, "dataChange": True, "stats": stats}})

    def rename(self, old: str, new: str) -> None:
        """old: also of a field, as `candidates.passage`; new: the last name alone."""
        *_, field = self._found(old)
        field["name"] = new
        self._partition_by = new if old == self._partition_by else self._partition_by
        self._commit(self._metadata())

    def drop(self, name: str) -> None:
        *_, fields, field = self._found(name)
        fields.remove(field)
        self._commit(self._metadata())

    def gain(self, column: pa.Field) -> None:
        self._fields.append(self._declared(column))
        self._commit(self._metadata())

    def _found(self, name: str) -> tuple[Any, ...]:
        fields: Any = self._fields
        for part in name.split("."):
            inside = fields
            field = next(each for each in inside if each["name"] == part)
            kind = field["type"] if isinstance(field["type"], dict) else {}
            fields = kind.get("elementType", kind).get("fields", [])
        return inside, field

    def _declared(self, column: pa.Field) -> dict[str, Any]:
        self._numbers += 1
        number = self._numbers
        mapping = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": f"col-{number:03d}"}
        return {"name": column.name, "type": self._type(column.type), "nullable": True, "metadata": mapping}

    def _type(self, kind: pa.DataType) -> Any:
        if pa.types.is_list(kind):
            return {"type": "array", "elementType": self._type(kind.value_type), "containsNull": True}
        if pa.types.is_struct(kind):
            return {"type": "struct", "fields": [self._declared(each) for each in kind]}
        return _TYPES[kind]

    def _held(self, declared: dict[str, Any]) -> pa.Field:
        number = {"PARQUET:field_id": str(declared["metadata"]["delta.columnMapping.id"])}
        metadata = number if self._mode == "id" else None
        return pa.field(_name(declared), self._held_type(declared["type"]), metadata=metadata)

    def _held_type(self, kind: Any) -> pa.DataType:
        if isinstance(kind, str):
            return next(held for held, name in _TYPES.items() if name == kind)
        if kind["type"] == "array":
            return pa.list_(self._held_type(kind["elementType"]))
        return pa.struct([self._held(each) for each in kind["fields"]])

    def _metadata(self) -> dict[str, Any]:
        configuration = {
            "delta.columnMapping.mode": self._mode,
            "delta.columnMapping.maxColumnId": str(self._numbers),
        }
        schema = {"type": "struct", "fields": self._fields}
        return {
            "metaData": {
                "id": "a",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps(schema),
                "partitionColumns": [self._partition_by] if self._partition_by else [],
                "configuration": configuration,
                "createdTime": 1,
            }
        }

    def _commit(self, *actions: dict[str, Any]) -> None:
        log = self.path / "_delta_log"
        log.mkdir(parents=True, exist_ok=True)
        written = "".join(json.dumps(action) + "\n" for action in actions)
        (log / f"{self._commits:020d}.json").write_text(written)
        self._commits += 1


def _name(declared: dict[str, Any]) -> str:
    return str(declared["metadata"]["delta.columnMapping.physicalName"])


def _in_file(value: Any, kind: Any) -> Any:
    if value is None or isinstance(kind, str):
        return value
    if kind["type"] == "array":
        return [_in_file(each, kind["elementType"]) for each in value]
    return {_name(each): _in_file(value.get(each["name"]), each["type"]) for each in kind["fields"]}
