#!/bin/bash
# Installed twice, with different options: the last run takes effect, and nothing of the first remains.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "the first had other options" test "$PRIVILEGES" != "$PRIVILEGES__DEFAULT"
check "it runs" gh-net-sidecar --version
check "root may make tunnels" gh-net-sidecar probe
check "the sudoers entry of the first is gone" test ! -e /etc/sudoers.d/gh-net
check "it left no temporary file" bash -c "! ls -A /usr/local/bin | grep -F .gh-net"

reportResults
