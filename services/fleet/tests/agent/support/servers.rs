//! Servers of Redis or Valkey, each in a folder of its own.

use core::time::Duration;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::{Cmd, Connection, Value, cmd};

use crate::support::time::now;

/// A server, which listens on a port of this machine and on a Unix socket.
pub(crate) struct Server {
    process: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

/// Returns a port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    // Above those that the kernel gives to clients, a port stays free between two starts.
    static NEXT: std::sync::OnceLock<std::sync::Mutex<u16>> = std::sync::OnceLock::new();
    let first = || {
        let process = u16::try_from(std::process::id() % 600).unwrap();
        std::sync::Mutex::new(10_000 + 20 * process)
    };
    let mut next = NEXT.get_or_init(first).lock().unwrap();
    loop {
        *next += 1;
        // The bus of a cluster has a port of its own.
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(*next) && is_free(*next + 10_000) {
            return *next;
        }
    }
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_port(), arguments)
    }

    pub(crate) fn start_at(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        let process = spawn(folder.path(), port, &arguments);
        let server = Self { process, folder, port, arguments };
        server.wait();
        server
    }

    /// Starts a Sentinel with the configuration in a file, to which it writes.
    pub(crate) fn start_sentinel(configuration: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(program());
        command.arg(configuration).arg("--sentinel").args(["--port", &port.to_string()]);
        let process = command.args(["--bind", "127.0.0.1"]).stdout(Stdio::null()).spawn().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { process, folder, port, arguments: Vec::new() }
    }

    /// Sends a command by TCP, until the server answers.
    pub(crate) fn query_by_port(&self, command: &mut Cmd) -> Value {
        let client = redis::Client::open(self.url()).unwrap();
        loop {
            let connection = client.get_connection_with_timeout(Duration::from_secs(1));
            match connection.and_then(|mut connection| command.query(&mut connection)) {
                Ok(value) => return value,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Waits until the server answers.
    fn wait(&self) {
        let since = now();
        while self.connect().is_none_or(|mut one| is_loading(&cmd("PING").query(&mut one))) {
            assert!(since.elapsed() < Duration::from_secs(10), "the server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn connect(&self) -> Option<Connection> {
        let client = redis::Client::open(format!("unix://{}", self.socket().display())).unwrap();
        client.get_connection_with_timeout(Duration::from_secs(1)).ok()
    }

    /// Sends a command as the administrator.
    pub(crate) fn query(&self, command: &mut Cmd) -> Value {
        command.query(&mut self.connect().unwrap()).unwrap()
    }

    /// Kills the server as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts a killed server again, without data.
    pub(crate) fn restart(&mut self) {
        let _ = fs::remove_file(self.socket());
        self.process = spawn(self.folder.path(), self.port, &self.arguments);
        self.wait();
    }
}

/// Returns whether the server does not answer yet. One that needs a password does.
fn is_loading(reply: &redis::RedisResult<Value>) -> bool {
    reply.as_ref().is_err_and(|error| error.is_io_error() || error.code() == Some("LOADING"))
}

fn program() -> std::ffi::OsString {
    std::env::var_os("KEYTALLY_TEST_REDIS").unwrap_or("redis-server".into())
}

fn spawn(folder: &Path, port: u16, arguments: &[String]) -> Child {
    // A server that KEYTALLY_TEST_REDIS names may be built without TLS.
    let has_tls = arguments.iter().any(|argument| argument == "--tls-port");
    let mut command = Command::new(if has_tls { "redis-server".into() } else { program() });
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "no", "--unixsocket"]).arg(folder.join("socket"));
    command.arg("--dir").arg(folder).args(arguments);
    command.stdout(Stdio::null()).spawn().expect(
        "there is no redis-server; `cargo xtask test fleet --install` installs it, and \
         KEYTALLY_TEST_REDIS names another one, such as valkey-server",
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
