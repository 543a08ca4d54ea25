"""Distributed reranking on Ray.

Imports point down only; tests/test_architecture.py holds this:

    rerank  evaluate              entries: `python -m pipeline.X`
    job  dry_run  evaluation      the offline flow on Ray Data; its plan alone; the measures
    config                        one YAML file is one whole job
    scoring | tables | ranking    models; files; scores to ranks: none knows the others
    errors  log
"""
