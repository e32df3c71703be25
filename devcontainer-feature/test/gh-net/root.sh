#!/bin/bash
# root needs only the capability of the container.
set -e
# shellcheck source=/dev/null
source dev-container-features-test-lib

check "root may make tunnels" gh-net-sidecar probe
check "there is no sudoers entry" test ! -e /etc/sudoers.d/gh-net
check "there are no capabilities" bash -c "! getcap /usr/local/bin/gh-net-sidecar | grep cap_"
check "there is nothing to undo" bash -c "gh-net-sidecar cleanup | grep -x 'nothing to undo'"

reportResults
