//! Log lines for both programs: on stderr or into a file, never on stdout, which carries frames or data.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoUtc;

/// Sends log lines of `level` (a `tracing` filter such as `info` or `debug,gh_net::engine=trace`) to
/// `destination`, or to stderr.
///
/// # Errors
/// The filter does not parse, or the file can't be opened for appending.
pub fn init(level: &str, destination: Option<&Path>) -> io::Result<()> {
    let filter = EnvFilter::builder().parse(level).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the log level {level:?} is not valid: {error}"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    match destination {
        Some(path) => log.with_ansi(false).with_writer(Mutex::new(open(path)?)).init(),
        None => log
            .with_ansi(colour())
            .with_target(false)
            .with_timer(ChronoUtc::new("%H:%M:%S".to_owned()))
            .with_writer(io::stderr)
            .init(),
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Colour only for a terminal that wants it (<https://no-color.org>).
fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}
