//! What can be missing, forbidden or broken, and the message that the laptop's user gets.

use gh_net_common::frame::{Dns, DnsMode, Frame, Level, Notice, Reason, Rebind, Routes};
use tokio::process::Command;

use crate::codespace::{SIDECAR, has_device, in_codespace, route_to, sh, snapshot};
use crate::laptop::{Laptop, open, routes};

/// `attach`, started by `setpriv` with less privilege than the test has.
fn with_less(arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(arguments).arg(SIDECAR).arg("attach");
    command
}

#[test]
fn root_without_the_capability_is_told_which_line_grants_it() {
    in_codespace(|| async {
        let before = snapshot();
        let mut laptop =
            Laptop::start(with_less(&["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"])).await;
        let goodbye = laptop.goodbye().await;
        assert_eq!(goodbye.reason, Reason::Privilege);
        for part in [
            "NET_ADMIN",
            concat!("ghcr.io/gh-net/gh-net/gh-net:", env!("CARGO_PKG_VERSION_MAJOR"), "\""),
            "--cap-add NET_ADMIN",
        ] {
            assert!(goodbye.text.contains(part), "{}", goodbye.text);
        }
        assert_eq!(laptop.exit_code().await, Some(3));
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_user_who_may_not_sudo_is_told_what_sudo_said() {
    in_codespace(|| async {
        let mut laptop = Laptop::start(by_nobody("")).await;
        let goodbye = laptop.goodbye().await;
        assert_eq!(goodbye.reason, Reason::Privilege);
        assert!(goodbye.text.contains("user 65534") && goodbye.text.contains("sudo"), "{}", goodbye.text);
        assert_eq!(laptop.exit_code().await, Some(3));
    });
}

/// `attach` of a copy of the sidecar that every user may run, run by user nobody.
fn by_nobody(setup: &str) -> Command {
    let copy = "/run/gh-net-sidecar";
    sh(&format!("chmod 755 /run; cp {SIDECAR} {copy}; chmod 755 {copy}; {}", setup.replace("COPY", copy)));
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", copy, "attach"]);
    command.env("SSH_CONNECTION", "10.20.0.99 50000 172.16.5.4 22");
    command
}

async fn session_and_end(command: Command) {
    let before = snapshot();
    let mut laptop = Laptop::start(command).await;
    laptop.ask(open(0)).await.expect("a session");
    let dns = Dns {
        mode: DnsMode::Split,
        search: vec!["corp.example".into()],
        domains: vec![],
        rebind: Rebind::Refuse,
    };
    laptop.send(&[routes(&["10.20.0.0/16"]), Frame::Dns(dns)]).await;
    laptop.settle().await;
    assert!(route_to("10.20.0.10").contains("dev ghnet0"));
    assert!(route_to("10.20.0.99").contains("via 172.16.5.1"), "the ssh peer was forgotten");
    assert!(sh("cat /etc/resolv.conf").contains("nameserver 198.19.240.1"));
    assert_eq!(laptop.cut().await, Some(0));
    assert_eq!(snapshot(), before);
}

#[test]
fn a_user_who_may_sudo_has_a_session() {
    in_codespace(|| async {
        let allow = "mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d
            echo 'nobody ALL=(root) NOPASSWD: COPY' > /etc/sudoers.d/gh-net";
        session_and_end(by_nobody(allow)).await;
    });
}

#[test]
fn file_capabilities_are_enough() {
    in_codespace(|| async {
        session_and_end(by_nobody("setcap cap_net_admin,cap_net_bind_service,cap_dac_override+ep COPY"))
            .await;
    });
}

#[test]
fn permitted_file_capabilities_are_raised() {
    in_codespace(|| async {
        session_and_end(by_nobody("setcap cap_net_admin,cap_net_bind_service,cap_dac_override+p COPY")).await;
    });
}

/// The file would be written with capabilities that the user does not have.
#[test]
fn file_capabilities_write_no_log_for_the_user() {
    in_codespace(|| async {
        let mut command = by_nobody("setcap cap_net_admin,cap_net_bind_service,cap_dac_override+p COPY");
        command.args(["--trace-dest", "/etc/resolv.conf"]);
        let before = snapshot();
        let mut laptop = Laptop::start(command).await;
        let goodbye = laptop.goodbye().await;
        assert!(
            goodbye.text.contains("--trace-dest can't be used with file capabilities"),
            "{}",
            goodbye.text
        );
        assert_eq!(laptop.exit_code().await, Some(1));
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn file_capabilities_that_the_container_lacks_are_named() {
    in_codespace(|| async {
        let user = by_nobody("setcap cap_net_admin,cap_dac_override+p COPY");
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-net_admin", "setpriv"]).args(user.as_std().get_args());
        let mut laptop = Laptop::start(command).await;
        let goodbye = laptop.goodbye().await;
        assert_eq!(goodbye.reason, Reason::Privilege);
        assert!(goodbye.text.contains("--cap-add NET_ADMIN"), "{}", goodbye.text);
        assert_eq!(laptop.exit_code().await, Some(3));
    });
}

/// What the Feature's install.sh writes.
#[test]
fn a_sudoers_entry_for_attach_without_arguments_is_enough() {
    in_codespace(|| async {
        let allow = "mount -t tmpfs -o mode=755 tmpfs /etc/sudoers.d
            { echo 'Defaults!COPY env_keep += \"SSH_CONNECTION\"'
              echo 'nobody ALL=(root) NOPASSWD: COPY probe'
              echo 'nobody ALL=(root) NOPASSWD: COPY attach'; } > /etc/sudoers.d/gh-net";
        session_and_end(by_nobody(allow)).await;
    });
}

#[test]
fn a_missing_device_node_is_created_and_removed() {
    in_codespace(|| async {
        sh("mount -t tmpfs tmpfs /dev/net");
        let before = snapshot();
        let (laptop, _) = Laptop::session(0).await;
        assert!(has_device());
        assert!(sh("ls /dev/net").contains("tun"));
        laptop.cut().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_device_node_that_cannot_be_created_is_reported() {
    in_codespace(|| async {
        sh("mount -t tmpfs -o ro tmpfs /dev/net");
        let mut laptop = Laptop::connect().await;
        let goodbye = laptop.ask(open(0)).await.unwrap_err();
        assert_eq!(goodbye.reason, Reason::Tun);
        assert!(goodbye.text.contains("/dev/net/tun is missing"), "{}", goodbye.text);
        assert!(goodbye.text.contains("--device /dev/net/tun"), "{}", goodbye.text);
        assert_eq!(laptop.exit_code().await, Some(4));
    });
}

#[test]
fn a_device_node_that_may_not_be_opened_is_distinguished_from_a_missing_one() {
    in_codespace(|| async {
        // nodev: opening the node fails as it does when the container's device rules forbid it.
        sh("mount -t tmpfs -o nodev tmpfs /dev/net; mknod /dev/net/tun c 10 200");
        let mut laptop = Laptop::connect().await;
        let goodbye = laptop.ask(open(0)).await.unwrap_err();
        assert_eq!(goodbye.reason, Reason::Tun);
        assert!(goodbye.text.contains("may not open it"), "{}", goodbye.text);
    });
}

#[test]
fn a_device_of_our_name_is_left_alone() {
    in_codespace(|| async {
        sh("ip tuntap add dev ghnet0 mode tun");
        let before = snapshot();
        let mut laptop = Laptop::connect().await;
        let goodbye = laptop.ask(open(0)).await.unwrap_err();
        assert_eq!(goodbye.reason, Reason::Tun);
        assert!(goodbye.text.contains("ip link delete ghnet0"), "{}", goodbye.text);
        laptop.exit_code().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn without_ipv6_the_rest_works_and_a_notice_says_so() {
    in_codespace(|| async {
        sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        let before = snapshot();
        let (mut laptop, opened) = Laptop::session(0).await;
        assert_eq!(opened.addresses.len(), 1);
        let Frame::Notice(Notice { level, text, .. }) = laptop.next().await else { panic!("no notice") };
        assert_eq!(level, Level::Warning);
        assert!(text.contains("IPv6 is not available"), "{text}");
        laptop.send(&[routes(&["10.20.0.0/16"])]).await;
        laptop.settle().await;
        assert!(!sh("ip -6 rule").contains("26727"));
        laptop.cut().await;
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn removing_the_device_ends_the_session() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = Laptop::session(60).await;
        sh("ip link delete ghnet0");
        let goodbye = laptop.goodbye().await;
        assert_eq!(goodbye.reason, Reason::Tun);
        assert!(goodbye.text.contains("removed the device ghnet0"), "{}", goodbye.text);
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn misplaced_frames_end_the_session_cleanly() {
    let misplaced = [
        Frame::Open(open(0)),
        Frame::Hello(gh_net_common::hello::ours()),
        Frame::Notice(Notice { level: Level::Info, code: "boo".into(), text: "boo".into() }),
    ];
    for frame in misplaced {
        in_codespace(move || async move {
            let before = snapshot();
            let (mut laptop, _) = Laptop::session(60).await;
            laptop.send(&[frame]).await;
            assert_eq!(laptop.goodbye().await.reason, Reason::Protocol);
            assert_eq!(laptop.exit_code().await, Some(7));
            assert_eq!(snapshot(), before);
        });
    }
}

#[test]
fn a_flood_of_changes_does_not_block_other_clients() {
    in_codespace(|| async {
        let before = snapshot();
        let (mut laptop, _) = Laptop::session(60).await;
        let nets = (0..2000_u32)
            .map(|n| ipnet::IpNet::from(std::net::IpAddr::from((0x0a14_0000 + n).to_be_bytes())));
        laptop.send(&[Frame::Routes(Routes::Last(nets.collect()))]).await;
        let nothing = Frame::Routes(Routes::Change { add: vec![], remove: vec![] });
        (0..50_000).for_each(|_| laptop.writer.push(&nothing));
        let cleanup = Command::new(SIDECAR).arg("cleanup").output();
        let (_, cleanup) = tokio::join!(laptop.writer.flush(), cleanup);
        assert!(cleanup.unwrap().status.success());
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn another_version_is_told_which_side_to_update() {
    in_codespace(|| async {
        let mut hello = gh_net_common::hello::ours();
        (hello.lowest, hello.highest) = (900, 901);
        let mut laptop = Laptop::greet(hello).await;
        let goodbye = laptop.goodbye().await;
        assert_eq!(goodbye.reason, Reason::Version);
        assert!(goodbye.text.contains("update gh-net-sidecar"), "{}", goodbye.text);
        assert_eq!(laptop.exit_code().await, Some(7));
    });
}

#[test]
fn a_link_lost_in_the_handshake_leaves_nothing() {
    in_codespace(|| async {
        let before = snapshot();
        Laptop::connect().await.cut().await;
        // The owner ends after `attach`: it is nobody's session.
        sh("while test -e /run/gh-net; do :; done");
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn stdin_or_stdout_that_is_no_pipe_is_refused_with_a_message() {
    in_codespace(|| async {
        let before = snapshot();
        for redirects in ["</dev/null", ">/dev/null", "</etc/passwd"] {
            let said = sh(&format!("{SIDECAR} attach {redirects} 2>&1 | cat; true"));
            let said = said
                + &sh(&format!("{SIDECAR} attach 2>/run/said {redirects} || cat /run/said; rm /run/said"));
            assert!(said.contains("must be pipes or sockets"), "{redirects}: {said}");
        }
        let said = sh(&format!("script -qec '{SIDECAR} attach' /dev/null </dev/null || true"));
        assert!(said.contains("without -t"), "{said}");
        assert_eq!(snapshot(), before);
    });
}
