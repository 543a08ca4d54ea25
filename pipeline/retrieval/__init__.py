"""Passages and queries to a candidate table: the room of `retrieve`.

A job is a row of steps, each of many tasks that know no Ray: read -> index -> search -> merge. executors/
says where tasks run, flow.py in which order. A task's data is written first, its marker last.
"""
