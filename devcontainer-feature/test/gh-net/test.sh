#!/bin/bash
# What holds with any options: the sidecar is installed, found, and has done nothing yet.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "it is found and runs" bash -c "gh-net-sidecar --version | grep -E '^gh-net-sidecar [0-9]'"
check "it is root's, and nobody else may change it" bash -c "stat -c '%U:%G %a' /usr/local/bin/gh-net-sidecar | grep -x 'root:root 755'"
check "nothing of it runs" bash -c "! grep -l gh-net-sidecar /proc/[0-9]*/comm"
check "there is no device of it" bash -c "! grep ghnet0 /proc/net/dev"
check "it left no state" test ! -e /run/gh-net
check "it left nothing half done" bash -c "! ls -A /usr/local/bin | grep -F .gh-net"

reportResults
