#!/bin/bash
# Installed twice, with other options each time: the last one decides, and nothing of the first is left.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "the first was asked for something else" test "$PRIVILEGES" != "$PRIVILEGES__DEFAULT"
check "it runs" gh-net-sidecar --version
check "root may make tunnels" gh-net-sidecar probe
check "the first's entry for sudo is gone" test ! -e /etc/sudoers.d/gh-net
check "it left nothing half done" bash -c "! ls -A /usr/local/bin | grep -F .gh-net"

reportResults
