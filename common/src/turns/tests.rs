//! Turns under programs that want more than their share.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::names::MAX_NAMES;
use super::*;

const LIMITS: Limits = Limits {
    turns: 8,
    per_group: 8,
    reserved: 0,
    waiting: 100,
    evict_after: Some(Duration::from_millis(500)),
    hold_down: true,
};

/// A name's group.
fn group(name: &str) -> Group {
    Group::of_name(&name.split('.').collect::<Vec<_>>())
}

async fn never() -> (Outcome, ()) {
    std::future::pending().await
}

/// Fills the turns, and the places behind them, with what never ends.
fn flood(turns: &Arc<Turns>, count: usize, name: impl Fn(usize) -> String) -> JoinSet<()> {
    let mut flood = JoinSet::new();
    for number in 0..count {
        let (turns, group) = (Arc::clone(turns), group(&name(number)));
        flood.spawn(async move {
            if let Ok(turn) = turns.take(group).await {
                turn.run(never()).await;
            }
        });
    }
    flood
}

/// A lookup that takes its time, as others see it.
async fn look_up(turns: &Arc<Turns>, name: &str) -> Option<()> {
    let turn = timeout(Duration::from_secs(2), turns.take(group(name))).await.ok()?.ok()?;
    let work = async {
        sleep(Duration::from_millis(100)).await;
        (Outcome::Served, ())
    };
    turn.run(work).await
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_holds_up_no_other_group_and_no_other_part() {
    let names: [fn(usize) -> String; 3] = [
        |number| format!("host{number}.dead.corp.example"),
        |number| format!("www.zone{number}.dead.example"),
        |number| format!("www.dead{number}.example"),
    ];
    for name in names {
        let turns = Turns::new(LIMITS);
        let _flood = flood(&turns, 24, name);
        sleep(Duration::from_millis(1)).await;
        for other in ["www.corp.example", "www.lan", "www.dead.example"] {
            assert_eq!(look_up(&turns, other).await, Some(()), "{other}, {}", name(0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_group_is_served_in_turn() {
    let turns = Turns::new(LIMITS);
    let mut burst = JoinSet::new();
    for _ in 0..100 {
        let turns = Arc::clone(&turns);
        burst.spawn(async move { look_up(&turns, "www.corp.example").await });
    }
    assert_eq!(burst.join_all().await, vec![Some(()); 100]);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_old_is_not_taken_away() {
    let turns = Turns::new(LIMITS);
    let mut busy = JoinSet::new();
    for _ in 0..80 {
        let turns = Arc::clone(&turns);
        busy.spawn(async move { turns.take(group("www.corp.example")).await.unwrap().run(slow()).await });
    }
    async fn slow() -> (Outcome, ()) {
        sleep(Duration::from_millis(400)).await;
        (Outcome::Served, ())
    }
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    assert_eq!(look_up(&turns, "www.lan").await, Some(()));
    assert!(begun.elapsed() <= Duration::from_millis(500), "the next turn is that of who has none");
    assert_eq!(busy.join_all().await, vec![Some(()); 80]);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_in_vain_is_held_down_until_it_is_answered() {
    let turns = Turns::new(LIMITS);
    let dead = group("www.dead.corp.example");
    for _ in 0..IN_VAIN {
        turns.take(dead).await.unwrap().end(Outcome::InVain);
    }
    let probe = turns.take(dead).await.expect("one at a time");
    assert_eq!(turns.take(dead).await.unwrap_err(), Refused::InVain);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()), "another part of its group");
    probe.end(Outcome::Answered);
    let (_first, _second) = (turns.take(dead).await.unwrap(), turns.take(dead).await.unwrap());

    let turns = Turns::new(LIMITS);
    (0..IN_VAIN).for_each(|_| turns.state().record(dead, Outcome::InVain, Instant::now()));
    let _probe = turns.take(dead).await.unwrap();
    turns.take(dead).await.unwrap_err();
    sleep(HELD_DOWN).await;
    turns.take(dead).await.expect("that was long ago");
    (0..IN_VAIN).for_each(|_| turns.state().record(dead, Outcome::InVain, Instant::now()));
    turns.forget();
    turns.take(dead).await.expect("what serves it has changed");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_part_that_is_held_down_is_refused() {
    let turns = Turns::new(LIMITS);
    let dead = group("www.dead.corp.example");
    let mut busy = Vec::new();
    for _ in 0..LIMITS.turns {
        busy.push(turns.take(dead).await.unwrap());
    }
    let waiting = turns.take(dead);
    let in_vain = async {
        sleep(Duration::from_millis(1)).await;
        (0..IN_VAIN).for_each(|_| turns.state().record(dead, Outcome::InVain, Instant::now()));
    };
    let (refused, ()) = tokio::join!(waiting, in_vain);
    assert_eq!(refused.unwrap_err(), Refused::InVain);
}

#[tokio::test(start_paused = true)]
async fn some_turns_are_for_who_was_served_lately() {
    let turns = Turns::new(Limits { reserved: 2, evict_after: None, ..LIMITS });
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    let _flood = flood(&turns, 50, |number| format!("www.dead{number}.example"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    assert_eq!(look_up(&turns, "www.lan").await, None, "nobody can be made to end");
}

#[tokio::test(start_paused = true)]
async fn a_group_has_no_more_turns_than_it_may() {
    let turns = Turns::new(Limits { per_group: 3, ..LIMITS });
    let _flood = flood(&turns, 50, |number| format!("www.zone{number}.corp.example"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(turns.state().counts().0, 3);
    assert_eq!(look_up(&turns, "www.lan").await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_bounded_and_leaves_nothing_behind() {
    let turns = Turns::new(LIMITS);
    let mut flood = flood(&turns, 200, |number| format!("host{number}.corp.example"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(turns.take(group("www.corp.example")).await.unwrap_err(), Refused::Crowded);
    flood.shutdown().await;
    assert_eq!(turns.state().counts(), (0, 0));
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn many_parts_of_one_group_leave_places_for_others() {
    let turns = Turns::new(Limits { waiting: 1000, ..LIMITS });
    let _flood = flood(&turns, 500, |number| format!("www.zone{number}.corp.example"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(look_up(&turns, "www.lan").await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn one_part_in_all_places_leaves_one_for_others() {
    let turns = Turns::new(LIMITS);
    let _flood = flood(&turns, 2 * (LIMITS.turns + LIMITS.waiting), |_| "host.dead.example".to_owned());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
}

/// Turns of one zone in a row, all in vain, each for another name.
async fn made_up(turns: &Arc<Turns>, count: u32) {
    for number in 0..count {
        if let Ok(turn) = turns.take(group(&format!("x{number}.corp.example"))).await {
            turn.end(Outcome::InVain);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_looks_dead_to_who_makes_up_names_serves_others() {
    let turns = Turns::new(LIMITS);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    made_up(&turns, 10_000).await;
    let _flood = flood(&turns, 60, |number| format!("y{number}.corp.example"));
    sleep(Duration::from_millis(600)).await;
    let begun = Instant::now();
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()), "it has the next turn");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn names_that_are_served_are_not_refused_when_their_part_is_held_down() {
    let turns = Turns::new(LIMITS);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    sleep(HELD_DOWN).await;
    made_up(&turns, 2 * IN_VAIN).await;
    let _probe = turns.take(group("x.corp.example")).await.unwrap();
    assert_eq!(turns.take(group("y.corp.example")).await.unwrap_err(), Refused::InVain);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    assert_eq!(look_up(&turns, "new.corp.example").await, Some(()), "somebody was served just now");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_served_for_ever_other_names_displaces_only_its_own() {
    let turns = Turns::new(LIMITS);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    for number in 0..3 * MAX_NAMES {
        turns.state().record(group(&format!("x{number}.wildcard.test")), Outcome::Served, Instant::now());
    }
    sleep(HELD_DOWN).await;
    made_up(&turns, 2 * IN_VAIN).await;
    let _probe = turns.take(group("x.corp.example")).await.unwrap();
    assert_eq!(turns.take(group("y.corp.example")).await.unwrap_err(), Refused::InVain);
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn names_that_were_answered_but_not_served_are_refused_with_their_part() {
    let turns = Turns::new(LIMITS);
    turns.take(group("x.corp.example")).await.unwrap().end(Outcome::Answered);
    made_up(&turns, 2 * IN_VAIN).await;
    assert_eq!(look_up(&turns, "y.corp.example").await, Some(()), "something was answered just now");
    made_up(&turns, 2 * IN_VAIN).await;
    sleep(HELD_DOWN).await;
    made_up(&turns, 1).await;
    let _probe = turns.take(group("z.corp.example")).await.unwrap();
    assert_eq!(turns.take(group("x.corp.example")).await.unwrap_err(), Refused::InVain);
    assert_eq!(look_up(&turns, "y.corp.example").await, Some(()), "it was served");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_who_is_served_is_not_for_who_is_answered_that_there_is_nothing() {
    let turns = Turns::new(Limits { reserved: 2, evict_after: None, ..LIMITS });
    for name in ["www.corp.example", "x.made.up"] {
        turns.take(group(name)).await.unwrap().end(Outcome::Answered);
    }
    assert_eq!(look_up(&turns, "www.corp.example").await, Some(()));
    let _flood = flood(&turns, 50, |number| format!("www.dead{number}.example"));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(look_up(&turns, "y.made.up").await, None);
    assert_eq!(look_up(&turns, "y.corp.example").await, Some(()));
}
