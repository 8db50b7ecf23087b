# Everything sets itself up in .venv from Python >= 3.11, a C++20 compiler and the package registry.
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin
SOURCES := CMakeLists.txt setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*/*)
PIP_FLAGS := --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test parity bench lint clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1 - /p' Makefile

demo: .venv/native ## segment two portraits and show where the milliseconds go
	$(BIN)/fastseg demo -o demo_output

test: .venv/native .venv/extras ## check everything that is promised
	$(BIN)/python -m pytest tests --ignore tests/parity $(PYTEST_FLAGS)

parity: .venv-parity/ready ## compare with torchvision, torchmetrics and others, in .venv-parity
	$(PARITY)/python -m pytest tests/parity $(PYTEST_FLAGS)

bench: .venv/native .venv/extras ## measure against PyTorch, record the rows, draw the tables
	$(BIN)/python -m pytest benchmarks $(BENCH_FLAGS)
	$(BIN)/python benchmarks/report.py

lint: .venv/native .venv/lint ## formatting, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h)
	$(BIN)/mypy fastseg

# torch comes first and pinned: any other package could ask for another build of it.
.venv/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastseg needs Python 3.11 or later, got " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade pip setuptools wheel
	$(BIN)/python -m pip install $(PIP_FLAGS) torch cmake ninja pybind11 numpy
	@touch $@

.venv/native: .venv/torch $(SOURCES)
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-build-isolation -e ".[demo]"
	@touch $@

.venv/extras: .venv/native pyproject.toml
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-build-isolation -e ".[demo,train,test]"
	@touch $@

.venv/lint: .venv/native pyproject.toml
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-build-isolation -e ".[demo,train,test,lint]"
	@touch $@

.venv-parity/ready: constraints.txt $(SOURCES)
	$(PYTHON) -m venv .venv-parity
	$(PARITY)/python -m pip install $(PIP_FLAGS) --upgrade pip setuptools wheel
	$(PARITY)/python -m pip install $(PIP_FLAGS) torch cmake ninja pybind11 numpy
	$(PARITY)/python -m pip install $(PIP_FLAGS) --no-deps torchvision
	$(PARITY)/python -m pip install $(PIP_FLAGS) --no-build-isolation -e ".[demo,train,test,parity]"
	@touch $@

clean: ## remove the environments and what was built
	rm -rf .venv .venv-parity build fastseg/lib fastseg/_C*.so *.egg-info demo_output
