//! The resolver with files of its own, and nameservers of the tests on loopback.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType};
use hickory_proto::rr::rdata::{A, CNAME, NULL, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::sys::c_library::LookupError;

/// The script of a test's server, over UDP or TCP.
type Script = fn(&Message, Transport) -> Option<Message>;

struct World {
    resolver: Resolver,
    directory: TempDir,
    asked: Vec<Arc<AtomicUsize>>,
    _servers: JoinSet<()>,
}

impl World {
    /// A laptop with a nameserver at 127.0.0.2, .3, … for each script.
    async fn new(scripts: &[Script]) -> Self {
        let mut servers = JoinSet::new();
        let port = free_port(scripts.len()).await;
        let mut resolv_conf = "search Corp.Example. lan\n".to_owned();
        let mut asked = Vec::new();
        for (address, &script) in addresses().zip(scripts) {
            let count = Arc::new(AtomicUsize::new(0));
            serve(&mut servers, SocketAddr::new(address, port), script, Arc::clone(&count)).await;
            resolv_conf += &format!("nameserver {address}\n");
            asked.push(count);
        }
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            resolv_conf: directory.path().join("resolv.conf"),
            hosts: directory.path().join("hosts"),
            port,
        };
        fs::write(&paths.resolv_conf, resolv_conf).unwrap();
        fs::write(&paths.hosts, "10.1.2.3 wiki.corp.example wiki\n").unwrap();
        let resolver = Resolver::new(paths, Nss::new(forward, backward)).unwrap();
        Self { resolver, directory, asked, _servers: servers }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let query = question(name, kind);
        let answer = self.resolver.answer_udp(&query.to_vec().unwrap()).await.unwrap();
        let answer = Message::from_vec(&answer.message).unwrap();
        assert_eq!(answer.metadata.id, query.metadata.id);
        assert!(answer.queries[0].name().eq_case(query.queries[0].name()));
        answer
    }

    fn count(&self, server: usize) -> usize {
        self.asked[server].load(Ordering::Relaxed)
    }
}

/// The switch of the tests: two names of its own, with an IPv4 address only. One takes its time.
fn forward(name: &str) -> Result<Vec<IpAddr>, LookupError> {
    match name {
        "nas.local." => Ok(vec!["192.168.1.9".parse().unwrap()]),
        "slow.dead.corp.example." => {
            std::thread::sleep(Duration::from_millis(1500));
            Ok(vec!["192.168.1.9".parse().unwrap()])
        }
        "broken.example." => Err(LookupError::Failed),
        "hanging.example." => loop {
            std::thread::park();
        },
        _ => Err(LookupError::NoName),
    }
}

fn backward(address: IpAddr) -> Result<String, LookupError> {
    if address == IpAddr::from([192, 168, 1, 9]) {
        Ok("nas.local".to_owned())
    } else {
        Err(LookupError::NoName)
    }
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    (2..).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

async fn free_port(count: usize) -> u16 {
    loop {
        let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut free = true;
        for address in addresses().take(count) {
            free &= UdpSocket::bind((address, port)).await.is_ok();
            free &= TcpListener::bind((address, port)).await.is_ok();
        }
        if free {
            return port;
        }
    }
}

async fn serve(tasks: &mut JoinSet<()>, address: SocketAddr, script: Script, count: Arc<AtomicUsize>) {
    let udp = UdpSocket::bind(address).await.unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    tasks.spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let query = Message::from_vec(&buffer[..length]).unwrap();
            if let Some(answer) = script(&query, Transport::Udp) {
                udp.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
            }
        }
    });
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut query = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut query).await.unwrap();
            if let Some(answer) = script(&Message::from_vec(&query).unwrap(), Transport::Tcp) {
                let answer = answer.to_vec().unwrap();
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        }
    });
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn coded(query: &Message, code: ResponseCode) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.response_code = code;
    reply
}

fn record(query: &Message, data: RData) -> Record {
    Record::from_rdata(query.queries[0].name().clone(), 300, data)
}

fn soa(query: &Message) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    let zone = Name::from_ascii("corp.example.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
    reply.add_authority(Record::from_rdata(zone, 60, RData::SOA(soa)));
    reply
}

fn nxdomain(query: &Message, _: Transport) -> Option<Message> {
    let mut reply = soa(query);
    reply.metadata.response_code = ResponseCode::NXDomain;
    Some(reply)
}

fn failing(query: &Message, _: Transport) -> Option<Message> {
    Some(coded(query, ResponseCode::ServFail))
}

fn silent(_: &Message, _: Transport) -> Option<Message> {
    None
}

fn address(query: &Message, _: Transport) -> Option<Message> {
    let mut reply = coded(query, ResponseCode::NoError);
    reply.add_answer(record(query, RData::A(A::new(10, 20, 0, 10))));
    Some(reply)
}

/// A record of the requested type with arbitrary bytes.
fn opaque(query: &Message, _: Transport) -> Option<Message> {
    let mut reply = coded(query, ResponseCode::NoError);
    let code = query.queries[0].query_type();
    reply.add_answer(record(query, RData::Unknown { code, rdata: NULL::with(vec![1, 2, 3]) }));
    Some(reply)
}

/// 3000 bytes; over UDP only the truncation bit is sent.
fn large(query: &Message, transport: Transport) -> Option<Message> {
    let mut reply = coded(query, ResponseCode::NoError);
    reply.metadata.truncation = transport == Transport::Udp;
    if transport == Transport::Tcp {
        for _ in 0..30 {
            reply.add_answer(record(query, RData::TXT(TXT::new(vec!["x".repeat(100)]))));
        }
    }
    Some(reply)
}

fn first(answer: &Message) -> String {
    answer.answers.first().map(|record| record.data.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn negative_answers_keep_their_kind_and_their_soa() {
    fn alias_of_nothing(query: &Message, _: Transport) -> Option<Message> {
        let mut reply = soa(query);
        let target = Name::from_ascii("target.corp.example.").unwrap();
        reply.add_answer(record(query, RData::CNAME(CNAME(target))));
        Some(reply)
    }
    let missing = World::new(&[nxdomain]).await;
    for kind in [RecordType::TXT, RecordType::A] {
        let answer = missing.ask("none.corp.example.", kind).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
    }

    let alias = World::new(&[alias_of_nothing]).await;
    let answer = alias.ask("Alias.corp.example.", RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(first(&answer), "target.corp.example.");
    assert_eq!(answer.authorities.len(), 1);
}

#[tokio::test]
async fn unknown_types_pass() {
    let world = World::new(&[opaque]).await;
    let kind = RecordType::Unknown(65280);
    let answer = world.ask("www.corp.example.", kind).await;
    assert_eq!(answer.answers[0].record_type(), kind);
    assert_eq!(answer.answers[0].ttl, 300);
}

#[tokio::test]
async fn after_a_server_that_fails_the_next_one_is_asked() {
    let world = World::new(&[failing, address]).await;
    assert_eq!(first(&world.ask("www.corp.example.", RecordType::A).await), "10.20.0.10");
    let world = World::new(&[nxdomain, address]).await;
    let answer = world.ask("www.corp.example.", RecordType::TXT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "the first server's no is a no");
    assert_eq!(world.count(1), 0);
}

#[tokio::test]
async fn a_silent_server_is_waited_for_once() {
    let world = World::new(&[silent, address]).await;
    let begun = Instant::now();
    let answer = world.ask("www.corp.example.", RecordType::TXT).await;
    assert_eq!(first(&answer), "10.20.0.10");
    let first_wait = begun.elapsed();
    world.ask("www.corp.example.", RecordType::TXT).await;
    assert!(begun.elapsed() - first_wait < Duration::from_secs(1));
}

/// A server that waits for another one, which is dead, for the names of a single zone.
fn dead_in_part(query: &Message, by: Transport) -> Option<Message> {
    let name = query.queries[0].name().to_ascii();
    if name.ends_with("dead.corp.example.") { None } else { address(query, by) }
}

#[tokio::test]
async fn a_server_that_does_not_answer_for_one_zone_is_still_the_first() {
    let world = World::new(&[dead_in_part, nxdomain]).await;
    world.ask("www.dead.corp.example.", RecordType::TXT).await;
    assert_eq!(first(&world.ask("www.corp.example.", RecordType::A).await), "10.20.0.10");
}

#[tokio::test]
async fn a_zone_that_nobody_answers_for_holds_up_no_other() {
    let world = World::new(&[dead_in_part]).await;
    for zone in ["dead.corp.example.", "zone.dead.corp.example."] {
        let mut flood = JoinSet::new();
        for number in 0..500 {
            let query = match zone.starts_with("zone") {
                true => question(&format!("host.{number}{zone}"), RecordType::TXT),
                false => question(&format!("host{number}.{zone}"), RecordType::TXT),
            };
            flood.spawn(world.resolver.answer_udp(&query.to_vec().unwrap()));
        }
        tokio::task::yield_now().await;
        let begun = Instant::now();
        assert_eq!(first(&world.ask("www.corp.example.", RecordType::A).await), "10.20.0.10");
        assert_eq!(first(&world.ask("www.lan.", RecordType::A).await), "10.20.0.10");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        while let Some(answer) = flood.join_next().await {
            let answer = Message::from_vec(&answer.unwrap().unwrap().message).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        }
    }
}

#[tokio::test]
async fn a_slow_switch_is_waited_for_in_a_zone_that_is_held_down() {
    let world = World::new(&[dead_in_part]).await;
    let mut flood = JoinSet::new();
    for number in 0..500 {
        let query = question(&format!("host{number}.dead.corp.example."), RecordType::TXT);
        flood.spawn(world.resolver.answer_udp(&query.to_vec().unwrap()));
    }
    flood.join_all().await;
    assert_eq!(first(&world.ask("slow.dead.corp.example.", RecordType::A).await), "192.168.1.9");
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_over_tcp_and_truncated_to_the_clients_size() {
    let world = World::new(&[large]).await;
    let plain = world.ask("big.corp.example.", RecordType::TXT).await;
    assert!(plain.metadata.truncation && plain.edns.is_none());
    assert_eq!(plain.answers.len(), 4, "what fits 512 bytes");

    let mut query = question("big.corp.example.", RecordType::TXT);
    query.edns = Some(Edns::new());
    query.edns.as_mut().unwrap().set_max_payload(4096);
    let query = query.to_vec().unwrap();
    for answer in [world.resolver.answer_udp(&query).await, world.resolver.answer_tcp(&query).await] {
        let answer = Message::from_vec(&answer.unwrap().message).unwrap();
        assert_eq!((answer.answers.len(), answer.metadata.truncation), (30, false));
        assert!(answer.edns.is_some());
    }
}

#[tokio::test]
async fn servers_without_edns_are_asked_without_it() {
    fn old(query: &Message, transport: Transport) -> Option<Message> {
        if query.edns.is_some() {
            return Some(coded(query, ResponseCode::FormErr));
        }
        address(query, transport)
    }
    let world = World::new(&[old]).await;
    assert_eq!(first(&world.ask("www.corp.example.", RecordType::A).await), "10.20.0.10");
}

#[tokio::test]
async fn a_name_that_only_the_switch_has_is_found() {
    for script in [nxdomain as Script, failing, silent] {
        let world = World::new(&[script]).await;
        let begun = Instant::now();
        assert_eq!(first(&world.ask("NAS.local.", RecordType::A).await), "192.168.1.9");
        let other = world.ask("nas.local.", RecordType::AAAA).await;
        assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(first(&world.ask("9.1.168.192.in-addr.arpa.", RecordType::PTR).await), "nas.local.");
        assert!(begun.elapsed() < Duration::from_millis(1500), "a silent server is not waited for");
    }
}

#[tokio::test]
async fn failures_are_failures() {
    let world = World::new(&[failing]).await;
    let code = async |name, kind| world.ask(name, kind).await.metadata.response_code;
    assert_eq!(code("www.corp.example.", RecordType::MX).await, ResponseCode::ServFail);
    assert_eq!(code("broken.example.", RecordType::A).await, ResponseCode::ServFail);
    assert_eq!(code("none.example.", RecordType::A).await, ResponseCode::NXDomain, "the switch is sure");
}

#[tokio::test]
async fn a_switch_that_hangs_delays_a_negative_answer_by_one_second() {
    let world = World::new(&[nxdomain]).await;
    let begun = Instant::now();
    let answer = world.ask("hanging.example.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_hosts_file_comes_first() {
    let world = World::new(&[address]).await;
    assert_eq!(first(&world.ask("wiki.corp.example.", RecordType::A).await), "10.1.2.3");
    assert_eq!(world.count(0), 0);
    world.ask("wiki.corp.example.", RecordType::TXT).await;
    assert_eq!(world.count(0), 1);
}

#[tokio::test]
async fn a_machine_without_nameservers_still_has_the_switch() {
    let world = World::new(&[]).await;
    fs::remove_file(world.directory.path().join("resolv.conf")).unwrap();
    world.resolver.reload();
    assert!(world.resolver.nameservers().is_empty() && world.resolver.configuration().search.is_empty());
    assert_eq!(first(&world.ask("nas.local.", RecordType::A).await), "192.168.1.9");
    let answer = world.ask("nas.local.", RecordType::TXT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn the_configuration_is_followed() {
    let world = World::new(&[address]).await;
    assert_eq!(world.resolver.configuration().search, ["corp.example", "lan"]);
    assert_eq!(world.resolver.nameservers(), ["127.0.0.2".parse::<IpAddr>().unwrap()]);
    fs::write(world.directory.path().join("resolv.conf"), "nameserver 10.8.0.1\nsearch vpn.example\n")
        .unwrap();
    world.resolver.reload();
    assert_eq!(world.resolver.configuration().search, ["vpn.example"]);
    assert_eq!(world.resolver.nameservers(), ["10.8.0.1".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn each_change_of_the_configuration_is_counted() {
    let world = World::new(&[address]).await;
    let write = |file: &str, text: &str| {
        // A new file, as programs write it: so it has another stamp, however soon it comes.
        let path = world.directory.path().join(file);
        fs::write(path.with_extension("new"), text).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        let before = world.resolver.configuration().changes;
        world.resolver.reload();
        world.resolver.configuration().changes - before
    };
    assert_eq!(write("hosts", "10.1.2.3 new.corp.example\n"), 1);
    assert_eq!(write("resolv.conf", "nameserver 10.8.0.1\n"), 1);
    assert_eq!(write("resolv.conf", "nameserver 10.8.0.1\n"), 0, "the same servers");
    assert_eq!(write("hosts", "10.1.2.3 new.corp.example\n"), 0);
    assert_eq!(write("resolv.conf", "nameserver 127.0.0.53\n"), 1);
    assert_eq!(write("resolv.conf", "nameserver 127.0.0.53\n"), 1, "there may be other servers behind it");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_of_a_burst_is_lost() {
    let world = World::new(&[address]).await;
    let mut queries = JoinSet::new();
    for id in 0..3000 {
        let mut query = question(&format!("host{id}.corp.example."), RecordType::A);
        query.metadata.id = id;
        let resolver = world.resolver.clone();
        queries.spawn(async move { resolver.answer_udp(&query.to_vec().unwrap()).await.unwrap() });
    }
    let mut answered = HashSet::new();
    while let Some(answer) = queries.join_next().await {
        let answer = Message::from_vec(&answer.unwrap().message).unwrap();
        assert_eq!(first(&answer), "10.20.0.10");
        answered.insert(answer.metadata.id);
    }
    assert_eq!(answered.len(), 3000);
}

#[test]
fn a_flood_of_questions_fits_into_the_descriptors_that_flows_leave() {
    // One over UDP and one over TCP. A lookup of the system: its output, its process, and what the C library opens.
    let (question, lookup) = (2, 4);
    // The link, ssh, logs, epoll, netlink, the control socket and its clients.
    let others = 128;
    let needed = QUERIES.turns * question + nss::LOOKUPS.turns * lookup + others;
    assert!(needed <= crate::engine::OTHER_DESCRIPTORS, "{needed}");
}
