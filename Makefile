# Two commands matter: `make book` and `make test`. Both set up .venv first and are quick the second time.
SHELL  := /bin/sh
PYTHON ?= python3
PY     := .venv/bin/python
READY  := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help book test lab check bench refresh pins address clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make book PYTHON=/path/to/python3"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "could not create .venv; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[book,test,dev]"
	@touch $@

book: $(READY) ## run the chapters that changed, build the book, print its path
	@$(PY) tools/make_book.py

test: $(READY) ## run every test: each chapter in a clean environment, then tests/
	@failed=0; export OMP_NUM_THREADS=1; \
	$(PY) tests/book/run_chapters.py || failed=1; \
	$(PY) -m pytest -n 2 --dist loadscope || failed=1; \
	exit $$failed

lab: $(READY) ## open the chapters in JupyterLab
	@$(PY) -m jupyter lab --notebook-dir=book

check: $(READY) ## lint, format and type checks
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy

bench: $(READY) ## measure import time and the rules' cost against their floors
	@for file in $(filter-out benchmarks/timing.py,$(wildcard benchmarks/*.py)); do \
	  OMP_NUM_THREADS=1 $(PY) $$file || exit 1; done

refresh: $(READY) ## run every chapter (or CHAPTERS="path …") and store its outputs
	@$(PY) tools/refresh.py $(CHAPTERS)

pins: $(READY) ## write constraints.txt from the versions in .venv
	@$(PY) tools/pins.py

address: $(READY) ## write the project's public address everywhere: make address URL=https://…
	@$(PY) tools/address.py "$(URL)"

clean: ## remove the built book and its cache
	@rm -rf book/_build book/_generated
