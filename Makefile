PYTHON ?= python

.PHONY: check format lint types test docs wheel clean

check: lint types test

format:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types:
	$(PYTHON) -m mypy advrl tests

test:
	$(PYTHON) -m pytest -n 2

docs:
	$(PYTHON) -m mkdocs build --strict

wheel:
	rm -rf dist
	$(PYTHON) -m build --no-isolation

clean:
	rm -rf build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
