//! TCP in virtual time: scenarios over many seeds.

use gh_net_tests::sim::plan::{Flow, Plan};
use gh_net_tests::sim::{Report, Scenario, run};

/// Runs what `scenario` makes of each seed; the seed of a failure is printed.
fn over_seeds(count: u64, scenario: impl Fn(u64) -> Scenario, check: impl Fn(&Report)) {
    for seed in 0..count {
        let scenario = scenario(seed);
        let report = std::panic::catch_unwind(|| run(&scenario, seed));
        match report {
            Ok(report) => check(&report),
            Err(panic) => {
                eprintln!("failed with seed {seed}: {scenario:#?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn bulk_up() {
    over_seeds(10, |_| Scenario::new(vec![Flow::new(Plan::sends(2_000_000), Plan::default())]), |r| eprintln!("{r:?}"));
}

#[test]
fn bulk_down() {
    over_seeds(10, |_| Scenario::new(vec![Flow::new(Plan::default(), Plan::sends(2_000_000))]), |r| eprintln!("{r:?}"));
}
