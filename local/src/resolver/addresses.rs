//! The addresses of a name, for our own use.

use std::net::IpAddr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};

use super::Resolver;

impl Resolver {
    /// The addresses that this machine resolves a name to, IPv4 first; none if it has none.
    pub async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut found = Vec::new();
        let Ok(name) = Name::from_ascii(name) else { return found };
        for kind in [RecordType::A, RecordType::AAAA] {
            let mut query = Message::query();
            query.add_query(Query::query(name.clone(), kind));
            let Ok(query) = query.to_vec() else { continue };
            let answer = self.answer_tcp(&query).await;
            let named = answer.and_then(|answer| answer.named);
            found.extend(named.into_iter().flat_map(|named| named.addresses).map(|(address, _)| address));
        }
        found
    }
}
