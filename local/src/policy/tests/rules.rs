//! Rules restrict what is forwarded, and open nothing else.

use super::super::rules::tests::rules;
use super::*;
use crate::engine::RuleId;

/// The laptop at home with a VPN to 10.0.0.0/8, and these rules.
fn policy(lines: &[&str]) -> Policy {
    let laptop = Laptop::at_home().interface(3, "tun0", InterfaceKind::Tun).route("10.0.0.0/8", 3);
    let choice = Choice { rules: rules(lines), ..Choice::default() };
    Policy::new(&choice, &laptop.0, &Codespace::default())
}

/// How the policy refuses a TCP connection, or `None`, and the rule that decided.
fn judged(policy: &Policy, destination: &str) -> (Option<Refusal>, RuleId) {
    let (client, destination) = (SocketAddr::from(([10, 1, 0, 2], 40_000)), destination.parse().unwrap());
    match engine::Policy::verdict(
        policy,
        &NewFlow { protocol: Protocol::Tcp, client, destination, names: &[] },
    ) {
        Verdict::Forward { rule, .. } | Verdict::Laptop { rule, .. } => (None, rule),
        Verdict::Refuse { refusal, rule } => (Some(refusal), rule),
    }
}

#[test]
fn rules_decide_about_forwarded_networks_alone() {
    let policy = policy(&["deny 10.66.0.0/16", "allow *"]);
    let allowed = (None, RuleId(rule::FIRST_USER + 1));
    assert_eq!(judged(&policy, "10.1.0.1:80"), allowed);
    assert_eq!(judged(&policy, "192.168.1.7:80"), allowed);
    assert_eq!(judged(&policy, "10.66.0.1:80"), (Some(Refusal::Prohibited), RuleId(rule::FIRST_USER)));
    assert_eq!(judged(&policy, "203.0.113.1:80"), (Some(Refusal::NoRoute), rule::NO_ROUTE));
    // The laptop's own addresses, loopback, metadata.
    for reserved in ["192.168.1.5:80", "127.0.0.1:80", "169.254.169.254:80", "[::ffff:10.1.0.1]:80"] {
        assert_eq!(judged(&policy, reserved), (Some(Refusal::Prohibited), rule::RESERVED), "{reserved}");
    }
}

#[test]
fn what_no_rule_matches_is_denied_only_if_one_allows_something() {
    assert_eq!(judged(&policy(&[]), "10.1.0.1:80"), (None, rule::FORWARDED));
    assert_eq!(judged(&policy(&["deny 10.66.0.0/16"]), "10.1.0.1:80"), (None, rule::FORWARDED));
    let fenced = policy(&["allow 10.20.0.10:5432"]);
    assert_eq!(judged(&fenced, "10.20.0.10:5432").0, None);
    assert_eq!(judged(&fenced, "10.20.0.10:80"), (Some(Refusal::Prohibited), rule::NOT_ALLOWED));
    // Denied networks are routed here all the same, so that they are refused and not reached by another way.
    assert_eq!(fenced.routes(), policy(&[]).routes());
}

#[test]
fn a_verdicts_rule_is_told_in_words() {
    let policy = policy(&["deny 10.66.0.1/16"]);
    let text = |destination| policy.rule_text(judged(&policy, destination).1);
    assert_eq!(text("10.66.0.1:80"), "--deny 10.66.0.0/16");
    assert_eq!(text("10.1.0.1:80"), "no rule denies it");
    assert_eq!(text("203.0.113.1:80"), "no route");
    assert_eq!(text("127.0.0.1:80"), "an address of this computer, or a reserved one");
    assert_eq!(policy.rule_text(rule::NOT_ALLOWED), "no rule allows it");
    assert_eq!(policy.rule_text(RuleId(999)), "a rule that has changed since");
}
