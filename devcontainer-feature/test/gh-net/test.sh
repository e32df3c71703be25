#!/bin/bash
# With any options: the sidecar is installed and in PATH, and has changed nothing yet.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "it is found and runs" bash -c "gh-net-sidecar --version | grep -E '^gh-net-sidecar [0-9]'"
check "root owns it, and only root may change it" bash -c "stat -c '%U:%G %a' /usr/local/bin/gh-net-sidecar | grep -x 'root:root 755'"
check "it is not running" bash -c "! grep -l gh-net-sidecar /proc/[0-9]*/comm"
check "it has created no device" bash -c "! grep ghnet0 /proc/net/dev"
check "it left no state" test ! -e /run/gh-net
check "it left no temporary file" bash -c "! ls -A /usr/local/bin | grep -F .gh-net"

reportResults
