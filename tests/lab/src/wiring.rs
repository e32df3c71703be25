//! The lab's interfaces, addresses and routes.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;

use super::{Host, Lab};

/// The kernel limits the rate of ICMP errors, but tests need every one.
const NO_ICMP_LIMIT: &str = "
    echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
    echo 0 > /proc/sys/net/ipv6/icmp/ratelimit";
const FORWARD: &str = "
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";

/// Counts packets that must never arrive: those for the laptop's networks, and those from the codespace with a source
/// address of the tunnel. ssh's own packets are exempt: without NAT they go to the laptop's LAN address.
const COUNTERS: &str = "
    nft -f - <<'END'
    table inet lab {
        counter stray_destination { }
        counter stray_source { }
        chain arrivals {
            type filter hook prerouting priority raw
            ip saddr 172.16.5.4 tcp sport 2222 ip daddr 192.168.1.20 accept
            ip daddr { 10.0.0.0/8, 192.168.0.0/16, 100.64.0.0/10 } counter name stray_destination
            ip6 daddr { fd20::/16, fd19::/16 } counter name stray_destination
            iifname cs0 ip saddr != 172.16.5.4 counter name stray_source
            iifname cs0 ip6 saddr != { fd00:c0de::4, fe80::/10, :: } counter name stray_source
        }
    }
END";

impl Lab {
    pub(super) fn wire(&self) -> Result<()> {
        self.wire_internet()?;
        self.wire_codespace()?;
        self.wire_home()?;
        self.wire_corp()?;
        self.hosts().into_iter().try_for_each(wait_for_link_local)
    }

    fn wire_internet(&self) -> Result<()> {
        cable((&self.internet, "cs0"), (&self.codespace, "eth0"))?;
        cable((&self.internet, "home0"), (&self.home, "wan0"))?;
        self.internet.script(&format!(
            "{FORWARD}{NO_ICMP_LIMIT}{COUNTERS}
            ip addr add 203.0.113.10/32 dev lo
            ip addr add 2001:db8:113::10/128 dev lo
            ip addr add 172.16.5.1/24 dev cs0
            ip addr add 198.51.100.1/30 dev home0
            ip addr add 2001:db8:51::1/64 dev home0
            ip link set cs0 up
            ip link set home0 up"
        ))?;
        if self.options.codespace_ipv6 {
            self.internet.script("ip addr add fd00:c0de::1/64 dev cs0")?;
        }
        if !self.options.home_nat {
            self.internet.script("ip route add 192.168.1.0/24 via 198.51.100.2")?;
        }
        Ok(())
    }

    /// The docker network is set up as dockerd does it: a bridge, masquerading, and a forward chain that drops.
    fn wire_codespace(&self) -> Result<()> {
        let codespace = &self.codespace;
        codespace.script(
            "ip addr add 172.16.5.4/24 dev eth0
            ip link set eth0 up
            ip route add default via 172.16.5.1
            echo 1 > /proc/sys/net/ipv4/ip_forward
            ip link add docker0 type bridge
            ip addr add 172.17.0.1/16 dev docker0
            ip link set docker0 up
            nft -f - <<'END'
            table ip nat {
                chain POSTROUTING {
                    type nat hook postrouting priority srcnat
                    oifname != docker0 ip saddr 172.17.0.0/16 masquerade
                }
            }
            table ip filter {
                chain FORWARD {
                    type filter hook forward priority filter; policy drop
                    oifname docker0 ct state established,related accept
                    iifname docker0 accept
                }
            }
END",
        )?;
        if self.options.codespace_ipv6 {
            codespace.script(
                "ip addr add fd00:c0de::4/64 dev eth0
                ip route add default via fd00:c0de::1",
            )?;
        }
        cable((codespace, "veth0"), (&self.nested, "eth0"))?;
        codespace.script("ip link set veth0 master docker0 up")?;
        self.nested.script(
            "ip addr add 172.17.0.2/16 dev eth0
            ip link set eth0 up
            ip route add default via 172.17.0.1",
        )
    }

    fn wire_home(&self) -> Result<()> {
        cable((&self.home, "lan0"), (&self.laptop, "wlan0"))?;
        cable((&self.home, "lan1"), (&self.lan, "eth0"))?;
        self.home.script(&format!(
            "{FORWARD}{NO_ICMP_LIMIT}
            ip addr add 198.51.100.2/30 dev wan0
            ip addr add 2001:db8:51::2/64 dev wan0
            ip link set wan0 up
            ip link add br-lan type bridge
            ip addr add 192.168.1.1/24 dev br-lan
            ip addr add fd19:168::1/64 dev br-lan
            ip link set br-lan up
            ip link set lan0 master br-lan up
            ip link set lan1 master br-lan up
            ip route add default via 198.51.100.1"
        ))?;
        if self.options.home_nat {
            // Not masquerade, which forgets a connection when it leaves by another interface: by a distant line's.
            self.home.script(
                "nft 'table ip nat { chain post { type nat hook postrouting priority srcnat; \
                 oifname { wan0, far0 } snat to 198.51.100.2; }; }'",
            )?;
        }
        for (host, device, number) in [(&self.laptop, "wlan0", 20), (&self.lan, "eth0", 50)] {
            host.script(&format!(
                "ip addr add 192.168.1.{number}/24 dev {device}
                ip addr add fd19:168::{number}/64 dev {device}
                ip link set {device} up
                ip route add default via 192.168.1.1"
            ))?;
        }
        // Allow ping sockets to all groups, as systemd does; a user namespace has no more than these.
        self.laptop.script("echo '0 65535' > /proc/sys/net/ipv4/ping_group_range")
    }

    fn wire_corp(&self) -> Result<()> {
        cable((&self.laptop, "corp0"), (&self.vpn, "laptop0"))?;
        cable((&self.vpn, "corp0"), (&self.corp, "eth0"))?;
        self.laptop.script(
            "ip addr add 10.8.0.2/24 dev corp0
            ip addr add fd20:8::2/64 dev corp0
            ip link set corp0 up
            ip route add 10.20.0.0/16 via 10.8.0.1
            ip route add fd20:20::/48 via fd20:8::1",
        )?;
        self.vpn.script(&format!(
            "{FORWARD}{NO_ICMP_LIMIT}
            ip addr add 10.8.0.1/24 dev laptop0
            ip addr add fd20:8::1/64 dev laptop0
            ip addr add 10.20.0.1/16 dev corp0
            ip addr add fd20:20::1/48 dev corp0
            ip link set laptop0 up
            ip link set corp0 up"
        ))?;
        self.corp.script(&format!(
            "{NO_ICMP_LIMIT}
            for host in 10 53 66; do
                ip addr add 10.20.0.$host/16 dev eth0
                ip addr add fd20:20::$host/48 dev eth0
            done
            ip link set eth0 up
            ip route add default via 10.20.0.1
            ip route add default via fd20:20::1
            nft 'table inet lab {{ chain arrivals {{ type filter hook input priority filter; \
                ip daddr 10.20.0.66 drop; ip6 daddr fd20:20::66 drop; }}; }}'"
        ))
    }

    /// (Re)starts the nested container. It gets the codespace's present resolvers except loopback and IPv6 ones, as
    /// docker does for a network without IPv6.
    ///
    /// # Errors
    /// Files can't be read or written.
    pub fn start_container(&self) -> Result<()> {
        let codespace = self.codespace.read("/etc/resolv.conf")?;
        let usable = |line: &&str| match line.strip_prefix("nameserver ") {
            Some(server) => !server.starts_with("127.") && !server.contains(':'),
            None => true,
        };
        let container: String = codespace.lines().filter(usable).map(|line| format!("{line}\n")).collect();
        self.nested.write("/etc/resolv.conf", 0o644, container)
    }

    /// The number of packets that have reached the internet's router and must not.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn leaks(&self) -> Result<u64> {
        self.internet.counted_packets()
    }
}

/// Connects an interface of one host with an interface of another.
fn cable((left, left_name): (&Host, &str), (right, right_name): (&Host, &str)) -> Result<()> {
    let mut command = left.command("/bin/sh");
    // The right host's namespace has no name, so it is passed as stdin.
    command
        .stdin(Stdio::from(right.net().try_clone()?))
        .arg("-c")
        .arg(format!("ip link add {left_name} type veth peer name {right_name} netns /proc/self/fd/0"));
    left.start(command)?.finish(Duration::from_secs(10))?.ok().map(drop)
}

/// The kernel assigns link-local addresses and routes a moment after an interface is up.
fn wait_for_link_local(host: &Host) -> Result<()> {
    host.script(
        "up() { ip -o link show up | grep -vc LOOPBACK; }
        ready() { ip -6 route show table local | grep -c '^local fe80'; }
        for attempt in $(seq 500); do
            test \"$(ready)\" -ge \"$(up)\" && exit
            sleep 0.01
        done
        ip -6 addr; exit 1",
    )
}
