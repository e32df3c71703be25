//! A codespace that stops while the link is lost is not started again, because a running one costs money.

use std::time::Duration;

use anyhow::Result;
use gh_net_tests::lab::{Account, CODESPACE, Lab, Options};
use nix::sys::signal::{Signal, kill};

const NOTICED: Duration = Duration::from_secs(30);

#[test]
fn a_stopped_codespace_stays_stopped_unless_the_user_wants_it_started() -> Result<()> {
    for keep_started in [false, true] {
        let Some(mut lab) = Lab::for_test(Options::default())? else { return Ok(()) };
        lab.start_github()?;
        let mut args = vec!["-c", CODESPACE, "--grace", "15m"];
        args.extend(keep_started.then_some("--keep-started"));
        let bridge = lab.gh_net(&args)?.with_gh(Account::Two).ready()?;
        assert_eq!(lab.codespace_starts()?, 1);
        Lab::set_codespaces_running(false);
        for pid in lab.laptop.processes("ssh")? {
            // One may end by itself because another one did.
            let _ = kill(pid, Signal::SIGKILL);
        }
        if keep_started {
            bridge.process().wait_for("reconnected after", NOTICED)?;
            assert_eq!(lab.codespace_starts()?, 2);
        } else {
            bridge.process().wait_for("use --keep-started", NOTICED)?;
            assert!(bridge.log().contains("is stopped (Shutdown)"), "{}", bridge.log());
            assert_eq!(lab.codespace_starts()?, 1, "the codespace was started");
        }
        Lab::set_codespaces_running(true);
        bridge.process().signal(Signal::SIGINT)?;
        assert_eq!(bridge.into_process().finish(NOTICED)?.code(), 0);
    }
    Ok(())
}
