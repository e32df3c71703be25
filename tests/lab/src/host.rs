//! A host: a network, mount and UTS namespace, and a thread in them.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::unistd::sethostname;

use super::container::PidNamespace;
use super::process::{Output, Process};
use crate::executable;

/// Time limit of a command for which the test sets none.
const PATIENCE: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Gives the host private files, so that its programs neither see nor change those of the machine or of other hosts.
/// resolv.conf is a bind mount, as in every container.
const PRIVATE_FILES: &str = "
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lab/etc/upper /run/lab/etc/work /run/sshd /run/lock
    mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/lab/etc/upper,workdir=/run/lab/etc/work /etc
    mount -t tmpfs -o mode=755 tmpfs /home
    mount -t tmpfs -o mode=700 tmpfs /root
    mount -t tmpfs -o mode=1777 tmpfs /tmp
    rm -f /etc/hosts /etc/resolv.conf; touch /etc/resolv.conf /run/lab/resolv.conf
    mount --bind /run/lab/resolv.conf /etc/resolv.conf
    printf '127.0.0.1 localhost %s\\n::1 localhost\\n' \"$(cat /proc/sys/kernel/hostname)\" > /etc/hosts
    for family in default all; do echo 0 > /proc/sys/net/ipv6/conf/$family/accept_dad; done
    ip link set lo up";

type Job = Box<dyn FnOnce() + Send>;

/// One host of the lab.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    net: OwnedFd,
    jobs: mpsc::Sender<Job>,
}

impl Host {
    pub(super) fn new(name: &'static str, pids: &PidNamespace) -> Result<Self> {
        let pids = pids.as_fd().try_clone_to_owned()?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (entered, entry) = mpsc::channel();
        thread::Builder::new().name(format!("lab-{name}")).spawn(move || {
            let net = enter_new_namespaces(name, &pids);
            let failed = net.is_err();
            if entered.send(net).is_err() || failed {
                return;
            }
            queue.into_iter().for_each(|job| job());
        })?;
        let host = Self { name, net: entry.recv()??, jobs };
        host.script(PRIVATE_FILES)?;
        Ok(host)
    }

    /// The host's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn net(&self) -> &OwnedFd {
        &self.net
    }

    /// The network namespace's inode number, which identifies the processes in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn net_inode(&self) -> Result<u64> {
        Ok(fstat(&self.net)?.st_ino)
    }

    /// Runs `job` with the host's files and network. It must not start threads, because children of the host's thread
    /// belong to another PID namespace; use [`Self::thread`] for that.
    pub fn enter<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            let _ = done.send(job());
        });
        self.jobs.send(job).expect("the host's thread lives as long as the host");
        result.recv().expect("the job does not panic")
    }

    /// Starts a thread in the host's network, but with the test's own files.
    pub fn thread<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let net = self.net.try_clone().expect("a descriptor can be duplicated");
        let name = format!("in-{}", self.name);
        let thread = thread::Builder::new().name(name).spawn(move || {
            setns(net, CloneFlags::CLONE_NEWNET).expect("we may enter a namespace that we created");
            body()
        });
        thread.expect("a thread can be started")
    }

    /// A command with a clean environment, run by root. Start it with [`Self::start`].
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LANG", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// A command run by the ordinary user `name` with this numeric id.
    pub fn command_as(&self, user: &str, id: u32, program: impl AsRef<Path>) -> Command {
        let mut command = self.command(program);
        let home = format!("/home/{user}");
        command.uid(id).gid(id).env("USER", user).env("HOME", &home).current_dir(home);
        command
    }

    /// Starts a command on this host.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, command: Command) -> Result<Process> {
        Process::start(command, |mut command| self.enter(move || command.spawn()))
            .with_context(|| format!("on {}", self.name))
    }

    /// Starts a shell command line on this host.
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, line: &str) -> Result<Process> {
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg(format!("exec {line}"));
        self.start(command)
    }

    /// Runs a shell command line on this host to its end.
    ///
    /// # Errors
    /// It can't be started, or takes longer than a minute.
    pub fn run(&self, line: &str) -> Result<Output> {
        self.run_for(PATIENCE, line)
    }

    /// Runs a shell command line with a time limit.
    ///
    /// # Errors
    /// It can't be started, or takes longer than `limit`.
    pub fn run_for(&self, limit: Duration, line: &str) -> Result<Output> {
        let mut command = self.command("/bin/sh");
        command.arg("-c").arg(line);
        self.start(command)?.finish(limit).with_context(|| format!("on {}", self.name))
    }

    /// Runs a shell command line and returns its stdout, trimmed.
    ///
    /// # Errors
    /// See [`Self::run`]; or it failed.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.run(line)?.ok().with_context(|| format!("on {}", self.name))
    }

    pub(super) fn script(&self, lines: &str) -> Result<()> {
        self.shell(&format!("set -e\n{lines}")).map(drop)
    }

    /// The packets that this host's named nftables counters have counted, in all.
    ///
    /// # Errors
    /// nft failed.
    pub fn counted_packets(&self) -> Result<u64> {
        let listing = self.shell("nft -j list counters")?;
        let listing: serde_json::Value = serde_json::from_str(&listing).context("nft's JSON")?;
        let items = listing["nftables"].as_array().context("nft's JSON has no list")?;
        Ok(items.iter().filter_map(|item| item["counter"]["packets"].as_u64()).sum())
    }

    /// Reads a file of the host.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&self, path: impl Into<PathBuf>) -> Result<String> {
        let path = path.into();
        let text = self.enter({
            let path = path.clone();
            move || fs::read(path)
        });
        let text = text.with_context(|| format!("reading {} on {}", path.display(), self.name))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Writes a file of the host, in place if it exists, and its parents.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: impl Into<PathBuf>, mode: u32, bytes: impl Into<Vec<u8>>) -> Result<()> {
        let (path, bytes) = (path.into(), bytes.into());
        let context = format!("writing {} on {}", path.display(), self.name);
        let is_program = mode & 0o111 != 0;
        self.enter(move || {
            if is_program {
                return executable::write(&path, &bytes).map_err(std::io::Error::other);
            }
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, bytes)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        })
        .context(context)
    }

    /// Copies a program from the test's file system to the host, even while an earlier copy of it runs.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn install(&self, from: &Path, to: &str) -> Result<()> {
        // Another process writes the file. If we wrote it, children that other threads start meanwhile would inherit
        // the open descriptor, and a program that is open for writing can't be run (ETXTBSY).
        const LINES: &str = "set -e
            mkdir -p \"${0%/*}\"
            cat > \"$0.$$\"
            chmod 755 \"$0.$$\"
            mv \"$0.$$\" \"$0\"";
        let file = File::open(from).with_context(|| format!("reading {}", from.display()))?;
        let mut command = self.command("/bin/sh");
        command.args(["-c", LINES, to]).stdin(file);
        let done = self.start(command)?.finish(PATIENCE)?.ok();
        done.map(drop).with_context(|| format!("writing {to} on {}", self.name))
    }

    /// The processes in the host's network whose program file's name begins with `name`.
    ///
    /// # Errors
    /// /proc can't be read.
    pub fn processes(&self, name: &str) -> Result<Vec<nix::unistd::Pid>> {
        let inode = format!("net:[{}]", self.net_inode()?);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process that has just ended has neither link.
            let Ok(net) = fs::read_link(entry.path().join("ns/net")) else { continue };
            let Ok(program) = fs::read_link(entry.path().join("exe")) else { continue };
            let file = program.file_name().map(|file| file.to_string_lossy().into_owned());
            if net.as_os_str() == inode.as_str() && file.is_some_and(|file| file.starts_with(name)) {
                found.push(nix::unistd::Pid::from_raw(pid));
            }
        }
        Ok(found)
    }
}

fn enter_new_namespaces(name: &str, pids: &OwnedFd) -> Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("making namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making mounts private")?;
    sethostname(name)?;
    let net = File::open("/proc/thread-self/ns/net")?.into();
    setns(pids, CloneFlags::CLONE_NEWPID).context("entering the PID namespace")?;
    Ok(net)
}
