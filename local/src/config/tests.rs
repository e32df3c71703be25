use std::io::Write;

use super::*;
use crate::policy::MAX_RULES;

fn environment_of(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Loads with a file of this text, these variables and these flags.
fn loaded(text: &str, pairs: &[(&str, &str)], mut flags: Flags) -> Result<Config, ConfigError> {
    let file = file(text);
    flags.set("config", file.path().display().to_string());
    load(&flags, &environment_of(pairs))
}

fn refused(text: &str, pairs: &[(&str, &str)], flags: Flags) -> String {
    loaded(text, pairs, flags).unwrap_err().to_string()
}

#[test]
fn defaults_hold_where_nothing_is_set() {
    let config = load(&Flags::default(), &Environment::new()).unwrap();
    assert_eq!(config.target, Target::Codespace(None));
    assert_eq!(config.routes, [RouteChoice::Auto]);
    assert_eq!(config.dns, DnsMode::Split);
    assert_eq!(config.trace, "info");
    assert_eq!(config.sidecar, Sidecar::Provision);
    assert!(config.gui);
}

#[test]
fn an_empty_variable_names_no_file() {
    assert!(load(&Flags::default(), &environment_of(&[("GH_NET_CONFIG", "")])).is_ok());
}

#[test]
fn a_flag_wins_over_a_variable_and_a_variable_over_the_file() {
    let text = "dns = \"local\"\ntrace = \"warn\"\nroute = [\"10.0.0.0/8\", \"auto\"]\ngui = false";
    let pairs = [("GH_NET_DNS", "false"), ("GH_NET_TRACE", "debug")];
    let flags = Flags::of(&[("dns", "true")]);
    let config = loaded(text, &pairs, flags).unwrap();
    assert_eq!(config.dns, DnsMode::Split);
    assert_eq!(config.trace, "debug");
    assert_eq!(config.routes, [RouteChoice::Network("10.0.0.0/8".parse().unwrap()), RouteChoice::Auto]);
    assert!(!config.gui);
}

#[test]
fn whose_packets_enter_the_tunnel_adds_up() {
    let from = |text: &str| loaded("", &[("GH_NET_FROM", text)], Flags::default()).unwrap().from;
    let default = loaded("", &[], Flags::default()).unwrap().from;
    assert_eq!(default, frame::Sources { containers: true, networks: vec![] });
    assert_eq!(from("none"), frame::Sources { containers: false, networks: vec![] });
    let network = vec!["10.9.0.0/16".parse().unwrap()];
    assert_eq!(from("10.9.8.7/16"), frame::Sources { containers: false, networks: network.clone() });
    assert_eq!(from("auto, 10.9.0.0/16"), frame::Sources { containers: true, networks: network });
    let said = refused("from = [\"0.0.0.0/0\"]", &[], Flags::default());
    assert!(said.contains("0.0.0.0/0 is everything"), "{said}");
    let many: Vec<String> = (0..65).map(|number| format!("\"10.{number}.0.0/16\"")).collect();
    let said = refused(&format!("from = [{}]", many.join(", ")), &[], Flags::default());
    assert!(said.contains("65 networks are more than 64"), "{said}");
    let said = refused("from = [\"eth0\"]", &[], Flags::default());
    assert!(said.contains("from: \"eth0\" is neither auto nor none nor a network"), "{said}");
}

#[test]
fn lists_are_split_at_commas_but_ssh_options_are_not() {
    let pairs = [("GH_NET_EXCLUDE", "10.1.2.3, fd00::1/8"), ("GH_NET_SSH_OPTION", "Ciphers=a,b")];
    let config = loaded("", &pairs, Flags::default()).unwrap();
    assert_eq!(config.exclude, ["10.1.2.3/32".parse::<IpNet>().unwrap(), "fd00::/8".parse().unwrap()]);
    assert_eq!(config.ssh_options, ["Ciphers=a,b"]);
}

#[test]
fn the_highest_layer_that_names_a_destination_decides() {
    let flags = Flags::of(&[("ssh", "me@host")]);
    let config = loaded("codespace = \"big-fish\"", &[("GH_NET_EXEC", "a b")], flags).unwrap();
    assert_eq!(config.target, Target::Ssh("me@host".into()));
    let config = loaded("exec = \"a b\"", &[("GH_NET_CODESPACE", "big-fish")], Flags::default()).unwrap();
    assert_eq!(config.target, Target::Codespace(Some("big-fish".into())));
    let said = refused("ssh = \"a\"\nexec = \"b\"", &[], Flags::default());
    assert!(said.contains("ssh and exec are both set"), "{said}");
}

#[test]
fn exec_is_split_into_words_as_a_shell_would() {
    let flags = Flags::of(&[("exec", "docker exec -i 'my box' \"a b\"")]);
    let config = loaded("", &[], flags).unwrap();
    assert_eq!(
        config.target,
        Target::Exec(["docker", "exec", "-i", "my box", "a b"].map(String::from).to_vec())
    );
}

#[test]
fn a_bad_value_names_the_flag_the_variable_or_the_file_and_key() {
    let flags = Flags::of(&[("route", "auto"), ("route", "10.0.0.0/33")]);
    let said = refused("", &[], flags);
    assert!(said.starts_with("--route: \"10.0.0.0/33\" is neither auto, nor private"), "{said}");
    let said = refused("", &[("GH_NET_DNS", "maybe")], Flags::default());
    assert_eq!(said, "GH_NET_DNS: \"maybe\" is none of true, false, split, split-strict, local");
    let said = refused("keep-started = \"perhaps\"", &[], Flags::default());
    assert!(said.ends_with(": keep-started: \"perhaps\" is neither true nor false"), "{said}");
    let said = refused("dns = \"true\"\nexclude = [\"corp\"]", &[], Flags::default());
    assert!(said.contains(": exclude: \"corp\" is not a network"), "{said}");
    assert!(said.starts_with('/'), "{said}");
    let said = refused("host-port = [\"3000\", \"80:80\", \"80\", \"3000:4000\"]", &[], Flags::default());
    assert_eq!(said, "host-port: 3000:3000 and 3000:4000 are the same port of the codespace; choose one");
    let said = refused("gui = 3", &[], Flags::default());
    assert!(said.contains(": gui: ") && said.starts_with('/'), "{said}");
}

#[test]
fn each_kind_of_value_refuses_what_it_is_not() {
    for (key, value) in [
        ("codespace", "-oProxyCommand=x"),
        ("codespace", "a b"),
        ("ssh", "-oProxyCommand=x"),
        ("exec", "say \"hello"),
        ("exec", " "),
        ("ssh-option", "Port"),
        ("ssh-option", "Port=1\nProxyCommand=x"),
        ("sidecar", "it's"),
        ("route", "10.0.0"),
        ("trace", "inof"),
        ("trace", "a=b"),
        ("gui", "yes"),
    ] {
        let variable = SETTINGS.iter().find(|setting| setting.key == key).unwrap().variable();
        let said = refused("", &[(&variable, value)], Flags::default());
        assert!(said.starts_with(&variable), "{key} = {value}: {said}");
    }
}

#[test]
fn an_unknown_key_names_the_key_and_the_file() {
    let file = file("rout = \"auto\"");
    let flags = Flags::of(&[("config", file.path().to_str().unwrap())]);
    let error = load(&flags, &Environment::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: there is no key \"rout\"", file.path().display()));
    assert!(error.remedy().unwrap().contains("route"));
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let error = loaded("route = ", &[], Flags::default()).unwrap_err();
    assert!(matches!(&error, ConfigError::Syntax { message, .. } if message.contains("line 1")), "{error:?}");
    let flags = Flags::of(&[("config", "/nowhere/gh-net.toml")]);
    let said = load(&flags, &Environment::new()).unwrap_err().to_string();
    assert!(said.contains("/nowhere/gh-net.toml"), "{said}");
}

#[test]
fn the_default_file_is_under_xdg_config_home() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("gh-net")).unwrap();
    std::fs::write(home.path().join("gh-net/config.toml"), "trace = \"debug\"").unwrap();
    let pairs = [("XDG_CONFIG_HOME", home.path().to_str().unwrap()), ("HOME", "/nowhere")];
    assert_eq!(load(&Flags::default(), &environment_of(&pairs)).unwrap().trace, "debug");
}

#[test]
fn a_misspelt_variable_is_a_warning() {
    let pairs = [("GH_NET_ROUTES", "auto"), ("GH_NET_EXTENSION", "1")];
    let config = load(&Flags::default(), &environment_of(&pairs)).unwrap();
    assert_eq!(config.warnings, ["the variable GH_NET_ROUTES is unknown to gh-net"]);
}

#[test]
fn the_table_of_settings_has_the_fields_of_the_struct() {
    let unknown = Layer::of("nope", 1, "x".into());
    let error = default_layers().into_iter().fold(Figment::from(unknown), Figment::merge).extract::<Raw>();
    let error = error.unwrap_err();
    let figment::error::Kind::UnknownField(_, expected) = error.kind else { panic!("{error}") };
    // The rules are taken out before.
    let keys = keys().map(|setting| setting.key).filter(|key| *key != settings::RULES);
    assert!(keys.eq(expected.iter().copied()), "{expected:?}");
}

#[test]
fn an_empty_list_of_routes_is_the_default() {
    assert_eq!(loaded("route = []", &[], Flags::default()).unwrap().routes, [RouteChoice::Auto]);
}

#[test]
fn none_logs_nothing() {
    assert_eq!(loaded("", &[("GH_NET_TRACE", "none")], Flags::default()).unwrap().trace, "off");
}

fn rules_of(config: &Config) -> Vec<String> {
    config.rules.list().iter().map(ToString::to_string).collect()
}

#[test]
fn rules_of_flags_come_before_those_of_the_variable_and_of_the_file() {
    let text = "rules = [\"deny 10.66.0.0/16\", \"allow *.corp.example:443\"]";
    let file = file(text);
    let path = file.path().to_str().unwrap();
    let typed = [
        ("deny", "icmp:*"),
        ("allow", "10.1.0.0/16, 10.2.0.0/16"),
        ("deny", "10.3.0.1:22"),
        ("config", path),
    ];
    let environment = environment_of(&[("GH_NET_RULES", "deny udp:*:53, allow [fd00::1]:443")]);
    let config = load(&Flags::of(&typed), &environment).unwrap();
    let expected = [
        "--deny icmp:*",
        "--allow 10.1.0.0/16",
        "--allow 10.2.0.0/16",
        "--deny 10.3.0.1:22",
        "deny udp:*:53 (GH_NET_RULES)",
        "allow [fd00::1]:443 (GH_NET_RULES)",
        &format!("deny 10.66.0.0/16 ({path})"),
        &format!("allow *.corp.example:443 ({path})"),
    ];
    assert_eq!(rules_of(&config), expected);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn a_bad_rule_names_where_it_was_written() {
    let said = refused("rules = [\"deny *\", \"allow db\"]", &[], Flags::default());
    assert!(
        said.starts_with('/') && said.contains(": rules: in \"allow db\", \"db\" is a name without"),
        "{said}"
    );
    let said = refused("", &[("GH_NET_RULES", "10.0.0.0/8")], Flags::default());
    assert!(said.starts_with("GH_NET_RULES: in \"10.0.0.0/8\""), "{said}");
    let said = refused("", &[], Flags::of(&[("allow", "10.0.0.1:99999")]));
    assert!(
        said.starts_with("--allow, --deny: in \"allow 10.0.0.1:99999\", \"99999\" is not a port"),
        "{said}"
    );
    let said = refused("rules = 3", &[], Flags::default());
    assert!(said.contains(": rules: ") && said.starts_with('/'), "{said}");
    let many = vec!["allow *"; MAX_RULES + 1].join(",");
    let said = refused("", &[("GH_NET_RULES", &many)], Flags::default());
    assert_eq!(said, "GH_NET_RULES: there are 1025 rules; at most 1024 are possible");
}

#[test]
fn variables_for_the_flags_of_rules_are_unknown_and_useless_rules_a_warning() {
    let pairs = [("GH_NET_ALLOW", "*"), ("GH_NET_RULES", "deny *,deny 10.0.0.1")];
    let config = load(&Flags::default(), &environment_of(&pairs)).unwrap();
    assert_eq!(
        config.warnings,
        [
            "the variable GH_NET_ALLOW is unknown to gh-net",
            "rule 2 (deny 10.0.0.1 (GH_NET_RULES)) never matches: rule 1 (deny * (GH_NET_RULES)) covers it"
        ]
    );
}

#[test]
fn memory_is_a_size_of_at_least_32_mib() {
    let memory = |text| loaded("", &[("GH_NET_MEMORY", text)], Flags::default()).map(|config| config.memory);
    assert_eq!(loaded("", &[], Flags::default()).unwrap().memory, 256 << 20);
    assert_eq!((memory("32MiB").unwrap(), memory("2G").unwrap()), (32 << 20, 2 << 30));
    for (wrong, why) in
        [("31MiB", "less than 32MiB"), ("1000", "not a size"), ("99999999999999GiB", "not a size")]
    {
        let error = memory(wrong).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("GH_NET_MEMORY"), "{error}");
    }
}
