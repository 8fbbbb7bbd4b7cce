//! The service at work: the real program, on a port of its own.

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

use super::program::Bench;
use super::wire::{Reply, Wire};

/// A service that runs. It is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its TCP address. Of a service on a Unix socket it is 0.0.0.0:0.
    pub address: SocketAddr,
    /// What it said at its start.
    pub greeting: String,
}

/// The data folder of the services here, and what is in it.
pub const GATE: &str = "data/api.gate";
const PEPPER: &str = "data/pepper";
const LOG: &str = "log.txt";

impl Server {
    /// Starts the service in the bench's data folder.
    pub fn start(bench: &Bench, more: &[&str]) -> Self {
        Self::start_with(bench, more, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_with(bench: &Bench, more: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_at(bench, "127.0.0.1:0", more, variables)
    }

    /// The same at a given address.
    pub fn start_at(bench: &Bench, listen: &str, more: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = bench.command(&Self::args(listen, more));
        command.envs(variables.iter().copied());
        Self::started(bench, command)
    }

    /// The same in a process that may open so many files.
    pub fn start_with_files(bench: &Bench, files: u32, more: &[&str]) -> Self {
        let inner = bench.command(&Self::args("127.0.0.1:0", more));
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(inner.get_program());
        command.args(inner.get_args()).current_dir(bench.path("."));
        for name in ["KEYTALLY_PEPPER", "KEYTALLY_PEPPER_FILE"] {
            command.env_remove(name);
        }
        Self::started(bench, command)
    }

    fn args<'a>(listen: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        [&["serve", "--listen", listen, "--data", "data"], more].concat()
    }

    fn started(bench: &Bench, mut command: Command) -> Self {
        let log_file = File::options().create(true).append(true).open(bench.path(LOG)).unwrap();
        // At a terminal, so that the first start shows a key.
        let (terminal, end) = terminal();
        command.stdin(Stdio::null()).stdout(end).stderr(log_file);
        let child = command.spawn().unwrap();
        drop(command);
        let mut greeting = String::new();
        let mut out = BufReader::new(terminal);
        let address = loop {
            let mut line = String::new();
            // A terminal that no process writes to any more gives an error.
            let _ = out.read_line(&mut line);
            assert_ne!(line, "", "the service ended: {greeting}{}", log(bench));
            let line = line.replace("\r\n", "\n");
            greeting += &line;
            if let Some(rest) = line.strip_prefix("Listening on http://") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
            if line.starts_with("Listening on unix:") {
                break (Ipv4Addr::UNSPECIFIED, 0).into();
            }
        };
        Self { child, address, greeting }
    }

    /// The most memory that it has had in use, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The key that the first start has shown.
    pub fn first_key(&self) -> Option<String> {
        let line = self.greeting.lines().find(|line| line.starts_with("  kt_live_"))?;
        Some(line.trim().to_owned())
    }

    /// A request over a connection of its own.
    pub fn ask(&self, request: &str, lines: &[&[u8]]) -> Reply {
        Wire::to(self.address).ask(request, lines)
    }

    /// `GET /api/v1/contacts` with this key.
    pub fn contacts(&self, key: &str) -> Reply {
        self.get("/api/v1/contacts", key)
    }

    /// `GET` with this key.
    pub fn get(&self, path: &str, key: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[format!("X-API-Key: {key}").as_bytes()])
    }

    /// Its metrics, and the value of one of them.
    pub fn metric(&self, name: &str) -> u64 {
        Self::value(&self.ask("GET /metrics", &[]).body, name)
    }

    /// The value of one of the metrics in `text`.
    pub fn value(text: &str, name: &str) -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// A terminal: the end that a person sees, and the end that a program writes to.
pub fn terminal() -> (File, File) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap();
    let end =
        File::options().read(true).write(true).custom_flags(NOCTTY).open(OsStr::from_bytes(path.as_bytes()));
    (File::from(terminal), end.unwrap())
}

/// So that the terminal does not become that of the tests.
const NOCTTY: i32 = OFlags::NOCTTY.bits().cast_signed();

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// Runs the program with the pepper that the service has made.
    pub fn administer(&self, args: &[&str]) -> super::program::Ran {
        self.finish(&mut self.command(&[args, &["--pepper-file", PEPPER]].concat()), b"")
    }

    /// Issues a key in the service's gate; gives it and its id.
    pub fn new_key(&self, more: &[&str]) -> (String, String) {
        let issued = self.administer(&[&["issue", GATE, "--json"], more].concat()).json();
        let [key, key_id] = ["key", "key_id"].map(|name| issued[name].as_str().unwrap().to_owned());
        (self.remember(&key), key_id)
    }

    /// Gives a key of the service's gate another secret.
    pub fn new_secret(&self, key_id: &str, grace: &str) -> String {
        let key = self.administer(&["rotate", GATE, key_id, "--grace", grace, "--force"]).with(0);
        self.remember(key.trim_end())
    }
}

/// What the services of this bench have logged.
pub fn log(bench: &Bench) -> String {
    std::fs::read_to_string(bench.path(LOG)).unwrap_or_default()
}

/// Waits until the log holds a line with all of these.
#[track_caller]
pub fn logged(bench: &Bench, parts: &[&str]) {
    for _ in 0..100 {
        if log(bench).lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no line with {parts:?} in the log:\n{}", log(bench));
}
