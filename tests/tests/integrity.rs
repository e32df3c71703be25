//! Bulk transfers arrive complete and unchanged in both directions, alone and concurrently.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use gh_net_tests::lab::servers::Pattern;
use gh_net_tests::lab::{Bridged, Options};

static BRIDGED: LazyLock<Option<Bridged>> =
    LazyLock::new(|| Bridged::start(Options::default(), &[]).expect("a bridge"));
static SUM: LazyLock<String> = LazyLock::new(|| Pattern::sha256(BULK));

const BULK: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(240);
/// Tests run one after the other: a single transfer uses all of a small machine.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn download() -> String {
    format!("curl -sS http://10.20.0.10/bytes/{BULK} | sha256sum")
}

/// Fetches a file from a container's server and uploads it to the corporate one.
fn upload(name: &str) -> String {
    format!(
        "curl -sS --fail -o /tmp/{name} http://172.17.0.2/bytes/{BULK} && \
         curl -sS -T /tmp/{name} http://10.20.0.10/sink; rm /tmp/{name}"
    )
}

#[test]
fn a_download_of_256_mib() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let _turn = TURN.lock();
    assert_eq!(lab.codespace.run_for(LIMIT, &download())?.ok()?, format!("{}  -", *SUM));
    Ok(())
}

#[test]
fn an_upload_of_256_mib() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let _turn = TURN.lock();
    assert_eq!(lab.codespace.run_for(LIMIT, &upload("up"))?.ok()?, format!("{BULK} {}", *SUM));
    Ok(())
}

#[test]
fn four_concurrent_transfers() -> Result<()> {
    let Some(Bridged { lab, .. }) = &*BRIDGED else { return Ok(()) };
    let _turn = TURN.lock();
    let start = |line: String| {
        let mut command = lab.codespace.command("/bin/sh");
        command.arg("-c").arg(line);
        lab.codespace.start(command)
    };
    let downloads = [start(download())?, start(download())?];
    let uploads = [start(upload("up-a"))?, start(upload("up-b"))?];
    for download in downloads {
        assert_eq!(download.finish(LIMIT)?.ok()?, format!("{}  -", *SUM));
    }
    for upload in uploads {
        assert_eq!(upload.finish(LIMIT)?.ok()?, format!("{BULK} {}", *SUM));
    }
    Ok(())
}
