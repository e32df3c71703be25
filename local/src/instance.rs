//! A running gh-net can be found and asked: each process has a socket in a folder of its user's own.
//!
//! The [folder](mod@folder) belongs to the user and is closed to everybody else, and each side checks that the other is the
//! same user. A client sends one line, `status` or `stop`, and receives one line of JSON.
//!
//! A [`Claim`] keeps a second process from a session with the same target.

mod claim;
mod folder;
mod running;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::status::request::StatusHandle;
pub use claim::{Claim, ClaimError, Holder};
pub use folder::Error;
use folder::{folders, prepare};
pub use running::{Running, ask_all};

/// How long a client may take, and how long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of clients at a time.
const CLIENTS: usize = 8;
/// Maximum length of a request in bytes.
const MAX_REQUEST: u64 = 16;

/// This process, as it can be found.
#[derive(Debug)]
pub struct Instance {
    listener: UnixListener,
    socket: PathBuf,
}

impl Instance {
    /// Listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn listen() -> Result<Self, Error> {
        Self::listen_in(&folders()[0], &std::process::id().to_string())
    }

    fn listen_in(folder: &Path, name: &str) -> Result<Self, Error> {
        prepare(folder)?;
        let socket = folder.join(format!("{name}.sock"));
        // What a process of the same id has left that was killed.
        let _ = fs::remove_file(&socket);
        let listener =
            UnixListener::bind(&socket).map_err(|error| Error::Io { path: socket.clone(), error })?;
        Ok(Self { listener, socket })
    }

    /// Answers clients until dropped. `stop` turns true when one of them ends the session.
    pub async fn serve(&self, status: &StatusHandle, stop: &watch::Sender<bool>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < CLIENTS => {
                    if let Ok((stream, _)) = accepted {
                        let (status, stop) = (status.clone(), stop.clone());
                        clients.spawn(async move {
                            // A client that went away or sends nonsense is no concern of the session.
                            let _ = timeout(PATIENCE, answer(stream, &status, &stop)).await;
                        });
                    }
                }
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What stays behind is passed over by those who look. The folder goes with the last session.
        let _ = fs::remove_file(&self.socket);
        let _ = self.socket.parent().map(fs::remove_dir);
    }
}

async fn answer(
    stream: tokio::net::UnixStream,
    status: &StatusHandle,
    stop: &watch::Sender<bool>,
) -> io::Result<()> {
    if stream.peer_cred()?.uid() != geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (mut reader, mut writer) = stream.into_split();
    let mut request = Vec::new();
    while !request.ends_with(b"\n") && (request.len() as u64) < MAX_REQUEST {
        if reader.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let mut line = match request.trim_ascii() {
        b"status" => match status.status().await {
            Some(status) => serde_json::to_vec(&status)?,
            None => return Err(io::ErrorKind::NotConnected.into()),
        },
        b"stop" => {
            stop.send_replace(true);
            serde_json::to_vec(&serde_json::json!({ "stopping": std::process::id() }))?
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    line.push(b'\n');
    writer.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::status::request;

    #[tokio::test]
    async fn sessions_are_found_for_as_long_as_they_run() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        assert!(Running::all_in(&folder).unwrap().is_empty());
        let first = Instance::listen_in(&folder, "1").unwrap();
        let _other = Instance::listen_in(&folder, "2").unwrap();
        let found = || Running::all_in(&folder).unwrap().into_iter().filter(Running::runs).count();
        assert_eq!(found(), 2);
        drop(first);
        // A process that was killed leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(folder.join("3.sock")).unwrap());
        assert_eq!(found(), 1);
    }

    #[tokio::test]
    async fn a_folder_that_others_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Instance::listen_in(&folder, "x"), Err(Error::Unsafe(_))));
        fs::remove_dir(&folder).unwrap();
        std::os::unix::fs::symlink(parent.path(), &folder).unwrap();
        assert!(matches!(Running::all_in(&folder), Err(Error::Unsafe(_))));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_stops_the_session_and_nonsense_does_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        let instance = Instance::listen_in(&folder, "x").unwrap();
        let (status, _requests) = request::channel();
        let (stop, stopped) = watch::channel(false);
        let client = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || {
                let session = Running::all_in(&folder).unwrap().remove(0);
                assert!(matches!(session.ask("reboot"), Err(Error::Silent(_))));
                assert!(!*stopped.borrow());
                assert!(session.stop().unwrap());
                assert!(*stopped.borrow());
            }
        });
        tokio::select! {
            () = instance.serve(&status, &stop) => unreachable!("it serves until it is dropped"),
            done = client => done.unwrap(),
        }
    }
}
