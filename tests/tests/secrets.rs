//! What other programs and users of the laptop learn of a session: the token stays in gh-net's memory, which is in no file
//! and open to no program, and its control sockets serve its own user only.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::BytesMut;
use gh_net_common::frame::{Frame, Opened, PREAMBLE, Token, TunnelAddress};
use gh_net_common::hello;
use gh_net_tests::lab::{LAPTOP_USER, Lab, Options, skip_because};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(30);
/// 256 bits that are nowhere else.
const TOKEN: [u8; 32] = [0xc5; 32];

/// A sidecar that grants a session with [`TOKEN`], and then says nothing; the command for `--exec`.
fn sidecar(lab: &Lab) -> Result<String> {
    let opened = Opened {
        session: [7; 16],
        token: Token(TOKEN),
        resumed: false,
        mtu: 65520,
        addresses: vec![TunnelAddress {
            sidecar: "198.19.240.1/30".parse()?,
            gateway: "198.19.240.2".parse()?,
        }],
        device: "ghnet0".to_owned(),
        networks: Vec::new(),
        resolvers: Vec::new(),
    };
    let mut bytes = BytesMut::from(PREAMBLE.as_slice());
    [Frame::Hello(hello::ours()), Frame::Opened(opened)].iter().for_each(|frame| frame.encode(&mut bytes));
    lab.laptop.write("/run/lab/fake/bytes", 0o644, bytes.to_vec())?;
    lab.laptop.write("/run/lab/fake/sidecar", 0o644, "cat /run/lab/fake/bytes; exec sleep 1000\n")?;
    Ok("sh /run/lab/fake/sidecar".to_owned())
}

/// Whether the token is in there, as bytes or as text.
fn has_token(bytes: &[u8]) -> bool {
    let hexadecimal = "c5".repeat(4);
    let forms: [&[u8]; 5] = [&TOKEN[..4], hexadecimal.as_bytes(), b"C5C5C5C5", b"197, 197, 197", b"xcXFxcXF"];
    forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == *form))
}

#[test]
fn the_token_is_in_no_arguments_and_in_no_log() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let log = "/tmp/gh-net-trace.log";
    let args = ["--exec", &sidecar(&lab)?, "--trace", "trace", "--trace-dest", log];
    let process = lab.gh_net(&args)?.start()?;
    // It had the session, and resumes it with the token.
    process.wait_for("link lost", LIMIT)?;
    let mut looked_at = 0;
    for process in fs::read_dir("/proc")?.flatten() {
        for file in ["cmdline", "environ"] {
            // It may have ended, or be no process.
            let Ok(bytes) = fs::read(process.path().join(file)) else { continue };
            ensure!(!has_token(&bytes), "{}: {}", process.path().display(), String::from_utf8_lossy(&bytes));
            looked_at += 1;
        }
    }
    ensure!(looked_at > 2, "no processes");
    process.signal(Signal::SIGTERM)?;
    let printed = process.finish(LIMIT)?;
    let logged = lab.laptop.read(log)?;
    ensure!(logged.contains("DEBUG gh_net::session::handshake"), "{logged}");
    for text in [printed.errors(), printed.text(), logged] {
        ensure!(!has_token(text.as_bytes()), "{text}");
    }
    Ok(())
}

/// A command of the user who runs gh-net.
fn as_user(lab: &Lab, program: &str) -> Command {
    lab.laptop.command_as(LAPTOP_USER, 1000, program)
}

#[test]
fn a_crash_leaves_no_core_dump() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    // What the processes inherit.
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, most, most)?;
    let mut other = as_user(&lab, "sh");
    other.args(["-c", "kill -ABRT $$"]);
    let leaves_core = lab.laptop.start(other)?.finish(LIMIT)?.status.core_dumped();
    if !leaves_core && skip_because("no program leaves a core dump here") {
        return Ok(());
    }
    let bridge = lab.bridge(&[])?;
    let process = bridge.into_process();
    process.signal(Signal::SIGABRT)?;
    let output = process.finish(LIMIT)?;
    ensure!(output.status.signal() == Some(Signal::SIGABRT as i32), "{:?}", output.status);
    ensure!(!output.status.core_dumped(), "a core dump");
    Ok(())
}

/// /proc shows the environment, as it shows the memory, to whoever could attach a debugger (ptrace(2), "access mode
/// checking").
#[test]
fn no_debugger_of_the_same_user_is_let_in() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let is_shown = |name: &str| -> Result<bool> {
        let mut cat = as_user(&lab, "sh");
        cat.args(["-c", &format!("cat /proc/$(pgrep -xn {name})/environ")]);
        let shown = lab.laptop.start(cat)?.finish(LIMIT)?;
        ensure!(shown.code() == 0 || shown.errors().contains("Permission denied"), "{}", shown.errors());
        Ok(shown.code() == 0)
    };
    let mut other = as_user(&lab, "sleep");
    other.arg("1000");
    let _other = lab.laptop.start(other)?;
    ensure!(is_shown("sleep")?, "no process of the user's is shown here");
    let bridge = lab.bridge(&[])?;
    ensure!(!is_shown("gh-net")?, "the same user looks into gh-net");
    bridge.stop().map(drop)
}

/// Where the user has no directory of its own in /run.
const FOLDER: &str = "tmp/gh-net-1000";

/// Root is another user as well, and the one that can try.
#[test]
fn control_sockets_and_their_clients_talk_to_their_own_user_only() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let folder = PathBuf::from(format!("/proc/{}/root/{FOLDER}", bridge.process().pid()));
    let enter = |who: &str| lab.laptop.run(&format!("setpriv {who} --clear-groups ls /{FOLDER}"));
    ensure!(enter("--reuid 1000")?.code() == 0, "the session's folder is elsewhere");
    ensure!(enter("--reuid 54321")?.code() != 0, "another user enters the folder");

    let sockets = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    let mut stream = UnixStream::connect(sockets.first().context("no socket")?)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // It may be closed before the question is there.
    let _ = stream.write_all(b"status\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert_eq!(answer, "", "the session answers another user");

    let forged = folder.join("1-forged.sock");
    let listener = UnixListener::bind(&forged)?;
    fs::set_permissions(&forged, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let asked = std::thread::spawn(move || -> Result<String> {
        let mut question = String::new();
        // The first one may only look whether somebody listens.
        while question.is_empty() {
            let (mut stream, _) = listener.accept()?;
            stream.read_to_string(&mut question)?;
        }
        Ok(question)
    });
    let status = lab.gh_net(&["status"])?.start()?.finish(LIMIT)?;
    ensure!(!asked.is_finished(), "gh-net asks another user's process");
    ensure!(status.errors().contains("1-forged"), "{}{}", status.text(), status.errors());
    bridge.stop().map(drop)
}

/// Whatever the user's configuration says of it.
#[test]
fn neither_the_agent_nor_a_port_is_forwarded() -> Result<()> {
    const AGENT: &str = "/tmp/agent.sock";
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let mut agent = as_user(&lab, "ssh-agent");
    agent.args(["-D", "-a", AGENT]);
    let agent = lab.laptop.start(agent)?;
    agent.wait_for("SSH_AUTH_SOCK", LIMIT)?;
    lab.laptop.shell("printf '\\nHost *\\n ForwardAgent yes\\n RemoteForward 4000 127.0.0.1:4000\\n' >>/home/dev/.ssh/config")?;
    let forwarded = || lab.codespace.shell("find /tmp -name 'agent.*'; ss -Hltn sport = :4000");

    let mut ssh = as_user(&lab, "ssh");
    ssh.args(["-T", "codespace", "echo there; sleep 1000"]).env("SSH_AUTH_SOCK", AGENT);
    let ssh = lab.laptop.start(ssh)?;
    ssh.wait_for("there", LIMIT)?;
    let by_ssh = forwarded()?;
    ensure!(by_ssh.contains("agent.") && by_ssh.contains(":4000"), "ssh forwards nothing here: {by_ssh}");
    drop(ssh);
    lab.codespace.shell("while [ -n \"$(ss -Hltn sport = :4000)\" ]; do :; done; rm -rf /tmp/ssh-*")?;

    let bridge = lab.gh_net(&["--ssh", "codespace"])?.env("SSH_AUTH_SOCK", AGENT).ready()?;
    assert_eq!(forwarded()?, "");
    bridge.stop().map(drop)
}
