"""Distributed reranking on Ray.

Imports point down only; tests/test_architecture.py holds this:

    rerank  prepare  evaluate ... entries: `python -m pipeline.X`
    dry_run  verification         the plan alone; the same scores everywhere?
    job  preparation  evaluation  the offline flows on Ray Data; the measures
    report                        what a job looked like, as a page
    stages  cluster  summary ...  what the flows are made of
    config  plots                 one YAML file is one whole job; numbers to marks
    totals                         the shards' reports, added up
    scoring | tables | ranking    models; files; scores to ranks: none knows the others
    errors  log
"""
