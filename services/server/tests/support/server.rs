//! A running service: the real program, on a free port.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::program::Sandbox;
use super::wire::{Reply, Wire};

/// A running service, which is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its TCP address; 0.0.0.0:0 if it listens on a Unix socket.
    pub address: SocketAddr,
    /// The text that it printed at its start.
    pub startup_message: String,
}

/// The gate of the service, a path in the sandbox.
pub const GATE: &str = "data/api.gate";

/// The file of its pepper.
const PEPPER: &str = "data/pepper";

/// The file to which its standard error goes.
pub const LOG: &str = "log.txt";

/// Returns the names of the files in the data folder, without those of the list of keys.
pub fn names_without_list(sandbox: &Sandbox) -> Vec<String> {
    let mut names = super::program::names(&sandbox.path("data"));
    names.retain(|name| {
        !["admin.gate", "api.gate.usage"].contains(&&**name) && !name.starts_with("keys.db")
    });
    names
}

impl Server {
    /// Starts the service with the data folder of the sandbox.
    pub fn start(sandbox: &Sandbox, more: &[&str]) -> Self {
        Self::start_with(sandbox, more, &[])
    }

    /// Starts the service with these environment variables.
    pub fn start_with(sandbox: &Sandbox, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_at(sandbox, "127.0.0.1:0", more, variables)
    }

    /// Starts the service at an address.
    pub fn start_at(
        sandbox: &Sandbox,
        listen: &str,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = sandbox.command(&Self::args(listen, more));
        command.envs(variables.iter().copied());
        Self::started(sandbox, command)
    }

    /// Starts the service with this limit of open files.
    pub fn start_with_files(sandbox: &Sandbox, files: u32, more: &[&str]) -> Self {
        let inner = sandbox.command(&Self::args("127.0.0.1:0", more));
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
            .arg(inner.get_program());
        command.args(inner.get_args()).current_dir(sandbox.path("."));
        for name in ["KEYTALLY_PEPPER", "KEYTALLY_PEPPER_FILE"] {
            command.env_remove(name);
        }
        Self::started(sandbox, command)
    }

    /// Returns the arguments of the program: `serve` and these options.
    fn args<'a>(listen: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["serve", "--listen", listen, "--data", "data"], more].concat()
    }

    /// Starts a service by this command, and waits until it listens.
    fn started(sandbox: &Sandbox, mut command: Command) -> Self {
        let log_file = File::options().create(true).append(true).open(sandbox.path(LOG)).unwrap();
        // The first start prints a key only on a terminal.
        let (terminal, end) = terminal();
        command.stdin(Stdio::null()).stdout(end).stderr(log_file);
        let child = command.spawn().unwrap();
        drop(command);
        let mut startup_message = String::new();
        let mut out = BufReader::new(terminal);
        let address = loop {
            let mut line = String::new();
            // When the service has ended, reading the terminal fails.
            let _ = out.read_line(&mut line);
            assert_ne!(line, "", "the service ended: {startup_message}{}", log(sandbox));
            let line = line.replace("\r\n", "\n");
            startup_message += &line;
            if let Some(rest) = line.strip_prefix("Listening on http://") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
            if line.starts_with("Listening on unix:") {
                break (Ipv4Addr::UNSPECIFIED, 0).into();
            }
        };
        Self { child, address, startup_message }
    }

    /// Returns the peak of its resident memory in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Returns the key that the first start printed.
    pub fn first_key(&self) -> Option<String> {
        let line = self.startup_message.lines().find(|line| line.starts_with("  kt_live_"))?;
        Some(line.trim().to_owned())
    }

    /// Sends a request over a new connection.
    pub fn request(&self, request: &str, lines: &[&[u8]]) -> Reply {
        Wire::to(self.address).request(request, lines)
    }

    /// Sends `GET /api/v1/contacts` with this key.
    pub fn contacts(&self, key: &str) -> Reply {
        self.get("/api/v1/contacts", key)
    }

    /// Sends `GET` with this key.
    pub fn get(&self, path: &str, key: &str) -> Reply {
        self.request(&format!("GET {path}"), &[format!("X-API-Key: {key}").as_bytes()])
    }

    /// Returns the value of one of its metrics.
    pub fn metric(&self, name: &str) -> u64 {
        Self::value(&self.request("GET /metrics", &[]).body, name)
    }

    /// Returns the value of a metric in `text`.
    pub fn value(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    /// Returns the number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Returns whether it is running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Returns the controlling and the program's end of a pseudoterminal.
pub fn terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap();
    let end = File::options()
        .read(true)
        .write(true)
        .custom_flags(NOCTTY)
        .open(OsStr::from_bytes(path.as_bytes()));
    (File::from(terminal), end.unwrap())
}

/// Keeps the terminal from becoming the controlling terminal of the tests.
const NOCTTY: i32 = OFlags::NOCTTY.bits().cast_signed();

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sandbox {
    /// Runs the program with the pepper file of the service.
    pub fn run_admin(&self, args: &[&str]) -> super::program::Run {
        self.finish(&mut self.command(&[args, &["--pepper-file", PEPPER]].concat()), b"")
    }

    /// Issues a key in the gate of the service. Returns the key and its id.
    pub fn new_key(&self, more: &[&str]) -> (String, String) {
        let issued = self.run_admin(&[&["issue", GATE, "--json"], more].concat()).json();
        let [key, key_id] = ["key", "key_id"].map(|name| issued[name].as_str().unwrap().to_owned());
        (self.watch_secret(&key), key_id)
    }

    /// Migrates the gate of the service at a second path, `other.gate`. The service stays with the
    /// old file, whose counts have moved.
    pub fn migrate_elsewhere(&self) {
        std::fs::hard_link(self.path(GATE), self.path("other.gate")).unwrap();
        self.run_admin(&["migrate", "other.gate", "new.gate"]).expect_status(0);
    }

    /// Rotates a key in the gate of the service. Returns the key with its new secret.
    pub fn new_secret(&self, key_id: &str, grace: &str) -> String {
        let key =
            self.run_admin(&["rotate", GATE, key_id, "--grace", grace, "--force"]).expect_status(0);
        self.watch_secret(key.trim_end())
    }
}

/// Returns the log of the services of this sandbox.
pub fn log(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path(LOG)).unwrap_or_default()
}

/// Waits until the log has a line with all of `parts`.
#[track_caller]
pub fn await_log(sandbox: &Sandbox, parts: &[&str]) {
    for _ in 0..100 {
        if log(sandbox).lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no line with {parts:?} in the log:\n{}", log(sandbox));
}
