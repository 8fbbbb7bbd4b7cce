//! Agents of machines, as an operator runs them: a folder for each machine, and a real server of
//! Redis or Valkey.
//!
//! `KEYTALLY_TEST_REDIS` names another server than `redis-server`, such as `valkey-server`.

use core::time::Duration;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Run, Sandbox};

/// A plan whose window does not end during a test.
pub const PLAN: &str = "default=100/31d";

/// How often something is tried that takes some time, with a pause of 50 ms.
pub const TRIES: usize = 400;

pub fn pause() {
    sleep(Duration::from_millis(50));
}

/// A server of Redis or Valkey, which listens on a Unix socket only.
pub struct Store {
    pub process: Child,
    socket: PathBuf,
    arguments: Vec<&'static str>,
}

impl Store {
    pub fn start(sandbox: &Sandbox, arguments: &[&'static str]) -> Self {
        let socket = sandbox.path("store");
        let process = Self::spawn(&socket, arguments);
        Self { process, socket, arguments: arguments.to_vec() }
    }

    pub fn spawn(socket: &Path, arguments: &[&str]) -> Child {
        let program = std::env::var_os("KEYTALLY_TEST_REDIS");
        let program = program.unwrap_or_else(|| OsString::from("redis-server"));
        let mut command = Command::new(program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]);
        command.arg(socket).args(arguments).stdout(Stdio::null());
        let process = command.spawn().expect("cargo xtask test fleet --install installs a server");
        let listens = || UnixStream::connect(socket).is_ok();
        for _ in (0..TRIES).take_while(|_| !listens()) {
            pause();
        }
        process
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_file(&self.socket).unwrap();
    }

    /// Starts the killed server again, without data.
    pub fn restart(&mut self) {
        self.process = Self::spawn(&self.socket, &self.arguments);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An agent that runs.
pub struct Agent<'s> {
    sandbox: &'s Sandbox,
    pub process: Child,
    log: String,
}

impl<'s> Agent<'s> {
    pub fn start(sandbox: &'s Sandbox, machine: &str, store: &Store, more: &[&str]) -> Self {
        Self::start_with(sandbox, machine, store, more, &[])
    }

    /// Starts the agent of a machine with these variables in its environment.
    pub fn start_with(
        sandbox: &'s Sandbox,
        machine: &str,
        store: &Store,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = agent(sandbox, machine, store, more);
        command.envs(variables.iter().copied());
        Self::spawn(sandbox, machine, command)
    }

    /// Starts the agent of a machine by this command.
    pub fn spawn(sandbox: &'s Sandbox, machine: &str, mut command: Command) -> Self {
        let log = (0..).map(|number| format!("{machine}/{number}.log"));
        let log = log.into_iter().find(|log| !sandbox.path(log).exists()).unwrap();
        command.stdout(Stdio::null()).stderr(File::create(sandbox.path(&log)).unwrap());
        Self { sandbox, process: command.spawn().unwrap(), log }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.sandbox.path(&self.log)).unwrap()
    }

    /// Waits until the agent has printed this.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        for _ in 0..TRIES {
            if self.log().contains(text) {
                return;
            }
            pause();
        }
        panic!("{text:?} is not in {:?}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the command that runs the agent of a machine.
pub fn agent(sandbox: &Sandbox, machine: &str, store: &Store, more: &[&str]) -> Command {
    let (gate, file, url) =
        (format!("{machine}/api.gate"), format!("{machine}/api.fleet"), store.url());
    let fixed = ["agent", &gate, "--fleet", "test", "--store", &url, "--file", &file];
    let mut command = sandbox.command(&[&fixed[..], more].concat());
    if !more.contains(&"--on-loss") {
        command.args(["--on-loss", "closed"]);
    }
    command.env("KEYTALLY_PEPPER", &sandbox.pepper);
    command
}

/// Creates machines with copies of one gate. Returns a key of it, and its id.
pub fn create_machines(sandbox: &Sandbox, plan: &str, machines: &[&str]) -> (String, String) {
    for machine in machines {
        fs::create_dir(sandbox.path(machine)).unwrap();
    }
    let gate = |machine: &str| format!("{machine}/api.gate");
    let first = gate(machines[0]);
    sandbox.run(&["create", &first, "--keys", "10", "--plan", plan]).expect_status(0);
    let (key, key_id) = sandbox.issue(&first, &["--account", "42"]);
    for machine in &machines[1..] {
        fs::copy(sandbox.path(&first), sandbox.path(&gate(machine))).unwrap();
    }
    (key, key_id)
}

/// Runs `keytally fleet COMMAND` for a machine.
pub fn fleet(sandbox: &Sandbox, command: &str, machine: &str, more: &[&str]) -> Run {
    let (gate, file) = (format!("{machine}/api.gate"), format!("{machine}/api.fleet"));
    sandbox.run(&[&["fleet", command, &gate], more, &["--file", &file]].concat())
}

/// Returns the exit status and the JSON output of `fleet status`.
pub fn status(sandbox: &Sandbox, machine: &str) -> (i32, Value) {
    let run = fleet(sandbox, "status", machine, &["--json"]);
    (run.status, serde_json::from_str(&run.out).unwrap_or_default())
}

/// Waits until the state of a machine is this.
#[track_caller]
pub fn wait_for(sandbox: &Sandbox, machine: &str, state: &str) -> Value {
    for _ in 0..TRIES {
        let (_, found) = status(sandbox, machine);
        if found["state"] == state {
            return found;
        }
        pause();
    }
    panic!("{machine} is not {state}: {:?}", status(sandbox, machine));
}

/// Starts agents, and lets the gates join. Returns the agents.
pub fn join<'s>(sandbox: &'s Sandbox, store: &Store, machines: &[&str]) -> Vec<Agent<'s>> {
    let start = |machine: &&str| Agent::start(sandbox, machine, store, &[]);
    let agents: Vec<_> = machines.iter().map(start).collect();
    for machine in machines {
        wait_for(sandbox, machine, "leading");
        fleet(sandbox, "join", machine, &[]).expect_status(0);
    }
    agents
}

/// Checks a key on a machine. Returns the exit status and the JSON output.
pub fn check(sandbox: &Sandbox, machine: &str, key: &str) -> (i32, Value) {
    let file = format!("{machine}/api.fleet");
    sandbox.check(&format!("{machine}/api.gate"), key, &["--fleet", &file])
}

/// Checks a key on a machine whose limit is not exhausted, and expects it to be admitted. While the
/// agent has no processor, a check is `unavailable` after its wait, and is repeated.
#[track_caller]
pub fn admit(sandbox: &Sandbox, machine: &str, key: &str) {
    for _ in 0..TRIES {
        let (status, found) = check(sandbox, machine, key);
        if status == 0 {
            return;
        }
        assert_eq!(found["outcome"], "unavailable", "{found}");
        pause();
    }
    panic!("{machine}: each check was unavailable");
}

/// Sends requests to machines in turn, until each has refused 20 in a row. Returns how many were
/// admitted, and the last refusal.
pub fn admitted(sandbox: &Sandbox, machines: &[&str], key: &str) -> (u32, Value) {
    let (mut admitted, mut refused) = (0, 0);
    loop {
        for machine in machines {
            let (status, found) = check(sandbox, machine, key);
            if status == 0 {
                (admitted, refused) = (admitted + 1, 0);
                continue;
            }
            refused += 1;
            if refused == 20 * machines.len() {
                return (admitted, found);
            }
            // Units that another machine does not need return within some time.
            pause();
        }
    }
}
