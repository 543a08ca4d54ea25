"""One file a format of candidate tables; what such a file holds stands in `pipeline.tables.candidates`."""
