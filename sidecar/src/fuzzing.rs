//! The bodies of fuzz targets whose types are private. Each panics when an invariant is broken.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub use crate::hook::fuzzing::netlink;
use crate::journal::{self, Change, Journal};
pub use crate::names::resolv::fuzzing::resolv;
pub use crate::names::responder::fuzzing::responder;
use crate::owner::handover::{self, Client, Request};
use crate::owner::state::{self, StateDir};

/// How many kinds of change there are.
const KINDS: usize = 5;

/// The bytes are the journal in this directory, and its lock file.
///
/// # Panics
/// The journal lists something twice, or undoing leaves something in it.
pub fn journal(directory: &Path, data: &[u8]) {
    fs::write(directory.join(state::LOCK), data).expect("the directory can be written");
    StateDir::at(directory.to_owned()).owner();
    fs::write(directory.join(journal::NAME), data).expect("the directory can be written");
    let Ok(mut journal) = Journal::open(directory) else { return };
    let listed = RefCell::new(Vec::<Change>::new());
    // A first pass reverts nothing: it says what would be reverted.
    let refuse = |change: Change| {
        listed.borrow_mut().push(change);
        Err(io::Error::other("not yet"))
    };
    journal.undo(|_| true, refuse);
    let listed = listed.into_inner();
    assert!(listed.len() <= KINDS, "{listed:?} repeats a kind");
    let mut again = Journal::open(directory).expect("a journal that we wrote");
    let reverted = RefCell::new(Vec::new());
    let revert = |change: Change| {
        reverted.borrow_mut().push(change);
        Ok(())
    };
    assert!(again.undo(|_| true, revert).is_clean());
    assert_eq!(reverted.into_inner(), listed, "what could not be undone was forgotten");
    assert!(Journal::open(directory).expect("a journal that we wrote").is_empty());
}

/// The first byte says in what pieces the rest arrives at the owner's socket, and at a client's.
///
/// # Panics
/// A request is read in another way than it was written.
pub fn handover(data: &[u8]) {
    let [piece, rest @ ..] = data else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let received = runtime.block_on(async {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let far = tokio::net::UnixStream::from_std(far)?;
        tokio::join!(handover::receive(&far), send(near, rest, usize::from(*piece) + 1)).0
    });
    if let Ok((request, descriptors)) = received {
        assert!(descriptors.is_empty());
        let written = serde_json::to_vec(&request).expect("a request can be written");
        assert_eq!(serde_json::from_slice::<Request>(&written).expect("a request of ours"), request);
    }
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    far.write_all(&rest[..rest.len().min(64 * 1024)]).expect("the socket's buffer has room");
    drop(far);
    let mut client = Client::new(near).expect("a client of this user");
    while let Ok(Some(_)) = client.reply() {}
}

/// Sends the bytes in pieces, each after what is already there has been read.
async fn send(mut to: UnixStream, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        // The other end stops reading when it has seen enough.
        if to.write_all(piece).is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    let _ = to.shutdown(Shutdown::Write);
}
