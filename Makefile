# Two commands do everything: `make study` and `make test`. Both need only Python >= 3.11 and make.
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: help study test slow gpu torches lint types format venv clean
.DEFAULT_GOAL := help

help:
	@echo "make study   install into .venv, then run python -m studies.bias_vs_relaxation"
	@echo "make test    install into .venv, then run the default test suite"
	@echo "make slow    the slow tests too (tens of minutes)"
	@echo "make gpu     on a machine with a CUDA GPU: its tests, and each speed goal beside what is measured (10 minutes, no network)"
	@echo "make torches engine, compile and contract tests on the oldest and the newest torch (12 GB of disk, tens of minutes)"
	@echo "make lint    ruff check and format check"
	@echo "make types   pyright on the packages"
	@echo "make format  let ruff rewrite the files"
	@echo "make venv    only create .venv and install"
	@echo "make clean   remove .venv and caches (results under runs/ stay)"

study: $(STAMP)
	@$(PY) -m studies.bias_vs_relaxation $(ARGS)

test: $(STAMP)
	@echo "the default tests take about 10 minutes on two free cores (make slow: tens of minutes)"
	@$(PY) -m pytest -n 2 --dist worksteal -p no:nbmake $(ARGS)

slow: $(STAMP)
	$(PY) -m pytest -n 2 --dist worksteal -m "slow and not gpu" $(ARGS)

# Nothing is installed but what WHEELS=DIR holds; see the file.
gpu:
	@PYTHON="$(PYTHON)" WHEELS="$(WHEELS)" .ci/gpu $(ARGS)

# Each release has a folder under .torches/; see the file for single releases and for what may be passed on.
torches:
	PYTHON="$(PYTHON)" .ci/torches $(TORCHES) -- $(ARGS)

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(STAMP)
	$(PY) -m pyright

format: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

venv: $(STAMP)

# The interpreter is tried, not only looked up: a name on the PATH may be a shim for a version that is not there.
$(PY):
	@for name in "$(PYTHON)" python3.11 python3.12 python3.13 python3 python; do \
	  if [ -n "$$name" ] && "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "creating .venv with $$("$$name" --version)"; exec "$$name" -m venv .venv; \
	  fi; \
	done; \
	echo "gradlab needs Python 3.11 or newer, and found none on the PATH; install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1

$(STAMP): pyproject.toml constraints.txt | $(PY)
	@echo "installing gradlab and what it needs into .venv: torch is large, so this takes a few minutes"
	@$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev,notebooks,baselines,warp]"
	@touch $@
	@echo "installed: torch $$($(PY) -c 'import torch; print(torch.__version__)')"

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info
