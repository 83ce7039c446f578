# On a machine with only Python, pip and make: `make demo`, `make test`.
# uv is used where it is on the PATH; otherwise venv and pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow test-gpu bench bench-gpu check docs format sbom clean

demo: $(INSTALLED)
	$(BIN)/auditor demo

# A process that joined a Ray cluster dies with it, which is no failure of a test: those are run apart, and again.
test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not gpu and not cluster" --numprocesses auto --maxprocesses 8
	$(BIN)/python -m pytest -m "cluster and not slow and not gpu" --numprocesses 1 --timeout 120 --reruns 2

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# Half an hour on two cores that do nothing else: ratios are within one run, but only an idle machine keeps them steady.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks $(BENCH)

bench-gpu: $(INSTALLED)
	$(BIN)/python -m benchmarks step shadows scaling --device cuda $(BENCH)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, with every page that Python's docstrings make; a warning is an error.
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What a user's installation holds and nothing else: no development tools, no installer, not the tool that lists it.
sbom:
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch"' EXIT && \
	if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --python $(PYTHON) "$$scratch/tool" && \
		uv venv --quiet --python $(PYTHON) "$$scratch/runtime" && \
		uv pip install --quiet --python "$$scratch/tool/bin/python" 'cyclonedx-bom>=7' && \
		uv pip install --quiet --python "$$scratch/runtime/bin/python" .; \
	else \
		$(PYTHON) -m venv "$$scratch/tool" && \
		$(PYTHON) -m venv --without-pip "$$scratch/runtime" && \
		"$$scratch/tool/bin/python" -m pip install --quiet --upgrade pip 'cyclonedx-bom>=7' && \
		"$$scratch/tool/bin/python" -m pip --python "$$scratch/runtime/bin/python" install --quiet .; \
	fi && \
	"$$scratch/tool/bin/cyclonedx-py" environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file sbom.cdx.json "$$scratch/runtime/bin/python"

$(INSTALLED): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
		uv pip install --quiet --python $(BIN)/python -e '.[dev,docs]'; \
	else \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --upgrade pip && \
		$(BIN)/python -m pip install --quiet -e '.[dev,docs]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache audit-*
