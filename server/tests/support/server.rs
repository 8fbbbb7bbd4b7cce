//! The service at work: the real program, on a port of its own.

use core::net::SocketAddr;
use core::time::Duration;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, ExitStatus, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::Bench;
use super::wire::{Reply, Wire};

/// A service that runs. It is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
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
        let (child, terminal) = Self::spawn(bench, more, variables);
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
        };
        Self { child, address, greeting }
    }

    /// Starts the service at a terminal, and returns the other end of that.
    fn spawn(bench: &Bench, more: &[&str], variables: &[(&str, &str)]) -> (Child, File) {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--data", "data"], more].concat();
        let log = File::options().create(true).append(true).open(bench.path(LOG)).unwrap();
        let mut command = bench.command(&args);
        let (terminal, end) = terminal();
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(end).stderr(log);
        (command.spawn().unwrap(), terminal)
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
        let text = self.ask("GET /metrics", &[]).body;
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
    pub fn administer(&self, args: &[&str]) -> super::Ran {
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
        let key = self.administer(&["rotate", GATE, key_id, "--grace", grace]).with(0);
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
