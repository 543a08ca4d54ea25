"""One file an engine; what such a file holds stands in `pipeline.scoring.engine`."""
