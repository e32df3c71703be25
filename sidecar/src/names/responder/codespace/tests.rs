use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, ResponseCode};
use tokio::time::sleep;

use super::super::tests::samples::{nxdomain, positive, query, reply, wire};
use super::*;

/// Resolvers that answer as the names ask for.
#[derive(Default)]
struct Resolver(AtomicUsize);

impl Ask for Arc<Resolver> {
    async fn ask(&self, query: &Query, _: Transport, _: Duration) -> Option<Bytes> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let name = query.display();
        Some(wire(&match name.as_str() {
            _ if name.starts_with("failing.") => reply(query, ResponseCode::ServFail),
            _ if name.starts_with("nope.") => nxdomain(query, 300, 300),
            _ => positive(query, 300),
        }))
    }
}

async fn ask(codespace: &Codespace<Arc<Resolver>>, name: &str) -> Message {
    let answer = codespace.ask(&query(name), Transport::Udp, Duration::from_secs(4)).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_used_again_with_its_ttl_counted_down() {
    let resolver = Arc::<Resolver>::default();
    let codespace = Codespace::of(Arc::clone(&resolver));
    assert_eq!(ask(&codespace, "github.com.").await.answers[0].ttl, 300);
    sleep(Duration::from_secs(40)).await;
    assert_eq!(ask(&codespace, "GitHub.com.").await.answers[0].ttl, 260);
    assert_eq!(resolver.0.load(Ordering::Relaxed), 1);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(ask(&codespace, "github.com.").await.answers[0].ttl, 300);
    for seconds in [0, 9, 1] {
        sleep(Duration::from_secs(seconds)).await;
        ask(&codespace, "nope.example.").await;
    }
    assert_eq!(resolver.0.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn containers_and_failures_are_asked_for_each_time() {
    let resolver = Arc::<Resolver>::default();
    let codespace = Codespace::of(Arc::clone(&resolver));
    for name in ["db.", "nope.", "failing.example."] {
        ask(&codespace, name).await;
        ask(&codespace, name).await;
    }
    assert_eq!(resolver.0.load(Ordering::Relaxed), 6);
}
