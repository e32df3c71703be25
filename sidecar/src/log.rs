//! The owner's log file, if one is asked for.

use crate::cli::Trace;

use crate::privilege;

/// Whether the caller may choose the log file. With file capabilities (CAP_DAC_OVERRIDE) an unprivileged caller could
/// otherwise append to any file.
///
/// # Errors
/// The caller may not.
pub(crate) fn check(trace: &Trace) -> anyhow::Result<()> {
    anyhow::ensure!(
        trace.trace_dest.is_none() || !privilege::is_secure_execution(),
        "--trace-dest can't be used with file capabilities; run it as root or by sudo, or leave it out"
    );
    Ok(())
}

/// Starts logging into the file that `trace` names.
///
/// # Errors
/// The caller may not choose a file, or it can't be written.
pub(crate) fn start(trace: &Trace) -> anyhow::Result<()> {
    check(trace)?;
    if let Some(file) = &trace.trace_dest {
        gh_net_common::logging::init(None, Some((&trace.trace, file)))?;
    }
    Ok(())
}
