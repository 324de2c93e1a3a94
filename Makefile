# Everything that exhume's developers run. 'make help' lists it.

GO      ?= go
TOOLS   := bin/tools
# The linter is pinned; it is built from source, outside the module's own
# requirements.
LINT    := $(TOOLS)/golangci-lint-v2.15.0
# The S3 server of the tests, built likewise.
S3SERVER := $(TOOLS)/versitygw
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

.DEFAULT_GOAL := help

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: check
check: format-check vet lint test bench-smoke build ## all that must be green: format, vet, lint, tests, build; the benchmarks run once

# The databases that the tests start themselves. Root or sudo installs them.
.PHONY: test-deps
test-deps: $(S3SERVER) ## install what the tests need besides Go, where it is missing (Debian packages, an S3 server)
	@if ! { ls /usr/lib/postgresql/*/bin/postgres && test -x /usr/sbin/mariadbd && test -x /usr/bin/mariadb-install-db && test -x /usr/bin/redis-server; } >/dev/null 2>&1; then \
		sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
		$$sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -qy --no-install-recommends \
			postgresql mariadb-server-core mariadb-client-core redis-server; \
	fi

.PHONY: test
test: test-deps ## run all tests, with the race detector (those of the whole, which load the disk, last and alone)
	$(GO) test -race -timeout 10m ./cmd/... ./internal/... ./producer/... ./schemas/... ./worker/...
	$(GO) test -race -timeout 20m ./integration ./integration/harness
	$(MAKE) faults
	cd integration/peers && $(GO) test -race ./...

.PHONY: faults
faults: test-deps ## break everything on purpose, with new chance each time: a short selection, or FAULTS=all (SEED=… for the same again)
	$(GO) test -race -count 1 -timeout 2h ./integration/faults

.PHONY: build
build: ## build the static binary bin/exhume
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/exhume ./cmd/exhume

.PHONY: demo
demo: ## pack, restore and compare the project's own sources
	$(GO) run ./cmd/exhume demo

# Files that every machine with Go has.
BENCH_FILES = $$($(GO) env GOROOT):$$($(GO) env GOMODCACHE)

.PHONY: bench
bench: build ## measure a batch of 20,000 real files beside the bare work: items/s, ratio, stages, memory
	bin/exhume bench --files "$(BENCH_FILES)" --runs 5

.PHONY: bench-fleet
bench-fleet: build test-deps ## the same on PostgreSQL with processes of their own, and queue and ledger alone
	$(GO) test ./integration -run '^$$' -bench BenchmarkFleet -benchtime 1x

.PHONY: bench-scaling
bench-scaling: test-deps ## measure 1, 2, 4 and 8 worker processes on an archive that is slow to answer
	$(GO) test ./integration -run '^$$' -bench BenchmarkScaling -benchtime 1x

.PHONY: bench-control
bench-control: test-deps ## steer a batch of a million items, and measure fairness and limits
	EXHUME_TEST_ITEMS=1000000 $(GO) test ./integration -count 1 -run 'TestSteerMany$$' -v
	$(GO) test ./integration -run '^$$' -bench BenchmarkFairness -benchtime 1x

.PHONY: bench-peers
bench-peers: build test-deps ## measure River and asynq in turn with exhume
	cd integration/peers && $(GO) run . -exhume $(abspath bin/exhume)

.PHONY: bench-smoke
bench-smoke: test-deps ## run the benchmarks of the packages once each, to see that they run
	$(GO) test ./cmd/... ./internal/... ./producer/... ./worker/... -run '^$$' -bench . -benchtime 1x

.PHONY: bench-all
bench-all: ## run every benchmark of every package
	$(GO) test ./... -run '^$$' -bench .

ITEMS ?= 1000000
.PHONY: soak
soak: test-deps ## restore ITEMS (1,000,000) items while everything breaks, one thing after the other (SEED=… for the same again)
	ITEMS=$(ITEMS) FAULTS=all $(GO) test ./integration/faults -count 1 -run '^TestSoak$$' -v -timeout 6h

.PHONY: large
large: test-deps ## restore 900 MB from PostgreSQL and 4 GiB from object storage (minutes, 15 GB of disk)
	EXHUME_TEST_LARGE=all $(GO) test ./internal/restore -run TestLargeItems -v -timeout 30m

FUZZTIME ?= 30s
# A target whose time is over may fail with nothing but "context deadline exceeded":
# go.dev/issue/75804, which Go 1.27 mends.
.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (30s)
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; $(GO) test $$p -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) >"$$log" 2>&1 || \
				{ grep -qx '    context deadline exceeded' "$$log" && ! grep -q 'Failing input' "$$log"; } || { cat "$$log"; exit 1; }; \
		done; \
	done

.PHONY: golden
golden: ## write the golden files anew, to be read in the diff
	UPDATE_GOLDEN=1 $(GO) test ./cmd/... ./schemas/... ./internal/app/... ./internal/ledger/...

.PHONY: format
format: ## format the sources
	gofmt -w $(SOURCES)

SOURCES := cmd internal producer schemas worker integration

.PHONY: format-check
format-check:
	@out=$$(gofmt -l $(SOURCES)); test -z "$$out" || { echo "not formatted (make format):"; echo "$$out"; exit 1; }

.PHONY: vet
vet: ## run go vet
	$(GO) vet ./...
	cd integration/peers && $(GO) vet ./...

.PHONY: lint
lint: $(LINT) ## run the linters, which also guard the floors of the house
	$(LINT) run ./...
	cd integration/peers && $(abspath $(LINT)) run -c ../../.golangci.yml ./...

$(S3SERVER):
	@mkdir -p $(TOOLS)
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/versity/versitygw/cmd/versitygw@v1.8.0

$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(abspath $(TOOLS)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(subst $(TOOLS)/golangci-lint-,,$(LINT))
	@mv $(TOOLS)/golangci-lint $(LINT)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
