# make help lists the targets. Python 3.11 or later (make setup PYTHON=… chooses one); everything goes into .venv/.
BIN := .venv/bin
DEMO := data_cache/demo
DEMO_FIT := $(BIN)/python -m train fit --cache $(DEMO)/cache --folds 5 --fold 0 --modalities normal --epochs 4

.PHONY: help setup demo test lint faults gpu clean-demo

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: .venv/.ready ## make .venv and install what both stages need (once)

.venv/.ready: requirements.txt requirements-dev.txt setup.py .ci/setup
	@.ci/setup requirements-dev.txt $(PYTHON)

demo: setup ## synthetic scans -> cache -> trained model, tested on unseen subjects beside the obvious network (about 2 minutes)
	$(BIN)/python -m preprocess synth bu3dfe --out $(DEMO)/scans --subjects 30
	$(BIN)/python -m preprocess build bu3dfe --root $(DEMO)/scans --cache $(DEMO)/cache --size 96
	$(BIN)/python -m preprocess prompts --cache $(DEMO)/cache --model facet-tiny --pretrained synthetic-2
	$(BIN)/python -m preprocess inspect --cache $(DEMO)/cache --sheet $(DEMO)/contact-sheet.png
	$(DEMO_FIT) --out $(DEMO)/run
	$(DEMO_FIT) --out $(DEMO)/obvious --fusion mean --head linear --lambda-con 0 --lambda-vt 0 > $(DEMO)/obvious.txt
	$(BIN)/python -m train compare $(DEMO)/run $(DEMO)/obvious --name "FACET-VLM"=$(DEMO)/run --name "obvious network"=$(DEMO)/obvious > $(DEMO)/compare.txt
	@grep -A 2 '^method' $(DEMO)/compare.txt
	@echo "obvious network: a linear classifier on the averaged views, no text; $(DEMO)/compare.txt has the paired test"
	@echo "contact sheet     $(DEMO)/contact-sheet.png   (what was rendered)"
	@echo "README.md says how to run this on your own copy of BU-3DFE, with real CLIP weights"

clean-demo: ## remove what the demo wrote, to run it again from the start
	rm -rf $(DEMO)

lint: setup ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint ## ruff, mypy and pytest
	@.ci/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

faults: setup ## kill, starve and confuse builds in every way we know; their caches must come out the same (about 10 minutes)
	@status=0; for script in tests/faults/*.py; do [ $$script = tests/faults/scenario.py ] || $(BIN)/python $$script || status=1; done; exit $$status

gpu: setup ## on a machine with a GPU: its tests and its measurements, into gpu-results.md (set half an hour aside)
	$(BIN)/python tests/benchmarks/gpu.py
