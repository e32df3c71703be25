//! A Docker engine in the lab's codespace, as in every real codespace: containers with `--network host` share the
//! codespace's network, others have their own behind it.
//!
//! All of it is inside the lab: the engine and its containers are in the lab's PID namespace, their mounts in the
//! codespace's mount namespace, images and layers on a tmpfs there. So only empty control groups outlive the lab;
//! [`remove_groups`] removes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::{Host, Lab, Options, Output, Process};

/// A directory that the hosts of a lab with an engine share.
pub const SHARED: &str = "/srv";
/// The engine's socket, in the form of `DOCKER_HOST`.
pub const DOCKER_HOST: &str = "unix:///srv/docker.sock";

/// Prefers the client that was installed with the engine: another one may lack what builds need.
const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin:/usr/local/sbin";
/// Prefix of the control group of all containers; the process id of the lab's owner follows.
const GROUP: &str = "gh-net-lab-";
const GROUPS: &str = "/sys/fs/cgroup";

/// Time limit for the engine's start and end.
const ENGINE: Duration = Duration::from_secs(60);
/// Time limit for the kernel to end what a lab has left.
const PARTING: Duration = Duration::from_secs(10);
/// Time limit for a docker command: it may build an image.
const PATIENCE: Duration = Duration::from_secs(600);

/// Without iptables the engine translates no addresses, so containers reach networks either directly or by the tunnel.
const DOCKERD: &str = "dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false \
    --host unix:///srv/docker.sock --group vscode --data-root /srv/docker --exec-root /run/docker \
    --pidfile /run/docker.pid --exec-opt native.cgroupdriver=cgroupfs";

/// A running engine. Its containers end with it.
#[derive(Debug)]
pub struct Docker {
    /// The lab whose codespace it runs in.
    pub lab: Lab,
    daemon: Option<Process>,
}

impl Docker {
    /// Starts a lab and an engine in it. `directory` of the test's file system, if given, is mounted at `/srv/tools` on
    /// all hosts.
    ///
    /// # Errors
    /// See [`Lab::start`]; or dockerd is missing or does not start.
    pub fn start(options: Options, directory: Option<PathBuf>) -> Result<Self> {
        remove_groups();
        // Mount namespaces are per thread: the lab's hosts inherit these mounts, other threads don't see them.
        let starting = thread::spawn(move || {
            share(directory.as_deref()).context("mounting the shared directories")?;
            Lab::start(options)
        });
        let lab = starting.join().expect("starting a lab does not panic")?;
        let group = format!("--cgroup-parent /{GROUP}{}", std::process::id());
        let daemon = lab.codespace.spawn(&format!("{DOCKERD} {group}"))?;
        daemon.wait_for("API listen on", ENGINE)?;
        Ok(Self { lab, daemon: Some(daemon) })
    }

    /// A command in the codespace with the engine's environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.lab.codespace.command(program);
        command.env("PATH", PATH).env("DOCKER_HOST", DOCKER_HOST);
        command
    }

    /// Runs a shell command line in the codespace with the engine's environment.
    ///
    /// # Errors
    /// It can't be started, or takes longer than ten minutes.
    pub fn run(&self, line: &str) -> Result<Output> {
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg(line);
        self.lab.codespace.start(command)?.finish(PATIENCE)
    }

    /// The same, and returns its stdout, trimmed.
    ///
    /// # Errors
    /// See [`Self::run`]; or it failed.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run(line)?.ok()
    }

    /// gh-net on the laptop with the engine's environment.
    ///
    /// # Errors
    /// See [`Lab::gh_net`].
    pub fn gh_net(&self, args: &[&str]) -> Result<super::BridgeCommand<'_>> {
        Ok(self.lab.gh_net(args)?.env("PATH", PATH).env("DOCKER_HOST", DOCKER_HOST))
    }

    /// Copies a directory of the test's file system to the codespace.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn copy(&self, from: &Path, to: &str) -> Result<()> {
        copy(&self.lab.codespace, from, to).with_context(|| format!("copying {}", from.display()))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            // Lets it remove its containers' groups and networks itself. Otherwise the lab's end does.
            let _ = daemon.signal(Signal::SIGTERM);
            let _ = daemon.finish(ENGINE);
        }
        let group = format!("{GROUP}{}", std::process::id());
        roots().iter().for_each(|root| remove_tree(&root.join(&group)));
    }
}

fn share(directory: Option<&Path>) -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // The descriptor stays valid even if the mount below hides the directory.
    let directory = directory.map(fs::File::open).transpose()?;
    mount(Some("tmpfs"), SHARED, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    if let Some(directory) = directory {
        use std::os::fd::AsRawFd;
        let tools = format!("{SHARED}/tools");
        fs::create_dir(&tools)?;
        let from = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
        mount(Some(from.as_str()), tools.as_str(), none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}

fn copy(host: &Host, from: &Path, to: &str) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let to = format!("{to}/{}", name.to_string_lossy());
        if entry.file_type()?.is_dir() {
            copy(host, &entry.path(), &to)?;
        } else {
            use std::os::unix::fs::PermissionsExt;
            host.write(&to, entry.metadata()?.permissions().mode() & 0o777, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Removes the control groups that labs have left. Their processes may not have ended yet, and cgroups version 1 sends no
/// event for that, so this retries for a while. Groups in use can't be removed.
pub fn remove_groups() {
    let deadline = Instant::now() + PARTING;
    loop {
        let left = groups();
        left.iter().for_each(|group| remove_tree(group));
        if left.iter().all(|group| !group.exists()) || Instant::now() > deadline {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn groups() -> Vec<PathBuf> {
    let labs =
        |group: &PathBuf| group.file_name().is_some_and(|name| name.to_string_lossy().starts_with(GROUP));
    let all = roots().into_iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    all.map(|entry| entry.path()).filter(labs).collect()
}

/// The roots of the control group hierarchies: one, or several with cgroups version 1.
fn roots() -> Vec<PathBuf> {
    let root = PathBuf::from(GROUPS);
    if root.join("cgroup.procs").exists() {
        return vec![root];
    }
    fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes a group and those below it. The kernel refuses that for groups with processes.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
