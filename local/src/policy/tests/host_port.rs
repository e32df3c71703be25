//! What of the laptop itself is open.

use super::super::rules::tests::rules;
use super::*;
use crate::engine::RuleId;

/// `--host-port 3000 --host-port 8080:80` and these rules.
fn policy(lines: &[&str]) -> Policy {
    let host_ports = ["3000", "8080:80"].map(|text| text.parse().unwrap()).to_vec();
    let choice = Choice { rules: rules(lines), host_ports, ..choice(&["0.0.0.0/0", "::/0"], &[]) };
    let tunnel = ["198.19.240.0/30", "fd01::/126"].map(|text| text.parse().unwrap()).to_vec();
    let gateways = ["198.19.240.2", "fd01::2"].map(|text| text.parse().unwrap()).to_vec();
    Policy::new(&choice, &Laptop::at_home().0, &Codespace { networks: Vec::new(), tunnel, gateways })
}

fn judged(policy: &Policy, protocol: Protocol, destination: &str) -> Verdict {
    let (client, destination) = (SocketAddr::from(([10, 1, 0, 2], 40_000)), destination.parse().unwrap());
    engine::Policy::verdict(policy, &NewFlow { protocol, client, destination, names: &[] })
}

const CLOSED: Verdict = Verdict::Refuse { refusal: Refusal::Closed, rule: rule::HOST_PORT_CLOSED };

#[test]
fn a_listed_port_leads_to_the_laptop_and_nothing_else_does() {
    let policy = policy(&[]);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (gateway, port, local) in [("198.19.240.2", 3000, 3000), ("[fd01::2]", 8080, 80)] {
            let opened = Verdict::Laptop { port: local, rule: rule::HOST_PORT };
            assert_eq!(judged(&policy, protocol, &format!("{gateway}:{port}")), opened);
        }
        for closed in ["198.19.240.2:80", "198.19.240.2:3001", "[fd01::2]:22", "198.19.240.2:53"] {
            assert_eq!(judged(&policy, protocol, closed), CLOSED, "{closed}");
        }
        for other in
            ["127.0.0.1:3000", "192.168.1.5:3000", "[::1]:3000", "198.19.240.1:3000", "192.168.1.9:3000"]
        {
            assert!(!matches!(judged(&policy, protocol, other), Verdict::Laptop { .. }), "{other}");
        }
    }
    assert_eq!(judged(&policy, Protocol::Echo, "198.19.240.2:0"), CLOSED);
}

#[test]
fn a_rule_that_denies_it_counts_and_the_end_of_the_list_does_not() {
    let first = RuleId(rule::FIRST_USER);
    let ask = |lines: &[&str]| judged(&policy(lines), Protocol::Tcp, "198.19.240.2:3000");
    let (denied, opened) = (
        Verdict::Refuse { refusal: Refusal::Prohibited, rule: first },
        Verdict::Laptop { port: 3000, rule: rule::HOST_PORT },
    );
    for deny in ["deny host.gh-net.internal", "deny *.gh-net.internal:3000", "deny *", "deny 198.19.240.0/30"]
    {
        assert_eq!(ask(&[deny]), denied, "{deny}");
    }
    assert_eq!(ask(&["allow tcp:10.20.0.10:5432"]), opened, "--host-port allows by itself");
    assert_eq!(ask(&["deny udp:host.gh-net.internal"]), opened);
    assert_eq!(ask(&["allow host.gh-net.internal"]), Verdict::Laptop { port: 3000, rule: first });
}
