#!/bin/sh
# Measures this machine's GPU in under nine minutes: see benchmarks/gpu.py. The note lands in $OUT, or beside this file.
cd "$(dirname "$0")/.." || exit
python=.venv/bin/python
[ -x "$python" ] || python=python3
PYTHONPATH=. exec "$python" -m benchmarks.gpu "$@"
