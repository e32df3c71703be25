//! A running gh-net can be found and asked: each process has a socket in a folder of its user's own.
//!
//! The [folder](mod@folder) belongs to the user and is closed to everybody else, and each side checks that the other is the
//! same user. A client sends one line, `status`, `stop`, `reload`, or `judge` and a
//! [question](crate::judgement::Question) as JSON, and receives one line of JSON.
//!
//! A [`Claim`] keeps a second process from a session with the same target.

mod claim;
mod folder;
mod running;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::random::random;
use crate::request::SessionHandle;
pub use claim::{Claim, ClaimError, Holder};
pub use folder::Error;
use folder::{folders, prepare};
use running::PATIENCE;
pub use running::{Running, ask_all};

/// Pause after an error that may persist, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// How often to try to listen: each attempt may meet another process that removes the folder at its end.
const ATTEMPTS: usize = 100;
/// Maximum number of clients at a time.
const CLIENTS: usize = 8;
/// Maximum length of a request in bytes. The longest is a question about a flow: a name of 253 bytes, and an address.
const MAX_REQUEST: u64 = 512;

/// This process, as it can be found.
#[derive(Debug)]
pub struct Instance {
    listener: UnixListener,
    socket: PathBuf,
    /// Device and inode of the socket's file.
    file: Option<(u64, u64)>,
}

impl Instance {
    /// Listens. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn listen() -> Result<Self, Error> {
        Self::listen_in(&folders()[0], &std::process::id().to_string())
    }

    fn listen_in(folder: &Path, process: &str) -> Result<Self, Error> {
        Running::sweep(folder);
        let mut failed = None;
        for _ in 0..ATTEMPTS {
            prepare(folder)?;
            // Two processes in different pid namespaces may have the same id.
            let random = random() as u32;
            let socket = folder.join(format!("{process}-{random:08x}.sock"));
            match bound(&socket) {
                Ok(listener) => {
                    let file = file_at(&socket);
                    return Ok(Self { listener, socket, file });
                }
                Err(error) => {
                    // The folder was removed by the last session in it, or the name is in use.
                    let again = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::AddrInUse);
                    failed = Some(Error::at(&socket)(error));
                    if !again {
                        break;
                    }
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::at(folder)(io::ErrorKind::TimedOut.into())))
    }

    /// Answers clients until dropped. `stop` turns true when one of them ends the session.
    pub async fn serve(&self, session: &SessionHandle, stop: &watch::Sender<bool>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if clients.len() < CLIENTS => {
                    let (stream, _) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => {
                            tracing::debug!(%error, "accepting a client of this session");
                            sleep(PAUSE).await;
                            continue;
                        }
                    };
                    let (session, stop) = (session.clone(), stop.clone());
                    clients.spawn(async move {
                        // A client that went away or sends nonsense is no concern of the session.
                        let _ = timeout(PATIENCE, answer(stream, &session, &stop)).await;
                    });
                }
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // What stays behind is passed over by those who look. The folder goes with the last session.
        if file_at(&self.socket) == self.file {
            let _ = fs::remove_file(&self.socket);
        }
        let _ = self.socket.parent().map(fs::remove_dir);
    }
}

/// A listener at `socket`, whose file is there only once connections are taken, so that nobody believes that the process
/// was killed.
fn bound(socket: &Path) -> io::Result<UnixListener> {
    let early = socket.with_extension("new");
    let listener = UnixListener::bind(&early)?;
    fs::rename(&early, socket)?;
    Ok(listener)
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

async fn answer(
    stream: tokio::net::UnixStream,
    session: &SessionHandle,
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
    let request = request.trim_ascii();
    let mut line = match request {
        b"status" => match session.status().await {
            Some(status) => serde_json::to_vec(&status)?,
            None => return Err(io::ErrorKind::NotConnected.into()),
        },
        b"reload" => match session.reload().await {
            Some(reloaded) => serde_json::to_vec(&reloaded)?,
            None => return Err(io::ErrorKind::NotConnected.into()),
        },
        b"stop" => {
            tracing::info!("ending the session: `gh-net stop` asks for it");
            stop.send_replace(true);
            serde_json::to_vec(&serde_json::json!({ "stopping": std::process::id() }))?
        }
        _ => {
            let question = request.strip_prefix(b"judge ").ok_or(io::ErrorKind::InvalidData)?;
            match session.judge(serde_json::from_slice(question)?).await {
                Some(judgement) => serde_json::to_vec(&judgement)?,
                None => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
    };
    line.push(b'\n');
    writer.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::request;

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
        // A process that was killed leaves its socket, and the next start removes it.
        let left = folder.join("3.sock");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        assert_eq!(found(), 1);
        let _another = Instance::listen_in(&folder, "4").unwrap();
        assert!(!left.exists());
        assert_eq!(found(), 2);
    }

    #[tokio::test]
    async fn processes_of_the_same_id_keep_their_sockets() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("gh-net");
        let one = Instance::listen_in(&folder, "1").unwrap();
        let other = Instance::listen_in(&folder, "1").unwrap();
        let found = Running::all_in(&folder).unwrap();
        assert_eq!(found.iter().map(Running::process).collect::<Vec<_>>(), ["1", "1"]);
        assert!(found.iter().all(Running::runs));
        // Something cleans the folder, and another process listens there.
        fs::rename(&other.socket, &one.socket).unwrap();
        drop(one);
        assert!(Running::all_in(&folder).unwrap()[0].runs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_that_persists_takes_no_time_from_the_session() {
        // Accepting fails on a socket that does not listen.
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into()).unwrap();
        let instance = Instance { listener, socket: "/nonexistent/1.sock".into(), file: Some((0, 0)) };
        let (status, _requests) = request::channel();
        let (stop, _) = watch::channel(false);
        // This clock goes on only while nothing else is to be done.
        assert!(timeout(Duration::from_secs(60), instance.serve(&status, &stop)).await.is_err());
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
