use std::collections::VecDeque;

use super::quiet::MAX_CHECK;
use super::*;

const MS: Duration = Duration::from_millis(1);

/// The control of a link whose first ping has been sent.
fn started(now: Instant) -> LinkControl {
    let mut link = LinkControl::new(PROBE, now);
    assert_eq!(link.poll_frame(false, now), Some(Frame::Ping(1)));
    link
}

fn answered(now: Instant) -> LinkControl {
    let mut link = started(now);
    link.frame_received(now);
    assert_eq!(link.pong_received(1, now), Some(Duration::ZERO));
    link
}

#[test]
fn a_busy_link_is_pinged_each_second_and_an_idle_one_seldom() {
    let start = Instant::now();
    let mut link = started(start);
    assert_eq!(link.poll_frame(false, start + PING), None, "one ping is unanswered");
    link.frame_received(start + 30 * MS);
    assert_eq!(link.pong_received(1, start + 30 * MS), Some(30 * MS));
    assert_eq!(link.round_trip(), Some(30 * MS));
    assert_eq!(link.pong_received(1, start + 40 * MS), None, "it is answered already");
    assert_eq!(link.poll_frame(false, start + PING), None);
    let idle = start + 30 * MS + IDLE_PING;
    assert_eq!(link.poll_timeout(false, start + PING), Some(idle));
    assert_eq!(link.poll_frame(false, idle), Some(Frame::Ping(2)));
    link.frame_received(idle);
    assert_eq!(link.pong_received(2, idle), Some(Duration::ZERO));
    link.packet_sent(100, idle);
    assert_eq!(link.poll_frame(false, idle + PING), Some(Frame::Ping(3)));
}

#[test]
fn on_an_idle_link_the_pings_of_one_end_are_enough() {
    let start = Instant::now();
    let mut link = answered(start);
    for seconds in (10..600).step_by(10) {
        let now = start + Duration::from_secs(seconds);
        link.frame_received(now);
        link.ping_received(seconds);
        assert_eq!(link.poll_frame(false, now), Some(Frame::Pong(seconds)));
        assert_eq!(link.poll_frame(false, now), None);
    }
}

#[test]
fn a_keystroke_is_reported_with_the_next_packet_or_soon_and_bulk_at_once() {
    let now = Instant::now();
    let mut link = answered(now);
    link.packet_received(60, now);
    assert_eq!(link.poll_frame(false, now), None);
    assert_eq!(link.poll_timeout(false, now), Some(now + REPORT_DELAY));
    assert_eq!(link.poll_report(), Some(Frame::Delivered { total: 64, micros: 1 }));
    assert_eq!(link.poll_frame(false, now + REPORT_DELAY), None, "nothing new");
    link.packet_received(60, now);
    assert_eq!(link.poll_frame(false, now + REPORT_DELAY), Some(Frame::Delivered { total: 128, micros: 1 }));
    link.packet_received(65_000, now + 3 * MS);
    let report = Frame::Delivered { total: 128 + 65_004, micros: 3001 };
    assert_eq!(link.poll_frame(false, now + 3 * MS), Some(report), "with the time of the latest packet");
}

#[test]
fn a_flood_of_pings_is_answered_by_one_pong_and_by_none_while_congested() {
    let now = Instant::now();
    let mut link = answered(now);
    for value in 0..1000 {
        link.ping_received(value);
    }
    assert_eq!(link.poll_frame(true, now), None);
    assert!(link.poll_timeout(true, now) > Some(now), "nothing is due while congested");
    assert_eq!(link.poll_timeout(false, now), Some(now));
    assert_eq!(link.poll_frame(false, now), Some(Frame::Pong(999)));
    assert_eq!(link.poll_frame(false, now), None);
}

#[test]
fn a_link_that_answers_nothing_is_dead_and_one_that_is_merely_slow_is_not() {
    let start = Instant::now();
    let mut link = started(start);
    assert_eq!(link.silence(start + SILENCE - MS), None);
    link.frame_received(start + SILENCE - MS);
    assert_eq!(link.silence(start + SILENCE), None);
    let dead = start + SILENCE - MS + SILENCE;
    assert_eq!(link.poll_timeout(true, start + SILENCE), Some(dead));
    assert_eq!(link.silence(dead), Some(SILENCE));
}

#[test]
fn silence_ends_a_link_within_the_documented_time() {
    let start = Instant::now();
    for (busy, bound) in [(true, 15), (false, 29)] {
        let mut link = answered(start);
        let mut now = start;
        while link.silence(now).is_none() {
            if busy {
                link.packet_sent(100, now);
            }
            now = link.poll_timeout(false, now).expect("something is always due");
            link.poll_frame(false, now);
        }
        assert_eq!(now, start + Duration::from_secs(bound));
    }
}

#[test]
fn a_probe_is_sent_at_once_and_only_one() {
    let start = Instant::now();
    let mut link = answered(start);
    link.probe(PROBE, start);
    assert_eq!(link.poll_timeout(false, start), Some(start));
    assert_eq!(link.poll_frame(true, start), Some(Frame::Ping(2)));
    link.probe(PROBE, start);
    assert_eq!(link.poll_frame(false, start + MS), None);
}

#[test]
fn a_probed_link_is_kept_if_it_answers_and_dead_soon_if_not() {
    let start = Instant::now();
    for answers in [true, false] {
        let mut link = answered(start);
        link.probe(PROBE, start);
        assert_eq!(link.poll_frame(false, start), Some(Frame::Ping(2)));
        if answers {
            link.frame_received(start + PROBE / 2);
        }
        assert_eq!(link.silence(start + PROBE).is_none(), answers);
    }
}

#[test]
fn an_end_that_was_suspended_probes_before_it_gives_up() {
    let start = Instant::now();
    for answers in [true, false] {
        let mut link = started(start);
        let late = start + Duration::from_secs(600);
        assert_eq!(link.silence(late), None);
        if answers {
            link.frame_received(late);
            assert_eq!(link.silence(late + PROBE), None);
        } else {
            assert!(link.silence(late + PROBE).is_some());
        }
    }
}

#[test]
fn the_window_closes_over_what_is_not_reported() {
    let now = Instant::now();
    let mut link = answered(now);
    let mut sent = 0;
    while link.has_room(now) {
        link.packet_sent(65_000, now);
        sent += 65_004;
    }
    link.delivered(sent, 1, now);
    assert!(link.has_room(now));
}

#[test]
fn packets_are_no_larger_than_two_milliseconds_of_the_rate() {
    let start = Instant::now();
    let mut link = answered(start);
    assert_eq!(link.largest_packet(), MODERATE_PACKET, "the rate is unknown");
    // 10 Mbit/s and 20 ms, with a full window.
    let (mut sent, mut total) = (VecDeque::new(), 0);
    for ms in 1..=2000 {
        let now = start + ms * MS;
        while link.has_room(now) {
            link.packet_sent(1250 - HEADER_LEN, now);
            sent.push_back(ms);
        }
        if sent.pop_front_if(|at| *at + 20 <= ms).is_some() {
            total += 1250;
            link.delivered(total, 0, now);
        }
    }
    assert!((2400..=2700).contains(&link.largest_packet()), "{}", link.largest_packet());
}

/// Both ends of a link on which nothing passes any more: the laptop's and the sidecar's.
fn quiet_pair(now: Instant) -> (LinkControl, LinkControl) {
    let (mut laptop, mut sidecar) = (answered(now), answered(now));
    make_quiet(&mut laptop, &mut sidecar, now);
    (laptop, sidecar)
}

fn make_quiet(laptop: &mut LinkControl, sidecar: &mut LinkControl, now: Instant) {
    laptop.ask_quiet();
    exchange(laptop, sidecar, now);
    assert!(laptop.is_quiet() && sidecar.is_quiet());
}

/// Passes all frames that are due in both directions. Returns how many there were.
fn exchange(one: &mut LinkControl, other: &mut LinkControl, now: Instant) -> usize {
    let mut count = 0;
    loop {
        if let Some(frame) = one.poll_frame(false, now) {
            pass(frame, other, now);
        } else if let Some(frame) = other.poll_frame(false, now) {
            pass(frame, one, now);
        } else {
            return count;
        }
        count += 1;
    }
}

fn pass(frame: Frame, to: &mut LinkControl, now: Instant) {
    to.frame_received(now);
    if let Frame::Ping(value) = frame {
        to.ping_received(value);
    } else if let Frame::Pong(value) = frame {
        to.pong_received(value, now);
    } else if let Frame::Delivered { total, micros } = frame {
        to.delivered(total, micros, now);
    } else if let Frame::Quiet(seconds) = frame {
        to.quiet_received(seconds, now);
    } else {
        panic!("{frame:?} is no frame of the link control");
    }
}

#[test]
fn nothing_passes_on_a_quiet_link_until_it_is_checked() {
    let start = Instant::now();
    let (mut laptop, mut sidecar) = quiet_pair(start);
    for now in (1..FIRST_CHECK.as_secs()).step_by(7).map(|s| start + Duration::from_secs(s)) {
        assert_eq!(exchange(&mut laptop, &mut sidecar, now), 0);
        assert_eq!((laptop.silence(now), sidecar.silence(now)), (None, None));
    }
    let check = start + FIRST_CHECK;
    assert_eq!(laptop.poll_timeout(false, start), Some(check));
    assert_eq!(exchange(&mut laptop, &mut sidecar, check), 2, "a ping and its answer");
    assert!(!laptop.is_quiet() && !sidecar.is_quiet());
    make_quiet(&mut laptop, &mut sidecar, check);
    assert_eq!(
        laptop.poll_timeout(false, check),
        Some(check + 2 * FIRST_CHECK),
        "each check doubles the interval"
    );
    // A packet in between: the intervals begin anew.
    sidecar.packet_sent(100, check + MS);
    laptop.frame_received(check + MS);
    laptop.packet_received(100, check + MS);
    let now = check + MS + REPORT_DELAY;
    exchange(&mut laptop, &mut sidecar, now);
    make_quiet(&mut laptop, &mut sidecar, now);
    assert_eq!(laptop.poll_timeout(false, now), Some(now + FIRST_CHECK));
}

#[test]
fn intervals_between_checks_have_a_bound() {
    let mut now = Instant::now();
    let (mut laptop, mut sidecar) = quiet_pair(now);
    for _ in 0..80 {
        let check = laptop.poll_timeout(false, now).unwrap();
        assert!(check <= now + MAX_CHECK);
        now = check;
        exchange(&mut laptop, &mut sidecar, now);
        make_quiet(&mut laptop, &mut sidecar, now);
    }
}

#[test]
fn a_laptop_that_breaks_its_promise_is_dead() {
    let start = Instant::now();
    let (_, mut sidecar) = quiet_pair(start);
    let promised = sidecar.poll_timeout(false, start).unwrap();
    assert!(promised > start + FIRST_CHECK);
    assert_eq!(sidecar.silence(promised - MS), None);
    assert_eq!(sidecar.silence(promised), Some(promised - start));
    // A sidecar that was suspended itself asks first.
    let (_, mut sidecar) = quiet_pair(start);
    let late = promised + Duration::from_secs(3600);
    assert_eq!(sidecar.silence(late), None);
    assert!(matches!(sidecar.poll_frame(false, late), Some(Frame::Ping(_))));
    assert!(sidecar.silence(late + PROBE).is_some());
}

#[test]
fn whoever_wakes_a_quiet_link_wants_an_answer_soon() {
    let start = Instant::now();
    let (mut laptop, mut sidecar) = quiet_pair(start);
    let now = start + Duration::from_secs(600);
    laptop.packet_sent(100, now);
    assert!(!laptop.is_quiet());
    assert!(matches!(laptop.poll_frame(false, now), Some(Frame::Ping(_))));
    assert_eq!(laptop.silence(now + PROBE - MS), None);
    assert_eq!(laptop.silence(now + PROBE), Some(now + PROBE - start));
    // Another frame than a packet wakes it, too.
    sidecar.frame_sent(now);
    assert!(!sidecar.is_quiet());
}

#[test]
fn a_packet_that_crosses_the_question_makes_it_void() {
    let now = Instant::now();
    // The laptop sends after its question: the sidecar is woken by it, and the answer comes too late.
    let (mut laptop, mut sidecar) = (answered(now), answered(now));
    laptop.ask_quiet();
    let question = laptop.poll_frame(false, now).unwrap();
    laptop.packet_sent(100, now);
    pass(question, &mut sidecar, now);
    let answer = sidecar.poll_frame(false, now).unwrap();
    sidecar.frame_received(now);
    sidecar.packet_received(100, now);
    pass(answer, &mut laptop, now);
    assert!(!laptop.is_quiet() && !sidecar.is_quiet());

    // The sidecar has sent before it was asked: the laptop stays active, and its next ping wakes the sidecar.
    let (mut laptop, mut sidecar) = (answered(now), answered(now));
    laptop.ask_quiet();
    sidecar.packet_sent(100, now);
    pass(laptop.poll_frame(false, now).unwrap(), &mut sidecar, now);
    laptop.frame_received(now);
    laptop.packet_received(100, now);
    pass(sidecar.poll_frame(false, now).unwrap(), &mut laptop, now);
    assert!(!laptop.is_quiet() && sidecar.is_quiet());
    exchange(&mut laptop, &mut sidecar, now + PING);
    assert!(!laptop.is_quiet() && !sidecar.is_quiet());
}

/// The laptop's question and this frame behind it arrive together.
fn crossed(mut before: impl FnMut(&mut LinkControl, Instant) -> Frame) {
    let start = Instant::now();
    let (mut laptop, mut sidecar) = (answered(start), answered(start));
    laptop.ask_quiet();
    let question = laptop.poll_frame(false, start).unwrap();
    let behind = before(&mut laptop, start);
    pass(question, &mut sidecar, start);
    sidecar.frame_received(start);
    if let Frame::Ping(value) = behind {
        sidecar.ping_received(value);
    }
    exchange(&mut laptop, &mut sidecar, start);
    assert!(laptop.has_nothing_pending(), "the laptop can ask again");
    make_quiet(&mut laptop, &mut sidecar, start);
}

#[test]
fn a_frame_behind_the_question_makes_it_void() {
    crossed(|laptop, now| {
        laptop.frame_sent(now);
        Frame::AskStatus
    });
    crossed(|laptop, now| {
        laptop.ping_received(7);
        laptop.poll_frame(false, now).unwrap()
    });
    crossed(|laptop, now| {
        laptop.probe(PROBE, now);
        laptop.poll_frame(false, now).unwrap()
    });
}

#[test]
fn only_checks_lengthen_the_interval() {
    let mut now = Instant::now();
    let (mut laptop, mut sidecar) = quiet_pair(now);
    for _ in 0..10 {
        now += Duration::from_secs(60);
        laptop.probe(PROBE, now);
        exchange(&mut laptop, &mut sidecar, now);
        make_quiet(&mut laptop, &mut sidecar, now);
    }
    assert_eq!(laptop.poll_timeout(false, now), Some(now + FIRST_CHECK));
}

#[test]
fn a_promise_counts_until_the_other_end_is_heard() {
    let now = Instant::now();
    let (_, mut sidecar) = quiet_pair(now);
    let promised = sidecar.promised();
    assert!(promised > Some(now + FIRST_CHECK));
    sidecar.packet_sent(100, now);
    assert_eq!(sidecar.promised(), promised);
    sidecar.frame_received(now);
    assert_eq!(sidecar.promised(), None);
}

#[test]
fn an_answer_without_a_question_and_a_question_that_is_repeated_do_no_harm() {
    let now = Instant::now();
    let mut link = answered(now);
    link.quiet_received(0, now);
    assert!(!link.is_quiet());
    link.quiet_received(100, now);
    link.quiet_received(u32::MAX, now);
    assert!(
        link.promised() <= Some(now + MAX_CHECK + Duration::from_secs(3600)),
        "nobody is believed for years"
    );
    assert_eq!(link.poll_frame(false, now), Some(Frame::Quiet(0)));
    assert_eq!(link.poll_frame(false, now), None);
}

#[test]
fn what_is_not_reported_or_answered_keeps_the_link_from_rest() {
    let now = Instant::now();
    let mut link = started(now);
    assert!(!link.has_nothing_pending(), "a ping is unanswered");
    link.frame_received(now);
    link.pong_received(1, now);
    assert!(link.has_nothing_pending());
    link.packet_received(60, now + MS);
    assert!(!link.has_nothing_pending(), "a report is due");
    link.poll_report();
    assert!(link.has_nothing_pending());
    // A question that comes before the report is answered after it.
    link.packet_received(60, now + 2 * MS);
    link.frame_received(now + 2 * MS);
    link.quiet_received(100, now + 2 * MS);
    assert!(matches!(link.poll_frame(false, now + 2 * MS), Some(Frame::Delivered { .. })));
    assert_eq!(link.poll_frame(false, now + 2 * MS), Some(Frame::Quiet(0)));
}

#[test]
fn the_line_holds_its_rate_times_its_round_trip() {
    let start = Instant::now();
    let mut link = answered(start);
    assert_eq!(link.path_bytes(), 0);
    // 1 MB/s and 20 ms.
    let mut total = 0;
    for now in (1..=200).map(|ms| start + ms * MS) {
        link.packet_sent(1000 - HEADER_LEN, now);
        if now >= start + 21 * MS {
            total += 1000;
            link.delivered(total, 0, now);
        }
    }
    let held = link.path_bytes();
    assert!((19_000..22_000).contains(&held), "{held}");
}
