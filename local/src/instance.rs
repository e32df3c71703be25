//! A running gh-net can be found and asked: each process has a socket in a folder of its user's own.
//!
//! The [folder](mod@folder) belongs to the user and is closed to everybody else, and each side checks that the other is the
//! same user. A client sends one line, `status` or `stop`, and receives one line of JSON.
//!
//! A [`Claim`] keeps a second process from a session with the same target.

mod claim;
mod folder;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::status::request::StatusHandle;
pub use claim::{Claim, ClaimError};
pub use folder::Error;
use folder::{folder, prepare};

/// How long a client may take, and how long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum number of clients at a time.
const CLIENTS: usize = 8;
/// Maximum length of a request in bytes.
const MAX_REQUEST: u64 = 16;
/// Maximum length of an answer in bytes: a status with thousands of flows.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

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
        Self::listen_in(&folder(), &std::process::id().to_string())
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

/// A running session, to be asked.
#[derive(Debug)]
pub struct Running {
    socket: PathBuf,
}

impl Running {
    /// All running sessions of this user.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn all() -> Result<Vec<Self>, Error> {
        Self::all_in(&folder())
    }

    fn all_in(folder: &Path) -> Result<Vec<Self>, Error> {
        if !folder.exists() {
            return Ok(Vec::new());
        }
        prepare(folder)?;
        let failed = |error| Error::Io { path: folder.to_owned(), error };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let socket = entry.map_err(failed)?.path();
            // A socket that nobody listens on was left by a process that was killed.
            let session = Self { socket };
            if session.socket.extension().is_some_and(|it| it == "sock") && session.runs() {
                found.push(session);
            }
        }
        found.sort_by(|one, other| one.socket.cmp(&other.socket));
        Ok(found)
    }

    /// Its process's id.
    pub fn process(&self) -> &str {
        self.socket.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        UnixStream::connect(&self.socket).is_ok()
    }

    /// The session's status as JSON.
    ///
    /// # Errors
    /// It did not answer.
    pub fn status(&self) -> Result<serde_json::Value, Error> {
        self.ask("status")
    }

    /// Asks the session to end.
    ///
    /// # Errors
    /// It did not answer.
    pub fn stop(&self) -> Result<(), Error> {
        self.ask("stop").map(drop)
    }

    fn ask(&self, request: &str) -> Result<serde_json::Value, Error> {
        let ask = || {
            let stream = UnixStream::connect(&self.socket)?;
            if getsockopt(&stream, sockopt::PeerCredentials)?.uid() != geteuid().as_raw() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            writeln!(&stream, "{request}")?;
            let mut line = String::new();
            BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        ask().map_err(|error| Error::Io { path: self.socket.clone(), error })
    }
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
        assert_eq!(Running::all_in(&folder).unwrap().len(), 2);
        drop(first);
        // A process that was killed leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(folder.join("3.sock")).unwrap());
        assert_eq!(Running::all_in(&folder).unwrap().len(), 1);
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
                assert!(session.ask("reboot").is_err());
                assert!(!*stopped.borrow());
                session.stop().unwrap();
                assert!(*stopped.borrow());
            }
        });
        tokio::select! {
            () = instance.serve(&status, &stop) => unreachable!("it serves until it is dropped"),
            done = client => done.unwrap(),
        }
    }
}
