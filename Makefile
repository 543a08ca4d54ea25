# Two commands for a fresh clone: `make demo` and `make test`. Both set up .venv first, from requirements.lock.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo serve bench test tests-with-ray tests-without-ray check docs lock clean

demo: .venv/installed
	$(BIN)/python -m pipeline.retrieve --config configs/retrieve/demo.yaml
	$(BIN)/python -m pipeline.rerank --config configs/rerank/demo.yaml --set input.path=out/retrieved/candidates/ --set actors.max=1
	$(BIN)/python -m pipeline.evaluate --run out/demo --qrels examples/qrels.txt --baseline out/retrieved/run.trec
	$(BIN)/python examples/show_best.py out/demo q02 q25

# On http://127.0.0.1:8000, until Ctrl-C.
serve: .venv/installed
	RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.app:guard $(BIN)/serve run configs/serve/rerank.yaml

# Some minutes: is it as fast as the result that is kept?
bench: .venv/installed
	PYTHONPATH=. $(BIN)/python benchmarks/bench.py --out out/bench
	$(BIN)/python benchmarks/compare.py benchmarks/results.json out/bench.json

test: check
	$(MAKE) --jobs=2 tests-with-ray tests-without-ray

# Side by side, since those with Ray wait much: for processes to start, for stores, for time to pass.
tests-with-ray: .venv/installed
	$(BIN)/python -m pytest -m ray

tests-without-ray: .venv/installed
	$(BIN)/python -m pytest -m "not ray"

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Into out/site: open out/site/index.html, or run `.venv/bin/mkdocs serve`, which has the search, too.
docs: .venv/installed
	$(BIN)/python -m docs.site.reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# Pins what is installed now; run it in an environment that was made from pyproject.toml's `dev` extra.
lock:
	$(BIN)/pip freeze --exclude-editable --exclude rayrank | sed 's/^\(torch==[0-9.]*\)+.*/\1/' > requirements.lock

clean:
	rm -rf .venv out
