//! The lab's name servers: dnsmasq as the codespace's public DNS and as the laptop's corporate DNS. Each has a zone,
//! `silent.example` and `silent.corp.internal`, whose own server never answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Host, Lab};

/// Public DNS. It answers NXDOMAIN for unknown names, as a recursive resolver does. The corporate DNS does not know
/// `only-public.example`. `db.example.net` is a public name of a corporate address, which both know.
const PUBLIC: &str = "
    address=/example.com/203.0.113.10
    address=/example.com/2001:db8:113::10
    address=/only-public.example/203.0.113.10
    host-record=db.example.net,10.20.0.10
    txt-record=view.example.com,public
    local=/example.com/
    server=/silent.example/127.0.0.1#9
    address=/#/
";

/// Corporate DNS. Its view of example.com differs, so that tests see which server was asked. TYPE65 (HTTPS) is
/// `1 . alpn=h2` in hex, the only form that dnsmasq supports for it. `$BIG` and `$HUGE` are TXT answers over 512 and over
/// 4096 bytes.
const CORPORATE: &str = "
    host-record=www.corp.internal,10.20.0.10,fd20:20::10
    host-record=v4only.corp.internal,10.20.0.10
    host-record=lasting.corp.internal,10.20.0.10,3600
    host-record=db.corp.internal,10.20.0.10
    host-record=blackhole.corp.internal,10.20.0.66
    cname=intranet.corp.internal,www.corp.internal
    txt-record=text.corp.internal,\"hello from corp\"
    $BIG
    $HUGE
    srv-host=_ldap._tcp.corp.internal,www.corp.internal,389,10,20
    mx-host=corp.internal,mail.corp.internal,10
    host-record=mail.corp.internal,10.20.0.25
    ptr-record=25.0.20.10.in-addr.arpa,mail.corp.internal
    dns-rr=svc.corp.internal,65,00010000010003026832
    host-record=wiki.partner.example,10.20.0.10
    host-record=db.example.net,10.20.0.10
    address=/example.com/10.20.0.80
    txt-record=view.example.com,corporate
    local=/example.com/
    server=/silent.corp.internal/127.0.0.1#9
    server=/silent.example/127.0.0.1#9
    address=/#/
";

/// A question of class IN about `name`, which has no empty labels, for records of type `kind` (RFC 1035, 4).
pub fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
    message
}

impl Lab {
    /// The resolver that programs in the codespace ask first at present.
    ///
    /// # Errors
    /// The codespace's resolv.conf names none.
    pub fn codespace_resolver(&self) -> Result<SocketAddr> {
        let text = self.codespace.read("/etc/resolv.conf")?;
        let address =
            text.lines().find_map(|line| line.strip_prefix("nameserver ")).context("a nameserver")?;
        Ok(SocketAddr::new(address.trim().parse()?, 53))
    }

    pub(super) fn start_dns(&mut self) -> Result<()> {
        self.start_dnsmasq("internet", "172.16.5.1,203.0.113.10", PUBLIC)?;
        let corporate = CORPORATE
            .replace("$BIG", &txt_records("big.corp.internal", 6))
            .replace("$HUGE", &txt_records("huge.corp.internal", 24));
        self.start_dnsmasq("corp", "10.20.0.53,fd20:20::53", &corporate)?;

        let home = "nameserver 10.20.0.53\nsearch corp.internal\n";
        self.laptop.write("/etc/resolv.conf", 0o644, home)?;
        let azure = "# made by the platform\nnameserver 172.16.5.1\nsearch xyz.internal.cloudapp.net\n";
        self.codespace.write("/etc/resolv.conf", 0o644, azure)
    }

    /// The corporate name server's log so far, one line per query.
    pub fn corp_dns_log(&self) -> String {
        self.daemons[1].stderr()
    }

    /// The public name server's log so far.
    pub fn public_dns_log(&self) -> String {
        self.daemons[0].stderr()
    }

    fn start_dnsmasq(&mut self, host: &str, addresses: &str, records: &str) -> Result<()> {
        let host: &Host = if host == "corp" { &self.corp } else { &self.internet };
        let records: String = records.lines().map(|line| format!("{}\n", line.trim())).collect();
        host.write("/run/lab/dnsmasq.conf", 0o644, records)?;
        let daemon = host.spawn(&format!(
            "dnsmasq --keep-in-foreground --user=root --pid-file= --log-facility=- --log-queries \
             --conf-file=/run/lab/dnsmasq.conf --no-resolv --no-hosts --bind-interfaces --cache-size=0 \
             --dns-forward-max=4096 --edns-packet-max=4096 --listen-address={addresses}"
        ))?;
        daemon.wait_for("started, version", Duration::from_secs(10))?;
        self.daemons.push(daemon);
        Ok(())
    }
}

/// `count` TXT records of 200 bytes each. A single long one would not fit a line of dnsmasq's configuration.
fn txt_records(name: &str, count: usize) -> String {
    (0..count).map(|i| format!("txt-record={name},{i:02}{}\n", "x".repeat(198))).collect()
}
