//! The session's token stays in gh-net's memory, and that in no file.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
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
