//! The running sessions, as other processes find and ask them.
//!
//! A process that is suspended accepts no connection, and each one that is made to it waits in the kernel until it goes
//! on. So each question is one connection, and everything about it takes a bounded time.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::folder::{Error, check, folders};
use crate::judgement::{Judgement, Question};
use crate::request::{Refused, Reloaded};

/// How long a client may take, and how long it waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of an answer in bytes: a status with thousands of flows.
const MAX_ANSWER: u64 = 16 * 1024 * 1024;

/// A session that was found, to be asked. Its process may have been killed since.
#[derive(Debug)]
pub struct Running {
    socket: PathBuf,
}

/// Asks all sessions at the same time, so that several silent ones take no longer than one.
pub fn ask_all<T: Send>(
    sessions: Vec<Running>,
    question: impl Fn(&Running) -> T + Sync,
) -> Vec<(Running, T)> {
    let answers = std::thread::scope(|scope| {
        let question = &question;
        let asked: Vec<_> = sessions.iter().map(|session| scope.spawn(move || question(session))).collect();
        let answers = asked.into_iter().map(|thread| match thread.join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        answers.collect::<Vec<_>>()
    });
    sessions.into_iter().zip(answers).collect()
}

impl Running {
    /// All sessions of this user, including those that a killed process has left.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn all() -> Result<Vec<Self>, Error> {
        let mut found = Vec::new();
        for (index, folder) in folders().iter().enumerate() {
            match Self::all_in(folder) {
                // A folder that this process would not use either may be anybody's.
                Err(Error::Unsafe(_)) if index > 0 => {}
                sessions => found.extend(sessions?),
            }
        }
        Ok(found)
    }

    pub(super) fn all_in(folder: &Path) -> Result<Vec<Self>, Error> {
        let entries = match check(folder).and_then(|()| fs::read_dir(folder).map_err(Error::at(folder))) {
            // There is none, or it was removed by the last session in it.
            Err(Error::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let socket = entry.map_err(Error::at(folder))?.path();
            if socket.extension().is_some_and(|it| it == "sock") {
                found.push(Self { socket });
            }
        }
        found.sort_by(|one, other| one.socket.cmp(&other.socket));
        Ok(found)
    }

    /// Removes the sockets that killed processes have left.
    pub(super) fn sweep(folder: &Path) {
        for session in Self::all_in(folder).unwrap_or_default() {
            if session.connect(None).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                let _ = fs::remove_file(&session.socket);
            }
        }
    }

    /// Its process's id.
    pub fn process(&self) -> &str {
        let stem = self.socket.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        stem.split_once('-').map_or(stem, |(process, _)| process)
    }

    /// Whether its socket is still there. Unlike [`Self::runs`], it makes no connection, and also returns true after its
    /// process was killed.
    pub fn is_found(&self) -> bool {
        fs::symlink_metadata(&self.socket).is_ok()
    }

    /// Whether a process still listens.
    pub fn runs(&self) -> bool {
        match self.connect(None) {
            Ok(_) => true,
            // As many as it may have wait to be accepted.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    /// The session's status as JSON; `None` if the session has ended meanwhile.
    ///
    /// # Errors
    /// It did not answer.
    pub fn status(&self) -> Result<Option<serde_json::Value>, Error> {
        self.ask("status")
    }

    /// Asks the session to end. Returns false if it has ended meanwhile.
    ///
    /// # Errors
    /// It did not answer.
    pub fn stop(&self) -> Result<bool, Error> {
        Ok(self.ask("stop")?.is_some())
    }

    /// Asks the session to read its configuration again. `None` if the session has ended meanwhile.
    ///
    /// # Errors
    /// It did not answer.
    pub fn reload(&self) -> Result<Option<Result<Reloaded, Refused>>, Error> {
        let Some(answer) = self.ask("reload")? else { return Ok(None) };
        let answer = serde_json::from_value(answer).map_err(|error| Error::at(&self.socket)(error.into()))?;
        Ok(Some(answer))
    }

    /// Asks what would happen to a flow. `None` if the session has ended meanwhile.
    ///
    /// # Errors
    /// It did not answer.
    pub fn judge(&self, question: &Question) -> Result<Option<Judgement>, Error> {
        let at = Error::at(&self.socket);
        let question = serde_json::to_string(question).map_err(|error| at(error.into()))?;
        let Some(answer) = self.ask(&format!("judge {question}"))? else { return Ok(None) };
        let answer = serde_json::from_value(answer).map_err(|error| Error::at(&self.socket)(error.into()))?;
        Ok(Some(answer))
    }

    pub(super) fn ask(&self, request: &str) -> Result<Option<serde_json::Value>, Error> {
        self.ask_for(request, PATIENCE)
    }

    fn ask_for(&self, request: &str, patience: Duration) -> Result<Option<serde_json::Value>, Error> {
        use io::ErrorKind::{
            BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, TimedOut, UnexpectedEof, WouldBlock,
        };
        let error = match self.exchange(request, patience) {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        let kind = error.kind();
        let closed = matches!(kind, ConnectionReset | BrokenPipe | UnexpectedEof);
        if matches!(kind, NotFound | ConnectionRefused) || closed && !self.runs() {
            Ok(None)
        } else if closed || matches!(kind, WouldBlock | TimedOut) {
            Err(Error::Silent(self.process().to_owned()))
        } else {
            Err(Error::at(&self.socket)(error))
        }
    }

    fn exchange(&self, request: &str, patience: Duration) -> io::Result<serde_json::Value> {
        let stream = self.connect(Some(patience))?;
        if getsockopt(&stream, sockopt::PeerCredentials)?.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(patience))?;
        writeln!(&stream, "{request}")?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Connects; waits for at most so long, or not at all, if too many others wait already.
    fn connect(&self, patience: Option<Duration>) -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // It is the time-out of connect(2) as well (unix(7) has the error as EAGAIN).
        socket.set_write_timeout(patience)?;
        socket.set_nonblocking(patience.is_none())?;
        socket.connect(&SockAddr::unix(&self.socket)?)?;
        Ok(socket.into())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket,
    };
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;

    /// A process that listens, but never accepts, as a suspended one.
    fn suspended(path: &Path, backlog: i32) -> OwnedFd {
        let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        listen(&listener, Backlog::new(backlog).unwrap()).unwrap();
        listener
    }

    #[test]
    fn one_that_does_not_answer_is_named_after_a_bounded_time() {
        let folder = tempfile::tempdir().unwrap();
        let session = Running { socket: folder.path().join("7.sock") };
        let _listener = suspended(&session.socket, 1);
        // The first ones wait for an answer, the others to be connected.
        for _ in 0..4 {
            let error = session.ask_for("status", Duration::from_millis(20)).unwrap_err();
            assert_eq!(error.to_string(), "process 7 does not answer; it may be suspended");
        }
        assert!(session.runs());
    }

    #[test]
    fn each_question_is_one_connection() {
        let folder = tempfile::tempdir().unwrap();
        let listener = suspended(&folder.path().join("7.sock"), 100);
        let mut permissions = fs::metadata(folder.path()).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
        fs::set_permissions(folder.path(), permissions).unwrap();
        let found = Running::all_in(folder.path()).unwrap();
        let asked = ask_all(found, |session| session.ask_for("status", Duration::from_millis(20)));
        assert!(matches!(asked[..], [(_, Err(Error::Silent(_)))]), "{asked:?}");
        let connections = std::iter::from_fn(|| accept(listener.as_raw_fd()).ok()).count();
        assert_eq!(connections, 1);
    }

    #[test]
    fn what_a_killed_process_has_left_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let session = Running { socket: folder.path().join("7.sock") };
        drop(suspended(&session.socket, 1));
        assert!(session.is_found() && !session.runs());
        assert!(session.status().unwrap().is_none());
    }
}
