# DMail. `make help` lists what can be made.

CARGO ?= cargo
PREFIX ?= /usr/local
DEMO ?= demo
# The executable that the outside tests drive.
BUILD = $(or $(CARGO_TARGET_DIR),target)/debug/dmail
# And the one that loads it.
LOADTEST = $(or $(CARGO_TARGET_DIR),target)/debug/loadtest

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1  /p' $(MAKEFILE_LIST) | awk '{ printf "  %-10s", $$1; $$1 = ""; print }'

run: ## build dmail, make a demo folder, serve it on loopback, print lines to paste
	$(CARGO) build --release --bin dmail
	$(or $(CARGO_TARGET_DIR),target)/release/dmail demo $(DEMO)

test: ## all tests that need nothing but Rust
	$(CARGO) test --quiet

check: ## format, lints, floors, sample configuration, documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	$(CARGO) test --quiet --test floors
	$(CARGO) test --quiet --lib sample
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --no-deps --document-private-items --quiet

interop: ## the executables against real mail clients; installs them from Debian's packages when they are missing
	$(CARGO) build --quiet --bin dmail --bin loadtest
	DMAIL=$(abspath $(BUILD)) LOADTEST=$(abspath $(LOADTEST)) tests/interop/run

sim: ## the simulated disk, wide: SIM_SEEDS=n how wide, SIM_SEED=n one again
	SIM_SEEDS=$${SIM_SEEDS:-400} $(CARGO) test --release --quiet --lib store -- --nocapture

crash: ## kill -9 at random moments, many rounds, of one server and of two: CRASH_ROUNDS=n
	$(CARGO) build --quiet --bin dmail
	DMAIL=$(abspath $(BUILD)) CRASH_ROUNDS=$${CRASH_ROUNDS:-300} tests/interop/run --only kill

ledger: ## kill -9 and every fault from outside while mail comes and goes, then each message is counted: LEDGER_KILLS=n
	$(CARGO) build --release --quiet --bin dmail --bin loadtest
	LEDGER=$$(mktemp -d)/run; B=$(or $(CARGO_TARGET_DIR),target)/release; \
	  $$B/loadtest ledger $$LEDGER --dmail $$B/dmail --kills $${LEDGER_KILLS:-200} --kill-every $${LEDGER_SECS:-2} --all-faults $(LEDGER_OPTIONS) \
	  && rm -r $$LEDGER

soak: ## procmail, Postfix, mutt, Python and POP3 clients at the same drops, many rounds: SOAK_ROUNDS=n, SOAK_SECS=n
	$(CARGO) build --quiet --bin dmail
	DMAIL=$(abspath $(BUILD)) SOAK_ROUNDS=$${SOAK_ROUNDS:-300} SEED=$${SEED:-$$(date +%s)} tests/interop/run --only soak

fuzz: ## each parser against libFuzzer for FUZZ_SECS=n seconds; needs cargo-fuzz and a nightly toolchain
	for target in pop3 pop3_client smtp smtp_client sasl mbox settings helper drop queue dns; do \
	  $(CARGO) +nightly fuzz run $$target -- -max_total_time=$${FUZZ_SECS:-60} -max_len=8192 || exit 1; done

bench: hot ## the hot routines and the budgets, each beside its bound; BENCH="--quick poll retr" for fewer budgets
	$(CARGO) bench --quiet --bench budgets -- $(BENCH)

hot: ## the hot routines alone; HOT="scan --save-baseline before", then HOT="scan --baseline before"
	$(CARGO) bench --quiet --bench hot -- $(HOT)

peers: ## other mail servers, for `loadtest versus` to put beside ours, from Debian's packages; starts and changes nothing
	loadtest/peers.sh

install: ## the executable, its names and its manual pages, below PREFIX (/usr/local)
	$(CARGO) build --release --bin dmail
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/dmail
	install -m 755 $(or $(CARGO_TARGET_DIR),target)/release/dmail $(DESTDIR)$(PREFIX)/bin/dmail
	for name in dpop dsmtp tellpop tellsmtp nwauth drespond; do ln -sf dmail $(DESTDIR)$(PREFIX)/bin/$$name; done
	install -m 644 conf/dmail.conf $(DESTDIR)$(PREFIX)/share/dmail/dmail.conf
	cp -R conf/authenticators $(DESTDIR)$(PREFIX)/share/dmail/
	sed 's#/usr/local#$(PREFIX)#' conf/dmail.service > $(DESTDIR)$(PREFIX)/share/dmail/dmail.service
	$(or $(CARGO_TARGET_DIR),target)/release/dmail man -d $(DESTDIR)$(PREFIX)/share/man
	@echo "sendmail, mailq and newaliases are not linked: another mail server may have them. docs/sendmail.md says how."

.PHONY: help run test check interop sim crash ledger soak fuzz bench hot peers install
