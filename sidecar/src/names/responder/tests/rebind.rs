//! Public names that lead into the laptop's networks.

use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::rdata::opt::EdnsOption;
use tokio::sync::mpsc;

use super::*;
use crate::hook::plan::Target;

/// A world in which 10.20.0.0/16 is forwarded, and what its user is told.
async fn forwarding(laptop: Script, first: Script) -> (World, mpsc::Receiver<gh_net_common::frame::Notice>) {
    let port = free_port().await;
    let (laptop, first) =
        (Server::start(LAPTOP, port, laptop).await, Server::start(FIRST, port, first).await);
    let (notifier, notices) = Notifier::new();
    let (responder, monitor) = start_telling(port, &[FIRST], notifier);
    let world = World { port, monitor, responder, laptop, first, client: client(port).await };
    world.forward(&[]);
    (world, notices)
}

impl World {
    fn forward(&self, own: &[&str]) {
        let table = [("10.20.0.0/16".parse().unwrap(), Target::Tunnel)].into();
        let own = own.iter().map(|net| net.parse().unwrap());
        self.responder.set_forwarded(Arc::new(Forwarded::new(table, own)));
    }
}

fn code(answer: &Message) -> ResponseCode {
    answer.metadata.response_code
}

#[tokio::test]
async fn a_public_name_that_leads_to_the_laptop_is_refused_and_told() {
    let (world, mut notices) = forwarding(corporate, corporate).await;
    let mut query = question("db.example.com.", RecordType::A);
    let plain = exchange(&world.client, &query).await;
    assert_eq!((code(&plain), plain.answers.len()), (ResponseCode::Refused, 0));
    query.edns = Some(Edns::new());
    let answer = exchange(&world.client, &query).await;
    assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::Refused, 0));
    let option = answer.edns.as_ref().and_then(|edns| edns.option(15u16.into()).cloned());
    let Some(EdnsOption::Unknown(15, blocked)) = option else { panic!("{answer:?}") };
    assert_eq!(blocked[..2], [0, 15]);
    assert_eq!(world.laptop.count(), 0, "the laptop's resolver would get it from the same public server");

    let notice = notices.try_recv().unwrap();
    assert_eq!(notice.code, "rebind-refused");
    for part in ["db.example.com ", "10.20.0.10", "--rebind allow"] {
        assert!(notice.text.contains(part), "{}", notice.text);
    }
    assert!(notices.try_recv().is_err(), "each name once");
    assert_eq!(world.responder.refused(), 2);
}

#[tokio::test]
async fn it_passes_if_the_laptop_allows_it() {
    let (world, _notices) = forwarding(corporate, corporate).await;
    world.responder.set(&Dns { rebind: Rebind::Allow, ..dns(DnsMode::Split) });
    assert_eq!(address(&world.ask("db.example.com.").await), "10.20.0.10");
}

#[tokio::test]
async fn what_the_laptop_resolves_passes() {
    let (world, _notices) = forwarding(corporate, corporate).await;
    assert_eq!(address(&world.ask("www.corp.example.").await), "10.20.0.10");
    world.set(DnsMode::Local);
    assert_eq!(address(&world.ask("db.example.com.").await), "10.20.0.10");
    let (world, _notices) = forwarding(corporate, nxdomain).await;
    assert_eq!(address(&world.ask("wiki.partner.example.").await), "10.20.0.10");
}

#[tokio::test]
async fn after_the_laptop_a_public_answer_is_checked_too() {
    let (world, _notices) = forwarding(nxdomain, corporate).await;
    world.set(DnsMode::Local);
    assert_eq!(code(&world.ask("db.example.com.").await), ResponseCode::Refused);
}

#[tokio::test]
async fn a_public_alias_of_a_name_of_the_laptop_is_refused() {
    fn alias(query: &Message, _: &[u8]) -> Option<Vec<u8>> {
        let mut reply = reply(query, ResponseCode::NXDomain);
        let target = hickory_proto::rr::Name::from_ascii("www.corp.example.").unwrap();
        let name = query.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(name, 60, RData::CNAME(CNAME(target))));
        reply.to_vec().ok()
    }
    let (world, _notices) = forwarding(corporate, alias).await;
    assert_eq!(code(&world.ask("evil.example.com.").await), ResponseCode::Refused);
    assert_eq!(world.laptop.count(), 1);
}

#[tokio::test]
async fn a_change_of_networks_decides_anew() {
    let (world, _notices) = forwarding(corporate, corporate).await;
    assert_eq!(code(&world.ask("db.example.com.").await), ResponseCode::Refused);
    world.forward(&["10.20.0.0/24"]);
    assert_eq!(address(&world.ask("db.example.com.").await), "10.20.0.10", "a container's address");
    world.forward(&[]);
    assert_eq!(code(&world.ask("db.example.com.").await), ResponseCode::Refused);
}
