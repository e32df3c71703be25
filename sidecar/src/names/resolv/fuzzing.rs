//! The body of a fuzz target: the text of resolv.conf, which any program of the codespace may have written.

use std::net::IpAddr;

use super::text;

/// Two texts, the second of the length that the first byte says: a file's original, and lines that another program
/// appends to ours.
///
/// # Panics
/// The original is not restored byte for byte.
pub fn resolv(data: &[u8]) {
    let [length, rest @ ..] = data else { return };
    let (appended, original) = rest.split_at(usize::from(*length).min(rest.len()));
    let servers: [IpAddr; 2] = [[198, 19, 240, 1].into(), [0xfd67, 0, 0, 0, 0, 0, 0, 1].into()];
    read(original);
    if text::is_ours(original) {
        // Somebody imitates our marks: what is between them counts as the original, and it is read without a panic.
        text::wished(Some(original), text::original_in(original).as_deref(), &servers);
        return;
    }
    let search: Vec<String> =
        String::from_utf8_lossy(appended).split_whitespace().map(str::to_owned).collect();
    for original in [Some(original), None] {
        let ours = text::render("gh-net-sidecar", original, &servers, &search);
        restored(&ours, original);
        for longer in [0, 1, 4096] {
            let padded = text::padded(&ours, ours.len() + longer);
            assert_eq!(padded.len(), ours.len() + longer);
            restored(&padded, original);
        }
        assert_eq!(text::nameservers(&ours), servers, "another server stands in our text");
        assert_eq!(text::wished(Some(&ours), original, &servers).as_deref(), original);
        put_back(&ours, original.unwrap_or_default());
        let ours_and_more = [&ours[..], appended, b"\n"].concat();
        let wished = text::wished(Some(&ours_and_more), original, &servers).unwrap_or_default();
        assert!(wished.starts_with(original.unwrap_or_default()), "what was appended replaced the original");
    }
}

/// What is read of a text that is not ours: it is given back unless our servers are in it.
fn read(foreign: &[u8]) {
    text::comment(foreign).inspect(|comment| assert!(!comment.contains(char::is_control)));
    text::nameservers(foreign);
    if !text::is_ours(foreign) {
        assert_eq!(text::wished(Some(foreign), Some(b"x"), &[]).as_deref(), Some(foreign));
    }
}

/// The original can be read from our text.
fn restored(ours: &[u8], original: Option<&[u8]>) {
    assert!(text::is_ours(ours));
    assert_eq!(text::original_in(ours).as_deref(), original);
}

/// After a kill between writing the original over our text and cutting the file, it is still known.
fn put_back(ours: &[u8], original: &[u8]) {
    let half = text::padded_original(original, ours.len());
    assert_eq!(half.len(), ours.len(), "the original does not fit our text");
    restored(&half, Some(original));
}
