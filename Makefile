# Brewline. `make help` lists what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git -c safe.directory='*' describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -X main.version=$(VERSION)

# The Opus binding needs libopus alone with this tag, not libopusfile. The
# version is stamped above, also where the checkout belongs to somebody else.
export GOFLAGS := $(strip $(GOFLAGS) -tags=nolibopusfile -buildvcs=false)
export CGO_ENABLED = 1

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 10s
PKG ?= ./...
# -v with V=1
V_FLAG = $(if $(V),-v)

.PHONY: help deps deps-build deps-long build demo test test-all lint fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what is missing to build and to test (Debian packages, asks for root only then)
	@scripts/deps build test

deps-build:
	@scripts/deps build

deps-long:
	@scripts/deps long

build: deps-build ## build bin/brewline
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

demo: deps-build ## three simulated shards, a participant, a phone call, and listen; STAY=1 keeps it running for a softphone
	go build -ldflags '$(LDFLAGS)' -o bin/brewline ./cmd/brewline
	go run ./cmd/brewline-demo $(if $(STAY),-stay)

test: deps ## every test but the long ones, with the race detector; V=1 names each; PKG=./sip/... for some
	BREWLINE_REQUIRE_TOOLS=1 go test -race -count=1 -timeout=20m $(V_FLAG) $(PKG)

test-all: deps deps-long ## every test with the long ones, without the race detector
	BREWLINE_REQUIRE_TOOLS=1 BREWLINE_LONG=1 go test -count=1 -timeout=40m $(V_FLAG) $(PKG)

lint: deps-build ## gofmt, go vet, staticcheck, table of allowed imports, wording
	@test -z "$$(gofmt -l .)" || { echo "not formatted, run gofmt -w:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go run ./internal/lint
	bash -n scripts/* .ci/run

fuzz: deps-build ## fuzz every parser for FUZZTIME each (10s)
	@scripts/fuzz $(FUZZTIME) $(PKG)

bench: deps ## measure: one line "figure <name> <value> <unit> [floor <value>]" each
	go run ./internal/bench

clean: ## remove what was built
	rm -rf bin demo-out
