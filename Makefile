# Koura. Two commands do everything on a fresh machine:
#   make demo    creates the environment, installs, and runs the demonstration
#   make test    the whole suite: style, types, tests
# Both work as root and as an ordinary user. KOURA_NO_APT=1: never touch Debian packages. PYTHON=python3.12: another Python.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.koura-ready
TEST_STAMP := $(VENV)/.koura-test-ready

.PHONY: demo test packages test-slow test-live-full interop lint conformance docs bench fuzz sanitize clean

demo: $(STAMP)
	@$(BIN)/koura demo

test: packages $(TEST_STAMP)
	$(BIN)/ruff check src tests tools bench examples setup.py
	$(BIN)/mypy
	@tools/run-tests $(BIN)

test-slow: $(TEST_STAMP)
	@tools/run-tests $(BIN) -m slow

test-live-full: packages $(TEST_STAMP)
	@tools/run-tests $(BIN) -m live tests/live

interop: packages $(TEST_STAMP)
	@$(BIN)/python -m tests.live.linux_peer.report

lint: $(TEST_STAMP)
	$(BIN)/ruff check src tests tools bench examples setup.py
	$(BIN)/mypy

conformance: $(TEST_STAMP)
	$(BIN)/python tools/conformance.py --write

bench: $(TEST_STAMP)
	$(BIN)/python -m bench

fuzz: $(TEST_STAMP)
	@tools/fuzz $(BIN)

sanitize: $(TEST_STAMP)
	@tools/sanitize $(BIN)

# Before the environment: the fast path is built against what is here by then.
packages:
	@tools/debian-packages

$(STAMP): pyproject.toml setup.py tools/environment $(wildcard src/koura/fast/*.p*)
	@PYTHON="$(PYTHON)" tools/environment "$(VENV)" ".[compress]"
	@touch $@

$(TEST_STAMP): pyproject.toml setup.py tools/environment $(wildcard src/koura/fast/*.p*)
	@PYTHON="$(PYTHON)" tools/environment "$(VENV)" ".[compress,test]"
	@touch $@ $(STAMP)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-output
