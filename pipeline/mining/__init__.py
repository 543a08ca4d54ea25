"""Hard negatives: a run and what tells its positives, to training rows.

flow                  plan, refuse or resume, work, finish
executors | summary   where shards are mined; what a finished job tells
shard                 one shard read, its negatives chosen, its rows written
judged_run            the run planned, and read by query
negatives | config    which passages are a query's negatives
"""
