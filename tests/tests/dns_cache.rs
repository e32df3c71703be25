//! The sidecar's cache: the same question is asked once, and what changes on the laptop is seen at once.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Lab, Options};

/// Well below the time for which an answer is used again.
const SOON: Duration = Duration::from_secs(15);

/// TTLs of the corporate server below: far longer than any test.
const LASTING: u32 = 3600;

/// Repeats `check` until it is true.
fn eventually(what: &str, mut check: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while !check()? {
        ensure!(Instant::now() < deadline, "not within {SOON:?}: {what}");
    }
    Ok(())
}

fn dig(lab: &Lab, name: &str) -> Result<String> {
    lab.codespace.shell(&format!("dig +tries=1 {name} A"))
}

/// The TTL and the address of the only record.
fn record(answer: &str) -> Result<(u32, &str)> {
    let section = answer.lines().skip_while(|line| !line.contains("ANSWER SECTION")).nth(1);
    let words: Vec<&str> = section.with_context(|| answer.to_owned())?.split_whitespace().collect();
    let [_, ttl, "IN", "A", address] = words[..] else { anyhow::bail!("{answer}") };
    Ok((ttl.parse()?, address))
}

/// A corporate name server that knows every name once it is told to, and before says for long that there is none.
struct Server {
    knows: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Server {
    /// In the place of the corporate one, for the laptop.
    fn start(lab: &Lab) -> Result<Self> {
        lab.laptop.write("/etc/resolv.conf", 0o644, "nameserver 10.20.0.10\nsearch corp.internal\n")?;
        let (knows, asked, ends) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (known, count, end) = (Arc::clone(&knows), Arc::clone(&asked), Arc::clone(&ends));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = lab.corp.thread(move || {
            let socket = UdpSocket::bind(SocketAddr::from(([10, 20, 0, 10], 53)))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            let _ = ready.send(());
            let mut buffer = [0; 1500];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    count.fetch_add(1, Ordering::Relaxed);
                    socket.send_to(&answer(&buffer[..length], known.load(Ordering::Relaxed))?, client)?;
                }
            }
            Ok(())
        });
        let server = Self { knows, asked, ends, thread: Some(thread) };
        is_ready.recv_timeout(SOON).context("the name server does not start")?;
        Ok(server)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn is_told(&self) {
        self.knows.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let served = thread.join().expect("the name server does not panic");
            assert!(served.is_ok() || std::thread::panicking(), "{served:?}");
        }
    }
}

/// The answer to a question for addresses: 10.20.0.10, or that there is no such name.
fn answer(question: &[u8], known: bool) -> Result<Vec<u8>> {
    let name = question.get(12..).context("no question")?.iter().position(|byte| *byte == 0);
    let end = 12 + name.context("no name")? + 5;
    let kind = question.get(end - 4..end - 2).context("no type")?;
    let (is_address, code) = (kind == [0, 1], if known { 0 } else { 3 });
    let mut answer = question.get(..2).context("no id")?.to_vec();
    let records = u8::from(known && is_address);
    answer.extend([0x85, 0x80 | code, 0, 1, 0, records, 0, 1 - records, 0, 0]);
    answer.extend(&question[12..end]);
    if records == 1 {
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(LASTING.to_be_bytes());
        answer.extend([0, 4, 10, 20, 0, 10]);
    } else {
        // The SOA record says how long that holds.
        answer.extend([0, 0, 6, 0, 1]);
        answer.extend(LASTING.to_be_bytes());
        answer.extend([0, 22, 0, 0]);
        [1, 3600, 600, 86400, LASTING].iter().for_each(|number| answer.extend(number.to_be_bytes()));
    }
    Ok(answer)
}

#[test]
fn the_same_question_is_asked_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    let first = dig(&lab, "lasting.corp.internal")?;
    assert_eq!(record(&first)?, (LASTING, "10.20.0.10"));
    let asked = || lab.corp_dns_log().matches("query[A] lasting.corp.internal").count();
    let once = asked();
    assert_ne!(once, 0);
    eventually("its TTL is counted down", || {
        let (ttl, address) =
            record(&dig(&lab, "LASTING.corp.internal")?).map(|(ttl, it)| (ttl, it == "10.20.0.10"))?;
        ensure!(address, "another address");
        Ok(ttl < LASTING)
    })?;
    let over_tcp = lab.codespace.shell("dig +tcp +noedns lasting.corp.internal A")?;
    assert_eq!(record(&over_tcp)?.1, "10.20.0.10");
    assert_eq!(asked(), once, "the corporate server was asked again");
    bridge.stop().map(drop)
}

#[test]
fn what_the_laptops_hosts_file_says_is_seen_at_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let bridge = lab.bridge(&[])?;
    assert_eq!(record(&dig(&lab, "lasting.corp.internal")?)?.1, "10.20.0.10");
    let before = lab.laptop.read("/etc/hosts")?;
    lab.laptop.write("/etc/hosts", 0o644, format!("{before}10.20.0.80 lasting.corp.internal\n"))?;
    eventually("the name leads to another address", || {
        Ok(record(&dig(&lab, "lasting.corp.internal")?)?.1 == "10.20.0.80")
    })?;
    bridge.stop().map(drop)
}

#[test]
fn other_nameservers_of_the_laptop_are_asked_at_once() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let server = Server::start(&lab)?;
    server.is_told();
    let bridge = lab.bridge(&[])?;
    assert_eq!(record(&dig(&lab, "mail.corp.internal")?)?, (LASTING, "10.20.0.10"));
    lab.laptop.write("/etc/resolv.conf", 0o644, "nameserver 10.20.0.53\nsearch corp.internal\n")?;
    eventually("the other server's answer", || {
        Ok(record(&dig(&lab, "mail.corp.internal")?)?.1 == "10.20.0.25")
    })?;
    bridge.stop().map(drop)
}

#[test]
fn a_name_that_a_vpn_brings_is_not_hidden_by_the_answer_before() -> Result<()> {
    let Some(lab) = Lab::for_test(Options::default())? else { return Ok(()) };
    let server = Server::start(&lab)?;
    let bridge = lab.bridge(&[])?;
    let nxdomain = |answer: &str| answer.contains("status: NXDOMAIN");
    for name in ["new.corp.internal", "wiki.other.example"] {
        let first = dig(&lab, name)?;
        ensure!(nxdomain(&first), "{first}");
        let asked = server.asked();
        let again = dig(&lab, name)?;
        ensure!(nxdomain(&again), "{again}");
        assert_eq!(server.asked(), asked, "the corporate server was asked again for {name}");
    }
    server.is_told();
    lab.laptop.shell("ip route add 10.99.0.0/24 via 10.8.0.1")?;
    let routes = "ip -4 route show table all";
    eventually("the VPN's route", || Ok(lab.codespace.shell(routes)?.contains("10.99.0.0/24")))?;
    for name in ["new.corp.internal", "wiki.other.example"] {
        assert_eq!(record(&dig(&lab, name)?)?.1, "10.20.0.10", "{name}");
    }
    bridge.stop().map(drop)
}
