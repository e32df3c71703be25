//! The responder between real sockets on loopback: 127.0.0.1 is our own address, .2 the laptop's, .3 and .4 those of the
//! codespace's resolvers.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gh_net_common::frame::{DnsMode, Rebind};
use hickory_proto::op::{Edns, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::laptop::SILENCE;
use super::upstream::STEP;
use super::*;
use crate::liveness::{LinkMonitor, Liveness};

mod connections;
mod memory;
mod rebind;
pub(super) mod samples;

use samples::question;

const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const LAPTOP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// How a test's resolver answers a query.
type Script = fn(&Message, &[u8]) -> Option<Vec<u8>>;

/// A test's resolver, and the queries it received.
struct Server {
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(address: IpAddr, port: u16, script: Script) -> Self {
        let udp = UdpSocket::bind((address, port)).await.unwrap();
        let tcp = TcpListener::bind((address, port)).await.unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                log.lock().unwrap().push(buffer[..length].to_vec());
                let query = Message::from_vec(&buffer[..length]).unwrap();
                if let Some(answer) = script(&query, &buffer[..length]) {
                    udp.send_to(&answer, client).await.unwrap();
                }
            }
        });
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                // The responder may have given up the question.
                let _served = serve(&mut stream, &log, script).await;
            }
        });
        async fn serve(stream: &mut TcpStream, log: &Mutex<Vec<Vec<u8>>>, script: Script) -> io::Result<()> {
            let mut message = vec![0; stream.read_u16().await?.into()];
            stream.read_exact(&mut message).await?;
            log.lock().unwrap().push(message.clone());
            match script(&Message::from_vec(&message).unwrap(), &message) {
                Some(answer) => stream.write_all(&upstream::framed(&answer)).await,
                None => Ok(()),
            }
        }
        Self { asked, _tasks: tasks }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn reply(query: &Message, code: ResponseCode) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = code;
    reply.edns = None;
    reply
}

fn with_address(query: &Message, address: [u8; 4]) -> Option<Vec<u8>> {
    let mut reply = reply(query, ResponseCode::NoError);
    reply.add_answer(Record::from_rdata(query.queries[0].name().clone(), 60, RData::A(A(address.into()))));
    reply.to_vec().ok()
}

fn code_only(query: &Message, code: ResponseCode) -> Option<Vec<u8>> {
    reply(query, code).to_vec().ok()
}

fn public(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    with_address(query, [203, 0, 113, 1])
}

fn corporate(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    with_address(query, [10, 20, 0, 10])
}

fn silent(_: &Message, _: &[u8]) -> Option<Vec<u8>> {
    None
}

fn nxdomain(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    code_only(query, ResponseCode::NXDomain)
}

/// With what says for how long.
fn no_such_name(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    let mut reply = reply(query, ResponseCode::NXDomain);
    reply.add_authority(samples::soa(300, 300));
    reply.to_vec().ok()
}

fn refused(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    code_only(query, ResponseCode::Refused)
}

fn nodata(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
    code_only(query, ResponseCode::NoError)
}

/// A port that is free on all of the tests' addresses.
async fn free_port() -> u16 {
    loop {
        let probe = UdpSocket::bind((OURS, 0)).await.unwrap();
        let port = probe.local_addr().unwrap().port();
        let mut free = true;
        for address in [LAPTOP, FIRST, SECOND] {
            free &= UdpSocket::bind((address, port)).await.is_ok();
        }
        for address in [OURS, LAPTOP, FIRST, SECOND] {
            free &= TcpListener::bind((address, port)).await.is_ok();
        }
        if free {
            return port;
        }
    }
}

struct World {
    port: u16,
    monitor: LinkMonitor,
    responder: Responder,
    laptop: Server,
    first: Server,
    client: UdpSocket,
}

impl World {
    async fn new(laptop: Script, first: Script) -> Self {
        let port = free_port().await;
        let (laptop, first) =
            (Server::start(LAPTOP, port, laptop).await, Server::start(FIRST, port, first).await);
        let (responder, monitor) = start(port, &[FIRST]);
        Self { port, monitor, responder, laptop, first, client: client(port).await }
    }

    async fn ask(&self, name: &str) -> Message {
        exchange(&self.client, &question(name, RecordType::A)).await
    }

    fn set(&self, mode: DnsMode) {
        self.responder.set(&dns(mode));
    }
}

fn dns(mode: DnsMode) -> Dns {
    Dns { mode, search: vec![], domains: vec!["corp.example".to_owned()], rebind: Rebind::Refuse }
}

/// A responder with a link.
fn start(port: u16, resolvers: &[IpAddr]) -> (Responder, LinkMonitor) {
    start_telling(port, resolvers, Notifier::new().0)
}

/// The same, which tells of refusals.
fn start_telling(port: u16, resolvers: &[IpAddr], notifier: Notifier) -> (Responder, LinkMonitor) {
    let resolvers = resolvers.to_vec();
    let config = Config {
        listen: vec![OURS],
        laptop: vec![LAPTOP],
        resolvers,
        notifier,
        sockets: OwnSockets::default(),
    };
    let monitor = LinkMonitor::new();
    monitor.connected();
    let responder = Responder::start_on(config, monitor.watch(), port).unwrap();
    responder.set_clients(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    responder.set(&dns(DnsMode::Split));
    (responder, monitor)
}

async fn client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect((OURS, port)).await.unwrap();
    client
}

async fn exchange(client: &UdpSocket, query: &Message) -> Message {
    client.send(&query.to_vec().unwrap()).await.unwrap();
    receive(client).await
}

async fn receive(client: &UdpSocket) -> Message {
    let mut buffer = vec![0; 65535];
    let length = timeout(Duration::from_secs(6), client.recv(&mut buffer)).await.unwrap().unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

fn address(message: &Message) -> String {
    message.answers.first().map(|record| record.data.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn names_are_resolved_on_their_own_side() {
    let world = World::new(corporate, public).await;
    let answer = world.ask("WWW.Corp.Example.").await;
    assert_eq!(address(&answer), "10.20.0.10");
    assert_eq!(answer.queries[0].name().to_string(), "WWW.Corp.Example.");
    assert_eq!((world.laptop.count(), world.first.count()), (1, 0));
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
    assert_eq!((world.laptop.count(), world.first.count()), (1, 1));
    world.set(DnsMode::Local);
    assert_eq!(address(&world.ask("github.com.").await), "10.20.0.10");
}

#[tokio::test]
async fn the_laptop_is_asked_if_the_codespace_has_no_answer() {
    for script in [nxdomain as Script, refused] {
        let world = World::new(corporate, script).await;
        assert_eq!(address(&world.ask("wiki.partner.example.").await), "10.20.0.10");
        // One of the codespace's containers, if anything.
        assert_ne!(world.ask("printer.").await.metadata.response_code, ResponseCode::NoError);
        assert_eq!(world.laptop.count(), 1);
    }
}

#[tokio::test]
async fn in_strict_split_mode_the_laptop_is_asked_for_its_domains_only() {
    let world = World::new(corporate, nxdomain).await;
    world.set(DnsMode::SplitStrict);
    assert_eq!(address(&world.ask("www.corp.example.").await), "10.20.0.10");
    assert_eq!(world.ask("wiki.partner.example.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(world.laptop.count(), 1);
}

#[tokio::test]
async fn other_resolvers_of_the_codespace_take_the_place_of_the_old_ones() {
    let world = World::new(corporate, public).await;
    let second = Server::start(SECOND, world.port, |query, _| with_address(query, [203, 0, 113, 2])).await;
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
    // Our own address among them would be a loop.
    world.responder.set_resolvers(&[OURS, SECOND]);
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.2");
    assert_eq!((world.first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn negative_answers_stay_negative() {
    let both = World::new(nxdomain, nxdomain).await;
    assert_eq!(both.ask("none.example.").await.metadata.response_code, ResponseCode::NXDomain);

    let failing_laptop = World::new(refused, nxdomain).await;
    let answer = failing_laptop.ask("none.example.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);

    let exists = World::new(corporate, nodata).await;
    let answer = exists.ask("no-such-type.example.").await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(exists.laptop.count(), 0);

    // A name of the laptop with other records: answering NXDOMAIN would tell the client that it does not exist.
    let other_type = World::new(nodata, nxdomain).await;
    let answer = other_type.ask("only-ipv6.lan.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn without_a_link_the_codespace_answers_at_once() {
    for mode in [DnsMode::Split, DnsMode::Local] {
        for (script, code) in [(public as Script, ResponseCode::NoError), (nxdomain, ResponseCode::NXDomain)]
        {
            let world = World::new(silent, script).await;
            world.set(mode);
            world.monitor.set(Liveness::Down);
            let start = Instant::now();
            assert_eq!(world.ask("github.com.").await.metadata.response_code, code);
            assert!(start.elapsed() < SILENCE);
            assert_eq!(world.laptop.count(), 0);
        }
    }
}

#[tokio::test]
async fn on_a_silent_link_the_codespace_answers_soon_and_then_at_once() {
    for (mode, script) in [(DnsMode::Split, nxdomain as Script), (DnsMode::Local, public)] {
        let world = World::new(silent, script).await;
        world.set(mode);
        let start = Instant::now();
        let first = world.ask("github.com.").await;
        assert!((SILENCE..STEP * 2).contains(&start.elapsed()), "{:?}", start.elapsed());
        let start = Instant::now();
        assert_eq!(world.ask("github.com.").await.metadata.response_code, first.metadata.response_code);
        assert!(start.elapsed() < SILENCE);
        assert_eq!(world.laptop.count(), 2, "the link may be alive after all");
    }
}

#[tokio::test]
async fn a_question_for_the_laptop_waits_for_the_link_and_holds_up_no_other() {
    let world = World::new(corporate, public).await;
    world.monitor.set(Liveness::Down);
    let waiting = client(world.port).await;
    waiting.send(&question("www.corp.example.", RecordType::A).to_vec().unwrap()).await.unwrap();
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
    assert_eq!(world.laptop.count(), 0);
    world.monitor.connected();
    assert_eq!(address(&receive(&waiting).await), "10.20.0.10");
}

#[tokio::test]
async fn what_only_the_laptop_knew_of_other_names_is_remembered_without_it() {
    let world = World::new(corporate, nxdomain).await;
    assert_eq!(address(&world.ask("wiki.partner.example.").await), "10.20.0.10");
    world.monitor.set(Liveness::Down);
    assert_eq!(address(&world.ask("wiki.partner.example.").await), "10.20.0.10");
    assert_eq!(world.ask("new.partner.example.").await.metadata.response_code, ResponseCode::NXDomain);

    let both = World::new(corporate, public).await;
    both.set(DnsMode::Local);
    assert_eq!(address(&both.ask("github.com.").await), "10.20.0.10");
    both.monitor.set(Liveness::Down);
    assert_eq!(address(&both.ask("github.com.").await), "203.0.113.1", "the codespace has a way there");

    let failing = World::new(nxdomain, refused).await;
    assert_eq!(failing.ask("github.com.").await.metadata.response_code, ResponseCode::NXDomain);
    failing.monitor.set(Liveness::Down);
    let answer = failing.ask("github.com.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "the laptop does not know all names");
}

#[tokio::test]
async fn what_the_laptop_said_is_forgotten_with_its_domain() {
    let world = World::new(corporate, nxdomain).await;
    assert_eq!(address(&world.ask("www.corp.example.").await), "10.20.0.10");
    world.set(DnsMode::Split);
    world.monitor.set(Liveness::Down);
    assert_eq!(address(&world.ask("www.corp.example.").await), "10.20.0.10", "the same domains");
    world.responder.set(&Dns { domains: vec![], ..dns(DnsMode::Split) });
    assert_eq!(world.ask("www.corp.example.").await.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn the_same_question_is_asked_once_until_something_changes() {
    let world = World::new(corporate, public).await;
    let names = ["www.corp.example.", "github.com."];
    let counts = async |world: &World| {
        for name in names.repeat(2) {
            world.ask(name).await;
        }
        (world.laptop.count(), world.first.count())
    };
    assert_eq!(counts(&world).await, (1, 1));
    world.set(DnsMode::Split);
    assert_eq!(counts(&world).await, (2, 1), "the same settings, because something else has changed");
    world.responder.routes_changed();
    assert_eq!(counts(&world).await, (3, 1));
    world.monitor.connected();
    assert_eq!(counts(&world).await, (4, 1));
    world.responder.set_resolvers(&[FIRST]);
    assert_eq!(counts(&world).await, (4, 2));
}

#[tokio::test]
async fn an_answer_of_the_public_does_not_stand_for_one_of_the_laptop() {
    let world = World::new(corporate, public).await;
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
    world.set(DnsMode::Local);
    assert_eq!(address(&world.ask("github.com.").await), "10.20.0.10");
    world.set(DnsMode::Split);
    assert_eq!(address(&world.ask("github.com.").await), "203.0.113.1");
}

#[tokio::test]
async fn a_name_that_neither_side_knew_is_found_once_the_laptop_tells_of_a_change() {
    fn known_later(query: &Message, bytes: &[u8]) -> Option<Vec<u8>> {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        match ASKED.fetch_add(1, Ordering::Relaxed) {
            0 => no_such_name(query, bytes),
            _ => corporate(query, bytes),
        }
    }
    let world = World::new(known_later, no_such_name).await;
    for _ in 0..2 {
        assert_eq!(world.ask("wiki.partner.example.").await.metadata.response_code, ResponseCode::NXDomain);
    }
    assert_eq!((world.laptop.count(), world.first.count()), (1, 1));
    world.set(DnsMode::Split);
    assert_eq!(address(&world.ask("wiki.partner.example.").await), "10.20.0.10");
    assert_eq!(world.first.count(), 1, "nothing has changed there");
}

#[tokio::test]
async fn a_dead_resolver_is_skipped() {
    let port = free_port().await;
    let _second = Server::start(SECOND, port, public).await;
    // Nothing listens at FIRST, which the kernel reports at once. Our own address would be a loop.
    let _responder = start(port, &[OURS, FIRST, SECOND]);
    let begun = Instant::now();
    let query = question("github.com.", RecordType::A);
    assert_eq!(address(&exchange(&client(port).await, &query).await), "203.0.113.1");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_silent_resolver_costs_one_step() {
    let port = free_port().await;
    let _servers = (Server::start(FIRST, port, silent).await, Server::start(SECOND, port, public).await);
    let _responder = start(port, &[FIRST, SECOND]);
    let begun = Instant::now();
    let query = question("github.com.", RecordType::A);
    assert_eq!(address(&exchange(&client(port).await, &query).await), "203.0.113.1");
    assert!((STEP..STEP * 2).contains(&begun.elapsed()));
}

#[tokio::test]
async fn if_all_are_silent_the_client_gets_an_error_before_it_gives_up() {
    let world = World::new(silent, silent).await;
    let answer = world.ask("github.com.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((world.first.count(), world.laptop.count()), (2, 2), "datagrams get lost, so both try twice");
}

#[tokio::test]
async fn the_laptop_alone_is_enough() {
    let port = free_port().await;
    let _laptop = Server::start(LAPTOP, port, corporate).await;
    let _responder = start(port, &[]);
    let query = question("github.com.", RecordType::A);
    assert_eq!(address(&exchange(&client(port).await, &query).await), "10.20.0.10");
}

#[tokio::test]
async fn queries_and_truncation_pass_unchanged() {
    fn truncated(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
        let mut reply = reply(query, ResponseCode::NoError);
        reply.metadata.truncation = true;
        reply.to_vec().ok()
    }
    let world = World::new(silent, truncated).await;
    let mut query = question("big.example.", RecordType::Unknown(65280));
    query.edns = Some(Edns::new());
    query.edns.as_mut().unwrap().set_max_payload(1234).set_dnssec_ok(true);
    let sent = query.to_vec().unwrap();
    assert!(exchange(&world.client, &query).await.metadata.truncation);
    assert_eq!(world.first.asked.lock().unwrap()[0][2..], sent[2..]);
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    fn forger(query: &Message, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut forged = query.clone();
        forged.metadata.id = query.metadata.id.wrapping_add(1);
        assert_ne!(bytes.len(), 0);
        with_address(&forged, [6, 6, 6, 6])
    }
    let world = World::new(silent, forger).await;
    assert_eq!(world.ask("github.com.").await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn one_socket_can_ask_for_two_types_at_once() {
    fn slow_a(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
        if query.queries[0].query_type() == RecordType::A {
            with_address(query, [10, 20, 0, 10])
        } else {
            code_only(query, ResponseCode::NoError)
        }
    }
    let world = World::new(slow_a, slow_a).await;
    let queries = [RecordType::A, RecordType::AAAA].map(|kind| question("www.corp.example.", kind));
    for query in &queries {
        world.client.send(&query.to_vec().unwrap()).await.unwrap();
    }
    for _ in &queries {
        let answer = receive(&world.client).await;
        let query = queries.iter().find(|query| query.metadata.id == answer.metadata.id).unwrap();
        assert_eq!(answer.queries, query.queries);
    }
}

#[tokio::test]
async fn a_query_that_is_too_long_is_refused() {
    let world = World::new(corporate, public).await;
    let mut long = question("github.com.", RecordType::A).to_vec().unwrap();
    long.resize(message::MAX_QUERY + 1, 0);
    world.client.send(&long).await.unwrap();
    assert_eq!(receive(&world.client).await.metadata.response_code, ResponseCode::FormErr);
    let mut stream = TcpStream::connect((OURS, world.port)).await.unwrap();
    stream.write_u16(long.len() as u16).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "closed");
    assert_eq!(world.first.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_of_a_burst_is_lost() {
    const COUNT: u16 = 3000;
    let world = World::new(corporate, public).await;
    // Several clients, because the socket of one could not hold all answers.
    let mut clients = JoinSet::new();
    for first in (0..COUNT).step_by(100) {
        let client = client(world.port).await;
        clients.spawn(async move {
            let mut waiting = HashSet::new();
            for id in first..first + 100 {
                let mut query = question(&format!("host{id}.corp.example."), RecordType::A);
                query.metadata.id = id;
                waiting.insert(id);
                client.send(&query.to_vec().unwrap()).await.unwrap();
            }
            while !waiting.is_empty() {
                let answer = receive(&client).await;
                assert_eq!(address(&answer), "10.20.0.10");
                waiting.remove(&answer.metadata.id);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn dropping_the_responder_stops_it() {
    let world = World::new(silent, silent).await;
    let query = question("www.corp.example.", RecordType::A);
    world.client.send(&query.to_vec().unwrap()).await.unwrap();
    while world.laptop.count() == 0 {
        tokio::task::yield_now().await;
    }
    drop(world.responder);
    let stopped = async {
        while UdpSocket::bind((OURS, world.port)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(1), stopped).await.expect("the socket is closed, its queries are gone");
}

#[tokio::test]
async fn a_zone_that_nobody_answers_for_holds_up_no_other() {
    fn dead_in_part(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
        let name = query.queries[0].name().to_ascii();
        if name.contains("dead.") { None } else { with_address(query, [10, 20, 0, 10]) }
    }
    let world = World::new(dead_in_part, dead_in_part).await;
    let names: [fn(usize) -> String; 4] = [
        |number| format!("host{number}.dead.corp.example."),
        |number| format!("host.zone{number}.dead.corp.example."),
        |number| format!("host{number}.dead.example."),
        |number| format!("host.zone{number}.dead.example."),
    ];
    for name in names {
        let flood = client(world.port).await;
        for number in 0..400 {
            flood.send(&question(&name(number), RecordType::A).to_vec().unwrap()).await.unwrap();
        }
        for other in ["www.corp.example.", "github.com."] {
            let begun = Instant::now();
            assert_eq!(address(&world.ask(other).await), "10.20.0.10", "{other}, {}", name(0));
            assert!(begun.elapsed() < Duration::from_secs(2), "{other}, {}: {:?}", name(0), begun.elapsed());
        }
    }
}
