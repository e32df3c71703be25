use std::sync::Arc;

use super::super::tests::engine;
use super::*;
use crate::resolver::Resolver;

/// A flow that the engine does not know: it brings nothing, and nobody reads from it.
const SILENT: FlowId = FlowId(7);

fn queries() -> Queries {
    Queries::new(Arc::new(Resolver::default()))
}

fn question(length: u16) -> Vec<u8> {
    let mut question = length.to_be_bytes().to_vec();
    question.resize(usize::from(length) + LENGTH_LEN, 0);
    question
}

#[test]
fn a_client_that_reads_no_answers_is_asked_nothing_more_of_and_then_reset() {
    let (mut engine, mut queries, now) = (engine(), queries(), Instant::now());
    let mut stream = Stream::new(now);
    stream.pending = 1;
    stream.answer(Some(vec![0; FULL - LENGTH_LEN].into()), now);
    stream.inbound.extend_from_slice(&question(40));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now), Served::Later));
    assert_eq!((stream.pending, stream.inbound.len()), (0, 42));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + IDLE / 2), Served::Later));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + IDLE), Served::Failed));
}

#[test]
fn an_idle_stream_is_ended_and_then_reset_if_the_client_does_not_end_it() {
    let (mut engine, mut queries, now) = (engine(), queries(), Instant::now());
    let mut stream = Stream::new(now);
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now), Served::Later));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + IDLE), Served::Again));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + IDLE), Served::Later));
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + 2 * IDLE), Served::Failed));
}

#[tokio::test]
async fn as_many_questions_are_under_way_as_the_bound_says_and_the_next_waits() {
    let (mut engine, mut queries, now) = (engine(), queries(), Instant::now());
    let mut stream = Stream::new(now);
    for asked in 1..=MAX_PIPELINED + 1 {
        stream.inbound.extend_from_slice(&question(MAX_QUESTION as u16));
        assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now), Served::Later));
        assert_eq!(stream.pending, asked.min(MAX_PIPELINED));
    }
    assert_eq!(stream.inbound.len(), LENGTH_LEN + MAX_QUESTION);
    assert!(matches!(stream.serve(SILENT, &mut engine, &mut queries, now + IDLE), Served::Later), "not idle");
}

#[test]
fn what_can_be_no_question_fails_the_stream() {
    for length in [0, MIN_MESSAGE as u16 - 1, MAX_QUESTION as u16 + 1, u16::MAX] {
        let mut stream = Stream::new(Instant::now());
        stream.inbound.extend_from_slice(&length.to_be_bytes());
        let served = stream.serve(SILENT, &mut engine(), &mut queries(), Instant::now());
        assert!(matches!(served, Served::Failed), "{length}");
    }
}

#[test]
fn a_flood_of_streams_displaces_its_own() {
    let now = Instant::now();
    let stream = |phase, at| {
        let mut stream = Stream::new(now + Duration::from_millis(at));
        stream.pending = usize::from(phase == Phase::Asking);
        stream.answered = phase == Phase::Answered;
        stream
    };
    let least = |streams: &[Stream]| {
        let streams = streams.iter().zip(0..).map(|(stream, id)| (FlowId(id), stream));
        least_wanted(streams).map(|FlowId(id)| id)
    };
    use Phase::{Answered, Asking, Fresh};
    // What has its answers goes first, the one that was used last of all is kept longest.
    assert_eq!(
        least(&[stream(Asking, 0), stream(Answered, 5), stream(Answered, 4), stream(Fresh, 1)]),
        Some(2)
    );
    // Hanging connects among one that asks; many that ask among one that has just connected.
    assert_eq!(least(&[stream(Asking, 0), stream(Fresh, 3), stream(Fresh, 2)]), Some(2));
    assert_eq!(least(&[stream(Fresh, 0), stream(Asking, 3), stream(Asking, 2)]), Some(2));
    assert_eq!(least(&[]), None);
}
