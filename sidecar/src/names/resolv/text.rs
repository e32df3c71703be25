//! The text written into resolv.conf, and what is read from one. Pure.
//!
//! Our file explains itself: a mark at its start and one at its end say who wrote it, and it contains the original as
//! comments, so that the original can be restored even if nothing else of gh-net is left.

use std::collections::HashSet;
use std::net::IpAddr;

use gh_net_common::frame::is_domain;

/// The first line, without its end: an original that is nothing but this line must not become ours by what is written
/// after it. A file that starts with it is ours.
const MARK: &str = "# gh-net wrote this file and puts the original back when it ends.";

/// The last line. Our file is always longer than the original, so while the original is being written over its start,
/// this line still says that restoring is not complete.
const END: &str = "# End of what gh-net wrote.\n";

/// [`END`] as a line of its own.
const END_LINE: &str = "\n# End of what gh-net wrote.\n";

/// How to restore the original by hand; `sidecar` is our program.
fn how_to_restore(sidecar: &str) -> String {
    format!(
        "# With it, names are resolved through gh-net's tunnel. To put the original back by hand:\n\
         #   {sidecar} cleanup\n\
         # or, without gh-net: sed -n 's/^#| //p' resolv.conf\n"
    )
}

/// Precedes each line of the original.
const KEPT: &str = "#| ";

/// Replaces the original if there was none.
const NO_ORIGINAL: &str = "#- There was no such file before.\n";

/// Follows the last line of the original if that line has no end.
const NO_END: &str = "#\\ The last line had no end.\n";

/// While the original is written over our text, this line before [`END`] says how long it is.
const RESTORED: &str = "# gh-net puts back bytes: ";

/// Maximum number of characters of a comment that is quoted.
const MAX_COMMENT: usize = 80;

/// The longest line we write. musl skips lines of 256 bytes or more, with every domain in them.
const MAX_LINE: usize = 254;

/// Whether `text` is a file of ours, also if it is only partly replaced.
pub(super) fn is_ours(text: &[u8]) -> bool {
    text.starts_with(MARK.as_bytes()) || text.ends_with(END.as_bytes())
}

/// The original that a file of ours contains, also if it is only partly replaced; `None` if there was no file.
pub(super) fn original_in(ours: &[u8]) -> Option<Vec<u8>> {
    if !ours.starts_with(MARK.as_bytes()) {
        return Some(half_restored(ours).to_vec());
    }
    let end = ours.windows(END_LINE.len()).position(|window| window == END_LINE.as_bytes());
    let mut original = Vec::new();
    for line in ours[..end.map_or(ours.len(), |end| end + 1)].split_inclusive(|&byte| byte == b'\n') {
        if line == NO_ORIGINAL.as_bytes() {
            return None;
        }
        if line == NO_END.as_bytes() {
            original.pop();
        }
        if let Some(kept) = line.strip_prefix(KEPT.as_bytes()) {
            original.extend_from_slice(kept);
        }
    }
    Some(original)
}

/// The original at the start of a text that ends as ours, because it was not cut yet.
fn half_restored(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(END.as_bytes()).unwrap_or(text);
    let line = text.strip_suffix(b"\n").and_then(|text| text.rsplit(|&byte| byte == b'\n').next());
    let length =
        line.and_then(|line| std::str::from_utf8(line.strip_prefix(RESTORED.as_bytes())?).ok()?.parse().ok());
    if let Some(original) = length.and_then(|length: usize| text.get(..length)) {
        return original;
    }
    // Version 0.1 wrote only blank lines there.
    let last = text.iter().rposition(|&byte| byte != b'\n').map_or(0, |last| (last + 2).min(text.len()));
    &text[..last]
}

/// What the codespace has to be given back once `current` is in the file, which was ours before, with this `original`
/// and these `servers`; `None` is no file.
///
/// It is what another program wrote, byte for byte, with these exceptions:
/// - Lines after our text were appended to it: they belong after the original.
/// - A change within our text is not kept. Our mark says so.
/// - A program may read our text and write its settings in another form. Our nameservers answer only while the session
///   lasts: without any other nameserver the text adds nothing to the original, and among others they are left out.
pub(super) fn wished(current: Option<&[u8]>, original: Option<&[u8]>, servers: &[IpAddr]) -> Option<Vec<u8>> {
    let current = current?;
    if is_ours(current) {
        return match (original, appended(current)) {
            (original, []) => original.map(<[u8]>::to_vec),
            (None, appended) => Some(appended.to_vec()),
            (Some(original), appended) => {
                let separator: &[u8] =
                    if original.is_empty() || original.ends_with(b"\n") { b"" } else { b"\n" };
                Some([original, separator, appended].concat())
            }
        };
    }
    if names_only(current, servers) {
        return original.map(<[u8]>::to_vec);
    }
    let is_foreign = |line: &&[u8]| !nameservers(line).iter().any(|server| servers.contains(server));
    Some(current.split_inclusive(|&byte| byte == b'\n').filter(is_foreign).collect::<Vec<_>>().concat())
}

/// Whether `text` names nameservers, and only some of `servers`.
pub(super) fn names_only(text: &[u8], servers: &[IpAddr]) -> bool {
    let named = nameservers(text);
    !named.is_empty() && named.iter().all(|server| servers.contains(server))
}

/// What follows our text.
fn appended(ours: &[u8]) -> &[u8] {
    let end = END_LINE.as_bytes();
    // Of several, the last one: between them may be what a kill left of an earlier text of ours.
    let found = ours.windows(end.len()).rposition(|window| window == end);
    match found.filter(|_| ours.starts_with(MARK.as_bytes())) {
        Some(start) => &ours[start + end.len()..],
        None => &[],
    }
}

/// The comment that a file begins with: most programs say there who they are. Printable, one line, not too long.
pub(super) fn comment(text: &[u8]) -> Option<String> {
    let line = text.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let line = String::from_utf8_lossy(line);
    let comment = line.trim().strip_prefix(['#', ';'])?.trim_matches(['#', ';', ' ', '\t']);
    let printable: String = comment.chars().filter(|c| !c.is_control()).take(MAX_COMMENT).collect();
    (!printable.is_empty() && !is_ours(text)).then_some(printable)
}

/// The file that sends every query to `servers` and keeps the other settings of `original`.
///
/// It does not list the original's servers: musl asks all servers at once and takes the first answer, so the laptop's
/// names would resolve only by chance.
pub(super) fn render(
    sidecar: &str,
    original: Option<&[u8]>,
    servers: &[IpAddr],
    search: &[String],
) -> Vec<u8> {
    let mut out = Vec::new();
    for comment in [MARK, "\n", &how_to_restore(sidecar)] {
        out.extend_from_slice(comment.as_bytes());
    }
    match original {
        None => out.extend_from_slice(NO_ORIGINAL.as_bytes()),
        Some(original) => {
            for line in original.split_inclusive(|&byte| byte == b'\n') {
                out.extend_from_slice(KEPT.as_bytes());
                out.extend_from_slice(line);
            }
            if !original.is_empty() && !original.ends_with(b"\n") {
                out.push(b'\n');
                out.extend_from_slice(NO_END.as_bytes());
            }
        }
    }
    for server in servers {
        out.extend_from_slice(format!("nameserver {server}\n").as_bytes());
    }
    let original = original.unwrap_or_default();
    if let Some(line) = search_line(original, search) {
        out.extend_from_slice(line.as_bytes());
    }
    for (keyword, line) in settings(original) {
        if matches!(keyword, "options" | "sortlist") {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    out.extend_from_slice(END.as_bytes());
    out
}

/// Our text with blank lines before its end, as long as the file that it replaces: no part of that file must stand after
/// it.
pub(super) fn padded(ours: &[u8], length: usize) -> Vec<u8> {
    let text = ours.strip_suffix(END.as_bytes()).unwrap_or(ours);
    let blank = length.saturating_sub(text.len() + END.len());
    [text, &vec![b'\n'; blank], END.as_bytes()].concat()
}

/// An original as long as our file that it replaces, with our last lines, so that it is still ours until it is truncated,
/// and known how much of it is the original.
pub(super) fn padded_original(original: &[u8], length: usize) -> Vec<u8> {
    let end = format!("\n{RESTORED}{}\n{END}", original.len());
    match length.checked_sub(original.len() + end.len()) {
        Some(blank) => [original, &vec![b'\n'; blank], end.as_bytes()].concat(),
        None => original.to_vec(),
    }
}

/// The addresses of the `nameserver` lines.
pub(super) fn nameservers(text: &[u8]) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for (_, line) in settings(text).filter(|(keyword, _)| *keyword == "nameserver") {
        let address = words(line).nth(1).and_then(|word| word.parse().ok());
        servers.extend(address.filter(|address| !servers.contains(address)));
    }
    servers
}

/// The original's search list and then the laptop's, as far as they fit into one line.
fn search_line(original: &[u8], search: &[String]) -> Option<String> {
    let mut seen = HashSet::new();
    let mut line = String::from("search");
    for domain in search_list(original) {
        if seen.insert(canonical(domain)) {
            line.push(' ');
            line.push_str(domain);
        }
    }
    for domain in search.iter().filter(|domain| is_domain(domain)) {
        if line.len() + 1 + domain.len() > MAX_LINE {
            tracing::warn!("resolv.conf's search line is full: {domain} and those after it are left out");
            break;
        }
        if seen.insert(canonical(domain)) {
            line.push(' ');
            line.push_str(domain);
        }
    }
    line.push('\n');
    (!seen.is_empty()).then_some(line)
}

/// The effective search list: of several `search` and `domain` lines the last one counts (resolv.conf(5)).
fn search_list(text: &[u8]) -> Vec<&str> {
    settings(text)
        .filter_map(|(keyword, line)| match keyword {
            "search" => Some(words(line).skip(1).collect()),
            "domain" => Some(words(line).skip(1).take(1).collect()),
            _ => None,
        })
        .next_back()
        .unwrap_or_default()
}

fn canonical(domain: &str) -> String {
    domain.trim_end_matches('.').to_ascii_lowercase()
}

/// Each line that sets something, with its keyword. Both libcs expect the keyword at the start of the line.
fn settings(text: &[u8]) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
    text.split(|&byte| byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
        Some((std::str::from_utf8(&line[..end]).ok()?, line))
    })
}

/// The words of a line, up to a comment or to what is not UTF-8.
fn words(line: &[u8]) -> impl Iterator<Item = &str> {
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
        .map_while(|word| std::str::from_utf8(word).ok())
        .take_while(|word| !word.starts_with(['#', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &[u8] = b"# made by docker\nnameserver 168.63.129.16\nnameserver 127.0.0.53 # stub\n\
        domain old.example\nsearch x.internal.cloudapp.net Corp.Example.\noptions ndots:0 edns0";

    fn rendered(original: Option<&[u8]>, search: &[&str]) -> String {
        let search: Vec<String> = search.iter().map(ToString::to_string).collect();
        String::from_utf8(render("gh-net-sidecar", original, &["10.97.0.1".parse().unwrap()], &search))
            .unwrap()
    }

    fn effective(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn only_our_server_stands_there_and_the_rest_is_kept() {
        let text = rendered(Some(ORIGINAL), &["corp.example", "lan", "LAN", "bad name", "lab.example"]);
        assert_eq!(
            effective(&text),
            [
                "nameserver 10.97.0.1",
                "search x.internal.cloudapp.net Corp.Example. lan lab.example",
                "options ndots:0 edns0"
            ]
        );
    }

    #[test]
    fn nothing_to_search_makes_no_search_line() {
        assert_eq!(effective(&rendered(Some(b"nameserver 1.1.1.1\n"), &[])), ["nameserver 10.97.0.1"]);
        assert_eq!(effective(&rendered(None, &["lan"])), ["nameserver 10.97.0.1", "search lan"]);
    }

    #[test]
    fn the_original_can_be_read_back_from_our_file() {
        let text = rendered(Some(ORIGINAL), &["lan"]);
        assert!(is_ours(text.as_bytes()) && !is_ours(ORIGINAL));
        let originals = [
            &b""[..],
            b"\n",
            b"x",
            b"x\n",
            b"x\n\n",
            b"\n\nx",
            b"#| y",
            b"#- There was no such file before.\n",
        ];
        for original in originals.into_iter().chain([ORIGINAL]) {
            let text = rendered(Some(original), &[]);
            assert_eq!(original_in(text.as_bytes()).as_deref(), Some(original));
            let length = text.len() + original.len();
            let half = padded_original(original, length);
            assert!(half.len() == length && is_ours(&half));
            assert_eq!(original_in(&half).as_deref(), Some(original));
        }
        assert_eq!(original_in(rendered(None, &[]).as_bytes()), None);
        assert!(is_ours(MARK.as_bytes()), "what is written after it would make it ours");
        // As version 0.1 did.
        assert_eq!(original_in(b"x\n\n\n# End of what gh-net wrote.\n").as_deref(), Some(&b"x\n"[..]));
    }

    #[test]
    fn half_restored_is_still_ours() {
        let mut text = rendered(Some(ORIGINAL), &["lan"]).into_bytes();
        assert!(text.len() > ORIGINAL.len());
        text[..ORIGINAL.len()].copy_from_slice(ORIGINAL);
        assert!(is_ours(&text));
    }

    #[test]
    fn another_programs_text_is_given_back_byte_for_byte() {
        let ours = ["10.97.0.1".parse().unwrap()];
        let wish = |current: Option<&[u8]>| wished(current, Some(ORIGINAL), &ours);
        for text in
            [&b"nameserver 9.9.9.9\n"[..], b"", b"# caf\xe9\r\nnameserver 9.9.9.9", b"options ndots:2\n"]
        {
            assert_eq!(wish(Some(text)).as_deref(), Some(text));
        }
        assert_eq!(wish(None), None);
    }

    #[test]
    fn a_change_of_our_text_gives_back_the_original_with_what_was_appended() {
        let ours = rendered(Some(ORIGINAL), &["lan"]);
        let wish = |text: &str, original: Option<&[u8]>| wished(Some(text.as_bytes()), original, &[]);
        assert_eq!(wish(&ours, Some(ORIGINAL)).as_deref(), Some(ORIGINAL));
        assert_eq!(wish(&ours.replace("edns0", "rotate"), Some(ORIGINAL)).as_deref(), Some(ORIGINAL));
        let appended = format!("{ours}nameserver 9.9.9.9\n");
        let wanted = [ORIGINAL, b"\nnameserver 9.9.9.9\n"].concat();
        assert_eq!(wish(&appended, Some(ORIGINAL)), Some(wanted));
        assert_eq!(wish(&appended, None).as_deref(), Some(&b"nameserver 9.9.9.9\n"[..]));
        assert_eq!(wish(&ours, None), None);
        // The original's own lines are not the end of ours.
        let tricky = "x\n# End of what gh-net wrote.\ny\n";
        assert_eq!(wish(&rendered(Some(tricky.as_bytes()), &[]), Some(b"x")).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn our_nameservers_are_never_given_back() {
        let ours = ["10.97.0.1", "fd67::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let wish = |text: &[u8]| wished(Some(text), Some(ORIGINAL), &ours).unwrap();
        assert_eq!(wish(b"nameserver 10.97.0.1\nsearch lan\nnameserver fd67::1\n"), ORIGINAL);
        assert_eq!(
            wish(b"# by x\nnameserver 10.97.0.1\nnameserver 9.9.9.9\nsearch lan"),
            b"# by x\nnameserver 9.9.9.9\nsearch lan"
        );
    }

    #[test]
    fn the_comment_at_the_start_is_quoted() {
        assert_eq!(
            comment(b"\n### Generated by NetworkManager ##\n").unwrap(),
            "Generated by NetworkManager"
        );
        assert_eq!(comment(b"; generated by x\x1b[2J\n").unwrap(), "generated by x[2J");
        assert_eq!(comment(&[b"# ", &[b'y'; 500][..]].concat()).unwrap().len(), MAX_COMMENT);
        for text in [&b""[..], b"nameserver 1.1.1.1\n# late\n", b"#\n", rendered(None, &[]).as_bytes()] {
            assert_eq!(comment(text), None);
        }
    }

    #[test]
    fn the_search_line_stays_within_what_musl_reads() {
        let many: Vec<String> = (0..40).map(|n| format!("department-{n}.corp.example")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = rendered(Some(ORIGINAL), &many);
        assert!(text.lines().all(|line| line.len() < 256));
        assert!(text.contains(" department-0.corp.example department-1.corp.example"));
    }

    #[test]
    fn nameservers_are_read_as_the_libcs_do() {
        assert_eq!(
            nameservers(ORIGINAL),
            ["168.63.129.16", "127.0.0.53"].map(|a| a.parse::<IpAddr>().unwrap())
        );
        let odd = b"nameserver\t::1\r\n nameserver 1.1.1.1\n#nameserver 2.2.2.2\nnameserver\nnameserver fe80::1%eth0\nnameserver \xff\n";
        assert_eq!(nameservers(odd), ["::1".parse::<IpAddr>().unwrap()]);
    }
}
