use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use serde_json::Value;

use super::recorder::Shared;
use super::writer::Sink;
use super::*;
use crate::engine::{ConnectError, Ending};
use crate::status::{FlowProtocol, Refusal};

fn flow(name: &str) -> Flow {
    Flow {
        flow: Some(FlowId { engine: 0xf00d, number: 7 }),
        protocol: FlowProtocol::Tcp,
        client: "198.19.240.1:40000".parse().unwrap(),
        server: "10.20.0.10:5432".parse().unwrap(),
        actual: None,
        name: Some(name.to_owned()),
        verdict: Verdict::Forwarded,
        rule: "no rule denies it".to_owned(),
    }
}

pub(super) fn entries() -> Vec<Entry> {
    let closed = |ending: Ending| Entry::FlowClosed {
        flow: flow("db.corp"),
        uplink_bytes: 1,
        downlink_bytes: 2,
        ended: ending.into(),
    };
    vec![
        Entry::SessionBegin { version: "1.2.3", pid: 4711, target: "codespace x".into() },
        Entry::FlowOpened { flow: flow("db.corp") },
        closed(Ending::Finished),
        closed(Ending::ConnectFailed(ConnectError::Refused)),
        Entry::FlowDenied {
            flow: Flow { flow: None, verdict: Verdict::Denied, ..flow("db.corp") },
            refusal: Refusal::Prohibited,
            count: 3,
        },
        Entry::DenialsLeftOut { lines: 4, packets: 12 },
        Entry::Lost { count: 5 },
        Entry::SessionEnd { error: None },
    ]
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The fields that the document's table has for an event.
fn documented(event: &str) -> Vec<String> {
    let text = include_str!("../../../docs/audit.md");
    let section =
        text.split("\n## ").find(|section| section.starts_with(&format!("`{event}`"))).expect(event);
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let own = rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned()));
    let shared: &[&str] = if section.contains("fields of a flow") {
        &["flow", "protocol", "client", "server", "actual", "name", "verdict", "rule"]
    } else {
        &[]
    };
    let every = ["v", "time", "event"].iter().chain(shared).map(|field| (*field).to_owned());
    let mut fields: Vec<String> = every.chain(own).collect();
    fields.sort();
    fields
}

#[test]
fn each_line_has_exactly_the_documented_fields() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let audit = Audit::open(&path).unwrap();
    entries().into_iter().for_each(|entry| audit.recorder().record(entry));
    drop(audit);
    let lines = lines(&path);
    assert_eq!(lines.len(), entries().len());
    for line in &lines {
        let mut fields: Vec<String> = line.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, documented(line["event"].as_str().unwrap()), "{line}");
        assert_eq!(line["v"], SCHEMA);
        assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok(), "{line}");
    }
    assert_eq!(lines[1]["flow"], "000000000000f00d-7");
    assert_eq!((&lines[3]["reason"], &lines[3]["error"]), (&"connect-failed".into(), &"refused".into()));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn no_name_breaks_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let audit = Audit::open(&path).unwrap();
    let name = "a\n{\"v\":1}\r\u{0}\u{1b}[2J\u{2028}\"\\\u{fffd}";
    audit.recorder().record(Entry::FlowOpened { flow: flow(name) });
    drop(audit);
    let lines = lines(&path);
    assert_eq!((lines.len(), lines[0]["name"].as_str()), (1, Some(name)));
}

#[test]
fn a_file_of_its_size_is_set_aside_and_only_a_few_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit");
    let mut file = AuditFile::open(&path).unwrap().with_max_size(100);
    for number in 0..100 {
        file.append(format!("{number:>39}\n").as_bytes()).unwrap();
    }
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["audit", "audit.1", "audit.2", "audit.3", "audit.4"]);
    let all: Vec<u32> = ["audit.4", "audit.3", "audit.2", "audit.1", "audit"]
        .iter()
        .flat_map(|name| {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().map(|line| line.trim().parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(all, (90..100).collect::<Vec<_>>(), "two lines in each, in order");
}

#[test]
fn only_a_file_of_ones_own_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("audit"), folder.path().join("target"));
    std::fs::write(&target, "theirs").unwrap();
    symlink(&target, &path).unwrap();
    let error = Audit::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("it is a symbolic link"), "{error}");
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(&target, &path).unwrap();
    let error = Audit::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("it is a file with several names"), "{error}");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
    // Only root may give files away.
    if std::os::unix::fs::chown(&target, Some(54_321), None).is_ok() {
        let error = Audit::open(&target).unwrap_err().to_string();
        assert!(error.ends_with("it is another user's file"), "{error}");
    }
    let error = Audit::open(Path::new("/dev/null")).unwrap_err().to_string();
    assert!(error.ends_with("it is not a regular file"), "{error}");
    let error = Audit::open(&folder.path().join("none/audit")).unwrap_err().to_string();
    assert!(error.contains("can't be written: No such file"), "{error}");
}

/// A disk that may be full.
#[derive(Debug, Default)]
struct Disk {
    full: bool,
    lines: Vec<u8>,
}

impl Sink for Disk {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.lines.extend_from_slice(lines);
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_a_line_that_says_what_is_missing() {
    let (mut writer, shared) = (Writer::new(Disk::default()), Shared::default());
    writer.write(b"1\n", 1, &shared);
    writer.sink_mut().full = true;
    writer.write(b"2\n3\n", 2, &shared);
    writer.write(b"4\n", 1, &shared);
    writer.sink_mut().full = false;
    writer.write(b"5\n", 1, &shared);
    let text = String::from_utf8(writer.sink_mut().lines.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[2]), (3, "1", "5"));
    let gap: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&gap["event"], &gap["count"]), (&"lost".into(), &3.into()));
    assert_eq!(shared.lost.load(Ordering::Relaxed), 3);
}

#[test]
fn what_finds_the_channel_full_is_counted_and_told() {
    let (sender, receiver) = sync_channel(2);
    let recorder = Recorder::new(sender);
    for _ in 0..5 {
        recorder.record(Entry::FlowOpened { flow: flow("x") });
    }
    assert_eq!(recorder.lost(), 3);
    let shared = Arc::clone(&recorder.shared);
    drop(recorder);
    let mut writer = Writer::new(Disk::default());
    writer.run(&receiver, &shared);
    let text = String::from_utf8(writer.sink_mut().lines.clone()).unwrap();
    assert_eq!((text.lines().count(), text.contains(r#""event":"lost","count":3"#)), (3, true), "{text}");
}
