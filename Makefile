# make help lists the commands. All need Linux, Go, make, git and apt; those that
# mount or start a cluster need root.
GOTESTSUM   = go run gotest.tools/gotestsum@v1.13.0 --format pkgname
GOLANGCI    = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = go run golang.org/x/vuln/cmd/govulncheck@v1.9.0
STATICCHECK = go run honnef.co/go/tools/cmd/staticcheck@v0.8.2
BUILD       = $(CURDIR)/.build
VERSION    ?= dev
LAB         = cd test && go run ./lab
RACE        = ./component ./faults
PROCESS     = ./bench ./canary ./chart ./compatibility ./conformance ./image ./monitoring ./parts ./postgres ./release ./tally ./textlint ./usermode ./vaultserver
END_TO_END  = ./cluster/... ./e2e

.PHONY: help build image lint vulncheck manifests test conformance attacks soak bench e2e demo demo-down fuzz

help: ## List the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## Build the static binary into .build/
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BUILD)/vaultmount ./cmd/vaultmount

image: ## Build the image for amd64 and arm64, with SBOMs, into .build/vaultmount.tar; no container engine needed
	@$(LAB) image --version $(VERSION) $(BUILD)

lint: ## Check format, go vet, staticcheck, .golangci.yml, .ci/words and go.mod of both modules
	@test -z "$$(gofmt -l . | tee /dev/stderr)"
	go vet ./... && $(STATICCHECK) ./... && $(GOLANGCI) run ./... && go mod tidy -diff
	cd test && go vet ./... && $(STATICCHECK) ./... && $(GOLANGCI) run --config ../.golangci.yml ./... && go mod tidy -diff
	cd test && go run ./textlint ..

vulncheck: ## Hold what is linked against Go's vulnerability database, over the network
	$(GOVULNCHECK) ./...

manifests: ## Make the manifests of deploy/ and the table of values from the chart; make test says when it is due
	cd test && go test -count=1 ./chart -run 'TestManifests|TestGolden|TestValuesTable' -update

test: ## Unit and component tests, with the race detector where the driver is in the test's process; builds Vault and Helm once (8 min)
	@$(MAKE) --no-print-directory --keep-going --jobs=3 test-unit test-race test-process
	@$(MAKE) --no-print-directory test-attacks

# Two of the three compute while the third waits: for alerts, leases, timeouts.
.PHONY: test-unit test-race test-process test-attacks
test-unit:
	@mkdir -p $(BUILD)
	$(GOTESTSUM) --jsonfile $(BUILD)/unit.json -- -race -count=1 ./...
test-race: # tests that run the driver in their own process
	@mkdir -p $(BUILD)
	cd test && $(GOTESTSUM) --jsonfile $(BUILD)/race.json -- -race -count=1 -parallel 8 -timeout 30m $(RACE)
test-process: # tests of the program, of the chart and of what is given out; many of them wait
	@mkdir -p $(BUILD)
	cd test && $(GOTESTSUM) --jsonfile $(BUILD)/process.json -- -count=1 -p 4 -timeout 30m $(PROCESS)
test-attacks: # by themselves: they compare how long pods take to start
	@mkdir -p $(BUILD)
	cd test && $(GOTESTSUM) --jsonfile $(BUILD)/attacks.json -- -count=1 -parallel 8 ./attacks

conformance: ## csi-sanity and all faults, and the table of what survived in deploy/OPERATIONS.md
	@mkdir -p $(BUILD)
	cd test && $(GOTESTSUM) --jsonfile $(BUILD)/conformance.json -- -race -count=1 ./conformance
	cd test && VAULTMOUNT_LONG=1 $(GOTESTSUM) --jsonfile $(BUILD)/faults.json -- -race -count=1 -parallel 8 -timeout 40m ./faults
	cd test && go run ./tally/table -into ../deploy/OPERATIONS.md $(BUILD)/conformance.json $(BUILD)/faults.json

attacks: ## All attacks of one tenant on the pods of another, and the table of what held in deploy/OPERATIONS.md; make test has them in small
	@mkdir -p $(BUILD)
	cd test && VAULTMOUNT_LONG=1 $(GOTESTSUM) --jsonfile $(BUILD)/attacks.json -- -count=1 -parallel 8 -timeout 60m ./attacks
	cd test && go run ./tally/table -into ../deploy/OPERATIONS.md -name attacks $(BUILD)/attacks.json

soak: ## 200 volumes through faults drawn at random (VAULTMOUNT_SOAK=30m), and what must stay fresh (5 min); make test has both in small
	cd test && VAULTMOUNT_SOAK=$(or $(VAULTMOUNT_SOAK),30m) go test -race -count=1 -timeout 24h -v -run 'TestSoak' ./faults
	cd test && VAULTMOUNT_LONG=1 go test -race -count=1 -parallel 8 -timeout 20m -v -run 'TestDynamic|TestCertificate|TestTokenFileHolds' ./component

bench: ## Hold vaultmount against the Vault Agent and a bare client (8 min); fails if a ratio got a quarter worse; UPDATE=1 writes test/bench/REPORT.md
	@mkdir -p $(BUILD)/bench
	cd test && go test ./bench -run NONE -bench SideBySide -benchtime 1x -timeout 30m $(if $(UPDATE),-update,-out $(BUILD)/bench)

e2e: ## End-to-end tests on a one-node cluster; builds Kubernetes and containerd once (8 min)
	@mkdir -p $(BUILD)
	@$(LAB) build --runtime current
	cd test && $(GOTESTSUM) --jsonfile $(BUILD)/e2e.json --format testname -- -count=1 -p 1 -timeout 30m $(END_TO_END)

fuzz: ## Fuzz each parser for FUZZTIME (60s; 500x for so many inputs)
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z]*' cmd driver provider | sort | while IFS=: read -r file target; do \
		set -- ./$$(dirname $$file) -run NONE -fuzz "^$${target#func }$$" -fuzztime $(or $(FUZZTIME),60s) -fuzzminimizetime 20x; \
		echo "go test $$*"; go test "$$@" </dev/null || exit; \
	done

demo: ## From nothing to the injector's tutorial, played step by step; KEEP=1 leaves the cluster up
	@$(LAB) demo $(if $(KEEP),--keep)

demo-down: ## End the cluster of make demo KEEP=1
	@$(LAB) down
