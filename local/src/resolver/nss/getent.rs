//! The name service switch by way of the system's `getent`.
//!
//! The C library in a static gh-net reads /etc/hosts and resolv.conf but not nsswitch.conf: no systemd-resolved, no
//! sssd, no multicast DNS. `getent`, which is part of every glibc, makes the same two calls in a process of its own. It
//! gets a name or an address as its only argument, never an option, and no shell is involved. Its time and output are
//! bounded.

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys::c_library::{LookupError, getaddrinfo, getnameinfo};

/// The system's own getent. PATH is not used: the getent of another C library does not know this system's switch.
const PATHS: [&str; 3] = ["/usr/bin/getent", "/bin/getent", "/run/current-system/sw/bin/getent"];

/// Slightly more than the resolver's time limit for a query, after which the answer is unused.
const LIMIT: Duration = Duration::from_secs(5);

/// Hundreds of addresses, at three lines each.
const MAX_OUTPUT: u64 = 64 << 10;

/// "One or more supplied key could not be found in the database", for any reason.
const NOT_FOUND: i32 = 2;

/// How to run it.
#[derive(Debug, Clone)]
pub(super) struct Getent {
    /// The program and its first arguments; database and key follow.
    command: Vec<String>,
    limit: Duration,
}

impl Getent {
    /// The system's, if there is one.
    pub(super) fn of_system() -> Option<Self> {
        let program = PATHS.into_iter().find(|path| Path::new(path).exists())?;
        Some(Self { command: vec![program.to_owned()], limit: LIMIT })
    }

    /// The addresses of a name, of both families.
    pub(super) fn forward(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        // It returns only families that the laptop has (AI_ADDRCONFIG). That suffices: the laptop connects.
        let Some(output) = self.ask("ahosts", name)? else { return getaddrinfo(name) };
        let mut addresses = Vec::new();
        for address in output.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()) {
            // There is one line per socket type.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(LookupError::Failed) } else { Ok(addresses) }
    }

    /// The name of an address.
    pub(super) fn backward(&self, address: IpAddr) -> Result<String, LookupError> {
        let Some(output) = self.ask("hosts", &address.to_string())? else { return getnameinfo(address) };
        output.split_whitespace().nth(1).map(str::to_owned).ok_or(LookupError::Failed)
    }

    /// Its output for a key; `None` if it does not work, so that the caller uses the C library.
    fn ask(&self, database: &str, key: &str) -> Result<Option<String>, LookupError> {
        if key.starts_with('-') {
            return Err(LookupError::Failed);
        }
        let (program, arguments) = self.command.split_first().expect("a command has a program");
        let child = Command::new(program)
            .args(arguments)
            .args([database, key])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        match child.and_then(|child| finish(child, Instant::now() + self.limit)) {
            Ok((status, output)) if status.success() => Ok(Some(output)),
            // The name does not exist, or the lookup failed: getent does not tell which.
            Ok((status, _)) if status.code() == Some(NOT_FOUND) => Err(LookupError::Failed),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(LookupError::Failed),
            other => {
                tracing::debug!(?other, "{program} does not work");
                Ok(None)
            }
        }
    }
}

/// Waits for a child to end and returns its output. It is killed at the deadline.
fn finish(mut child: Child, deadline: Instant) -> io::Result<(ExitStatus, String)> {
    let stdout = child.stdout.take().expect("stdout is a pipe");
    let output = read(stdout, deadline);
    if output.is_err() {
        child.kill()?;
    }
    // It closes its stdout when it ends, or it was killed.
    let status = child.wait()?;
    Ok((status, output?))
}

fn read(mut stdout: ChildStdout, deadline: Instant) -> io::Result<String> {
    let mut output = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut chunk = [0; 4096];
        match stdout.read(&mut chunk)? {
            0 => return Ok(String::from_utf8_lossy(&output).into_owned()),
            read if (output.len() + read) as u64 > MAX_OUTPUT => {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            read => output.extend_from_slice(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in place of getent, with the database as $1 and the key as $2.
    fn script(lines: &str, limit: Duration) -> Getent {
        let command = ["/bin/sh", "-c", lines, "getent"].map(str::to_owned).to_vec();
        Getent { command, limit }
    }

    fn quick(lines: &str) -> Getent {
        script(lines, Duration::from_secs(60))
    }

    #[test]
    fn addresses_are_the_first_words_and_each_is_one() {
        let getent = quick(
            "printf '%s\\n' '10.20.0.10 STREAM www' '10.20.0.10 DGRAM' 'fd00::1 STREAM' '' 'nonsense' 'fe80::1%eth0 RAW'",
        );
        let addresses = getent.forward("www.corp.internal.").unwrap();
        assert_eq!(addresses, ["10.20.0.10", "fd00::1"].map(|a| a.parse::<IpAddr>().unwrap()));
        assert_eq!(quick("echo nonsense").forward("www."), Err(LookupError::Failed));
    }

    #[test]
    fn its_only_argument_is_a_name_or_an_address() {
        let expect =
            |arguments: &str| quick(&format!("[ \"$*\" = '{arguments}' ] && echo 10.0.0.1 name || exit 2"));
        assert!(expect("ahosts db_1.corp.").forward("db_1.corp.").is_ok());
        let name = expect("hosts fd00::1").backward("fd00::1".parse().unwrap());
        assert_eq!(name.as_deref(), Ok("name"));
        assert_eq!(quick("echo 10.0.0.1").forward("--service=files."), Err(LookupError::Failed));
    }

    #[test]
    fn a_failed_lookup_does_not_mean_that_the_name_does_not_exist() {
        assert_eq!(quick("exit 2").forward("www."), Err(LookupError::Failed));
        assert_eq!(quick("exit 2").backward("10.0.0.1".parse().unwrap()), Err(LookupError::Failed));
    }

    #[test]
    fn if_it_does_not_work_the_c_library_is_used() {
        let missing = Getent { command: vec!["/nowhere/getent".to_owned()], limit: LIMIT };
        for broken in [quick("echo 'unknown database' >&2; exit 1"), quick("kill -9 $$"), missing] {
            assert!(broken.forward("localhost").unwrap().iter().all(IpAddr::is_loopback));
            assert!(broken.backward("127.0.0.1".parse().unwrap()).is_ok());
        }
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let pid = tempfile::NamedTempFile::new().unwrap();
        let lines = format!("echo $$ > {}; exec sleep 1000", pid.path().display());
        // The limit grows until the script had time to write its pid.
        let mut limit = Duration::from_millis(50);
        let pid = loop {
            assert_eq!(script(&lines, limit).forward("www."), Err(LookupError::Failed));
            match std::fs::read_to_string(pid.path()).unwrap().trim().parse() {
                Ok(pid) => break pid,
                Err(_) => limit *= 2,
            }
        };
        // The process has ended and was reaped.
        let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
        assert_eq!(gone, Err(Errno::ESRCH));
    }

    #[test]
    fn endless_output_is_cut_off() {
        let talking = quick("while :; do echo 10.0.0.1 STREAM; done");
        // Its output is discarded, and the C library is asked.
        assert!(talking.forward("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn the_systems_own_finds_what_the_c_library_finds() {
        // Only glibc always comes with a getent.
        let Some(getent) = Getent::of_system() else { return };
        assert!(getent.forward("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(getent.backward("127.0.0.1".parse().unwrap()).is_ok_and(|name| !name.is_empty()));
        assert_eq!(getent.forward("no-such-name.invalid."), Err(LookupError::Failed));
    }
}
