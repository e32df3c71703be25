use super::*;

const MS: Duration = Duration::from_millis(1);

/// The control of a link whose first ping has been sent.
fn started(now: Instant) -> LinkControl {
    let mut link = LinkControl::new(now);
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
    assert_eq!(link.poll_timeout(false), Some(idle));
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
    assert_eq!(link.poll_timeout(false), Some(now + REPORT_DELAY));
    assert_eq!(link.poll_report(), Some(Frame::Delivered(64)));
    assert_eq!(link.poll_frame(false, now + REPORT_DELAY), None, "nothing new");
    link.packet_received(60, now);
    assert_eq!(link.poll_frame(false, now + REPORT_DELAY), Some(Frame::Delivered(128)));
    link.packet_received(65_000, now);
    assert_eq!(link.poll_frame(false, now), Some(Frame::Delivered(128 + 65_004)));
}

#[test]
fn a_flood_of_pings_is_answered_by_one_pong_and_by_none_while_congested() {
    let now = Instant::now();
    let mut link = answered(now);
    for value in 0..1000 {
        link.ping_received(value);
    }
    assert_eq!(link.poll_frame(true, now), None);
    assert!(link.poll_timeout(true) > Some(now), "nothing is due while congested");
    assert_eq!(link.poll_timeout(false), Some(now));
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
    assert_eq!(link.poll_timeout(true), Some(dead));
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
            now = link.poll_timeout(false).expect("something is always due");
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
    assert_eq!(link.poll_timeout(false), Some(start));
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
    while link.has_room() {
        link.packet_sent(65_000, now);
        sent += 65_004;
    }
    link.delivered(sent, now);
    assert!(link.has_room());
}
