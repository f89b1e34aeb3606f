# make demo · test · lint · bench · bench-cifar: each sets up .venv by itself; only Python 3.11 and make are needed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
READY := .venv/.ready

.PHONY: demo test lint bench bench-cifar clean
.DELETE_ON_ERROR:

demo: $(READY)  ## quantize EfficientNet-Lite0 for this machine, verify it, measure it
	@$(BIN)/convkit run lite0 -o out/demo

# One thread a worker: torch and the engines would otherwise each take every core from the other worker.
test: $(READY)  ## all tests, on two processes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(READY)  ## format, ruff, mypy, the direction of imports
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@echo "lint: clean"

# Each peer is installed on first use, into a venv of its own in the user's cache: tests/bench/peers/*.txt.
bench: $(READY)  ## convkit and other quantizers side by side on the same networks, held against limits
	@$(BIN)/python -m pytest tests/bench -o 'norecursedirs=.*'
	@$(BIN)/python -m tests.bench -o out/bench $(ARGS)

bench-cifar: $(READY)  ## their accuracy on CIFAR-10, 10,000 images none of them was trained for
	@$(BIN)/python -m tests.bench zero-shot -o out/bench $(ARGS)

clean:
	@rm -rf .venv out

# torch first and alone, so that nothing else can bring in another build of it.
$(READY): pyproject.toml constraints.txt examples.txt
	@echo "setting up .venv (once; torch is the big part)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt "torch==2.13.0"
	@$(PIP) install -c constraints.txt -e ".[openvino,trt-rtx,gpu,kernels,ray,dev]"
	@$(PIP) install --no-deps -r examples.txt
	@touch $@
