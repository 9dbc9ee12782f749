# `make demo` and `make test` need nothing installed first: .ci/setup makes .venv and brings what is missing.
# PYTHON=python3.12 picks the interpreter; ARGS="..." goes to pixelrl demo, or to pytest.

PYTHON ?=
ARGS ?=
export PYTHON
# A sourced ROS environment would put its own pytest plugins and a package named `launch` on the path.
unexport PYTHONPATH
unexport PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: demo test lint docs bench setup clean help

demo: setup ## set up, then run `pixelrl demo $(ARGS)`: data, training, rollouts and export in miniature
	@.venv/bin/pixelrl demo $(ARGS)

test: setup ## set up, then run the test suite: `pytest $(ARGS)`
	@PATH="$(CURDIR)/.venv/bin:$(PATH)" .venv/bin/python -m pytest --numprocesses 3 --dist worksteal $(ARGS)

lint: setup ## ruff, mypy --strict, and the direction of imports
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/python -m pytest tests/test_imports.py

docs: setup ## build the documentation, without a network too: build/docs/index.html
	@.venv/bin/python -m sphinx -W --keep-going -q -d build/doctrees docs build/docs $(ARGS)
	@echo build/docs/index.html

bench: setup ## time the learner against its bare arithmetic: `python -m benchmarks.learner $(ARGS)`
	@.venv/bin/python -m benchmarks.learner $(ARGS)

setup: ## make .venv and install pixelrl in it; does nothing when that is done
	@.ci/setup

clean: ## remove .venv, caches and build leftovers; never data/, runs/ or demo/
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 14
