"""One file a family of models; what such a file holds stands in `pipeline.scoring.family`.

They write transformers.NAME, which imports a class when it is asked for: all families are asked whether they
handle a checkpoint, one loads it.
"""
