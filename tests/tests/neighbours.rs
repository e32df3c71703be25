//! A codespace that forwards for others, as an ssh host on a LAN may: whose packets enter the tunnel.

use anyhow::{Result, ensure};
use gh_net_tests::lab::{Lab, Options};

/// A neighbour of the codespace on a LAN of its own, for which the codespace forwards as it does for its container.
const NEIGHBOUR: &str = "set -e
    ip netns add neighbour
    ip link add lan0 type veth peer name eth0 netns neighbour
    ip address add 172.16.9.1/24 dev lan0
    ip link set lan0 up
    ip -n neighbour address add 172.16.9.2/24 dev eth0
    ip -n neighbour link set eth0 up
    ip -n neighbour route add default via 172.16.9.1
    nft insert rule ip filter FORWARD iifname lan0 accept
    nft insert rule ip filter FORWARD oifname lan0 accept
    until ip netns exec neighbour ping -qc1 -W1 172.16.9.1 >/dev/null; do :; done";

const CURL: &str = "curl -sS --max-time 5 http://10.20.0.10/";

#[test]
fn containers_enter_the_tunnel_and_neighbours_only_if_they_are_named() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    lab.codespace.shell(NEIGHBOUR)?;
    for (from, container, neighbour) in [
        (&[][..], true, false),
        (&["--from", "none"], false, false),
        (&["--from", "172.16.9.0/24"], false, true),
        (&["--from", "auto", "--from", "172.16.9.2"], true, true),
    ] {
        let bridge = lab.bridge(from)?;
        ensure!(lab.codespace.shell(CURL)? == "hello from corp", "{from:?}: the codespace itself");
        let reached = [
            lab.nested.run(CURL)?.text(),
            lab.codespace.run(&format!("ip netns exec neighbour {CURL}"))?.text(),
        ];
        let reached = reached.map(|text| text == "hello from corp");
        ensure!(reached == [container, neighbour], "{from:?}: container, neighbour: {reached:?}");
        bridge.stop()?;
    }
    Ok(())
}
