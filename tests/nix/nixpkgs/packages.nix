# Part of nixpkgs' packages for one system. Those that build gh-net work; the others are empty.
{ lib, system }:
let
  # Paths of the machine's own tools; `cargo xtask nix` writes this file.
  machine = import ./machine.nix;

  architectureOf = system: builtins.head (builtins.split "-" system);

  derivationOf =
    {
      pname,
      version,
      meta ? { },
      ...
    }@attributes:
    derivation (
      {
        name = "${pname}-${version}";
        inherit system;
        builder = "/bin/sh";
        PATH = machine.path;
      }
      // builtins.removeAttrs attributes [ "meta" ]
    )
    // {
      inherit meta;
    };

  # Only its name is used.
  stub =
    pname:
    derivationOf {
      inherit pname;
      version = "0-stub";
      args = [
        "-c"
        "mkdir $out"
      ];
    };

  program =
    pname: script:
    derivationOf {
      inherit pname;
      version = "0-stub";
      meta.mainProgram = pname;
      inherit script;
      args = [
        "-euc"
        ''
          mkdir -p "$out/bin"
          printf '#!/bin/sh\n%s\n' "$script" >"$out/bin/${pname}"
          chmod +x "$out/bin/${pname}"
        ''
      ];
    };

  packagesFor =
    hostPlatform:
    let
      packages = {
        stdenv = { inherit hostPlatform; };

        callPackage =
          file: arguments:
          let
            function = import file;
          in
          function (builtins.intersectAttrs (builtins.functionArgs function) packages // arguments);

        rustPlatform = {
          # Stricter than nixpkgs, which passes unknown attributes to the builder.
          buildRustPackage =
            {
              pname,
              version,
              src,
              cargoLock,
              meta,
              buildType ? "release",
              cargoBuildFlags ? [ ],
              doCheck ? true,
              nativeBuildInputs ? [ ],
              buildPhase ? "",
              installPhase ? "",
              postInstall ? "",
            }:
            let
              profiles = (lib.importTOML "${src}/Cargo.toml").profile // {
                release = { };
              };
            in
            assert profiles ? ${buildType};
            # With doCheck, packages that cargoBuildFlags do not name would be tested too.
            assert !doCheck;
            derivationOf {
              inherit
                pname
                version
                src
                meta
                cargoBuildFlags
                nativeBuildInputs
                buildPhase
                installPhase
                postInstall
                ;
              lockFile = cargoLock.lockFile;
              inherit (machine) vendor target;
              static = hostPlatform.isStatic;
              architecture = hostPlatform.parsed.cpu.name;
              # There is no compiler here for other architectures than the machine's.
              foreign = hostPlatform.parsed.cpu.name != architectureOf system;
              mainProgram = meta.mainProgram or "";
              args = [
                "-eu"
                ./build-rust-package.sh
              ];
            };
          rustLibSrc = stub "rust-lib-src";
        };

        # Only its setup hook is used.
        makeWrapper = derivationOf {
          pname = "make-wrapper";
          version = "0-stub";
          hook = ./make-wrapper.sh;
          args = [
            "-euc"
            ''
              mkdir -p "$out/nix-support"
              cp "$hook" "$out/nix-support/setup-hook"
            ''
          ];
        };

        mkShell =
          {
            packages,
            RUST_SRC_PATH,
          }:
          derivationOf {
            pname = "nix-shell";
            version = "0-stub";
            inherit packages RUST_SRC_PATH;
            args = [
              "-c"
              "mkdir $out"
            ];
          };

        rustc = stub "rustc" // {
          version = machine.rustc;
        };
        nixfmt-tree = program "treefmt" "echo 'nixfmt-tree would format' \"\${@:-all}\"";
      }
      // lib.genAttrs [
        "cargo"
        "cargo-deny"
        "clippy"
        "curl"
        "dnsmasq"
        "dnsutils"
        "gh"
        "iperf3"
        "iproute2"
        "iputils"
        "netcat-openbsd"
        "nftables"
        "openssh"
        "rust-analyzer"
        "rustfmt"
        "shellcheck"
        "traceroute"
      ] stub
      // {
        lib = lib;
        pkgsCross = builtins.mapAttrs (_: architecture: packagesFor (platform architecture false)) {
          musl64 = "x86_64";
          aarch64-multiplatform-musl = "aarch64";
        };
        pkgsStatic = packagesFor (hostPlatform // { isStatic = true; });
      };
    in
    packages;

  platform = architecture: isStatic: {
    inherit isStatic;
    parsed.cpu.name = architecture;
  };
in
packagesFor (platform (architectureOf system) false)
