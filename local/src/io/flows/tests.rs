use std::sync::Arc;

use super::super::tests::engine;
use super::*;
use crate::resolver::Resolver;

fn flows() -> Flows {
    let queries = Queries::new(Arc::new(Resolver::default()));
    Flows::new(OwnAddresses::ignored(), queries).unwrap()
}

#[tokio::test]
async fn answers_that_no_stream_takes_are_bounded_and_the_fullest_stream_gives_way() {
    let (mut flows, mut engine, now) = (flows(), engine(), Instant::now());
    // The engine does not know these flows: it takes nothing.
    for id in 0..2 * MAX_STREAMS as u64 {
        let command = Command::Connect { flow: FlowId(id), target: Target::Resolver, hop_limit: None };
        flows.carry_out(command, &mut engine, now);
    }
    let streams: Vec<FlowId> = flows.streams().map(|(id, _)| id).collect();
    assert_eq!(streams.len(), MAX_STREAMS);
    let largest = Bytes::from(vec![0; usize::from(u16::MAX)]);
    let kept = |flows: &Flows| flows.streams().map(|(_, stream)| stream.waiting()).sum::<usize>();
    for id in &streams[1..] {
        flows.answer_stream(*id, Some(largest.clone()), &mut engine, now);
        assert!(kept(&flows) <= MAX_WAITING, "{} bytes", kept(&flows));
    }
    assert!(kept(&flows) > MAX_WAITING - 2 * largest.len(), "{} bytes", kept(&flows));
    assert!(flows.streams().any(|(id, _)| id == streams[0]), "one that wants nothing stays");
    assert!(flows.queries_dropped() > MAX_STREAMS as u64);
}

#[tokio::test]
async fn flows_that_are_gone_take_no_turns() {
    let (mut flows, mut engine, now) = (flows(), engine(), Instant::now());
    for round in 0..100 {
        for id in 0..4 * TURN as u64 {
            let flow = FlowId(round * 4 * TURN as u64 + id);
            let command = Command::Connect { flow, target: Target::Resolver, hop_limit: None };
            flows.carry_out(command, &mut engine, now);
        }
        flows.serve(&mut engine, now);
    }
    assert!(flows.ready.len() <= 4 * TURN, "{} wait for a turn", flows.ready.len());
}
