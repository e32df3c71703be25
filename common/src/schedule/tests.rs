use std::collections::HashMap;

use super::*;

const QUANTUM: usize = 1500;

/// Flows with packets of a size each.
struct Sender {
    schedule: Schedule<u32>,
    flows: HashMap<u32, (Standing, VecDeque<usize>)>,
}

impl Sender {
    fn new() -> Self {
        Self { schedule: Schedule::new(QUANTUM), flows: HashMap::new() }
    }

    fn push(&mut self, flow: u32, packet: usize) {
        let (standing, packets) = self.flows.entry(flow).or_default();
        packets.push_back(packet);
        self.schedule.add(flow, standing);
    }

    /// The next packet: its flow and size.
    fn pop(&mut self) -> Option<(u32, usize)> {
        while let Some(candidate) = self.schedule.candidate() {
            let Some((standing, packets)) = self.flows.get_mut(&candidate.flow) else {
                self.schedule.remove(candidate);
                continue;
            };
            if packets.is_empty() {
                self.schedule.emptied(candidate, standing);
            } else if self.schedule.may_send(candidate, standing) {
                let packet = packets.pop_front().unwrap();
                self.schedule.sent(candidate, standing, packet);
                return Some((candidate.flow, packet));
            }
        }
        None
    }
}

/// A sender whose flows `0..count` have sent more than a quantum and have much left.
fn with_bulk(count: u32) -> Sender {
    let mut sender = Sender::new();
    for flow in 0..count {
        (0..1000).for_each(|_| sender.push(flow, QUANTUM));
    }
    (0..4 * count).for_each(|_| assert!(sender.pop().is_some()));
    sender
}

#[test]
fn a_flow_that_sends_little_waits_for_nobody() {
    let mut sender = with_bulk(8);
    for round in 0..10 {
        sender.push(100, 60);
        assert_eq!(sender.pop(), Some((100, 60)), "round {round}");
        // What it gave up by being first passes meanwhile.
        (0..8).for_each(|_| assert!(sender.pop().unwrap().0 < 8));
    }
}

#[test]
fn a_flow_that_sends_little_again_and_again_waits_for_no_round() {
    let mut sender = with_bulk(500);
    for packet in 0..20 {
        sender.push(1000, 60);
        assert_eq!(sender.pop(), Some((1000, 60)), "packet {packet}");
        (0..3).for_each(|_| assert!(sender.pop().unwrap().0 < 500));
    }
}

#[test]
fn a_flow_that_sends_little_at_a_time_gets_its_share_and_no_more() {
    let mut sender = with_bulk(20);
    let mut bytes = HashMap::<u32, usize>::new();
    for _ in 0..10_000 {
        // It always has one small packet, so it is emptied again and again.
        if sender.flows.get(&1000).is_none_or(|(_, packets)| packets.is_empty()) {
            sender.push(1000, 300);
        }
        let (flow, packet) = sender.pop().unwrap();
        *bytes.entry(flow).or_default() += packet;
        if flow < 1000 {
            sender.push(flow, QUANTUM);
        }
    }
    let most_of_others =
        bytes.iter().filter(|(flow, _)| **flow < 1000).map(|(_, bytes)| *bytes).max().unwrap();
    assert!(bytes[&1000] <= most_of_others + 4 * QUANTUM, "{} of {most_of_others}", bytes[&1000]);
}

#[test]
fn bulk_flows_get_the_same_bytes_whatever_their_packets() {
    let mut sender = Sender::new();
    let sizes = [60, 700, 1500, 64_000];
    for (flow, size) in (0..).zip(sizes) {
        (0..4_000_000 / size).for_each(|_| sender.push(flow, size));
    }
    let mut bytes = [0_usize; 4];
    while bytes.iter().sum::<usize>() < 8_000_000 {
        let (flow, packet) = sender.pop().unwrap();
        bytes[flow as usize] += packet;
    }
    let most = *bytes.iter().max().unwrap();
    assert!(bytes.iter().all(|it| most - it <= 2 * 64_000), "{bytes:?}");
}

#[test]
fn ever_new_flows_get_no_more_than_half() {
    let mut sender = with_bulk(2);
    let (mut new, mut bulk) = (0, 0);
    for flow in 1000..20_000 {
        // A new flow for each packet that leaves, and then some.
        sender.push(flow, 60);
        let (flow, packet) = sender.pop().unwrap();
        *if flow < 1000 { &mut bulk } else { &mut new } += packet;
    }
    assert!(bulk + 10 * QUANTUM >= new, "{bulk} of bulk flows, {new} of new ones");
}

#[test]
fn order_within_a_flow_stays_and_nothing_is_forgotten() {
    let mut sender = Sender::new();
    for size in 1..=300 {
        (0..5).for_each(|flow| sender.push(flow, size));
    }
    let mut last = HashMap::new();
    while let Some((flow, size)) = sender.pop() {
        assert_eq!(last.insert(flow, size).unwrap_or(0) + 1, size);
    }
    assert!(last.values().all(|size| *size == 300) && last.len() == 5);
    assert!(sender.flows.values().all(|(standing, _)| !standing.is_listed()));
}

#[test]
fn a_flood_that_is_over_keeps_no_memory() {
    let mut sender = Sender::new();
    (0..20_000).for_each(|n| sender.push(n % 10_000, QUANTUM));
    while sender.pop().is_some() {}
    assert!(sender.schedule.fresh.capacity() + sender.schedule.bulk.capacity() <= 128);
    (0..10_000).for_each(|flow| sender.push(flow, QUANTUM));
    sender.schedule.retain(|flow| flow == 7);
    assert!(sender.schedule.fresh.capacity() + sender.schedule.bulk.capacity() <= 128);
}
