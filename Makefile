# Everything sets itself up: Python >= 3.11 with venv, a C++20 compiler and pip's registry are enough.
PYTHON ?= python3
VENV := .venv
PARITY := .venv-parity
VIZ := .venv-triton-viz
NATIVE := $(shell find csrc -type f) CMakeLists.txt setup.py
SOURCES := $(shell find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The build looks for cmake and ninja on the path.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help demo test parity bench lint gpu-check
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/built ## segment two portraits and compare stock PyTorch with fastseg
	$(VENV)/bin/fastseg demo

test: $(VENV)/built ## everything but the comparison with peers, a quarter of an hour on two cores
	$(VENV)/bin/python -m pytest -n 2 --dist loadgroup --ignore tests/parity --ignore tests/sanitizer $(PYTEST)

parity: $(PARITY)/installed ## compare with torchvision, torchmetrics, scikit-learn and others
	$(PARITY)/bin/python -m pytest tests/parity $(PYTEST)

gpu-check: $(VENV)/built $(VIZ)/installed ## prove the GPU kernels without a GPU: host, interpreter, machine code, mutants
	$(VENV)/bin/python -m fastseg.testing.ladder.host
	$(VENV)/bin/python -m fastseg.testing.ladder.interpreter
	$(VENV)/bin/python -m pytest tests/gpu/test_limits.py $(PYTEST)
	$(VIZ)/bin/python -m fastseg.testing.ladder.sanitizer
	$(VIZ)/bin/python -m pytest tests/sanitizer $(PYTEST)
	$(VENV)/bin/fastseg gpu-report --compile
	$(VENV)/bin/python -m fastseg.testing.ladder.mutation
	$(VENV)/bin/python benchmarks/report.py

bench: $(VENV)/built ## time the goals' rows, record them, draw the README's table from them
	$(VENV)/bin/python -m pytest benchmarks $(PYTEST)
	$(VENV)/bin/python benchmarks/report.py

lint: $(VENV)/installed ## ruff, clang-format, mypy on the public API
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(SOURCES)
	$(VENV)/bin/mypy fastseg

# torch first and pinned: nothing after it may pull another one.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) setuptools wheel torch
	$(VENV)/bin/python $(PIP_INSTALL) cmake ninja pybind11
	$(VENV)/bin/python $(PIP_INSTALL) --no-build-isolation -e ".[demo,lint,test,train]"
	touch $@

$(VENV)/built: $(VENV)/installed $(NATIVE)
	$(VENV)/bin/python setup.py -q build_ext --inplace
	touch $@

# The library in the tree serves this environment too. These would ask for their own torch.
$(PARITY)/installed: $(VENV)/built
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python $(PIP_INSTALL) setuptools wheel torch
	$(PARITY)/bin/python $(PIP_INSTALL) --no-deps torchvision monai kornia kornia-rs pycocotools edt medpy surface-distance
	$(PARITY)/bin/python $(PIP_INSTALL) pydensecrf2 scikit-learn segmentation-models-pytorch timm
	FASTSEG_NATIVE=0 $(PARITY)/bin/python $(PIP_INSTALL) --no-build-isolation -e ".[demo,test,train]"
	touch $@

# triton-viz 3.0 wants this Triton, whatever Triton the tests run with.
$(VIZ)/installed: $(VENV)/installed
	test -x $(VIZ)/bin/python || $(PYTHON) -m venv $(VIZ)
	$(VIZ)/bin/python $(PIP_INSTALL) setuptools wheel torch
	$(VIZ)/bin/python $(PIP_INSTALL) triton==3.7.1 triton-viz==3.0 numpy hypothesis pytest
	FASTSEG_NATIVE=0 $(VIZ)/bin/python $(PIP_INSTALL) --no-build-isolation -e .
	touch $@
