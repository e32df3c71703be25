//! The Feature, the image and the compose example, with a real Docker engine and the real dev container CLI.
//!
//! `cargo xtask test-containers` prepares what these tests need and runs them one after the other.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gh_net_tests::lab::{Binaries, Bridge, Docker, LAPTOP_HOME, Options, Output};
use gh_net_tests::root;

/// The names of images that the base image replaces, because they would need a registry.
const STANDS_FOR: [&str; 2] = ["mcr.microsoft.com/devcontainers/base:debian", "debian:stable-slim"];
const CLI: &str = "node /srv/tools/node_modules/@devcontainers/cli/devcontainer.js";
/// The port of the dev containers' sshd; the codespace's own one has 2222.
const PORT: &str = "2224";

static DOCKER: LazyLock<Docker> = LazyLock::new(|| start().expect("a Docker engine"));

fn place(variable: &str) -> Result<PathBuf> {
    let place = env::var_os(variable).with_context(|| format!("{variable} is not set"))?;
    Ok(PathBuf::from(place))
}

fn start() -> Result<Docker> {
    let docker = Docker::start(Options::default(), Some(place("GH_NET_TEST_TOOLS")?))?;
    let image = std::fs::File::open(place("GH_NET_TEST_BASE_IMAGE")?)?;
    let mut import = docker.command("docker");
    import.args(["import", "--change", "CMD [\"/bin/bash\"]", "-", STANDS_FOR[0]]).stdin(image);
    docker.lab.codespace.start(import)?.finish(Duration::from_secs(300))?.ok()?;
    for name in &STANDS_FOR[1..] {
        docker.shell(&format!("docker tag {} {name}", STANDS_FOR[0]))?;
    }
    Ok(docker)
}

/// Lays out the Feature as it is published, with the sidecar in its folder, because image builds have no network.
fn lay_out_feature(docker: &Docker, folder: &str) -> Result<()> {
    docker.copy(&root().join("devcontainer-feature/src/gh-net"), folder)?;
    let sidecar = format!("{folder}/gh-net-sidecar-{}", env::consts::ARCH);
    docker.lab.codespace.install(&Binaries::get()?.sidecar, &sidecar)?;
    // The CLI looks up these Features in the registry, even if they are not installed.
    let manifest = format!("{folder}/devcontainer-feature.json");
    let mut feature: serde_json::Value = serde_json::from_str(&docker.lab.codespace.read(&manifest)?)?;
    feature.as_object_mut().context("an object")?.remove("installsAfter");
    docker.lab.codespace.write(manifest, 0o644, serde_json::to_vec(&feature)?)
}

/// Prints everything that gh-net could change in a container.
const STATE: &str = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip link; ip addr; \
    cat /etc/resolv.conf; stat -c '%a %u %g %i' /etc/resolv.conf; cat /etc/hosts; ls -A /run; ls -A /dev";

/// A container whose programs use the bridge.
struct Container<'a> {
    docker: &'a Docker,
    /// The command line that precedes a program and its arguments.
    exec: String,
    /// The command line that precedes a URL.
    fetch: &'static str,
    /// The URLs that it must reach.
    urls: &'static [&'static str],
}

const CURL: &str = "curl -sS -g --max-time 10";

impl Container<'_> {
    fn run(&self, line: &str) -> Result<Output> {
        self.docker.run(&format!("{} sh -c '{line}'", self.exec))
    }

    fn shell(&self, line: &str) -> Result<String> {
        self.run(line)?.ok()
    }

    fn state(&self) -> Result<String> {
        self.shell(&STATE.replace('\'', "\""))
    }

    fn is_cut_off(&self) -> Result<()> {
        let output = self.run(&format!("{} {}", self.fetch, self.urls[0]))?;
        ensure!(output.code() != 0, "the corporate network is reachable without gh-net: {}", output.text());
        Ok(())
    }

    fn reaches_corp(&self) -> Result<()> {
        for url in self.urls {
            assert_eq!(self.shell(&format!("{} {url}", self.fetch))?, "hello from corp", "{url}");
        }
        Ok(())
    }
}

const BY_NAME: &str = "http://www.corp.internal/";
const BY_IPV4: &str = "http://10.20.0.10/";
const BY_IPV6: &str = "http://[fd20:20::10]/";

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn the_feature_passes_its_tests_by_the_dev_container_cli() -> Result<()> {
    let docker = &*DOCKER;
    docker.copy(&root().join("devcontainer-feature/test"), "/srv/feature/test")?;
    lay_out_feature(docker, "/srv/feature/src/gh-net")?;
    let base = STANDS_FOR[0];
    let output =
        docker.run(&format!("{CLI} features test --project-folder /srv/feature --base-image {base}"))?;
    let printed = output.text() + &output.errors();
    assert_eq!(output.code(), 0, "{printed}");
    let scenarios = std::fs::read_to_string(root().join("devcontainer-feature/test/gh-net/scenarios.json"))?;
    let scenarios: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&scenarios)?;
    let others = ["gh-net", "gh-net executed twice with randomized options"];
    for test in scenarios.keys().map(String::as_str).chain(others) {
        assert!(printed.contains(&format!("Passed:      '{test}'")), "{test} was not run: {printed}");
    }
    Ok(())
}

#[test]
#[ignore = "needs the dev container CLI: cargo xtask test-containers"]
fn the_readme_of_the_feature_is_what_the_dev_container_cli_generates() -> Result<()> {
    let docker = &*DOCKER;
    docker.copy(&root().join("devcontainer-feature/src"), "/srv/docs/devcontainer-feature/src")?;
    docker.shell(&format!(
        "cd /srv/docs && {CLI} features generate-docs --project-folder devcontainer-feature/src \
         --namespace gh-net/gh-net --github-owner gh-net --github-repo gh-net"
    ))?;
    let generated = docker.lab.codespace.read("/srv/docs/devcontainer-feature/src/gh-net/README.md")?;
    let committed = root().join("devcontainer-feature/src/gh-net/README.md");
    if env::var_os("GH_NET_WRITE").is_some() {
        std::fs::write(&committed, &generated)?;
    }
    assert_eq!(
        generated,
        std::fs::read_to_string(committed)?,
        "to write it: GH_NET_WRITE=1 cargo xtask test-containers"
    );
    Ok(())
}

/// A dev container that `devcontainer up` started from a project with the Feature. Like GitHub's, it is in the codespace's
/// own network.
struct DevContainer {
    container: Container<'static>,
    user: &'static str,
    id: String,
}

impl DevContainer {
    fn up(image: &str, user: &'static str, options: &serde_json::Value) -> Result<Self> {
        let docker = &*DOCKER;
        static PROJECTS: AtomicUsize = AtomicUsize::new(0);
        let project = format!("/srv/project-{}", PROJECTS.fetch_add(1, Ordering::Relaxed));
        lay_out_feature(docker, &format!("{project}/.devcontainer/gh-net"))?;
        let json = serde_json::json!({
            "image": image,
            "remoteUser": user,
            "features": { "./gh-net": options },
            "runArgs": ["--network=host"],
        });
        let file = format!("{project}/.devcontainer/devcontainer.json");
        docker.lab.codespace.write(file, 0o644, json.to_string())?;
        let output = docker.shell(&format!("{CLI} up --workspace-folder {project} --buildkit never"))?;
        let last = output.lines().last().context("devcontainer up printed nothing")?;
        let up: serde_json::Value = serde_json::from_str(last).with_context(|| output.clone())?;
        let id = up["containerId"].as_str().with_context(|| output.clone())?.to_owned();
        // Removes the image's own entry, which allows everything, so that only the Feature's remains.
        docker.shell(&format!("docker exec --user root {id} rm -f /etc/sudoers.d/vscode"))?;
        let exec = format!("{CLI} exec --workspace-folder {project}");
        let container = Container { docker, exec, fetch: CURL, urls: &[BY_NAME, BY_IPV4, BY_IPV6] };
        assert_eq!(container.shell("id -un")?, user);
        Ok(Self { container, user, id })
    }

    /// Checks that it reaches the corporate network while gh-net runs, and that everything is as before afterwards.
    fn is_bridged(&self, gh_net: &[&str]) -> Result<()> {
        let Self { container, .. } = self;
        container.is_cut_off()?;
        let before = (container.docker.lab.codespace.state()?, container.state()?);
        let bridge = container.docker.gh_net(gh_net)?.ready()?;
        container.reaches_corp()?;
        let log = bridge.log();
        assert!(!log.contains("copying the sidecar"), "the Feature's sidecar was not found: {log}");
        bridge.stop()?;
        assert_eq!(before.0.diff(&container.docker.lab.codespace.state()?), "");
        assert_eq!(before.1, container.state()?);
        Ok(())
    }

    fn is_bridged_by_docker_exec(&self) -> Result<()> {
        let attach = format!("docker exec -i -u {} {} gh-net-sidecar attach", self.user, self.id);
        self.is_bridged(&["--exec", &attach])
    }

    fn is_bridged_by_ssh(&self) -> Result<()> {
        let Self { container, user, id } = self;
        let docker = container.docker;
        let key = docker.lab.laptop.read(format!("{LAPTOP_HOME}/.ssh/id_ed25519.pub"))?;
        container.shell(&format!("mkdir -p ~/.ssh; echo {} > ~/.ssh/authorized_keys", key.trim()))?;
        docker.shell(&format!("docker exec --user root {id} mkdir -p /run/sshd"))?;
        let mut sshd = docker.command("docker");
        sshd.args([
            "exec",
            "--user",
            "root",
            id,
            "/usr/sbin/sshd",
            "-D",
            "-e",
            "-p",
            PORT,
            "-o",
            "UsePAM=no",
        ]);
        let sshd = docker.lab.codespace.start(sshd)?;
        sshd.wait_for("Server listening", Duration::from_secs(20))?;
        let (port, login) = (format!("Port={PORT}"), format!("User={user}"));
        let options =
            ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", &port, &login];
        let mut gh_net = vec!["--ssh", "172.16.5.4"];
        gh_net.extend(options.iter().flat_map(|option| ["--ssh-option", option]));
        self.is_bridged(&gh_net)
    }

    fn down(self) -> Result<()> {
        self.container.docker.shell(&format!("docker rm --force {}", self.id)).map(drop)
    }
}

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn a_dev_container_is_bridged_as_root() -> Result<()> {
    let up = DevContainer::up(STANDS_FOR[0], "root", &serde_json::json!({}))?;
    up.is_bridged_by_docker_exec()?;
    up.is_bridged_by_ssh()?;
    up.down()
}

/// With sudo.
#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn a_dev_container_is_bridged_as_the_user_vscode() -> Result<()> {
    let up = DevContainer::up(STANDS_FOR[0], "vscode", &serde_json::json!({}))?;
    up.is_bridged_by_docker_exec()?;
    up.is_bridged_by_ssh()?;
    up.down()
}

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn a_dev_container_is_bridged_by_the_capabilities_of_the_file() -> Result<()> {
    let options = serde_json::json!({ "privileges": "capabilities" });
    let up = DevContainer::up(STANDS_FOR[0], "vscode", &options)?;
    up.is_bridged_by_docker_exec()?;
    up.down()
}

/// Fetches a page in an image without curl.
const FETCH: &str = r#"#!/bin/sh
printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 10 "$1" 80 | tail -n 1 | grep .
"#;
/// An image that contains only busybox, as close to Alpine as possible without a registry.
const BUSYBOX: &str = r#"
FROM scratch
COPY busybox fetch /bin/
RUN ["/bin/busybox", "mkdir", "-p", "/usr/bin", "/usr/sbin", "/sbin", "/etc", "/root", "/tmp", "/run", "/var"]
RUN ["/bin/busybox", "--install", "-s"]
RUN echo root:x:0:0:root:/root:/bin/sh > /etc/passwd && echo root:x:0: > /etc/group && echo ID=busybox > /etc/os-release && chmod 1777 /tmp
CMD ["/bin/sh"]
"#;

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn a_dev_container_of_busybox_is_bridged() -> Result<()> {
    let docker = &*DOCKER;
    docker.lab.codespace.install(Path::new("/bin/busybox"), "/srv/busybox/busybox")?;
    docker.lab.codespace.write("/srv/busybox/fetch", 0o755, FETCH)?;
    docker.lab.codespace.write("/srv/busybox/Dockerfile", 0o644, BUSYBOX)?;
    docker.shell("docker build --quiet --tag busybox:local /srv/busybox")?;
    let mut up = DevContainer::up("busybox:local", "root", &serde_json::json!({}))?;
    // Debian's static busybox crashes in name look-ups, so its wget can't be used.
    (up.container.fetch, up.container.urls) = ("fetch", &["10.20.0.10"]);
    up.is_bridged_by_docker_exec()?;
    up.down()
}

/// Builds and tags the image as releases do, from prebuilt sidecars; they use buildah.
fn image(docker: &Docker) -> Result<String> {
    let name = format!("ghcr.io/gh-net/gh-net-sidecar:{}", env!("CARGO_PKG_VERSION"));
    for file in ["Dockerfile", ".dockerignore", "LICENSE"] {
        docker.lab.codespace.write(format!("/srv/image/{file}"), 0o644, std::fs::read(root().join(file))?)?;
    }
    let sidecar = format!("/srv/image/target/dist/gh-net-sidecar-{}", env::consts::ARCH);
    docker.lab.codespace.install(&Binaries::get()?.sidecar, &sidecar)?;
    let version = env!("CARGO_PKG_VERSION");
    let prebuilt = if env::consts::ARCH == "aarch64" { "prebuilt-arm64" } else { "prebuilt-amd64" };
    docker.shell(&format!(
        "DOCKER_BUILDKIT=1 docker build --quiet --tag {name} --build-arg SIDECAR={prebuilt} --build-arg VERSION={version} /srv/image"
    ))?;
    Ok(name)
}

/// Replaces an image with cargo: its cargo checks that everything is there that the real one would need.
const BUILDER: &str = r#"
FROM mcr.microsoft.com/devcontainers/base:debian
COPY gh-net-sidecar cargo /usr/local/bin/
"#;
const CARGO: &str = r#"#!/bin/sh
set -e
test "$*" = "build --profile shipped --locked --package gh-net-sidecar"
cat Cargo.lock common/src/lib.rs sidecar/src/main.rs >/dev/null
# cargo reads the manifest of every member of the workspace.
for member in common sidecar local local/engine tests tests/lab tests/support tests/xtask; do test -f $member/Cargo.toml; done
mkdir -p target/shipped
cp /usr/local/bin/gh-net-sidecar target/shipped/
"#;

/// Without a registry there is no image with Rust, so this does not compile. It checks cargo's input, and that its output
/// ends up in the image.
#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn the_image_is_built_from_the_files_of_the_build_context() -> Result<()> {
    let docker = &*DOCKER;
    let codespace = &docker.lab.codespace;
    codespace.install(&Binaries::get()?.sidecar, "/srv/builder/gh-net-sidecar")?;
    codespace.write("/srv/builder/cargo", 0o755, CARGO)?;
    codespace.write("/srv/builder/Dockerfile", 0o644, BUILDER)?;
    docker.shell("docker build --quiet --tag builder /srv/builder")?;
    for folder in
        ["common", "sidecar", "local", "local/engine", "tests", "tests/lab", "tests/support", "tests/xtask"]
    {
        let sources = ["src", "Cargo.toml"].map(|name| root().join(folder).join(name));
        docker.copy(&sources[0], &format!("/srv/source/{folder}/src"))?;
        codespace.write(format!("/srv/source/{folder}/Cargo.toml"), 0o644, std::fs::read(&sources[1])?)?;
    }
    for file in ["Cargo.toml", "Cargo.lock", "Dockerfile", ".dockerignore", "LICENSE"] {
        codespace.write(format!("/srv/source/{file}"), 0o644, std::fs::read(root().join(file))?)?;
    }
    docker.shell(
        "DOCKER_BUILDKIT=1 docker build --network none --quiet --tag built --build-arg BUILDER=builder /srv/source",
    )?;
    let version = docker.shell("docker run --rm built --version")?;
    assert_eq!(version, format!("gh-net-sidecar {}", env!("CARGO_PKG_VERSION")));
    // By name, as `docker exec` looks it up.
    docker.shell("docker run --rm --entrypoint gh-net-sidecar built --version")?;
    Ok(())
}

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn the_image_runs_beside_a_container() -> Result<()> {
    let docker = &*DOCKER;
    let image = image(docker)?;
    // Its own network, which is not connected to anything.
    docker.shell(&format!(
        "docker run --detach --name app --network none --sysctl net.ipv6.conf.all.disable_ipv6=0 {} sleep infinity",
        STANDS_FOR[1]
    ))?;
    let app = Container {
        docker,
        exec: "docker exec app".to_owned(),
        fetch: CURL,
        urls: &[BY_NAME, BY_IPV4, BY_IPV6],
    };
    let before = app.state()?;
    docker.shell(&format!(
        "docker run --detach --name sidecar --network container:app --cap-add NET_ADMIN --device /dev/net/tun {image}"
    ))?;
    assert_eq!(app.state()?, before, "it changes nothing until gh-net attaches");
    let attach = ["--exec", "docker exec -i sidecar gh-net-sidecar attach"];

    let bridge = docker.gh_net(&attach)?.ready()?;
    app.reaches_corp()?;
    bridge.stop()?;
    assert_eq!(app.state()?, before, "after gh-net's end");

    let bridge: Bridge<'_> = docker.gh_net(&attach)?.ready()?;
    app.reaches_corp()?;
    docker.shell("docker stop sidecar")?;
    assert_eq!(app.state()?, before, "after the sidecar's container was stopped");
    let logs = docker.run("docker logs sidecar")?;
    assert!(logs.text().contains("undone: device ghnet0"), "{}", logs.text() + &logs.errors());
    assert_eq!(docker.shell("docker inspect --format '{{.State.ExitCode}}' sidecar")?, "0");
    drop(bridge);
    docker.shell("docker rm --force sidecar app")?;
    Ok(())
}

#[test]
#[ignore = "needs a Docker engine: cargo xtask test-containers"]
fn the_compose_example_works_unmodified() -> Result<()> {
    let docker = &*DOCKER;
    image(docker)?;
    let example = std::fs::read(root().join("docs/examples/compose.yaml"))?;
    docker.lab.codespace.write("/srv/example/compose.yaml", 0o644, example)?;
    docker.shell("cd /srv/example && docker-compose up --detach")?;
    // Versions 1 and 2 name containers differently.
    let id = docker.shell("cd /srv/example && docker-compose ps --quiet app")?;
    let app = Container { docker, exec: format!("docker exec {id}"), fetch: CURL, urls: &[BY_NAME, BY_IPV4] };
    let before = app.state()?;
    assert!(before.contains("nameserver 127.0.0.11"), "the resolver is not the engine's: {before}");
    let attach = "docker-compose -f /srv/example/compose.yaml exec -T gh-net gh-net-sidecar attach";
    let bridge = docker.gh_net(&["--exec", attach])?.ready()?;
    app.reaches_corp()?;
    // The engine's resolver still answers for the names of containers.
    app.shell("getent hosts app")?;
    bridge.stop()?;
    assert_eq!(app.state()?, before);
    docker.shell("cd /srv/example && docker-compose down --timeout 5")?;
    Ok(())
}
