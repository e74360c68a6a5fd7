# make run     a whole cluster on this machine, in the foreground
# make test    lint, types, import contracts, documentation, every test once, the Raft simulator
# `make help` lists the rest. Needs Linux, Python 3.11+ with venv, and the package registries.

PYTHON ?= python3
# Where `make run` keeps its cluster, and further options for `pbcluster up`.
DIR ?= cluster
UP ?=
# Fewer tests than this is a failure: an empty suite passes trial. Raise it as tests are added.
MIN_TESTS = 2500
MIN_BESIDE_TESTS = 64
# Rounds of `make soak-crossing`, `make soak-members`, `make soak-migration` and `make soak-phases`.
N ?= 20
# Clients that write in `make soak-crossing`.
WRITERS ?= 4
# Minutes of `make soak-litestream` and `make soak-node`.
MINUTES ?= 10
# Tenants of `make soak-node`.
TENANTS ?= 50
# Further options of `make soak-node`, such as --no-kills.
SOAK ?=
# Stories and options of `make chaos`, such as "node-kill --rounds 20"; --help tells all.
CHAOS ?=
# Seconds of `make fuzz` and `make fuzz-http`.
FUZZ_S ?= 60
# Requests of each kind to each operation in `make fuzz-api`.
EXAMPLES ?= 200
# Seeds of `make sim`, and of `make test` beside its tests.
SEEDS ?= 2000
TRIAL ?= tests

VENV = .venv
BIN = $(VENV)/bin
SIM = $(BIN)/python -m pbcluster.testing.raft_sim
OWNERSHIP_SIM = $(BIN)/python -m pbcluster.testing.ownership_sim
TEST_MODULES = $(subst /,.,$(patsubst %.py,%,$(sort $(wildcard tests/test_*.py tests/*/test_*.py tests/*/*/test_*.py))))
# Tests that are nothing but computing run beside the others, which often wait.
BESIDE_TESTS = $(filter tests.controlplane.test_lease_rules tests.controlplane.test_openapi \
	tests.compiled.test_build tests.controlplane.test_phases tests.node.test_migration_world tests.simulation.% \
	tests.test_packaging, $(TEST_MODULES))
MOST = sh .ci/trial $(BIN)/python $(MIN_TESTS) $(filter-out $(BESIDE_TESTS),$(TEST_MODULES))
BESIDE = { sh .ci/compiled $(BIN)/python $(COMPILED) || true; } && $(SIM) --seeds $(SEEDS) && sh .ci/trial $(BIN)/python $(MIN_BESIDE_TESTS) --temp-directory=_trial_beside $(BESIDE_TESTS)
ONCE = sh .ci/trial $(BIN)/python $(MIN_TESTS) $(TRIAL)
# Tests that run again with the compiled modules and on the reactor of the services, that is, on
# libuv's streams instead of Twisted's; some of them on real parts.
CROSSING = tests.integration.test_crossing
COMPILED_TESTS = tests.compiled.test_in_use tests.web tests.test_rates tests.test_signing \
	$(addprefix tests.gateway.test_,access_log admission breaker figures forwarding limits lookups nodes \
		proxy routes service shedding tenant_breakers tenant_holds tenant_id updates) \
	$(addprefix tests.node.test_,assignments durability front front_limits gateway_keys old_epochs proofs \
		quotas restoring tenants tenants_in_trouble) tests.node.files.test_faults \
	$(CROSSING).SdkTests $(CROSSING).TwistedStreamsTests $(CROSSING).NodeDeathTests.test_reads_through_a_death
MIN_COMPILED_TESTS = 650
# Where the package is installed with its compiled modules, beside the checkout, which has none.
COMPILED = build/compiled
AGAIN = sh .ci/compiled $(BIN)/python $(COMPILED) $(MIN_COMPILED_TESTS) --reactor pbuvloop $(COMPILED_TESTS)
RUN_STAMP = $(VENV)/.installed-run
DEV_STAMP = $(VENV)/.installed-dev
# The newer editable installs of setuptools hide twisted/plugins from Twisted.
EDITABLE = --config-settings editable_mode=compat
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.PHONY: help run compiled test test-compiled lint types docs bench bench-raft bench-gateway bench-node soak-crossing soak-members soak-migration soak-phases soak-litestream soak-node chaos fuzz fuzz-api fuzz-http sim sim-mutants sim-ownership sim-ownership-mutants preflight clean
.DEFAULT_GOAL = help

help:
	@echo "make run                 start a whole cluster here; Ctrl-C stops it (DIR=cluster, UP='--nodes 3')"
	@echo "make test                everything that must hold, as continuous integration sees it"
	@echo "make compiled            install the package, compiled, into $(COMPILED) (needs a C compiler)"
	@echo "make test-compiled       those of the tests that run with the compiled modules too"
	@echo "make lint                ruff, mypy and the import contracts alone"
	@echo "make docs                the documentation, into docs/_build/html"
	@echo "make bench               every figure of docs/benchmarks, measured here (BENCH='--quick')"
	@echo "make bench-raft          the control plane beside etcd and PySyncObj (needs etcd; BENCH='--rounds 1')"
	@echo "make bench-gateway       the gateway beside nginx, HAProxy and Caddy (needs them and wrk; BENCH='--help')"
	@echo "make bench-node          a node's memory, wake-ups and writes (BENCH='--only sync')"
	@echo "make soak-crossing N=20  kill nodes under writing clients, N rounds (WRITERS=4)"
	@echo "make soak-members N=100  kill the control plane's leader under writing clients, N times"
	@echo "make soak-migration N=50 move a tenant under load, the leader killed in every phase, N times"
	@echo "make soak-phases N=10    kill the leader in every phase of every operation, N rounds"
	@echo "make soak-litestream MINUTES=10  restore a replica again and again under writers"
	@echo "make soak-node MINUTES=30 TENANTS=50  use tenants by fits and starts, move, kill, read back"
	@echo "make chaos               every fault story on a real cluster, judged (CHAOS='--list', CHAOS='node-kill --rounds 20')"
	@echo "make fuzz FUZZ_S=60      damaged Raft frames against the door of a member"
	@echo "make fuzz-api            the admin API against its OpenAPI document, every role (EXAMPLES=200)"
	@echo "make fuzz-http FUZZ_S=60 damaged requests and responses against the HTTP core"
	@echo "make sim SEEDS=2000      Raft members under simulated faults; FROM=a TO=b names the seeds"
	@echo "make sim-mutants         the planted bugs, each of which the simulator must catch"
	@echo "make sim-ownership SEEDS=200  who owns a tenant, under simulated faults; FROM=a TO=b too"
	@echo "make sim-ownership-mutants    its planted bugs"
	@echo "make clean               remove what was built (not the cluster in $(DIR))"

preflight:
	@sh .ci/preflight "$(PYTHON)"

$(BIN)/python: | preflight
	@echo "making $(VENV) ..."
	@"$(PYTHON)" -m venv $(VENV)

$(RUN_STAMP): pyproject.toml | preflight $(BIN)/python
	@echo "installing pbcluster into $(VENV) ..."
	@$(PIP) install $(EDITABLE) --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | preflight $(BIN)/python
	@echo "installing pbcluster and what its tests need into $(VENV) ..."
	@$(PIP) install $(EDITABLE) --editable '.[dev]'
	@touch $(RUN_STAMP) $@

compiled: $(DEV_STAMP)
	@sh .ci/compiled $(BIN)/python $(COMPILED)

test-compiled: $(DEV_STAMP)
	@$(AGAIN)

run: $(RUN_STAMP)
	@$(BIN)/pbcluster up --dir "$(DIR)" --demo $(UP)

# What was just installed is written first: else the first tests that wait for the disk wait for it.
test: $(DEV_STAMP) lint docs
	@sync
	@$(if $(filter tests,$(TRIAL)),sh .ci/beside '$(BESIDE)' '$(MOST) && $(AGAIN)',$(ONCE))

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(DEV_STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# Without a C compiler only the checkout as it stands is measured.
bench: $(DEV_STAMP)
	-@sh .ci/compiled $(BIN)/python $(COMPILED)
	$(PIP) install $(EDITABLE) --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks $(BENCH)

bench-raft: $(DEV_STAMP)
	$(PIP) install $(EDITABLE) --editable '.[dev,bench]'
	$(BIN)/python -m benchmarks.raft $(BENCH)

bench-gateway: $(DEV_STAMP)
	-@sh .ci/compiled $(BIN)/python $(COMPILED)
	$(BIN)/python -m benchmarks.gateway $(BENCH)

bench-node: $(DEV_STAMP)
	$(BIN)/python -m benchmarks.node $(BENCH)

soak-crossing: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_crossing --rounds $(N) --writers $(WRITERS)

soak-members: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_members --rounds $(N)

soak-migration: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_migration --rounds $(N)

soak-phases: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_phases --rounds $(N)

soak-litestream: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_litestream --minutes $(MINUTES)

soak-node: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.soak_node --minutes $(MINUTES) --tenants $(TENANTS) $(SOAK)

chaos: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.chaos $(CHAOS)

fuzz: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.fuzz_frames --seconds $(FUZZ_S)

fuzz-api: $(DEV_STAMP)
	$(BIN)/python -m tests.controlplane.fuzz_api --examples $(EXAMPLES)

fuzz-http: $(DEV_STAMP)
	$(BIN)/python -m pbcluster.testing.fuzz_http --seconds $(FUZZ_S)

# FROM and TO win over SEEDS.
sim: $(DEV_STAMP)
	$(SIM) $(if $(TO),--from $(or $(FROM),0) --to $(TO),--seeds $(SEEDS))

sim-mutants: $(DEV_STAMP)
	$(SIM) --mutants

sim-ownership: $(DEV_STAMP)
	$(OWNERSHIP_SIM) $(if $(TO),--from $(or $(FROM),0) --to $(TO),$(if $(filter command line environment,$(origin SEEDS)),--seeds $(SEEDS)))

sim-ownership-mutants: $(DEV_STAMP)
	$(OWNERSHIP_SIM) --mutants --seeds 400

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info _trial_temp* .mypy_cache .ruff_cache .import_linter_cache
	find pbcluster tests twisted -name __pycache__ -prune -exec rm -rf {} +
