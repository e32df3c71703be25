//! A session from `Open` until everything is undone, for each way in which it can end.

use gh_net_common::frame::{Dns, DnsMode, Frame, Reason, Rebind, Token};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::codespace::{SIDECAR, has_device, in_codespace, owner, sh, sidecar, snapshot};
use crate::laptop::{Laptop, done, net, open, resume, routes};

/// A session with one of everything that has to be undone.
async fn busy_session(grace: u32) -> (Laptop, gh_net_common::frame::Opened) {
    let (mut laptop, opened) = Laptop::session(grace).await;
    let dns = Dns {
        mode: DnsMode::Split,
        search: vec!["corp.example".into()],
        domains: vec![],
        rebind: Rebind::Refuse,
    };
    laptop.send(&[routes(&["10.20.0.0/16", "fd20::/32"]), Frame::Dns(dns)]).await;
    laptop.settle().await;
    assert!(has_device());
    assert!(sh("ip rule").contains("lookup 26727"));
    (laptop, opened)
}

#[test]
fn opened_describes_the_session() {
    in_codespace(|| async {
        let (_laptop, opened) = Laptop::session(0).await;
        assert!(!opened.resumed);
        assert_eq!(opened.device, "ghnet0");
        assert_eq!(opened.mtu, 65_520);
        let addresses: Vec<String> = opened.addresses.iter().map(|a| a.sidecar.to_string()).collect();
        assert_eq!(addresses, ["198.19.240.1/30", "fd67:682d:6e65:74::1/126"]);
        assert_eq!(opened.networks, [net("172.16.5.0/24"), net("192.168.77.0/24"), net("2001:db8:5::/64")]);
        assert_eq!(opened.resolvers, ["172.16.5.53".parse::<std::net::IpAddr>().unwrap()]);
        let link = sh("ip address show ghnet0");
        assert!(link.contains("mtu 65520") && link.contains("198.19.240.1/30"), "{link}");
        assert!(!link.contains("fe80::"), "a link-local address: {link}");
    });
}

#[test]
fn everything_is_undone_before_the_goodbye_is_answered() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = busy_session(60).await;
        laptop.send(&[done()]).await;
        assert_eq!(laptop.goodbye().await.reason, Reason::Done);
        assert_eq!(snapshot(), before);
        assert_eq!(laptop.exit_code().await, Some(0));
    });
}

#[test]
fn the_resolver_hook_follows_the_laptops_settings() {
    in_codespace(|| async {
        let original = sh("cat /etc/resolv.conf");
        let (mut laptop, _) = Laptop::session(0).await;
        let dns = |mode, search: &[&str]| {
            let search = search.iter().map(|name| (*name).to_owned()).collect();
            Frame::Dns(Dns { mode, search, domains: vec![], rebind: Rebind::Refuse })
        };
        laptop.send(&[dns(DnsMode::Split, &["corp.example"])]).await;
        laptop.settle().await;
        let hooked = sh("cat /etc/resolv.conf");
        assert!(hooked.contains("nameserver 198.19.240.1"), "{hooked}");
        assert!(hooked.contains("internal.example corp.example"), "{hooked}");
        assert!(sh("ss -Hlntu sport = 53").contains("198.19.240.1:53"));
        laptop.send(&[dns(DnsMode::Local, &["lab.example"])]).await;
        laptop.settle().await;
        let hooked = sh("cat /etc/resolv.conf");
        assert!(hooked.contains("internal.example lab.example"), "{hooked}");
        laptop.send(&[dns(DnsMode::Off, &[])]).await;
        laptop.settle().await;
        assert_eq!(sh("cat /etc/resolv.conf"), original);
        // When another ping is answered, the responder's tasks have had time to end.
        laptop.settle().await;
        assert_eq!(sh("ss -Hlntu sport = 53"), "");
    });
}

#[test]
fn a_lost_link_without_grace_ends_the_session() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, _) = busy_session(0).await;
        assert_eq!(laptop.cut().await, Some(0));
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn the_session_ends_when_its_grace_runs_out() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, _) = busy_session(1).await;
        let owner = Process::open(owner());
        laptop.cut().await;
        assert!(has_device());
        owner.wait().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn signals_end_the_session() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        in_codespace(move || async move {
            let before = snapshot();
            let (mut laptop, _) = busy_session(60).await;
            kill(Pid::from_raw(owner()), signal).unwrap();
            let goodbye = laptop.goodbye().await;
            assert_eq!(goodbye.reason, Reason::Terminated);
            assert!(goodbye.text.contains(signal.as_str()), "{}", goodbye.text);
            assert_eq!(snapshot(), before);
            assert_eq!(laptop.exit_code().await, Some(8));
        });
    }
}

#[test]
fn when_attach_is_killed_the_session_waits_for_the_next() {
    in_codespace(|| async {
        let (laptop, opened) = busy_session(60).await;
        kill(Pid::from_raw(laptop.attach()), Signal::SIGTERM).unwrap();
        laptop.exit_code().await;
        let mut next = Laptop::connect().await;
        let resumed = next.ask(resume(&opened)).await.unwrap();
        assert!(resumed.resumed);
        next.settle().await;
    });
}

#[test]
fn when_the_owner_is_killed_attach_undoes_in_its_place() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, _) = busy_session(60).await;
        kill(Pid::from_raw(owner()), Signal::SIGKILL).unwrap();
        assert_eq!(laptop.exit_code().await, Some(1));
        assert_eq!(snapshot(), before);
    });
}

/// Kills attach and owner. Returns when both are gone and nothing has been undone.
async fn kill_all(laptop: Laptop) {
    let owner = Process::open(owner());
    kill(Pid::from_raw(laptop.attach()), Signal::SIGKILL).unwrap();
    laptop.exit_code().await;
    kill(Pid::from_raw(owner.pid), Signal::SIGKILL).unwrap();
    owner.wait().await;
    assert!(sh("ip rule").contains("lookup 26727"));
}

#[test]
fn the_next_start_undoes_what_a_killed_owner_left() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, _) = busy_session(60).await;
        kill_all(laptop).await;
        let (mut next, opened) = Laptop::session(60).await;
        assert!(!opened.resumed);
        let notice = next
            .until(|frame| match frame {
                Frame::Notice(notice) => Some(notice.text),
                _ => None,
            })
            .await;
        assert!(notice.contains("did not end cleanly"), "{notice}");
        next.send(&[done()]).await;
        next.goodbye().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn cleanup_undoes_what_a_killed_owner_left() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, _) = busy_session(60).await;
        kill_all(laptop).await;
        let cleanup = sidecar(&["cleanup"]);
        let said = String::from_utf8(cleanup.stdout).unwrap();
        assert!(cleanup.status.success() && said.contains("undone: routing rules"), "{said}");
        assert_eq!(snapshot(), before);
        let again = sidecar(&["cleanup"]);
        assert!(again.status.success());
        assert_eq!(String::from_utf8(again.stdout).unwrap(), "nothing to undo\n");
    });
}

#[test]
fn a_resolv_conf_that_can_not_be_read_is_restored_by_the_next_cleanup() {
    in_codespace(|| async {
        // Only on a file that still has a name another one can be mounted.
        sh(
            "echo nameserver 172.16.5.53 > /run/conf; umount -c /etc/resolv.conf; mount --bind /run/conf /etc/resolv.conf",
        );
        let before = snapshot();
        let (laptop, _) = busy_session(60).await;
        kill_all(laptop).await;
        // A file whose first byte can't be read.
        sh(&format!("mount --bind /proc/{}/mem /etc/resolv.conf", std::process::id()));
        let cleanup = sidecar(&["cleanup"]);
        let said = String::from_utf8(cleanup.stdout).unwrap() + &String::from_utf8(cleanup.stderr).unwrap();
        assert!(!cleanup.status.success() && said.contains("not undone: resolv.conf"), "{said}");
        assert!(said.contains("undone: routing rules") && said.contains("Input/output error"), "{said}");
        sh("umount /etc/resolv.conf");
        assert!(sidecar(&["cleanup"]).status.success());
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn cleanup_ends_a_session_and_tells_the_laptop() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = busy_session(60).await;
        let cleanup = tokio::process::Command::new(SIDECAR).arg("cleanup").output();
        let (cleanup, goodbye) = tokio::join!(cleanup, laptop.goodbye());
        let said = String::from_utf8(cleanup.unwrap().stdout).unwrap();
        assert!(said.contains("undone: device ghnet0"), "{said}");
        assert_eq!(goodbye.reason, Reason::Terminated);
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn an_attempt_that_arrives_late_does_not_replace_a_newer_link() {
    in_codespace(|| async {
        let (laptop, opened) = busy_session(60).await;
        let (late, newer) = (resume(&opened), resume(&opened));
        laptop.cut().await;
        let mut laptop = Laptop::connect().await;
        assert!(laptop.ask(newer).await.unwrap().resumed);

        let mut abandoned = Laptop::connect().await;
        assert_eq!(abandoned.ask(late).await.unwrap_err().reason, Reason::Stale);

        laptop.settle().await;
        laptop.send(&[done()]).await;
        laptop.goodbye().await;
    });
}

#[test]
fn the_token_resumes_and_nothing_else_does() {
    in_codespace(|| async {
        let before = snapshot();
        let (laptop, opened) = busy_session(60).await;
        laptop.cut().await;
        let rules = sh("ip rule; ip route show table 26727");

        let mut thief = Laptop::connect().await;
        let mut forged = resume(&opened);
        forged.resume = Some((opened.session, Token([7; 32])));
        assert_eq!(thief.ask(forged).await.unwrap_err().reason, Reason::NoSession);
        assert_eq!(thief.exit_code().await, Some(6));

        let mut laptop = Laptop::connect().await;
        let resumed = laptop.ask(resume(&opened)).await.unwrap();
        assert!(resumed.resumed);
        assert_eq!((resumed.session, resumed.addresses), (opened.session, opened.addresses));
        assert_eq!(sh("ip rule; ip route show table 26727"), rules);
        laptop.send(&[done()]).await;
        laptop.goodbye().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_resuming_laptop_takes_over_from_a_link_that_hangs() {
    in_codespace(|| async {
        let (hanging, opened) = busy_session(60).await;
        let mut laptop = Laptop::connect().await;
        assert!(laptop.ask(resume(&opened)).await.unwrap().resumed);
        assert_eq!(hanging.exit_code().await, Some(0));
        laptop.settle().await;
    });
}

#[test]
fn one_session_at_a_time() {
    in_codespace(|| async {
        let (mut first, opened) = busy_session(60).await;
        for _ in 0..3 {
            let mut second = Laptop::connect().await;
            let refused = tokio::select! {
                answer = second.ask(open(60)) => answer,
                never = first.stay_alive() => never,
            };
            let goodbye = refused.unwrap_err();
            assert_eq!(goodbye.reason, Reason::Busy);
            assert!(goodbye.text.contains("alice@laptop (from 127.0.0.1)"), "{}", goodbye.text);
            assert!(goodbye.text.contains("gh-net-sidecar cleanup"), "{}", goodbye.text);
            assert_eq!(second.exit_code().await, Some(5));
            first.settle().await;
        }

        // A session in grace has no laptop that would be disturbed.
        first.cut().await;
        let (_third, other) = Laptop::session(60).await;
        assert_ne!(other.session, opened.session);
        assert!(!sh("ip route show table 26727").contains("10.20.0.0/16"));
    });
}

#[test]
fn a_session_whose_laptop_is_silent_is_taken_over_and_both_are_told() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut silent, opened) = busy_session(60).await;
        let mut laptop = Laptop::connect().await;
        let other = laptop.ask(open(60)).await.unwrap();
        assert_ne!(other.session, opened.session);
        let Frame::Notice(notice) = laptop.next().await else { panic!("no notice") };
        assert_eq!(notice.code, "took-over");
        assert!(notice.text.contains("alice@laptop"), "{}", notice.text);
        laptop.settle().await;

        let goodbye = silent.goodbye().await;
        assert_eq!(goodbye.reason, Reason::TakenOver);
        assert!(goodbye.text.contains("alice@laptop"), "{}", goodbye.text);
        assert_eq!(silent.exit_code().await, Some(9));

        // Also when the session is asked for again.
        let mut again = Laptop::connect().await;
        assert_eq!(again.ask(resume(&opened)).await.unwrap_err().reason, Reason::TakenOver);
        laptop.settle().await;
        laptop.send(&[done()]).await;
        laptop.goodbye().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_silent_link_is_lost_and_the_session_waits_for_another() {
    in_codespace(|| async {
        let (silent, opened) = busy_session(60).await;
        // With a packet under way a ping follows within a second; nobody answers it.
        sh("ping -c 1 -w 1 10.20.0.10 || true");
        assert_eq!(silent.exit_code().await, Some(0));
        assert!(has_device());
        let mut laptop = Laptop::connect().await;
        assert!(laptop.ask(resume(&opened)).await.unwrap().resumed);
        laptop.send(&[done()]).await;
        laptop.goodbye().await;
    });
}

#[test]
fn a_silent_attach_does_not_block_others() {
    in_codespace(|| async {
        let (mut laptop, _) = busy_session(60).await;
        let silent = Laptop::connect().await;
        laptop.settle().await;
        drop(silent);
        laptop.settle().await;
    });
}

#[test]
fn status_shows_the_session() {
    in_codespace(|| async {
        let status = || {
            let output = sidecar(&["status", "--json"]);
            assert!(output.status.success());
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        assert!(status()["session"].is_null());
        let (laptop, _) = busy_session(60).await;
        let live = status();
        assert_eq!(live["schema"], 1);
        assert_eq!(live["session"]["link"]["state"], "up");
        assert_eq!(live["session"]["routes"], serde_json::json!(["10.20.0.0/16", "fd20::/32"]));
        laptop.cut().await;
        assert_eq!(status()["session"]["link"]["state"], "grace");
        let plain = String::from_utf8(sidecar(&["status"]).stdout).unwrap();
        assert!(plain.contains("lost; the session ends in"), "{plain}");
        sidecar(&["cleanup"]);
    });
}

/// A process that is not our child, but can be waited for.
struct Process {
    pid: i32,
}

impl Process {
    fn open(pid: i32) -> Self {
        // Orphans become our children, so that this process can wait for them.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        Self { pid }
    }

    async fn wait(self) {
        let wait = move || waitpid(Pid::from_raw(self.pid), None);
        let _ = tokio::task::spawn_blocking(wait).await.unwrap();
    }
}
