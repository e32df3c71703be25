//! The name service switch, by getaddrinfo and getnameinfo. Where gh-net's own C library has no switch, [`getent`]
//! makes the two calls.
//!
//! Both block until the C library's resolver gives up, so they run on threads of their own. tokio's blocking pool is
//! not used: shutting down the runtime would wait for it and delay the program's end.

mod getent;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use gh_net_common::turns::{self, Limits, Turns};
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::sync::oneshot;

use super::group::group;
use super::message::Reply;
use super::source::Source;
use crate::sys::c_library::{LookupError, getaddrinfo, getnameinfo};
use getent::Getent;

/// Lookups at a time. One that hangs holds its thread until the C library gives up, so it can't make room for others:
/// no group gets more than a part, and some threads are for zones that the switch has known.
pub(super) const LOOKUPS: Limits =
    Limits { turns: 16, per_group: 6, reserved: 4, waiting: 4096, evict_after: None, hold_down: true };

/// The answer of the switch, or of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The records of the name and type.
    Records(Vec<RData>),
    /// The name exists, without records of that type.
    NoData,
    /// The name does not exist.
    NoName,
}

impl Found {
    /// The name of an address.
    pub(super) fn name(name: Name) -> Self {
        Self::Records(vec![RData::PTR(PTR(name))])
    }

    pub(super) fn into_reply(self, question: &Query, source: Source) -> Reply {
        let reply = match self {
            Self::Records(records) => Reply::with_data(question, records),
            Self::NoData => Reply::of(ResponseCode::NoError),
            Self::NoName => Reply::of(ResponseCode::NXDomain),
        };
        Reply { source, ..reply }
    }
}

/// The addresses of a name.
type Forward = dyn Fn(&str) -> Result<Vec<IpAddr>, LookupError> + Send + Sync;
/// The name of an address.
type Backward = dyn Fn(IpAddr) -> Result<String, LookupError> + Send + Sync;

/// The switch, with the two calls it consists of.
pub(super) struct Nss {
    forward: Arc<Forward>,
    backward: Arc<Backward>,
    lookups: Arc<Turns>,
}

impl fmt::Debug for Nss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nss").field("lookups", &self.lookups).finish_non_exhaustive()
    }
}

impl Default for Nss {
    /// The system's switch. A statically linked C library has none: the modules of glibc's are shared libraries, and
    /// musl has no switch.
    fn default() -> Self {
        let without = cfg!(any(target_env = "musl", target_feature = "crt-static"));
        match without.then(Getent::of_system).flatten() {
            Some(getent) => Self::by_getent(getent),
            None => Self::new(getaddrinfo, getnameinfo),
        }
    }
}

/// Whether the switch can answer this record type.
pub(super) fn can_answer(question: &Query) -> bool {
    let (name, kind) = (question.name(), question.query_type());
    (kind.is_ip_addr() && plain_name(name).is_some())
        || (kind == RecordType::PTR && address_of(name).is_some())
}

impl Nss {
    pub(super) fn new(
        forward: impl Fn(&str) -> Result<Vec<IpAddr>, LookupError> + Send + Sync + 'static,
        backward: impl Fn(IpAddr) -> Result<String, LookupError> + Send + Sync + 'static,
    ) -> Self {
        Self { forward: Arc::new(forward), backward: Arc::new(backward), lookups: Turns::new(LOOKUPS) }
    }

    fn by_getent(getent: Getent) -> Self {
        let other = getent.clone();
        Self::new(move |name| getent.forward(name), move |address| other.backward(address))
    }

    /// Forgets which zones it does not answer for, because its configuration has changed.
    pub(super) fn forget(&self) {
        self.lookups.forget();
    }

    /// The switch's answer; `None` if the lookup fails. Waits for its turn.
    pub(super) async fn lookup(&self, question: &Query) -> Option<Found> {
        let turn = self.lookups.take(group(question)).await.ok()?;
        let (forward, backward) = (Arc::clone(&self.forward), Arc::clone(&self.backward));
        let question = question.clone();
        let (done, answer) = oneshot::channel();
        let work = move || {
            let found = look_up(&*forward, &*backward, &question);
            turn.end(match &found {
                Some(Found::Records(_)) => turns::Outcome::Served,
                Some(Found::NoData | Found::NoName) => turns::Outcome::Answered,
                None => turns::Outcome::InVain,
            });
            // The query may have timed out.
            let _ = done.send(found);
        };
        if let Err(error) = std::thread::Builder::new().name("nss".to_owned()).spawn(work) {
            tracing::warn!(%error, "can't start a thread for a name lookup");
        }
        answer.await.ok().flatten()
    }
}

fn look_up(forward: &Forward, backward: &Backward, question: &Query) -> Option<Found> {
    let found = if question.query_type() == RecordType::PTR {
        backward(address_of(question.name())?).and_then(|name| {
            let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
            name.map(Found::name).map_err(|_| LookupError::Failed)
        })
    } else {
        let name = plain_name(question.name())?;
        // The trailing dot disables the laptop's search list: the codespace applies its own.
        forward(&format!("{name}.")).map(|addresses| {
            let useful = addresses.into_iter().filter(|&address| is_meaningful(address, &name));
            select(useful, question.query_type())
        })
    };
    match found {
        Ok(found) => Some(found),
        Err(LookupError::NoName) => Some(Found::NoName),
        Err(LookupError::NoData) => Some(Found::NoData),
        Err(LookupError::Failed) => None,
    }
}

/// The addresses of the requested family. IPv4-mapped addresses are left out: they would answer an AAAA query from an
/// A record.
pub(super) fn select(addresses: impl Iterator<Item = IpAddr>, kind: RecordType) -> Found {
    let wanted = |address| match (address, kind) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(v4.into())),
        (IpAddr::V6(v6), RecordType::AAAA) if v6.to_ipv4_mapped().is_none() => Some(RData::AAAA(v6.into())),
        _ => None,
    };
    let records: Vec<RData> = addresses.filter_map(wanted).collect();
    if records.is_empty() { Found::NoData } else { Found::Records(records) }
}

/// Whether an address means the same in the codespace as on the laptop. For localhost, loopback addresses do
/// (RFC 6761, 6.3).
pub(super) fn is_meaningful(address: IpAddr, name: &str) -> bool {
    let localhost = name == "localhost" || name.ends_with(".localhost");
    let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    !link_local && (localhost || !address.to_canonical().is_loopback())
}

/// A name as the C library takes it: lower case, without the trailing dot. `None` if it is not a host name, or if the
/// C library would take it for an address.
pub(super) fn plain_name(name: &Name) -> Option<String> {
    let text = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let last = text.rsplit('.').next()?;
    let numeric =
        last.starts_with(|c: char| c.is_ascii_digit()) && !last.contains(|c: char| c > 'f' && c != 'x');
    (gh_net_common::frame::is_domain(&text) && !numeric).then_some(text)
}

/// The address that this is the reverse name of.
pub(super) fn address_of(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn only_host_names_are_passed_to_the_c_library() {
        assert_eq!(plain_name(&name("WWW.Corp.Example.")).as_deref(), Some("www.corp.example"));
        assert_eq!(plain_name(&name("db_1.")).as_deref(), Some("db_1"));
        for odd in [".", "10.1.2.3.", "127.1.", "0x7f000001.", "4294967295.", "a\\.b.example.", "*.example."]
        {
            assert_eq!(plain_name(&name(odd)), None, "{odd}");
        }
        assert!(plain_name(&name("7zip.4ever.")).is_some());
    }

    #[test]
    fn reverse_names_are_whole_addresses() {
        let address = |text| address_of(&name(text)).map(|address| address.to_string());
        assert_eq!(address("10.0.20.10.in-addr.arpa.").as_deref(), Some("10.20.0.10"));
        assert_eq!(address("20.10.in-addr.arpa."), None);
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(address(six).as_deref(), Some("fd00::1"));
    }

    #[test]
    fn an_ipv6_question_never_gets_a_mapped_address() {
        let addresses = || ["::ffff:10.0.0.1", "10.0.0.1"].map(|a| a.parse().unwrap()).into_iter();
        assert_eq!(select(addresses(), RecordType::AAAA), Found::NoData);
        assert!(matches!(select(addresses(), RecordType::A), Found::Records(records) if records.len() == 1));
    }

    #[test]
    fn addresses_with_another_meaning_in_the_codespace_are_left_out() {
        let useful = |address: &str, name| is_meaningful(address.parse().unwrap(), name);
        assert!(useful("10.0.0.1", "wiki") && useful("127.0.0.1", "localhost"));
        assert!(
            !useful("127.0.1.1", "mylaptop") && !useful("::1", "mylaptop") && !useful("fe80::1", "printer")
        );
    }

    #[tokio::test]
    async fn getent_can_replace_the_c_library() {
        let nss = Nss::by_getent(Getent::of_system().expect("a system that tests run on has one"));
        let reverse = Query::query(name("1.0.0.127.in-addr.arpa."), RecordType::PTR);
        let Some(Found::Records(records)) = nss.lookup(&reverse).await else { panic!("it has a name") };
        let theirs = getnameinfo([127, 0, 0, 1].into()).unwrap();
        assert_eq!(records, [RData::PTR(PTR(name(&format!("{theirs}."))))]);
    }

    #[tokio::test]
    async fn lookups_that_hang_are_bounded() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        fn hang(_: &str) -> Result<Vec<IpAddr>, LookupError> {
            RUNNING.fetch_add(1, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        }
        let nss = Arc::new(Nss::new(hang, getnameinfo));
        let running = async |count| {
            while RUNNING.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
            assert_eq!(RUNNING.load(Ordering::SeqCst), count);
        };
        let mut lookups = JoinSet::new();
        let mut ask = |text: &str| {
            let (nss, question) = (Arc::clone(&nss), Query::query(name(text), RecordType::A));
            lookups.spawn(async move { nss.lookup(&question).await });
        };
        (0..40).for_each(|_| ask("slow.dead.example."));
        running(LOOKUPS.per_group).await;
        (0..40).for_each(|number| ask(&format!("www.dead{number}.example.")));
        running(LOOKUPS.turns - LOOKUPS.reserved).await;
    }
}
