use gh_net_common::frame::{Goodbye, Reason};

use super::*;
use crate::exit::Exit;
use crate::transport;

fn goodbye(reason: Reason) -> Goodbye {
    Goodbye { reason, text: "enough".into() }
}

#[test]
fn a_sidecars_error_is_shown_once_with_its_exit_code() {
    let carrier = transport::ExitReport { status: Some(3), stderr: "gh-net-sidecar: enough".into() };
    let refused = |reason| Error::Handshake {
        error: HandshakeError::Refused(goodbye(reason)),
        carrier: carrier.clone(),
    };
    let ended = |reason| Error::Ended { end: LinkEnd::Goodbye(goodbye(reason)), carrier: carrier.clone() };
    for (error, exit) in [
        (refused(Reason::Privilege), Exit::Sidecar),
        (refused(Reason::Busy), Exit::Sidecar),
        (ended(Reason::Tun), Exit::Sidecar),
        (ended(Reason::Terminated), Exit::Failed),
    ] {
        let failure = Failure::from(error);
        assert_eq!(failure.exit, exit);
        assert_eq!(failure.to_string().matches("enough").count(), 1, "{failure}");
    }
}
