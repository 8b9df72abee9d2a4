# make demo     set up, run the first use case with real packets, show its report
# make test     set up, pass the tests
# The command line is then at .venv/bin/testbed.

BIN := .venv/bin
.PHONY: help setup vm demo test lint bench clean

help:
	@sed -n 's/^# //p' Makefile

setup:
	@./setup.sh

vm:
	@./setup.sh vm

demo: setup
	$(BIN)/testbed run trusted_pooling --quick

test: setup
	$(BIN)/pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/testbed bench all --fetch

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
