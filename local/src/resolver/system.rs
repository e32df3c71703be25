//! The laptop's configuration: resolv.conf and /etc/hosts.

use std::fs::{self, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gh_net_common::frame::is_domain;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::hosts::Hosts;
use super::upstream::Upstream;

/// Minimum time between two checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why the resolver's configuration can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration file exists but can't be read.
    #[error("can't read {path}, which configures name resolution on this machine: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The paths of the configuration, and the port of the nameservers.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    pub(super) resolv_conf: PathBuf,
    pub(super) hosts: PathBuf,
    pub(super) port: u16,
}

impl Default for Paths {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), port: 53 }
    }
}

/// The contents of the files.
#[derive(Debug)]
pub(super) struct System {
    pub(super) upstream: Upstream,
    pub(super) search: Vec<String>,
    pub(super) hosts: Hosts,
    stamps: [Stamp; 2],
    checked: Mutex<Instant>,
}

/// Identifies a version of a file.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

impl System {
    /// Reads the files. A missing file counts as empty.
    pub(super) fn load(paths: &Paths) -> Result<Self, Error> {
        // Before reading, so that a change in between is found later.
        let stamps = stamps(paths);
        let resolv_conf = read(&paths.resolv_conf)?;
        let hosts = read(&paths.hosts)?;
        let (servers, search) = match parse_resolv_conf(&resolv_conf) {
            Ok((config, _)) => {
                let servers = config.name_servers().iter().map(|server| server.ip).collect();
                let search = config.search().iter();
                let search = search.map(|name| name.to_ascii().trim_end_matches('.').to_ascii_lowercase());
                (servers, search.filter(|name| is_domain(name)).collect())
            }
            Err(error) => {
                tracing::warn!(
                    "{}: {error}; names are looked up by getaddrinfo",
                    paths.resolv_conf.display()
                );
                (Vec::new(), Vec::new())
            }
        };
        Ok(Self {
            upstream: Upstream::new(servers, paths.port),
            search,
            hosts: Hosts::parse(&String::from_utf8_lossy(&hosts)),
            stamps,
            checked: Mutex::new(Instant::now()),
        })
    }

    /// Whether its answers may be others than those of `before`. Behind a resolver on this machine there are servers that
    /// the file does not name; that it was written again is all that can be seen of a change of theirs.
    pub(super) fn may_answer_otherwise_than(&self, before: &Self) -> bool {
        let servers = self.upstream.addresses();
        let hides_servers = servers.iter().any(IpAddr::is_loopback);
        servers != before.upstream.addresses()
            || (&self.search, &self.hosts) != (&before.search, &before.hosts)
            || hides_servers && self.stamps != before.stamps
    }

    /// Whether the files have changed since they were read, checked at most once per interval.
    pub(super) fn is_outdated(&self, paths: &Paths) -> bool {
        {
            let Ok(mut checked) = self.checked.lock() else { return false };
            if checked.elapsed() < CHECK_INTERVAL {
                return false;
            }
            *checked = Instant::now();
        }
        stamps(paths) != self.stamps
    }
}

fn stamps(paths: &Paths) -> [Stamp; 2] {
    let stamp = |m: Metadata| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len());
    [&paths.resolv_conf, &paths.hosts].map(|path| fs::metadata(path).ok().map(stamp))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Ok(contents) => Ok(contents),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}
