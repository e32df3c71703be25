# What it takes to work on gh-net: Rust, and the programs of the lab. The lab's sudo and su have to be the machine's.
{
  mkShell,
  rustPlatform,
  cargo,
  cargo-deny,
  clippy,
  rust-analyzer,
  rustc,
  rustfmt,
  curl,
  dnsmasq,
  dnsutils,
  gh,
  iperf3,
  iproute2,
  iputils,
  netcat-openbsd,
  nftables,
  nixfmt-tree,
  openssh,
  shellcheck,
  traceroute,
}:
mkShell {
  packages = [
    cargo
    cargo-deny
    clippy
    rust-analyzer
    rustc
    rustfmt

    curl
    dnsmasq
    dnsutils
    gh
    iperf3
    iproute2
    iputils
    netcat-openbsd
    nftables
    openssh
    traceroute

    nixfmt-tree
    shellcheck
  ];

  # For rust-analyzer.
  RUST_SRC_PATH = rustPlatform.rustLibSrc;
}
