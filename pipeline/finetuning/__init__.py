"""Queries with good and bad passages to a trained reranker: the room of `finetune`.

flow.py plans, resumes and finishes; executors/ say where the workers are, worker.py what each one holds;
loop.py goes from step to step; trainer.py does one step and knows no files, peers.py sums over the workers;
the pure parts are sampling.py (order and groups) and losses.py.
"""
