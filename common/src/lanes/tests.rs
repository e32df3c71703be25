use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::frame::HEADER_LEN;

const LEN: usize = 1000;

/// What happens next on a link.
#[derive(Debug, Clone)]
enum Step {
    /// A packet of this many bytes is sent, if there is room.
    Send(usize),
    /// A frame that is no packet is sent.
    Frame,
    /// The oldest frame of this lane, modulo their number, can be read.
    Arrive(usize),
    /// The receiver reports.
    Report,
    /// The link gets another lane, up to the maximum.
    AddLane,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![Just(40usize), Just(1400), Just(65_520)].prop_map(Step::Send),
        1 => Just(Step::Frame),
        8 => any::<usize>().prop_map(Step::Arrive),
        2 => Just(Step::Report),
        1 => Just(Step::AddLane),
    ]
}

/// A frame under way: when it was sent, its number and the length of the packet in it.
type Sent = (usize, Option<u64>, Option<usize>);

/// Both ends, and lanes between that bring each frame when a test says so.
struct Model {
    striper: Striper,
    merge: Merge,
    lanes: Vec<VecDeque<Sent>>,
    sent: Vec<Option<usize>>,
    /// When each frame was sent, in the order in which they were handled.
    handled: Vec<usize>,
}

impl Model {
    fn new(lanes: usize) -> Self {
        let mut model = Self {
            striper: Striper::default(),
            merge: Merge::default(),
            lanes: vec![VecDeque::new()],
            sent: Vec::new(),
            handled: Vec::new(),
        };
        (1..lanes).for_each(|_| model.take(&Step::AddLane));
        model
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Send(len) if self.striper.has_room(u64::MAX / 2) => {
                let place = self.striper.place_packet(len);
                self.send(place, Some(len));
            }
            Step::Send(_) => {}
            Step::Frame => {
                let place = self.striper.place_frame();
                self.send(place, None);
            }
            Step::Arrive(lane) => drop(self.read(lane % self.lanes.len())),
            Step::Report => self.striper.delivered(self.packet_bytes()),
            Step::AddLane if self.lanes.len() < MAX_LANES => {
                self.striper.add_lane();
                self.merge.add_lane();
                self.lanes.push(VecDeque::new());
            }
            Step::AddLane => {}
        }
    }

    fn send(&mut self, place: Place, packet: Option<usize>) {
        self.lanes[place.lane].push_back((self.sent.len(), place.number, packet));
        self.sent.push(packet);
    }

    /// Reads a frame of the lane, if the receiver wants one and it is there.
    fn read(&mut self, lane: usize) -> bool {
        let waiting = self.merge.needs(lane).then(|| self.lanes[lane].pop_front()).flatten();
        let Some((at, number, _)) = waiting else { return false };
        let Some(number) = number else {
            self.handled.push(at);
            return true;
        };
        let frame = Bytes::copy_from_slice(&at.to_be_bytes());
        let taken = self.merge.take(lane, number, frame).expect("an honest sender");
        let released = std::iter::from_fn(|| self.merge.release());
        let turns: Vec<Bytes> = taken.into_iter().chain(released).collect();
        self.handled.extend(turns.iter().map(|at| usize::from_be_bytes(at[..].try_into().unwrap())));
        true
    }

    /// What the receiver reports.
    fn packet_bytes(&self) -> u64 {
        let packets = self.handled.iter().filter_map(|at| self.sent[*at]);
        packets.map(|len| (HEADER_LEN + len) as u64).sum()
    }
}

proptest! {
    #[test]
    fn whatever_the_lanes_do_frames_are_handled_in_the_order_of_sending(
        lanes in 1..=MAX_LANES,
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let mut model = Model::new(lanes);
        steps.iter().for_each(|step| model.take(step));
        // All that is under way can be read: none waits for ever.
        while (0..model.lanes.len()).rev().any(|lane| model.read(lane)) {}
        prop_assert_eq!(&model.handled, &(0..model.sent.len()).collect::<Vec<_>>());
        prop_assert_eq!(model.merge.missing(), None);
        model.take(&Step::Report);
        prop_assert!(model.striper.is_idle());
    }

    #[test]
    fn hostile_numbers_are_refused_or_handled_once_in_order(
        frames in prop::collection::vec((0..MAX_LANES, prop_oneof![0..40u64, any::<u64>()]), 1..2000),
    ) {
        let mut merge = Merge::default();
        (1..MAX_LANES).for_each(|_| merge.add_lane());
        let mut handled = Vec::new();
        for (lane, number) in frames {
            // What is not read stays in the lane's window.
            if !merge.needs(lane) { continue }
            let Ok(taken) = merge.take(lane, number, Bytes::copy_from_slice(&number.to_be_bytes())) else { break };
            handled.extend(taken);
            handled.extend(std::iter::from_fn(|| merge.release()));
        }
        for (at, number) in handled.iter().enumerate() {
            prop_assert_eq!(&number[..], &(at as u64).to_be_bytes());
        }
    }

    #[test]
    fn hostile_reports_free_no_more_than_was_sent(totals in prop::collection::vec(any::<u64>(), 1..20)) {
        let mut striper = Striper::default();
        striper.add_lane();
        for total in totals {
            striper.place_packet(LEN);
            striper.delivered(total);
            striper.delivered(0);
        }
        striper.delivered(u64::MAX);
        prop_assert!(striper.is_idle());
    }
}

#[test]
fn a_link_of_one_lane_has_no_numbers_and_no_cap() {
    let mut striper = Striper::default();
    for _ in 0..3 * LANE_CAP as usize / LEN {
        assert_eq!(striper.place_packet(LEN), Place { lane: 0, number: None });
        assert!(striper.has_room(0));
    }
}

#[test]
fn one_flow_fills_all_lanes_but_the_first_up_to_their_caps() {
    let mut striper = Striper::default();
    (1..4).for_each(|_| striper.add_lane());
    let mut bytes = [0; 4];
    while striper.has_room(u64::MAX / 2) {
        bytes[striper.place_packet(LEN).lane] += LEN as u64;
    }
    assert_eq!(bytes[0], LEN as u64, "only number 0, behind what was sent without a number");
    for lane in &bytes[1..] {
        assert!((LANE_CAP / 10 * 9..=LANE_CAP).contains(lane), "{bytes:?}");
    }
}

#[test]
fn several_lanes_hold_little_more_than_the_line_and_no_less_than_one_channel() {
    for (path, least, most) in [(0, LANE_CAP, LANE_CAP), (3 * LANE_CAP, 3 * LANE_CAP, 4 * LANE_CAP)] {
        let mut striper = Striper::default();
        (1..MAX_LANES).for_each(|_| striper.add_lane());
        let mut bytes = 0;
        while striper.has_room(path) {
            striper.place_packet(LEN);
            bytes += (HEADER_LEN + LEN) as u64;
        }
        assert!((least..most + 2 * LEN as u64).contains(&bytes), "{bytes}");
    }
}

#[test]
fn another_lane_is_wanted_once_where_the_line_holds_about_as_much_as_those_there_are() {
    let mut striper = Striper::default();
    let (short, long) = (LANE_CAP / 4 * 3, LANE_CAP / 8 * 19);
    assert!(!striper.wants_lane(0));
    assert!(!striper.wants_lane(short));
    assert!(striper.wants_lane(long));
    assert!(!striper.wants_lane(long), "once for each number of lanes");
    // The second one frees the first of packets, the others add to it.
    for _ in 1..3 {
        striper.add_lane();
        assert!(striper.wants_lane(long));
    }
    striper.add_lane();
    assert!(!striper.wants_lane(long));
}

#[test]
fn a_number_is_used_once_on_its_own_lane() {
    let frame = Bytes::from_static(b"frame");
    let mut merge = Merge::default();
    (1..4).for_each(|_| merge.add_lane());
    assert!(merge.take(1, 0, frame.clone()).is_err(), "0 belongs on the first lane");
    assert!(merge.take(0, 1, frame.clone()).is_err(), "and no other number does");
    assert_eq!(merge.take(1, 2, frame.clone()), Ok(None));
    assert!(!merge.needs(1));
    assert!(merge.take(2, 2, frame.clone()).is_err(), "it waits");
    assert_eq!(merge.missing(), Some(0));
    assert_eq!(merge.take(0, 0, frame.clone()), Ok(Some(frame.clone())));
    assert_eq!((merge.release(), merge.missing()), (None, Some(1)));
    assert_eq!(merge.take(3, 1, frame.clone()), Ok(Some(frame.clone())));
    assert_eq!(merge.release(), Some(frame.clone()));
    assert_eq!(merge.missing(), None);
    assert!(merge.needs(1));
    assert!(merge.take(3, 1, frame).is_err(), "it was handled");
}

#[cfg(feature = "framed")]
mod streams;
