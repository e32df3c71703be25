//! What the responder keeps when no more questions can wait, by an allocator that counts.

#![allow(clippy::print_stdout, reason = "the figure is of interest")]

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hickory_proto::rr::rdata::opt::EdnsOption;

use super::super::laptop::MAX_PATIENT;
use super::super::message::MAX_QUERY;
use super::super::upstream::{CODESPACE, LAPTOP as UPSTREAM, Transport};
use super::*;
use crate::sys::counting::allocated;

/// Questions that wait for one of the three sets of servers, or have their turn there.
const MOST: usize = CODESPACE.turns + CODESPACE.waiting + MAX_PATIENT + UPSTREAM.turns + UPSTREAM.waiting;
/// What each of them may cost.
const QUESTION: usize = 5 * 1024;

fn longest_question(name: &str) -> Vec<u8> {
    let mut query = question(name, RecordType::A);
    query.edns = Some(Edns::new());
    // The option begins with its code and its length.
    let padding = vec![0; MAX_QUERY - query.to_vec().unwrap().len() - 4];
    query.edns.as_mut().unwrap().options_mut().insert(EdnsOption::Unknown(12, padding));
    query.to_vec().unwrap()
}

/// Time stands still, so that no question is given up.
#[tokio::test(start_paused = true)]
async fn all_questions_that_wait_at_once_are_bounded_in_memory() {
    let port = free_port().await;
    // Nobody reads what arrives there.
    let _silent = [LAPTOP, FIRST].map(|address| std::net::UdpSocket::bind((address, port)).unwrap());
    let (responder, _monitor) = start(port, &[FIRST]);
    let before = allocated();
    let mut waiting = FuturesUnordered::new();
    for number in 0..4 * MAX_PATIENT {
        let domain = if number % 3 == 0 { "corp.example" } else { "flood.example" };
        let query = longest_question(&format!("host{number}.{domain}."));
        waiting.push(responder.service.answer(query.into(), Transport::Udp, OURS));
        // tokio lets a task do only so much before it yields.
        tokio::task::yield_now().await;
        // Those that are refused.
        while let Some(Some(_)) = waiting.next().now_or_never() {}
    }
    let used = allocated() - before;
    println!("{} KiB for {} questions", used / 1024, waiting.len());
    assert_eq!(waiting.len(), MOST, "not all is full");
    assert!(used <= MOST * QUESTION, "{} MiB", used / 1024 / 1024);
}
