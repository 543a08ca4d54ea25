"""Ids and texts that lie apart, or scattered rows, to a candidate table: the flow of `prepare`.

flow runs on Ray Data; plan, stages and joining know no Ray.
"""
