//! The laptop's resolver is a script here, and the clock stands still unless everything waits for it.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hickory_proto::op::{Message, ResponseCode};

use super::super::tests::samples::{extended_error, nxdomain, positive, query, reply, wire};
use super::*;
use crate::liveness::LinkMonitor;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const BUDGET: Duration = Duration::from_millis(4500);

/// What the laptop's resolver does.
type Script = fn(&Query) -> Option<Message>;

struct Resolver {
    script: Mutex<Script>,
    delay: Mutex<Duration>,
    asked: AtomicUsize,
}

impl Ask for Arc<Resolver> {
    async fn ask(&self, query: &Query, _: Transport, time: Duration) -> Option<Bytes> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let script = *self.script.lock().unwrap();
        let answer = script(query);
        let delay = *self.delay.lock().unwrap();
        sleep(if answer.is_some() { delay.min(time) } else { time }).await;
        answer.filter(|_| delay <= time).map(|answer| wire(&answer))
    }
}

struct World {
    resolver: Arc<Resolver>,
    monitor: LinkMonitor,
    laptop: Laptop<Arc<Resolver>>,
}

fn silent(_: &Query) -> Option<Message> {
    None
}

fn answering(query: &Query) -> Option<Message> {
    Some(positive(query, 60))
}

fn failing(query: &Query) -> Option<Message> {
    Some(reply(query, ResponseCode::ServFail))
}

impl World {
    /// A laptop that is connected.
    fn new(script: Script) -> Self {
        let resolver = Arc::new(Resolver {
            script: Mutex::new(script),
            delay: Mutex::new(Duration::ZERO),
            asked: AtomicUsize::new(0),
        });
        let monitor = LinkMonitor::new();
        monitor.connected();
        let laptop = Laptop::of(Arc::clone(&resolver), Arc::clone(&resolver), monitor.watch());
        Self { resolver, monitor, laptop }
    }

    /// One that has been asked for these names before, and then says no more.
    async fn that_answered(names: &[&str]) -> Self {
        let world = Self::new(answering);
        for name in names {
            world.patient(name).await.unwrap();
        }
        world.now(silent);
        world.resolver.asked.store(0, Ordering::Relaxed);
        world
    }

    fn now(&self, script: Script) {
        *self.resolver.script.lock().unwrap() = script;
    }

    fn asked(&self) -> usize {
        self.resolver.asked.load(Ordering::Relaxed)
    }

    async fn patient(&self, name: &str) -> Result<Message, &'static str> {
        let deadline = Instant::now() + BUDGET;
        let answer = self.laptop.ask_patiently(&query(name), Transport::Udp, CLIENT, deadline).await?;
        Ok(Message::from_vec(&answer).unwrap())
    }

    async fn impatient(&self, name: &str) -> Asked {
        self.laptop.ask(&query(name), Transport::Udp, BUDGET).await
    }
}

/// How long something takes on the clock of the test.
async fn timed<T>(what: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (what.await, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_waits_as_long_as_its_client() {
    for up in [true, false] {
        let world = World::new(silent);
        if !up {
            world.monitor.set(Liveness::Down);
        }
        let (answer, took) = timed(world.patient("new.corp.example.")).await;
        assert_eq!((answer.unwrap_err(), took), ("gh-net: the laptop does not answer", BUDGET));
        assert_eq!(world.asked(), usize::from(up));
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_asked_when_the_link_is_back() {
    let world = World::new(answering);
    world.monitor.set(Liveness::Down);
    let question = timed(world.patient("new.corp.example."));
    let back = async {
        sleep(Duration::from_secs(3)).await;
        assert_eq!(world.asked(), 0);
        world.monitor.connected();
    };
    let ((answer, took), ()) = tokio::join!(question, back);
    assert_eq!(extended_error(&answer.unwrap()), None);
    assert_eq!(took, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_a_link_has_lost_is_asked_over_the_next_one() {
    // The next link may replace one that nobody has noticed to be dead.
    for noticed in [true, false] {
        let world = World::new(silent);
        let question = timed(world.patient("new.corp.example."));
        let lost_and_back = async {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(world.asked(), 1);
            if noticed {
                world.monitor.set(Liveness::Down);
                sleep(Duration::from_secs(1)).await;
            }
            world.now(answering);
            world.monitor.connected();
        };
        let ((answer, took), ()) = tokio::join!(question, lost_and_back);
        answer.unwrap();
        assert_eq!(took, Duration::from_secs(if noticed { 2 } else { 1 }));
        assert_eq!(world.asked(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_link_a_fresh_answer_is_given_at_once_and_a_stale_one_after_a_while() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.monitor.set(Liveness::Down);
    sleep(Duration::from_secs(20)).await;
    let (answer, took) = timed(world.patient("WWW.corp.example.")).await;
    let answer = answer.unwrap();
    assert_eq!((answer.answers[0].ttl, extended_error(&answer), took), (40, None, Duration::ZERO));

    sleep(Duration::from_secs(60)).await;
    let (answer, took) = timed(world.patient("www.corp.example.")).await;
    let answer = answer.unwrap();
    assert_eq!((answer.answers[0].ttl, extended_error(&answer), took), (30, Some(3), STALE_AFTER));
    assert_eq!(world.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn on_a_silent_link_a_stale_answer_is_given_after_a_while() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.laptop.changed();
    let (answer, took) = timed(world.patient("www.corp.example.")).await;
    assert_eq!((extended_error(&answer.unwrap()), took), (None, STALE_AFTER), "still within its TTL");
    sleep(Duration::from_secs(60)).await;
    let (answer, took) = timed(world.patient("www.corp.example.")).await;
    assert_eq!((extended_error(&answer.unwrap()), took), (Some(3), STALE_AFTER));
    assert_eq!(world.asked(), 2, "the link may be alive after all");
}

#[tokio::test(start_paused = true)]
async fn a_laptop_that_is_there_is_waited_for() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.laptop.changed();
    let heard = world.monitor.connected();
    world.now(answering);
    *world.resolver.delay.lock().unwrap() = Duration::from_secs(4);
    let pongs = async {
        loop {
            sleep(Duration::from_millis(600)).await;
            heard.count();
        }
    };
    let questions = async {
        let (answer, took) = timed(world.patient("www.corp.example.")).await;
        assert_eq!((answer.unwrap().answers[0].ttl, took), (60, Duration::from_secs(4)));
        let (asked, took) = timed(world.impatient("wiki.partner.example.")).await;
        assert!(matches!(asked, Asked::Answer(_)), "{asked:?}");
        assert_eq!(took, Duration::from_secs(4));
    };
    tokio::select! {
        () = pongs => {}
        () = questions => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_laptop_that_is_there_is_its_answer() {
    let world = World::that_answered(&["www.corp.example."]).await;
    sleep(Duration::from_secs(100)).await;
    world.now(failing);
    let answer = world.patient("www.corp.example.").await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    world.now(silent);
    let answer = world.patient("www.corp.example.").await.unwrap();
    assert_eq!(extended_error(&answer), Some(3), "and not kept");
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_used_again_while_the_link_is_up() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.now(|query| Some(nxdomain(query, 60, 60)));
    sleep(Duration::from_secs(59)).await;
    let answer = world.patient("WWW.corp.example.").await.unwrap();
    assert_eq!((answer.answers[0].ttl, world.asked()), (1, 0));
    assert!(matches!(world.impatient("www.corp.example.").await, Asked::Answer(_)));
    assert_eq!(world.asked(), 0);
    sleep(Duration::from_secs(1)).await;
    let code = |answer: Message| answer.metadata.response_code;
    assert_eq!(code(world.patient("www.corp.example.").await.unwrap()), ResponseCode::NXDomain);
    assert_eq!(code(world.patient("www.corp.example.").await.unwrap()), ResponseCode::NXDomain);
    assert_eq!(world.asked(), 1);
    // A name that does not exist may soon.
    world.now(answering);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(code(world.patient("www.corp.example.").await.unwrap()), ResponseCode::NoError);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_laptop_tells_has_it_asked_again() {
    let events: [fn(&World); 3] = [
        |world| world.laptop.changed(),
        |world| world.laptop.domains_changed(|_| true),
        |world| drop(world.monitor.connected()),
    ];
    for event in events {
        let world = World::new(|query| Some(nxdomain(query, 60, 60)));
        world.patient("new.corp.example.").await.unwrap();
        world.now(answering);
        let code = |answer: Message| answer.metadata.response_code;
        assert_eq!(code(world.patient("new.corp.example.").await.unwrap()), ResponseCode::NXDomain);
        event(&world);
        assert_eq!(code(world.patient("new.corp.example.").await.unwrap()), ResponseCode::NoError);
        assert_eq!(world.asked(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_change_a_quiet_link_is_woken_and_a_lost_one_denies_no_name() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.now(|query| Some(nxdomain(query, 60, 60)));
    world.patient("new.corp.example.").await.unwrap();
    world.laptop.changed();
    world.monitor.set(Liveness::Down);
    let (_, took) = timed(world.patient("www.corp.example.")).await;
    assert_eq!(took, Duration::ZERO);
    let (_, took) = timed(world.patient("new.corp.example.")).await;
    assert_eq!(took, STALE_AFTER, "the link may be back before");
    world.monitor.set(Liveness::Quiet);
    world.patient("www.corp.example.").await.unwrap();
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_link_is_not_woken_for_what_is_known() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.monitor.set(Liveness::Quiet);
    let (answer, took) = timed(world.patient("www.corp.example.")).await;
    assert_eq!((extended_error(&answer.unwrap()), took), (None, Duration::ZERO));
    assert!(matches!(world.impatient("www.corp.example.").await, Asked::Answer(_)));
    assert_eq!(world.asked(), 0);

    world.now(answering);
    world.patient("new.corp.example.").await.unwrap();
    sleep(Duration::from_secs(60)).await;
    world.patient("www.corp.example.").await.unwrap();
    assert_eq!(world.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn names_that_others_know_do_not_wait_for_the_link() {
    let world = World::new(silent);
    let ask = || timed(world.impatient("nope.example."));
    assert_eq!(ask().await, (Asked::Unreachable, SILENCE));
    assert_eq!(ask().await, (Asked::Unreachable, STILL_SILENT), "only the first question pays");
    assert_eq!(world.asked(), 2);
    world.monitor.set(Liveness::Down);
    assert_eq!(ask().await, (Asked::Unreachable, Duration::ZERO));
    assert_eq!(world.asked(), 2);

    // Over the next link, the laptop is asked as ever.
    world.monitor.connected();
    assert_eq!(ask().await, (Asked::Unreachable, SILENCE));
    world.now(answering);
    world.monitor.connected();
    assert!(matches!(ask().await, (Asked::Answer(_), Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn names_that_others_know_do_not_wait_when_the_link_is_lost() {
    let world = World::new(silent);
    let lost = async {
        sleep(Duration::from_millis(300)).await;
        world.monitor.set(Liveness::Down);
    };
    let (asked, ()) = tokio::join!(timed(world.impatient("nope.example.")), lost);
    assert_eq!(asked, (Asked::Unreachable, Duration::from_millis(300)));
}

#[tokio::test(start_paused = true)]
async fn the_questions_that_wait_are_bounded_and_a_flood_displaces_its_own() {
    let world = World::that_answered(&["www.corp.example."]).await;
    world.monitor.set(Liveness::Down);
    sleep(Duration::from_secs(100)).await;
    let flood: Vec<_> = (0..2 * MAX_PATIENT).map(|n| format!("host{n}.dead.corp.example.")).collect();
    let flood = futures_util::future::join_all(flood.iter().map(|name| world.patient(name)));
    let link = async {
        sleep(Duration::from_secs(3)).await;
        world.now(answering);
        world.monitor.connected();
    };
    let others = async {
        tokio::task::yield_now().await;
        let (asked, took) = timed(world.impatient("nope.example.")).await;
        assert_eq!((asked, took), (Asked::Unreachable, Duration::ZERO));
        futures_util::join!(world.patient("new.corp.example."), world.patient("www.corp.example."))
    };
    let (flood, (new, stale), ()) = futures_util::join!(flood, others, link);
    assert_eq!(flood.iter().filter(|answer| answer.is_ok()).count(), MAX_PATIENT - 2);
    assert!(flood.iter().flat_map(|answer| answer.as_ref().err()).all(|why| why.contains("too many")));
    new.expect("it waited for the link");
    assert_eq!(extended_error(&stale.unwrap()), Some(3), "stale");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_the_laptop_loses_is_forgotten() {
    let world = World::that_answered(&["www.corp.example.", "www.lan."]).await;
    world.laptop.domains_changed(|name| name.ends_with(b"\x03lan"));
    world.monitor.set(Liveness::Down);
    world.patient("www.corp.example.").await.unwrap_err();
    let answer = world.patient("www.lan.").await.unwrap();
    assert_eq!(extended_error(&answer), Some(3), "stale, although its TTL has not passed");
}
