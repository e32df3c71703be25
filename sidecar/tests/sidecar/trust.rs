//! What a local user gains from a sidecar with file capabilities: a session, and nothing else. The state directory is the
//! user's then, so whatever is in it may be forged.

use std::process::Output;

use crate::codespace::{SIDECAR, in_codespace, owner, sh, sidecar, snapshot};
use crate::laptop::{Laptop, open};

const COPY: &str = "/run/gh-net-sidecar";

/// A copy of the sidecar with capabilities, and a state directory of user nobody with these files in it.
fn forge(files: &str) {
    sh(&format!(
        "chmod 755 /run; cp {SIDECAR} {COPY}; chmod 755 {COPY}
        setcap cap_net_admin,cap_net_bind_service,cap_dac_override,cap_mknod+p {COPY}
        mkdir -m 700 /run/gh-net; cd /run/gh-net
        {files}
        chown -R -h 65534:65534 /run/gh-net"
    ));
}

const AS_NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

fn cleanup_by_nobody() -> Output {
    std::process::Command::new("setpriv")
        .args(AS_NOBODY)
        .args(["timeout", "60", COPY, "cleanup"])
        .output()
        .expect("setpriv runs")
}

#[test]
fn root_is_told_how_to_end_a_session_of_another_user() {
    in_codespace(|| async {
        forge("");
        let mut attach = tokio::process::Command::new("setpriv");
        attach.args(AS_NOBODY).args([COPY, "attach"]);
        let mut laptop = Laptop::start(attach).await;
        laptop.ask(open(60)).await.unwrap();
        let refused = sidecar(&["cleanup"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let remedy = format!(
            "the session belongs to user 65534: log in as that user, or end it by sudo -u '#65534' {SIDECAR} cleanup"
        );
        assert!(!refused.status.success() && said.contains(&remedy), "{said}");
        assert!(cleanup_by_nobody().status.success());
    });
}

#[test]
fn a_forged_journal_changes_nothing_that_is_not_ours() {
    in_codespace(|| async {
        // As if the file were ours, so that the check of its content passes.
        let files = r##"
            mkdir -m 700 /run/root
            printf 'secret of root, as long as it takes\n# End of what gh-net wrote.\n' > /run/root/file
            ln -s /run/root/file resolv.conf
            mknod /run/root/node c 10 200
            cat > journal <<'END'
{"resolv_conf":{"path":"/run/gh-net/resolv.conf","target":null,"original":[120],"servers":[]}}
{"resolv_conf":{"path":"/etc/resolv.conf","target":"/run/gh-net/resolv.conf","original":null,"servers":[]}}
{"resolv_conf":{"path":"/etc/resolv.conf","target":null,"original":[120],"servers":["172.16.5.53"]}}
{"device_node":{"path":"/run/root/node","directory":false}}
{"rule":{"v6":false,"priority":32766,"table":254,"but_default":false}}
{"table":{"table":254}}
END"##;
        forge(files);
        let state = || {
            let files = "ls -l --time-style=+ /run/root; cat /run/root/file /etc/resolv.conf";
            sh(&format!("{files}; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all"))
        };
        let before = state();
        cleanup_by_nobody();
        assert_eq!(state(), before);
    });
}

/// The owner's line of /proc/PID/status of this name.
fn of_owner(name: &str) -> String {
    let status = sh(&format!("cat /proc/{}/status", owner()));
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    line.expect("a line").trim().to_owned()
}

#[test]
fn the_owner_has_only_what_a_session_needs() {
    in_codespace(|| async {
        let (_laptop, _) = Laptop::session(60).await;
        // DAC_OVERRIDE 1, NET_BIND_SERVICE 10, NET_ADMIN 12, MKNOD 27.
        let kept = format!("{:016x}", 1u64 << 1 | 1 << 10 | 1 << 12 | 1 << 27);
        let none = format!("{:016x}", 0);
        for (name, value) in [
            ("CapPrm", &kept),
            ("CapEff", &kept),
            ("CapBnd", &kept),
            ("CapInh", &none),
            ("CapAmb", &none),
            ("NoNewPrivs", &"1".to_owned()),
            ("Seccomp", &"2".to_owned()),
        ] {
            assert_eq!(&of_owner(name), value, "{name}");
        }
        let limits = sh(&format!("grep 'core file' /proc/{}/limits", owner()));
        assert_eq!(limits.split_whitespace().rev().nth(1), Some("0"), "{limits}");
        let limits = sh(&format!("grep 'open files' /proc/{}/limits", owner()));
        let limits: Vec<_> = limits.split_whitespace().rev().skip(1).take(2).collect();
        assert_eq!(limits[0], limits[1], "it may not open as many files as there may be");
    });
}

#[test]
fn links_in_the_state_directory_are_not_followed() {
    // Of the last one only a new file is made, in place of whatever is there.
    for (file, is_refused) in [("owner.lock", true), ("journal", true), ("journal.new", false)] {
        in_codespace(move || async move {
            forge(&format!(
                "mkdir -m 700 /run/root; echo secret > /run/root/file; ln -s /run/root/file {file}
                test {file} = journal || echo '{{\"table\":{{\"table\":26727}}}}' > journal"
            ));
            let before = sh("cat /run/root/file; ls -l --full-time /run/root/file");
            let Output { stderr, .. } = cleanup_by_nobody();
            assert_eq!(sh("cat /run/root/file; ls -l --full-time /run/root/file"), before, "{file}");
            let said = String::from_utf8_lossy(&stderr);
            let refusal = format!("{file} is not a file that gh-net-sidecar made");
            assert_eq!(said.contains(&refusal), is_refused, "{file}: {said}");
        });
    }
}

#[test]
fn hard_links_and_huge_files_in_the_state_directory_are_refused() {
    in_codespace(|| async {
        forge("mkdir -m 700 /run/root; echo secret > /run/root/file; ln /run/root/file owner.lock");
        sh("chown 0:0 /run/root/file");
        cleanup_by_nobody();
        assert_eq!(sh("cat /run/root/file"), "secret\n");
    });
    in_codespace(|| async {
        forge("truncate -s 1M journal");
        let before = snapshot();
        let Output { status, stderr, .. } = cleanup_by_nobody();
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(!status.success() && stderr.contains("journal") && stderr.contains("larger"), "{stderr}");
        assert_eq!(snapshot(), before);
    });
}
