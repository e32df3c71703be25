//! Log lines of both programs: on stderr, in a file, or both. Never on stdout, which carries frames or data.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::time::ChronoUtc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Sends log lines to stderr, to a file, or to both, each with its own filter in `tracing`'s syntax, such as `info` or
/// `debug,gh_net::engine=trace`. A level without a target applies to our own crates only. Other crates log each of
/// their steps at `debug`; only their warnings are shown unless the filter names them. Times are in UTC.
///
/// # Errors
/// A filter does not parse, or the file can't be opened for appending.
pub fn init(stderr: Option<&str>, file: Option<(&str, &Path)>) -> io::Result<()> {
    // A line that can't be written is lost. Reporting that on stderr would panic when it is stderr that is closed,
    // as with a closed terminal or `2>&1 | head`.
    let layer = || tracing_subscriber::fmt::layer().log_internal_errors(false);
    let lines = |level| -> io::Result<_> {
        let timer = ChronoUtc::new("%H:%M:%SZ".to_owned());
        let lines = layer().with_ansi(colour()).with_target(false).with_timer(timer);
        Ok(lines.with_writer(OneLine(io::stderr)).with_filter(filter(level)?).boxed())
    };
    let log = |(level, path)| -> io::Result<_> {
        Ok(layer()
            .with_ansi(false)
            .with_writer(OneLine(Mutex::new(open(path)?)))
            .with_filter(filter(level)?)
            .boxed())
    };
    let layers = stderr.map(lines).into_iter().chain(file.map(log)).collect::<io::Result<Vec<_>>>()?;
    tracing_subscriber::registry().with(layers).init();
    Ok(())
}

fn filter(level: &str) -> io::Result<EnvFilter> {
    EnvFilter::builder().parse(directives(level)).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the log level {level:?} is not valid: {error}"))
    })
}

/// The complete filter. Targets match by prefix, so `gh_net` means all our crates.
fn directives(level: &str) -> String {
    let full = |part: &str| match part.to_ascii_lowercase().as_str() {
        quiet @ ("off" | "error" | "warn") => quiet.to_owned(),
        own @ ("info" | "debug" | "trace") => format!("warn,gh_net={own}"),
        _ => part.to_owned(),
    };
    level.split(',').map(|part| full(part.trim())).collect::<Vec<_>>().join(",")
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Whether to colour: only on a terminal that allows it (<https://no-color.org>).
fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Writes each event as one line. Much of what is logged comes from the other side, and a line break in it, for example in
/// the banner of a login shell, would begin what looks like a line of ours.
struct OneLine<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// The writer of one event.
struct Line<W>(W);

impl<W: io::Write> io::Write for Line<W> {
    /// Takes a whole event, which is how the layer writes them.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(event))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with its line breaks escaped, but for the last byte.
fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let (text, end) = event.split_at(event.len().saturating_sub(1));
    if !text.contains(&b'\n') {
        return event.into();
    }
    let mut line = text.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\\n"[..]);
    line.extend_from_slice(end);
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_our_own_crates() {
        assert_eq!(directives("debug"), "warn,gh_net=debug");
        assert_eq!(directives("error"), "error");
        assert_eq!(
            directives("INFO, gh_net::engine=trace,hickory_proto=debug"),
            "warn,gh_net=info,gh_net::engine=trace,hickory_proto=debug"
        );
    }

    /// As the output of a login shell that imitates our lines.
    #[test]
    fn an_event_is_one_line() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let writer = OneLine(Mutex::new(open(path.path()).unwrap()));
        let layer = tracing_subscriber::fmt::layer().without_time().with_target(false).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before: {}", "hello\n12:00:00Z  INFO ready\n");
            tracing::info!("after");
        });
        let written = std::fs::read_to_string(path.path()).unwrap();
        assert_eq!(written, " INFO before: hello\\n12:00:00Z  INFO ready\\n\n INFO after\n");
    }
}
