//! The `gh-net` program: flags and signals, exit code and messages. Everything else is in the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use gh_net::cli::Invocation;
use gh_net::config::{self, Config, Sources, Target};
use gh_net::exit::{Exit, Failure};
use gh_net::instance::{Claim, ClaimError, Instance};
use gh_net::request::SessionHandle;
use gh_net::session::{self, Session};
use gh_net::transport::Transport;
use gh_net::{cli, codespaces, command, invoked};
use gh_net_common::logging;
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

/// musl's allocator maps and unmaps the buffer of every read from a socket, and each page costs a page fault, which
/// doubles the CPU time per byte. This allocator keeps freed memory.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// How long tasks may take to end at exit, once they have been dropped.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let done = match cli::parse() {
        Invocation::Start(flags) => {
            let sources = Sources { flags, environment: config::environment() };
            configured(&sources).and_then(|config| bridge(config, sources))
        }
        Invocation::Status { json, watch } => command::status::run(json, watch),
        Invocation::Rules { flags, target, json } => {
            let sources = Sources { flags, environment: config::environment() };
            command::rules::run(&sources, &target, json)
        }
        Invocation::Reload => command::reload::run(),
        Invocation::Stop { target } => command::stop::run(target.as_deref()),
    };
    let exit = match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            // If stderr is closed, there is only the exit code.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.exit
        }
    };
    exit.into()
}

fn configured(sources: &Sources) -> Result<Config, Failure> {
    let config = sources.load()?;
    // With a log file, stderr still shows what happens, including the line with `ready`.
    let logged = match &config.trace_dest {
        Some(file) => logging::init(Some("info"), Some((&config.trace, file))),
        None => logging::init(Some(&config.trace), None),
    };
    logged.map_err(|error| Failure {
        exit: Exit::Usage,
        what: format!("the log file can't be written: {error}"),
        details: None,
        remedy: Some("Check --trace-dest.".to_owned()),
    })?;
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(config)
}

fn bridge(config: Config, sources: Sources) -> Result<(), Failure> {
    keep_memory_private();
    raise_file_limit();
    let failed = |error: std::io::Error| Failure {
        exit: Exit::Failed,
        what: format!("gh-net can't start: {error}"),
        details: None,
        remedy: None,
    };
    // One thread: nothing blocks, and waking another thread would cost more than the work it takes over.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let result = runtime.block_on(async {
        let Signals { stop, wish, at_once } = signals().map_err(failed)?;
        tokio::select! {
            result = run(config, sources, stop, wish) => result,
            _ = at_once => Err(Failure {
                exit: Exit::Interrupted,
                what: "ended at once, without a goodbye".to_owned(),
                details: None,
                remedy: Some(
                    "The sidecar restores the codespace's network when it sees that the connection has ended.".to_owned(),
                ),
            }),
        }
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

async fn run(
    mut config: Config,
    sources: Sources,
    mut stop: session::Stop,
    wish: watch::Sender<bool>,
) -> Result<(), Failure> {
    if config.target == Target::Codespace(None) {
        let name = tokio::select! {
            name = codespaces::choose() => name?,
            _ = stop.wait_for(|stop| *stop) => return Err(codespaces::Error::Cancelled.into()),
        };
        config.target = Target::Codespace(Some(name));
    }
    let transport = Transport::new(&config).ok_or(codespaces::Error::Cancelled)?;
    // Dropped in reverse order: who no longer finds this session may start the next one.
    let (instance, _claim) = tokio::select! {
        found = findable(&transport) => found?,
        // ssh may look up names, or run commands of its configuration.
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let session = Session::new(config, sources, &transport, stop)?;
    let handle = session.handle();
    tokio::select! {
        result = session.run() => result,
        () = serve(instance.as_ref(), &handle, &wish) => Ok(()),
    }
}

/// Makes this session known to the user's other processes, if it is the only one with its target.
///
/// # Errors
/// Another process has a session with the target.
async fn findable(transport: &Transport) -> Result<(Option<Instance>, Option<Claim>), Failure> {
    let claimed = Claim::new(&transport.endpoint().await, &transport.name());
    let claim = match claimed {
        Ok(claim) => claim,
        Err(error @ ClaimError::Running { .. }) => return Err(error.into()),
        Err(ClaimError::Folder(error)) => {
            tracing::warn!("gh-net status, gh-net stop and a second start won't find this session: {error}");
            return Ok((None, None));
        }
    };
    if let Some(holder) = claim.suspended() {
        tracing::warn!(
            "{holder}, which has a session with {}, is suspended; this start takes the session over",
            transport.name()
        );
    }
    match Instance::listen() {
        Ok(instance) => Ok((Some(instance), Some(claim))),
        Err(error) => {
            tracing::warn!("gh-net status and gh-net stop won't find this session: {error}");
            Ok((None, Some(claim)))
        }
    }
}

/// Answers other processes of the user until dropped.
async fn serve(instance: Option<&Instance>, handle: &SessionHandle, wish: &watch::Sender<bool>) {
    match instance {
        Some(instance) => instance.serve(handle, wish).await,
        None => std::future::pending().await,
    }
}

/// Requests by signals: the first ends the session, a second one ends the program at once.
struct Signals {
    stop: session::Stop,
    /// Turns `stop` true.
    wish: watch::Sender<bool>,
    at_once: oneshot::Receiver<()>,
}

fn signals() -> std::io::Result<Signals> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (first, stop) = watch::channel(false);
    let (second, at_once) = oneshot::channel();
    let wish = first.clone();
    if invoked::by_gh() {
        end_with_gh(first.clone())?;
    }
    tokio::spawn(async move {
        for count in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if count > 0 {
                break;
            }
            tracing::info!("ending the session; Ctrl-C again ends at once");
            first.send_replace(true);
        }
        // The receiver is gone if the session has ended in the meantime.
        let _ = second.send(());
    });
    Ok(Signals { stop, wish, at_once })
}

/// Ends the session when gh has ended: gh does not forward the signal that ends it, so the session would go on without
/// it. Ctrl-C reaches both processes, so gh's end does not count as a second signal.
fn end_with_gh(stop: watch::Sender<bool>) -> std::io::Result<()> {
    let gh = getppid();
    let mut ended = signal(SignalKind::user_defined1())?;
    set_pdeathsig(Signal::SIGUSR1)?;
    tokio::spawn(async move {
        // The kernel sends the signal when the thread that started us ends, which may be before gh does (prctl(2)).
        while getppid() == gh {
            if ended.recv().await.is_none() {
                return;
            }
        }
        if !stop.send_replace(true) {
            tracing::info!("gh has ended; ending the session too");
        }
    });
    Ok(())
}

/// No core dump, and no debugger of the same user: the memory has the session's token, and what passes through. It ends with
/// exec, so ssh, gh and the command of `--exec` are as always.
fn keep_memory_private() {
    if let Err(error) = set_dumpable(false) {
        tracing::warn!("a crash may leave a core dump with the session's token: {error}");
    }
}

/// Each flow needs a socket, and the usual soft limit of 1024 is too low.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit of open files can't be raised: {error}");
    }
}
