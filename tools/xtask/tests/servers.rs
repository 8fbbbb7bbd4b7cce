//! The example servers in `adapters/c`, `adapters/cpp` and `adapters/go` keep the contract, byte
//! for byte, over real HTTP.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keytally::{Gate, GateConfig, pepper};
use keytally_core::{FIELD_NAMES, Key, KeyId, Name, NewKey, Plan};

/// A running example server, with a new gate.
struct Server {
    child: Child,
    address: String,
    gate: Gate,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Creates a gate with a plan and starts the program `name` on it.
    fn start(name: &str, plan: &str) -> Self {
        let built = std::env::var_os("KEYTALLY_TEST_WORKERS")
            .expect("the suite `interop` says where the servers are");
        let built = PathBuf::from(built);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.gate");
        let secret = pepper::generate().unwrap();
        let plans = vec![Plan::new("default", plan.parse().unwrap()).unwrap()];
        let config = GateConfig::default().with_keys(100).with_plans(plans);
        let gate = Gate::create(&path, pepper::parse(&secret).unwrap(), &config).unwrap();
        let mut child = Self::command(&built, name, &path)
            .env("KEYTALLY_PEPPER", &*secret)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
        Self { child, address, gate, _folder: folder }
    }

    fn command(built: &Path, name: &str, gate: &Path) -> Command {
        let mut command = Command::new(built.join(name));
        command.arg(gate).arg("0");
        command
    }

    /// Issues a key of account 42.
    fn issue(&self) -> (Key, KeyId) {
        let new = NewKey::new(42, Name::new("live").unwrap());
        self.gate.issue(&new).unwrap()
    }

    /// Sends a GET request with these header lines. Returns the status, the sorted header fields of
    /// Keytally with `Content-Type`, and the body.
    fn get(&self, path: &str, headers: &[String]) -> (u16, Vec<String>, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let is_of_interest = |line: &&str| {
            let name = line.split(':').next().unwrap();
            FIELD_NAMES
                .iter()
                .chain(&["Content-Type"])
                .any(|known| known.eq_ignore_ascii_case(name))
        };
        let mut fields: Vec<String> = lines.filter(is_of_interest).map(str::to_owned).collect();
        fields.sort();
        (status, fields, body.to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Checks the responses of the program `name` to each kind of request.
fn check_contract(name: &str) {
    let server = Server::start(name, "3/hour, 1000/day");
    let contacts = |headers: &[String]| server.get("/api/v1/contacts", headers);
    let unauthorized = |error: &str| {
        let fields = vec![
            "Content-Type: application/json".to_owned(),
            "WWW-Authenticate: ApiKey realm=\"api\", header=\"X-API-Key\"".to_owned(),
        ];
        (401, fields, format!("{{\"error\": \"{error}\"}}"))
    };
    assert_eq!(contacts(&[]), unauthorized("Missing X-API-Key header"));
    assert_eq!(contacts(&["X-API-Key: nonsense".into()]), unauthorized("Invalid API key"));
    // An empty header is an invalid key. With cpp-httplib, which drops it, it is a missing key.
    assert_eq!(contacts(&["X-API-Key:".into()]).0, 401);

    let (key, key_id) = server.issue();
    let header = format!("x-api-KEY: {}", key.expose());
    assert_eq!(contacts(&[header.clone(), header.clone()]), unauthorized("Invalid API key"));

    for (path, status, remaining) in
        [("/api/v1/contacts", 200, 999), ("/nothing", 404, 998), ("/api/v1/contacts", 200, 997)]
    {
        let (found, fields, body) = server.get(path, core::slice::from_ref(&header));
        assert_eq!(found, status, "{body}");
        let limits = &fields[fields.len() - 3..];
        assert_eq!(limits[0], "X-RateLimit-Limit: 1000");
        assert_eq!(limits[1], format!("X-RateLimit-Remaining: {remaining}"));
        assert!(limits[2].starts_with("X-RateLimit-Reset: "));
        assert_eq!(fields.len(), 6, "{fields:?}");
    }
    let (status, fields, body) = contacts(core::slice::from_ref(&header));
    assert_eq!(
        (status, body.as_str()),
        (429, r#"{"error": "Rate limit exceeded. Please try again later."}"#)
    );
    assert!(fields.iter().any(|field| field.starts_with("Retry-After: ")));

    // A revocation by this process holds in the server.
    server.gate.revoke(key_id).unwrap();
    assert_eq!(contacts(&[header]), unauthorized("Invalid API key"));

    // The header fields list the quotas of the team, too.
    let server = Server::start(name, "3/day; team: 9/day");
    let (key, _) = server.issue();
    let (status, fields, _) =
        server.get("/api/v1/contacts", &[format!("X-API-Key: {}", key.expose())]);
    let policy = r#"RateLimit-Policy: "day";q=3;w=86400, "team-day";q=9;w=86400"#;
    assert!(status == 200 && fields.iter().any(|field| field == policy), "{fields:?}");
}

#[test]
fn server_in_c_keeps_the_contract() {
    check_contract("server_in_c");
}

#[test]
fn server_in_cpp_keeps_the_contract() {
    check_contract("server_in_cpp");
}

#[test]
fn server_in_go_keeps_the_contract() {
    check_contract("server_in_go");
}
