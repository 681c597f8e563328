# make demo   environment, build, a talking portrait from examples/ in demo.mp4
# make serve  the same, and a page on which to talk to it: http://127.0.0.1:8400/
# make test   the tests, without torch (what needs it is skipped with one line)
# make lint   ruff and mypy
# make wasm   the core for browsers, core.wasm, beside the page: with it a page can draw the face itself
# make wheel  wheels of this platform in dist/, one for each Python; on Linux it needs Docker or Podman
# make adapters   the tests of the LiveKit and Pipecat adapters
# make cluster    the tests on Ray
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -q --disable-pip-version-check -c constraints.txt
NATIVE := setup.py $(wildcard csrc/*.h csrc/*.cpp csrc/*/*.h csrc/*/*.cpp)

.PHONY: demo serve test lint torch wasm adapters cluster wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.ready
	$(VENV)/bin/ditto animate examples/portrait.jpg examples/speech.flac -o demo.mp4

serve: $(VENV)/.serve
	$(VENV)/bin/ditto serve

# Two processes, each with its own files of tests; `pytest` alone runs them all in one.
test: $(VENV)/.test
	$(PY) -m pytest -n 2 --dist loadfile

lint: $(VENV)/.test
	$(PY) -m ruff check .
	$(PY) -m mypy -p ditto

# The package index gives a CUDA build of gigabytes on many machines; only training and the tests against it need torch.
torch: $(VENV)/.ready
	$(PIP) torch==2.13.0 onnx==1.18.0 onnxscript==0.7.2 huggingface_hub

$(VENV)/.packages: requirements/base.txt requirements/build.txt constraints.txt
	@echo "1/2 installing packages into $(VENV) (a minute or two)"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/base.txt -r requirements/build.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.packages pyproject.toml $(NATIVE)
	@echo "2/2 building the native module"
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.serve: $(VENV)/.ready
	$(PIP) fastapi uvicorn websockets aiortc prometheus-client
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	$(PIP) pytest pytest-xdist hypothesis jsonschema ruff mypy httpx selenium python-osc
	@touch $@

wasm: $(VENV)/.packages
	$(PIP) ziglang
	$(PY) csrc/core/wasm/build.py

# In an environment of their own: they bring many packages (docs/adapters.md).
adapters:
	$(MAKE) VENV=.venv-adapters .venv-adapters/.test
	.venv-adapters/bin/python -m pip install -q --disable-pip-version-check -r requirements/adapters.txt
	.venv-adapters/bin/python -m pytest tests/live/adapters/test_adapters.py tests/live/adapters/test_livekit.py tests/live/adapters/test_pipecat.py

cluster:
	$(MAKE) VENV=.venv-cluster .venv-cluster/.test
	.venv-cluster/bin/python -m pip install -q --disable-pip-version-check 'ray[serve]>=2.51' prometheus-client pyyaml
	.venv-cluster/bin/python -m pytest tests/cluster/test_cluster_ray.py tests/cluster/test_cluster_serve.py

wheel: $(VENV)/.packages
	$(PIP) cibuildwheel
	$(PY) -m cibuildwheel --output-dir dist

clean:
	rm -rf build dist *.egg-info ditto/_native*.so demo.mp4
