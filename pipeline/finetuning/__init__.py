"""Queries with good and bad passages to a trained reranker: the room of `finetune`.

flow.py plans, resumes and finishes; loop.py goes from step to step; trainer.py does one step and knows no
files, so that it can run elsewhere; the pure parts are sampling.py (order and groups) and losses.py.
"""
