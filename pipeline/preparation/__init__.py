"""Ids and texts that lie apart, or scattered rows, to a candidate table: the room of `prepare`.

plan, tasks and joining know no Ray; executors/ says where the tasks run.
"""
