//! Bridging by gh: a codespace is named or chosen, and failures are reported with gh's message and a remedy.
//!
//! gh is the real one, with a fake API; only the relay into the codespace is a shim.

use std::time::Duration;

use anyhow::Result;
use gh_net_tests::lab::{Account, CODESPACE, CODESPACE_WITHOUT_SSHD, Lab, Options, Output};

/// The exit codes of `gh-net --help`.
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const DENIED: i32 = 4;

fn lab() -> Result<Option<Lab>> {
    let Some(mut lab) = Lab::for_test(Options::default())? else { return Ok(None) };
    lab.start_github()?;
    Ok(Some(lab))
}

fn bridges(account: Account, args: &[&str]) -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let before = lab.codespace.state()?;
    let bridge = lab.gh_net(args)?.with_gh(account).ready()?;
    assert_eq!(lab.codespace.shell("curl -sS http://www.corp.internal/")?, "hello from corp");
    bridge.stop()?;
    assert_eq!(before.diff(&lab.codespace.state()?), "");
    Ok(())
}

#[test]
fn a_codespace_named_by_flag() -> Result<()> {
    bridges(Account::Two, &["-c", CODESPACE])
}

#[test]
fn a_codespace_named_as_argument() -> Result<()> {
    bridges(Account::Two, &["start", CODESPACE])
}

#[test]
fn the_only_codespace_needs_no_name() -> Result<()> {
    bridges(Account::One, &[])
}

/// Runs gh-net, which must fail, and checks what holds for every failure.
fn fails(lab: &Lab, account: Account, args: &[&str]) -> Result<Output> {
    let output = lab.gh_net(args)?.with_gh(account).start()?.finish(Duration::from_secs(30))?;
    assert_ne!(output.code(), 0, "{}", output.errors());
    assert!(!output.errors().contains("panicked"), "{}", output.errors());
    assert_eq!(output.text(), "", "messages belong on stderr");
    Ok(output)
}

#[test]
fn each_failure_has_its_own_message_and_exit_code() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let unknown = ["-c", "no-such-codespace"];
    let mute = ["-c", CODESPACE_WITHOUT_SSHD];
    let cases: [(Account, &[&str], i32, &[&str]); 6] = [
        (Account::LoggedOut, &[], DENIED, &["gh auth login"]),
        (Account::Forbidden, &[], DENIED, &["HTTP 403", "gh auth refresh -h github.com -s codespace"]),
        (Account::None, &[], UNREACHABLE, &["no codespaces", "gh codespace create"]),
        (Account::Two, &[], USAGE, &[CODESPACE, CODESPACE_WITHOUT_SSHD]),
        (Account::Two, &unknown, UNREACHABLE, &["no-such-codespace", "HTTP 404"]),
        (Account::Two, &mute, UNREACHABLE, &["SSH server", "features/sshd"]),
    ];
    for (account, args, code, words) in cases {
        let output = fails(&lab, account, args)?;
        let errors = output.errors();
        assert_eq!(output.code(), code, "{account:?} {args:?}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{account:?} {args:?} does not print {word:?}: {errors}");
        }
    }
    Ok(())
}

#[test]
fn without_gh_the_message_says_where_to_get_it() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    let command = lab.gh_net(&["-c", CODESPACE])?.env("PATH", "/run/lab/nothing");
    let output = command.start()?.finish(Duration::from_secs(30))?;
    assert_eq!(output.code(), FAILED, "{}", output.errors());
    assert!(output.errors().contains("https://cli.github.com"), "{}", output.errors());
    Ok(())
}

#[test]
fn a_failed_ssh_connection_is_reported_with_ssh_s_message() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    for (args, words, code) in [
        (&["--ssh", "codespace", "--ssh-option", "Port=2223"][..], "Connection refused", UNREACHABLE),
        (&["--ssh", "codespace", "--ssh-option", "User=nobody"], "Permission denied", DENIED),
        (&["--ssh", "no-such-host.example"], "no-such-host.example", UNREACHABLE),
    ] {
        let output = fails(&lab, Account::None, args)?;
        assert!(output.errors().contains(words), "{args:?}: {}", output.errors());
        assert_eq!(output.code(), code, "{args:?}: {}", output.errors());
    }
    Ok(())
}

/// A user without sudo gets a message with a remedy.
#[test]
fn missing_privilege_in_the_codespace_is_reported() -> Result<()> {
    let Some(lab) = lab()? else { return Ok(()) };
    if !lab.has_sudo() {
        return Ok(());
    }
    lab.codespace.write("/etc/sudoers", 0o440, "root ALL=(ALL:ALL) ALL\n")?;
    let output = fails(&lab, Account::None, &["--ssh", "codespace"])?;
    let errors = output.errors();
    assert!(errors.contains("root") || errors.contains("sudo"), "{errors}");
    assert_eq!(output.code(), 5, "{errors}");
    Ok(())
}
