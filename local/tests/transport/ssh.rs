//! `--ssh`: finding, copying and running the sidecar.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gh_net::config::{self, Environment, Flags};
use gh_net::transport::{Connection, Error, ExitReport, Transport, provision};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sidecar;
use crate::sshd::Sshd;

/// The flags for this sshd, whose options come after `first`.
fn flags(sshd: &Sshd, first: &[String]) -> Flags {
    let mut flags = Flags::of(&[("ssh", &sshd.destination())]);
    first.iter().cloned().chain(sshd.options()).for_each(|option| flags.set("ssh-option", option));
    flags
}

fn transport(sshd: &Sshd, sidecar: Option<&str>, sources: &Path) -> Transport {
    let mut flags = flags(sshd, &[]);
    sidecar.into_iter().for_each(|path| flags.set("sidecar", path.to_owned()));
    let sources = ("GH_NET_SIDECAR_DIR".to_owned(), sources.display().to_string());
    Transport::new(&config::load(&flags, &Environment::from([sources])).unwrap()).unwrap()
}

/// Sends a line through the sidecar and back, and closes the connection.
async fn echo(mut connection: Connection) -> ExitReport {
    connection.writer.write_all(b"there and back\n").await.unwrap();
    let mut answer = [0; 15];
    connection.reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"there and back\n");
    let Connection { reader, writer, carrier } = connection;
    drop((reader, writer));
    carrier.close().await
}

#[tokio::test]
async fn the_sidecar_is_copied_once_and_found_afterwards() {
    let sshd = Sshd::start();
    let transport = transport(&sshd, None, &sidecar::directory());
    let end = echo(transport.connect().await.unwrap()).await;
    assert_eq!(end.status, Some(42), "the exit status comes through");
    assert!(end.stderr.contains("attached"), "its stderr comes through: {end:?}");
    let copied = sidecar::cached(&sshd.home());
    assert_eq!(copied.len(), 1);
    assert!(copied[0].starts_with(concat!("gh-net-sidecar-", env!("CARGO_PKG_VERSION"), "-")), "{copied:?}");

    let file = sshd.home().join(".cache/gh-net").join(&copied[0]);
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    echo(transport.connect().await.unwrap()).await;
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written, "it is not copied again");
}

#[tokio::test]
async fn a_stale_sidecar_is_replaced() {
    let sshd = Sshd::start();
    let cache = sshd.home().join(".cache/gh-net");
    std::fs::create_dir_all(&cache).unwrap();
    let stale = cache.join("gh-net-sidecar-0.0.1-00000000");
    std::fs::write(&stale, "#!/bin/sh\necho gh-net-sidecar 0.0.1\n").unwrap();
    std::fs::set_permissions(&stale, PermissionsExt::from_mode(0o755)).unwrap();
    echo(transport(&sshd, None, &sidecar::directory()).connect().await.unwrap()).await;
    assert!(!stale.exists());
    assert_eq!(sidecar::cached(&sshd.home()).len(), 1);
}

#[tokio::test]
async fn a_damaged_copy_is_not_run() {
    let sshd = Sshd::start();
    let transport = transport(&sshd, None, &sidecar::directory());
    echo(transport.connect().await.unwrap()).await;
    let copy = sshd.home().join(".cache/gh-net").join(&sidecar::cached(&sshd.home())[0]);
    std::fs::write(&copy, "#!/bin/sh\necho gh-net-sidecar 0.1.0\n").unwrap();
    echo(transport.connect().await.unwrap()).await;
    assert!(std::fs::read(&copy).unwrap().starts_with(b"\x7fELF"));
}

#[tokio::test]
async fn output_of_a_login_shell_is_skipped() {
    let sshd = Sshd::start();
    // bash also reads it for commands over ssh.
    std::fs::write(sshd.home().join(".bashrc"), "echo Welcome to the codespace!; printf 'no newline'\n")
        .unwrap();
    let mut connection = transport(&sshd, None, &sidecar::directory()).connect().await.unwrap();
    connection.writer.write_all(b"there and back\n").await.unwrap();
    let Connection { mut reader, writer, carrier } = connection;
    drop(writer);
    let mut answer = String::new();
    reader.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("there and back\n"), "{answer:?}");
    carrier.close().await;
}

#[tokio::test]
async fn a_named_sidecar_is_run_without_a_copy() {
    let sshd = Sshd::start();
    let directory = sshd.home().join("my tools");
    std::fs::create_dir(&directory).unwrap();
    let path = directory.join("gh-net-sidecar");
    std::fs::copy(sidecar::directory().join("gh-net-sidecar"), &path).unwrap();
    echo(transport(&sshd, path.to_str(), Path::new("/nowhere")).connect().await.unwrap()).await;
    assert_eq!(sidecar::cached(&sshd.home()), [""; 0]);
}

#[tokio::test]
async fn a_missing_named_sidecar_is_a_status_with_stderr() {
    let sshd = Sshd::start();
    let mut connection =
        transport(&sshd, Some("/no/such/sidecar"), Path::new("/nowhere")).connect().await.unwrap();
    let end = connection.carrier.ended().await;
    assert_eq!(end.status, Some(127));
    assert!(end.stderr.contains("/no/such/sidecar"), "{end:?}");
}

#[tokio::test]
async fn without_any_sidecar_the_error_has_the_architecture() {
    let sshd = Sshd::start();
    let empty = tempfile::tempdir().unwrap();
    // One beside the test binary's directory would be found, but there is none.
    let error = transport(&sshd, None, empty.path()).connect().await.unwrap_err();
    let Error::Provision(provision::Error::None { machine, searched, .. }) = error else { panic!("{error}") };
    assert_eq!(machine, std::env::consts::ARCH);
    assert!(searched.contains(empty.path().to_str().unwrap()), "{searched}");
}

/// Relays one connection to `port`, and cuts it when the sender is used.
async fn relay(port: u16) -> (u16, tokio::sync::oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    let (cut, is_cut) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            _ = is_cut => {}
        }
    });
    (own, cut)
}

#[tokio::test]
async fn a_cut_connection_ends_the_link_without_a_status() {
    let sshd = Sshd::start();
    let (port, cut) = relay(sshd.port()).await;
    let relayed = [format!("Port={port}"), format!("HostKeyAlias=[127.0.0.1]:{}", sshd.port())];
    let mut flags = flags(&sshd, &relayed);
    flags.set("sidecar", sidecar::directory().join("gh-net-sidecar").display().to_string());
    let transport = Transport::new(&config::load(&flags, &Environment::new()).unwrap()).unwrap();
    let mut connection = transport.connect().await.unwrap();
    cut.send(()).unwrap();
    assert_eq!(connection.reader.read(&mut [0; 1]).await.unwrap(), 0);
    let end = connection.carrier.ended().await;
    assert_eq!(end.status, None);
    assert!(end.explained().contains("cut"), "{end:?}");
}

#[tokio::test]
async fn dropping_a_link_ends_the_connection() {
    let mut sshd = Sshd::start();
    let connection = transport(&sshd, None, &sidecar::directory()).connect().await.unwrap();
    drop(connection);
    tokio::task::spawn_blocking(move || sshd.wait_for("Received disconnect")).await.unwrap();
}
