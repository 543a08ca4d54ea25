"""One file a family of models; what such a file holds stands in `pipeline.scoring.family`."""
