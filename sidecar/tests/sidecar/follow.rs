//! The session follows the codespace: its networks, its resolvers, and what other programs do to the hooks.

use std::time::Duration;

use gh_net_common::frame::{Codespace, Dns, DnsMode, Frame, Goodbye, Level, Notice, Reason, Rebind};
use tokio::time::{Instant, sleep};

use crate::codespace::{in_codespace, route_to, sh, sidecar, snapshot};
use crate::laptop::{Laptop, net, resume, routes};

/// Time limit for what happens in the codespace.
const PATIENCE: Duration = Duration::from_secs(20);

fn dns() -> Frame {
    Frame::Dns(Dns {
        mode: DnsMode::Split,
        search: vec!["corp.example".into()],
        domains: vec![],
        rebind: Rebind::Refuse,
    })
}

/// A session with routes and names.
async fn session(grace: u32) -> (Laptop, gh_net_common::frame::Opened) {
    let (mut laptop, opened) = Laptop::session(grace).await;
    laptop.send(&[routes(&["10.20.0.0/16", "fd20::/32"]), dns()]).await;
    laptop.settle().await;
    assert!(is_hooked());
    (laptop, opened)
}

async fn end(mut laptop: Laptop) {
    laptop.send(&[Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })]).await;
    laptop.goodbye().await;
}

async fn codespace(laptop: &mut Laptop) -> Codespace {
    laptop
        .until(|frame| match frame {
            Frame::Codespace(codespace) => Some(codespace),
            _ => None,
        })
        .await
}

async fn notice(laptop: &mut Laptop, code: &str) -> Notice {
    laptop
        .until(|frame| match frame {
            Frame::Notice(notice) if notice.code == code => Some(notice),
            _ => None,
        })
        .await
}

async fn resolver_hook(laptop: &mut Laptop) -> bool {
    laptop.send(&[Frame::AskStatus]).await;
    laptop
        .until(|frame| match frame {
            Frame::SidecarStatus(status) => Some(status.resolver_hook),
            _ => None,
        })
        .await
}

fn is_hooked() -> bool {
    sh("cat /etc/resolv.conf").contains("nameserver 198.19.240.1\n")
}

/// Waits until `holds`, in a codespace that nobody tells us of.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

const DOCKER: &str =
    "ip link add docker1 type bridge; ip address add 10.20.3.1/24 dev docker1; ip link set docker1 up";

#[test]
fn a_network_of_the_codespace_that_comes_wins_and_is_told_also_when_it_goes() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        assert!(route_to("10.20.3.7").contains("dev ghnet0"));
        sh(DOCKER);
        assert!(route_to("10.20.3.7").contains("dev docker1"), "at once");
        let own = codespace(&mut laptop).await;
        assert!(own.networks.contains(&net("10.20.3.0/24")) && own.networks.contains(&net("172.16.5.0/24")));
        let Notice { text, .. } = notice(&mut laptop, "overlap").await;
        assert_eq!(
            text,
            "the codespace now reaches 10.20.3.0/24 by itself (docker1): it wins over the laptop's route"
        );
        // One that does not overlap is no news for the user.
        sh(
            "ip link add docker2 type bridge; ip address add 172.18.0.1/16 dev docker2; ip link set docker2 up",
        );
        assert!(codespace(&mut laptop).await.networks.contains(&net("172.18.0.0/16")));
        sh("ip link delete docker1");
        let own = codespace(&mut laptop).await;
        assert!(!own.networks.contains(&net("10.20.3.0/24")));
        let Notice { text, .. } = notice(&mut laptop, "overlap-ended").await;
        assert!(text.contains("10.20.3.0/24 by itself (docker1)"), "{text}");
        assert!(route_to("10.20.3.7").contains("dev ghnet0"));
    });
}

#[test]
fn the_packets_of_a_new_bridge_enter_the_tunnel_while_changes_go_on() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        // Changes without a pause, until the end of the test removes what they are counted in.
        sh("mkdir /run/changes
            (while test -d /run/changes; do ip address add 192.0.2.1/32 dev far; ip address del 192.0.2.1/32 dev far; done) >/dev/null 2>&1 &");
        sh("ip link add br-new type bridge; ip address add 172.18.0.1/16 dev br-new; ip link set br-new up");
        // Told in the middle of the series.
        while !codespace(&mut laptop).await.networks.contains(&net("172.18.0.0/16")) {}
        let rules = sh("ip rule");
        sh("rmdir /run/changes");
        assert!(rules.contains("iif br-new lookup 26727"), "{rules}");
        laptop.settle().await;
    });
}

#[test]
fn bridges_that_there_is_no_room_for_are_told() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        sh("for number in $(seq 100 164); do ip link add br-$number type bridge; done");
        let Notice { level, text, .. } = notice(&mut laptop, "left-out").await;
        assert!(level == Level::Warning && text.contains("more than 64 bridges"), "{text}");
        let status = String::from_utf8(sidecar(&["status"]).stdout).unwrap();
        assert!(status.contains("left out  packets of containers behind br-164"), "{status}");
        // Each change, not only the first one.
        sh("ip link add br-165 type bridge");
        let Notice { text, .. } = notice(&mut laptop, "left-out").await;
        assert!(text.contains("behind br-164, br-165 do not"), "{text}");
        sh("ip link delete br-100; ip link delete br-101");
        let Notice { level, text, .. } = notice(&mut laptop, "left-out-ended").await;
        assert!(level == Level::Info && text.contains("br-165"), "{text}");
        laptop.settle().await;
    });
}

#[test]
fn a_change_wakes_a_quiet_link() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        laptop.send(&[Frame::Quiet(3600)]).await;
        laptop.until(|frame| (frame == Frame::Quiet(0)).then_some(())).await;
        sh(DOCKER);
        assert!(codespace(&mut laptop).await.networks.contains(&net("10.20.3.0/24")));
        // A laptop that does not hear it has to be noticed.
        laptop.wait_for_ping().await;
    });
}

#[test]
fn a_network_that_overlaps_nothing_is_told_when_the_link_wakes() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        laptop.send(&[Frame::Quiet(3600)]).await;
        laptop.until(|frame| (frame == Frame::Quiet(0)).then_some(())).await;
        sh(
            "ip link add docker2 type bridge; ip address add 172.18.0.1/16 dev docker2; ip link set docker2 up",
        );
        laptop.hears_nothing_for(Duration::from_secs(2)).await;
        laptop.send(&[Frame::AskStatus]).await;
        assert!(codespace(&mut laptop).await.networks.contains(&net("172.18.0.0/16")));
    });
}

#[test]
fn networks_in_another_table_of_the_codespace_win_as_well() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = session(0).await;
        // As a rule that was there before the session; a later one would come before ours and win by itself.
        sh("ip route add 10.20.4.0/24 dev eth0 table 100; ip route add default via 172.16.5.9 table 100
            ip rule add pref 32000 lookup 100");
        assert!(codespace(&mut laptop).await.networks.contains(&net("10.20.4.0/24")));
        assert!(notice(&mut laptop, "overlap").await.text.contains("10.20.4.0/24 by itself (eth0)"));
        assert!(route_to("10.20.4.7").contains("dev eth0"), "{}", route_to("10.20.4.7"));
        assert!(route_to("10.20.5.7").contains("dev ghnet0"), "its default route does not win");
        // Its route may go without a packet for the laptop leaving by its default route.
        sh("ip route del 10.20.4.0/24 dev eth0 table 100");
        assert!(route_to("10.20.4.7").contains("dev ghnet0"));
        notice(&mut laptop, "overlap-ended").await;
        assert!(!sh("ip rule").contains("lookup 100 suppress_prefixlength 0"));
        sh("ip rule del pref 32000; ip route flush table 100");
        end(laptop).await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn rules_that_lead_past_the_tunnel_are_told() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        sh("ip route add default via 172.16.5.9 table 100; ip rule add pref 100 lookup 100");
        let Notice { level, text, .. } = notice(&mut laptop, "hook-bypassed").await;
        assert_eq!(level, Level::Warning);
        assert!(text.contains("lead packets for the laptop's networks to eth0"), "{text}");
        laptop.settle().await;
    });
    // Also if they were there before the session.
    in_codespace(|| async {
        sh("ip -6 route add default via 2001:db8:5::9 table 100; ip -6 rule add pref 100 lookup 100");
        let (mut laptop, _) = Laptop::session(0).await;
        notice(&mut laptop, "hook-bypassed").await;
    });
}

#[test]
fn another_default_gateway_stays_out_of_the_tunnel() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        sh(
            "ip route add 10.20.9.0/24 dev eth0; ip route replace default via 10.20.9.1; ip route del 10.20.9.0/24",
        );
        // Without an exception the gateway would be looked up in the tunnel.
        eventually("the gateway is in the tunnel", || route_to("10.20.9.1").contains("dev eth0")).await;
        assert!(route_to("10.20.9.2").contains("dev ghnet0"));
        sh("ip route replace default via 172.16.5.1");
        eventually("the old gateway is not", || route_to("10.20.9.1").contains("dev ghnet0")).await;
        laptop.settle().await;
    });
}

#[test]
fn other_resolvers_are_told_and_stay_out_of_the_tunnel() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        sh("printf 'nameserver 10.20.0.53\\nnameserver 172.16.5.53\\n' > /etc/resolv.conf");
        let own = codespace(&mut laptop).await;
        assert_eq!(
            own.resolvers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.20.0.53", "172.16.5.53"]
        );
        assert!(route_to("10.20.0.53").contains("via 172.16.5.1"), "{}", route_to("10.20.0.53"));
        assert!(is_hooked());
        end(laptop).await;
        assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 10.20.0.53\nnameserver 172.16.5.53\n");
    });
}

#[test]
fn what_another_program_takes_from_the_hook_is_set_again() {
    for (damage, named) in [
        ("ip rule del pref 30001", "the routing rule 30001 (iif lo lookup 26727, IPv4)"),
        ("ip rule del pref 30000", "the routing rule 30000 (lookup 254, IPv4)"),
        ("ip -6 rule del pref 30001", "the routing rule 30001 (iif lo lookup 26727, IPv6)"),
        ("ip route flush table 26727", "routes"),
        ("ip route del 10.20.0.0/16 table 26727", "routes"),
        ("ip route replace blackhole 10.20.0.0/16 table 26727", "routes"),
        ("ip address del 198.19.240.1/30 dev ghnet0", "the address 198.19.240.1"),
        (
            "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default",
            "the routing rule",
        ),
        ("ip address flush dev ghnet0", "the address 198.19.240.1"),
        ("ip link set ghnet0 down", "the device from service"),
    ] {
        in_codespace(move || async move {
            let before = snapshot();
            let (mut laptop, _) = session(0).await;
            let hooked = snapshot();
            sh(damage);
            let Notice { level, text, .. } = notice(&mut laptop, "hook-repaired").await;
            assert_eq!(level, Level::Warning);
            assert!(text.contains(named), "{damage}: {text}");
            eventually(damage, || snapshot() == hooked).await;
            end(laptop).await;
            assert_eq!(snapshot(), before, "{damage}");
        });
    }
}

#[test]
fn a_family_that_is_disabled_is_given_up_once_and_the_other_is_still_repaired() {
    in_codespace(|| async {
        let (mut laptop, _) = session(0).await;
        sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip rule del pref 30001");
        let Notice { level, text, .. } = notice(&mut laptop, "family-unavailable").await;
        assert!(level == Level::Warning && text.contains("IPv6 is not available"), "{text}");
        eventually("IPv4 is not forwarded", || route_to("10.20.3.7").contains("dev ghnet0")).await;
        // As often as another program changes something, and without using up the repairs.
        let mut given_up = 0;
        for number in 0..12 {
            sh(&format!("ip route add 192.168.{number}.0/24 dev eth0"));
            let shown = format!("192.168.{number}.0/24");
            laptop
                .until(|frame| match frame {
                    Frame::Codespace(own) => own.networks.contains(&net(&shown)).then_some(()),
                    Frame::Notice(Notice { code, text, .. }) => {
                        assert!(!["hook-damaged", "hook-left-alone"].contains(&&*code), "{text}");
                        given_up += usize::from(code == "family-unavailable");
                        None
                    }
                    _ => None,
                })
                .await;
        }
        assert_eq!(given_up, 0, "told more than once");
        sh("echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip route add 192.168.99.0/24 dev eth0");
        notice(&mut laptop, "family-available").await;
        eventually("IPv6 is not forwarded again", || route_to("fd20::7").contains("dev ghnet0")).await;
    });
}

#[test]
fn a_program_that_goes_on_removing_the_rules_is_left_alone() {
    in_codespace(|| async {
        let (mut laptop, _) = session(60).await;
        let removing = async {
            loop {
                sh("ip rule del pref 30001 2>/dev/null || true");
                sleep(Duration::from_millis(5)).await;
            }
        };
        let Notice { level, text, .. } = tokio::select! {
            never = removing => never,
            notice = notice(&mut laptop, "hook-left-alone") => notice,
        };
        assert_eq!(level, Level::Warning);
        assert!(text.contains("30001") && text.contains("network manager"), "{text}");
        sh("ip rule del pref 30001 2>/dev/null || true");
        laptop.settle().await;
        assert!(!sh("ip rule").contains("30001:"));
        assert!(resolver_hook(&mut laptop).await, "the session goes on");
    });
}

#[test]
fn a_hook_that_is_left_alone_leaves_no_part_of_it() {
    in_codespace(|| async {
        let before = sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all");
        let (mut laptop, _) = session(60).await;
        sh(DOCKER);
        let removing = async {
            loop {
                sh("ip rule del pref 30000 2>/dev/null || true");
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            never = removing => never,
            notice = notice(&mut laptop, "hook-left-alone") => notice,
        };
        assert!(route_to("10.20.3.9").contains("dev docker1"), "{}", route_to("10.20.3.9"));
        assert!(route_to("10.20.4.9").contains("via 172.16.5.1"), "{}", route_to("10.20.4.9"));
        // Also when the laptop's or the codespace's networks change.
        laptop.send(&[routes(&["10.20.0.0/16", "10.30.0.0/16"])]).await;
        sh(
            "ip link delete docker1; ip route add 10.20.9.0/24 dev eth0 table 100; ip rule add pref 32000 lookup 100",
        );
        while !codespace(&mut laptop).await.networks.contains(&net("10.20.9.0/24")) {}
        laptop.settle().await;
        assert!(!sh("ip rule; ip -6 rule").contains("3000"));
        sh("ip rule del pref 32000; ip route flush table 100");
        end(laptop).await;
        let after = sh("ip rule; ip -6 rule; ip route show table all; ip -6 route show table all");
        assert_eq!(after, before);
    });
}

#[test]
fn resolv_conf_that_another_program_rewrites_is_hooked_again_and_restored_as_it_wrote_it() {
    let theirs = "# Generated by NetworkManager\\nsearch theirs.example\\nnameserver 172.16.5.54";
    // A mount point can't be replaced, only written in place.
    let in_place = format!("printf '{theirs}' > /etc/resolv.conf");
    let slowly =
        format!("{{ printf '# Generated'; sleep 1; printf '{}'; }} > /etc/resolv.conf", &theirs[11..]);
    let by_rename =
        format!("umount /etc/resolv.conf; printf '{theirs}' > /etc/new; mv /etc/new /etc/resolv.conf");
    let by_link = format!(
        "umount /etc/resolv.conf; printf '{theirs}' > /run/theirs.conf; ln -sf /run/theirs.conf /etc/resolv.conf"
    );
    let removed = format!("umount /etc/resolv.conf; rm /etc/resolv.conf; {in_place}");
    for change in [in_place, slowly, by_rename, by_link, removed] {
        in_codespace(move || async move {
            // The files of the machine must not change.
            sh("cp -a /etc /run/etc; mount --bind /run/etc /etc
                touch /run/conf; cat /etc/resolv.conf > /run/conf; mount --bind /run/conf /etc/resolv.conf");
            let (mut laptop, _) = session(0).await;
            sh(&change);
            let Notice { text, .. } = notice(&mut laptop, "names-hooked-again").await;
            assert!(text.contains("Generated by NetworkManager"), "{change}: {text}");
            assert!(is_hooked(), "{change}");
            let hooked = sh("cat /etc/resolv.conf");
            assert!(hooked.contains("search theirs.example corp.example\n"), "{hooked}");
            assert!(resolver_hook(&mut laptop).await);
            end(laptop).await;
            assert_eq!(sh("cat /etc/resolv.conf"), theirs.replace("\\n", "\n"), "{change}");
        });
    }
}

#[test]
fn a_program_that_goes_on_rewriting_resolv_conf_is_left_alone() {
    in_codespace(|| async {
        let (mut laptop, opened) = session(60).await;
        let rewriting = async {
            for number in 0.. {
                eventually("it is hooked", is_hooked).await;
                sh(&format!("printf '# guard\\nnameserver 172.16.5.{}\\n' > /etc/resolv.conf", number % 200));
            }
            std::future::pending().await
        };
        let Notice { level, text, .. } = tokio::select! {
            never = rewriting => never,
            notice = notice(&mut laptop, "names-left-alone") => notice,
        };
        assert_eq!(level, Level::Warning);
        assert!(text.contains("guard") && text.contains("not resolved"), "{text}");
        assert!(!resolver_hook(&mut laptop).await);
        // Its resolvers are followed all the same, and the laptop's settings do not hook it again.
        sh("printf 'nameserver 10.20.0.55\\n' > /etc/resolv.conf");
        while codespace(&mut laptop).await.resolvers != ["10.20.0.55".parse::<std::net::IpAddr>().unwrap()] {}
        assert!(route_to("10.20.0.55").contains("dev eth0"));
        laptop.send(&[dns()]).await;
        laptop.settle().await;
        assert!(!is_hooked());
        assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 10.20.0.55\n");
        // The next link is another chance.
        let mut next = Laptop::connect().await;
        next.ask(resume(&opened)).await.unwrap();
        assert!(is_hooked());
        end(next).await;
        assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 10.20.0.55\n");
    });
}

#[test]
fn a_burst_of_the_same_text_does_not_end_names() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = session(0).await;
        // As systemd-resolved does for each interface that goes.
        for _ in 0..20 {
            sh("printf 'nameserver 172.16.5.53\\nsearch internal.example\\n' > /etc/resolv.conf");
            sleep(Duration::from_millis(240)).await;
        }
        // On a slow machine some of the writes were not one burst, and the hook waits for longer.
        let hooked = async {
            while !is_hooked() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = hooked => {}
            () = sleep(Duration::from_secs(90)) => panic!("names are not hooked again"),
            never = laptop.stay_alive() => never,
        }
        assert!(resolver_hook(&mut laptop).await);
        end(laptop).await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn the_codespace_is_followed_while_there_is_no_link() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, opened) = session(60).await;
        laptop.cut().await;
        sh("ip rule del pref 30001; ip rule del pref 30000");
        eventually("the rules are not set again", || sh("ip rule").contains("30001:")).await;
        sh(DOCKER);
        sh("printf 'nameserver 172.16.5.54\\n' > /etc/resolv.conf");
        eventually("resolv.conf is not hooked again", is_hooked).await;
        let mut next = Laptop::connect().await;
        let resumed = next.ask(resume(&opened)).await.unwrap();
        assert!(resumed.networks.contains(&net("10.20.3.0/24")), "{resumed:?}");
        assert_eq!(resumed.resolvers, ["172.16.5.54".parse::<std::net::IpAddr>().unwrap()]);
        notice(&mut next, "hook-repaired").await;
        notice(&mut next, "names-hooked-again").await;
        sh("ip link delete docker1");
        notice(&mut next, "overlap-ended").await;
        end(next).await;
        assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 172.16.5.54\n");
        sh("printf 'nameserver 172.16.5.53\\nsearch internal.example\\n' > /etc/resolv.conf");
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn after_a_kill_the_new_original_is_restored() {
    in_codespace(|| async {
        let (mut laptop, _) = session(60).await;
        sh("printf 'nameserver 172.16.5.54\\n' > /etc/resolv.conf");
        notice(&mut laptop, "names-hooked-again").await;
        sh(&format!("kill -9 {} {}", crate::codespace::owner(), laptop.attach()));
        assert!(is_hooked());
        sidecar(&["cleanup"]);
        assert_eq!(sh("cat /etc/resolv.conf"), "nameserver 172.16.5.54\n");
    });
}

#[test]
fn a_link_that_leads_elsewhere_at_the_end_leaves_nothing_behind() {
    for killed in [false, true] {
        in_codespace(move || async move {
            let theirs = "nameserver 172.16.5.54\n";
            // systemd-resolved's, which belong to a user of its own.
            sh("cp -a /etc /run/etc; mount --bind /run/etc /etc; mkdir -p /run/systemd/resolve; cd /run/systemd/resolve
                printf 'nameserver 172.16.5.53\\n' > stub-resolv.conf; chown -R 991:991 .
                ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
                printf 'nameserver 172.16.5.54\\n' > /run/theirs.conf");
            let (mut laptop, _) = session(60).await;
            laptop.settle().await;
            let owner = crate::codespace::owner();
            if killed {
                sh(&format!("ln -sf /run/theirs.conf /etc/resolv.conf; kill -9 {owner} {}", laptop.attach()));
                sidecar(&["cleanup"]);
            } else {
                // Without time to see it in between.
                sh(&format!("kill -STOP {owner}; ln -sf /run/theirs.conf /etc/resolv.conf"));
                laptop.send(&[Frame::Goodbye(Goodbye { reason: Reason::Done, text: String::new() })]).await;
                sh(&format!("kill -CONT {owner}"));
                laptop.goodbye().await;
            }
            assert_eq!(
                sh("cat /run/systemd/resolve/stub-resolv.conf"),
                "nameserver 172.16.5.53\n",
                "killed: {killed}"
            );
            assert_eq!(sh("cat /etc/resolv.conf"), theirs, "killed: {killed}");
        });
    }
}

#[test]
fn a_directory_on_the_way_to_resolv_conf_may_be_removed_and_made_again() {
    in_codespace(|| async {
        sh("cp -a /etc /run/etc; mount --bind /run/etc /etc; mkdir /run/resolver
            printf 'nameserver 172.16.5.53\\n' > /run/resolver/stub.conf; ln -sf /run/resolver/stub.conf /etc/resolv.conf");
        let (mut laptop, _) = session(0).await;
        sh("rm -r /run/resolver");
        notice(&mut laptop, "names-unhooked").await;
        sh("mkdir /run/resolver");
        sleep(Duration::from_millis(500)).await;
        sh("printf 'nameserver 172.16.5.54\\n' > /run/resolver/stub.conf");
        eventually("names are hooked again", || {
            std::path::Path::new("/etc/resolv.conf").exists() && is_hooked()
        })
        .await;
        end(laptop).await;
        assert_eq!(sh("cat /run/resolver/stub.conf"), "nameserver 172.16.5.54\n");
    });
}
