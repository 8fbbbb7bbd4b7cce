//! The configurations of proxies in `docs/SERVICE.md`, in real proxies with the real service.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use support::ports::free_port;
use support::program::Sandbox;
use support::server::Server;
use support::wire::{Reply, Wire};

/// The socket of the service in the documentation.
const SOCKET: &str = "/run/keytally/api.socket";

/// The headers in which `/auth` names the holder of a key.
const IDENTITY: [&str; 4] = ["X-Account-Id", "X-Key-Id", "X-Key-Env", "X-Key-Plan"];

const PLAN: [&str; 2] = ["--plan", "default=1000/31d"];

/// A running proxy, which is ended when dropped.
#[derive(Debug)]
struct Proxy {
    process: Child,
    port: u16,
}

impl Proxy {
    /// Starts nginx with these lines in `http`, in which PORT stands for its port.
    fn nginx(sandbox: &Sandbox, http: &str) -> Self {
        let folder = sandbox.path(".").canonicalize().unwrap();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path tmp;"))
            .concat();
        let config = format!(
            "{user} pid nginx.pid; events {{}}\nhttp {{ access_log off; {temporary}\n\
             upstream service {{ server unix:{}; }}\n{http} }}",
            folder.join("upstream").display()
        );
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(folder.join("proxy.conf"));
        command.arg("-e").arg(folder.join("proxy.log")).args(["-g", "daemon off;"]);
        Self::start(sandbox, &config, command)
    }

    /// Starts Caddy with these lines in its site.
    fn caddy(sandbox: &Sandbox, site: &str) -> Self {
        let upstream = sandbox.path("upstream").canonicalize().unwrap();
        let site = site.replace("service:8000", &format!("unix/{}", upstream.display()));
        let config =
            format!("{{\nadmin off\nauto_https off\n}}\nhttp://:PORT {{\nbind 127.0.0.1\n{site}}}");
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config", "proxy.conf"]);
        command.env("HOME", sandbox.path("."));
        Self::start(sandbox, &config, command)
    }

    /// Starts HAProxy with this configuration and script.
    fn haproxy(sandbox: &Sandbox, config: &str, script: &str) -> Self {
        let folder = sandbox.path(".").canonicalize().unwrap();
        let path = folder.join("keytally.lua");
        fs::write(&path, at(&folder, script)).unwrap();
        let upstream = format!("unix@{}", folder.join("upstream").display());
        let config = config
            .replace("/etc/haproxy/keytally.lua", &path.display().to_string())
            .replace("bind :8080", "bind 127.0.0.1:PORT")
            .replace("service:8000", &upstream);
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f", "proxy.conf"]);
        Self::start(sandbox, &config, command)
    }

    /// Writes the configuration, in which PORT stands for the port of the proxy, and starts it.
    fn start(sandbox: &Sandbox, config: &str, mut command: Command) -> Self {
        let port = free_port();
        let folder = sandbox.path(".").canonicalize().unwrap();
        let config = at(&folder, &config.replace("PORT", &port.to_string()));
        fs::write(folder.join("proxy.conf"), config).unwrap();
        let log = || fs::File::options().create(true).append(true).open(folder.join("proxy.log"));
        let process = command
            .current_dir(&folder)
            .stdout(log().unwrap())
            .stderr(log().unwrap())
            .spawn()
            .expect("cannot run a proxy; `cargo xtask test service` installs what the tests need");
        let proxy = Self { process, port };
        for _ in 0..500 {
            if TcpStream::connect(proxy.address()).is_ok() {
                return proxy;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{}", fs::read_to_string(folder.join("proxy.log")).unwrap_or_default());
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    fn get(&self, path: &str, lines: &[&str]) -> Reply {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        Wire::to(self.address()).request(&format!("GET {path}"), &lines)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that the master of nginx ends its workers.
        let process = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

/// Replaces the path of the socket of the service by that in `folder`.
fn at(folder: &Path, text: &str) -> String {
    text.replace(SOCKET, &folder.join("socket").display().to_string())
}

/// Starts the service behind the proxy. It responds with the status that the path names, sends the
/// header lines of each request to the returned channel, and closes the connection for `/closed`.
fn upstream(sandbox: &Sandbox) -> Receiver<Vec<String>> {
    let listener = UnixListener::bind(sandbox.path("upstream")).unwrap();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if serve(stream.unwrap(), &sender).is_none() {
                return;
            }
        }
    });
    requests
}

/// Serves a request. Returns `None` if the test has ended.
fn serve(stream: UnixStream, requests: &Sender<Vec<String>>) -> Option<()> {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let fields: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    requests.send(fields).ok()?;
    let status = request.split(['/', ' ']).nth(2).unwrap_or_default();
    if status != "closed" {
        // The service must not show the charge, and the proxy hides it.
        let fields = "X-Keytally-Charge: secret\r\nContent-Length: 2\r\nConnection: close";
        let _ = write!(&stream, "HTTP/1.1 {status} Any\r\n{fields}\r\n\r\nok");
    }
    Some(())
}

/// Returns the value of a header that the service behind the proxy received.
fn value<'l>(lines: &'l [String], name: &str) -> Option<&'l str> {
    let mut values = lines.iter().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    });
    let first = values.next();
    assert_eq!(values.next(), None, "{name} is there twice: {lines:?}");
    first
}

/// Returns the configurations of the page in this language.
fn configurations(language: &str) -> Vec<&'static str> {
    let page = include_str!("../../../docs/SERVICE.md");
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The documented configurations of three proxies.
const DOCUMENTED: [&str; 5] = ["nginx", "nginx, costs", "nginx, outcomes", "caddy", "haproxy"];

/// Starts a proxy with one of the documented configurations.
fn documented(sandbox: &Sandbox, name: &str) -> Proxy {
    let nginx = configurations("nginx");
    let server = |lines: &str| format!("server {{ listen 127.0.0.1:PORT;\n{lines} }}");
    match name {
        "nginx" => Proxy::nginx(sandbox, &server(nginx[0])),
        "nginx, costs" => {
            let refused = &nginx[0][nginx[0].find("location @refused").unwrap()..];
            let lines = format!("{}\n{refused}", nginx[1]);
            Proxy::nginx(sandbox, &server(&lines.replace("/messages {", "/200/messages {")))
        }
        "nginx, outcomes" => {
            let listen = "server { listen 127.0.0.1:PORT;\n";
            Proxy::nginx(sandbox, &nginx[2].replace("server {\n", listen))
        }
        "caddy" => Proxy::caddy(sandbox, configurations("caddy")[0]),
        "haproxy" => {
            let script = configurations("lua")[0];
            Proxy::haproxy(sandbox, configurations("haproxy")[0], script)
        }
        _ => panic!("no such configuration: {name}"),
    }
}

fn start(sandbox: &Sandbox, more: &[&str]) -> Server {
    Server::start_at(sandbox, "unix:socket", &[&PLAN[..], more].concat(), &[])
}

/// Returns the units that remain of the key, by the service itself.
fn remaining(sandbox: &Sandbox, key: &str) -> u32 {
    let line = format!("X-API-Key: {key}");
    let mut wire = Wire::to_socket(&sandbox.path("socket"));
    let reply = wire.request("GET /api/v1/limits", &[line.as_bytes()]);
    reply.header("X-RateLimit-Remaining").parse().unwrap()
}

/// Asserts that this many units remain, at the latest after a second: nginx settles a charge after
/// it has sent the response.
#[track_caller]
fn await_remaining(sandbox: &Sandbox, key: &str, expected: u32) {
    for _ in 0..50 {
        if remaining(sandbox, key) == expected {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(remaining(sandbox, key), expected);
}

/// Sends requests without and with a key through a proxy, and claims of a client. `refusal` is a
/// part of the body that a wrong key gets, and `unreachable` the status without the service.
fn forwards_the_holder_of_a_key(refusal: &str, unreachable: u16, name: &str) -> Proxy {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &[]);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let requests = upstream(&sandbox);
    let proxy = documented(&sandbox, name);
    let claims = [
        "X-Account-Id: 7",
        "X-Key-Id: 7",
        "X-Key-Env: 7",
        "X-Key-Plan: 7",
        "X-Cost: 7",
        "X-Group: 7",
        "X-Need: 7",
        "X-Keytally-Charge: 7",
        "X-Keytally-Shadow: 7",
        // Many frameworks read these names as those with hyphens.
        "X_Account_Id: 7",
        "X-Account_Id: 7",
        "x_key_plan: 7",
    ];
    assert_eq!(proxy.get("/200", &claims).code(), 401);
    assert_eq!(proxy.get("/200", &[&[key.as_str()][..], &claims].concat()).code(), 200);
    let lines = requests.recv().unwrap();
    for (name, expected) in
        [("X-Account-Id", "1"), ("X-Key-Env", "live"), ("X-Key-Plan", "default")]
    {
        assert_eq!(value(&lines, name), Some(expected));
    }
    assert_eq!(value(&lines, "X-Key-Id").map(str::len), Some(11));
    assert!(!lines.iter().any(|line| line.ends_with(": 7")), "a claim was forwarded: {lines:?}");
    assert_eq!(value(&lines, "X-API-Key"), None, "the service gets no key");
    assert!(requests.try_recv().is_err(), "a refused request was forwarded");
    // The cost that the client stated was not charged.
    let first_key = key.strip_prefix("X-API-Key: ").unwrap();
    assert_eq!(remaining(&sandbox, first_key), 999);
    let wrong = proxy.get("/200", &["X-API-Key: wrong"]);
    assert!(wrong.code() == 401 && wrong.body.contains(refusal), "{wrong:?}");
    // A request over the limit.
    let mut wire = Wire::to_socket(&sandbox.path("socket"));
    let rest = wire.request("GET /auth", &[key.as_bytes(), b"X-Cost: 999"]);
    assert_eq!((rest.code(), remaining(&sandbox, first_key)), (200, 0));
    let denied = proxy.get("/200", &[&key]);
    assert_eq!((denied.code(), denied.body.as_str()), (429, support::EXCEEDED), "{denied:?}");
    // HAProxy sends names in lower case.
    let field = |name: &str| {
        let mut fields = denied.headers.iter();
        let (_, value) = fields.find(|(other, _)| other.eq_ignore_ascii_case(name)).unwrap();
        value.as_str()
    };
    assert!((1..=31 * 86_400).contains(&field("Retry-After").parse::<u32>().unwrap()));
    assert_eq!(field("Content-Type"), "application/json");
    drop(server);
    assert_eq!(proxy.get("/200", &[&key]).code(), unreachable, "without the service");
    assert!(requests.try_recv().is_err(), "an unchecked request was forwarded");
    proxy
}

#[test]
fn documented_nginx_forwards_the_holder_of_a_key() {
    let proxy = forwards_the_holder_of_a_key("401", 503, "nginx");
    assert_eq!(proxy.get("/auth", &[]).code(), 404);
    let unreachable = proxy.get("/200", &["X-API-Key: any"]);
    assert_eq!(unreachable.body, r#"{"error": "Service unavailable"}"#);
    assert!(!unreachable.has("Retry-After"), "{unreachable:?}");
}

#[test]
fn documented_nginx_passes_on_503_with_its_retry_after() {
    let sandbox = Sandbox::new();
    // The other cause of 503 is a migration, or a fleet without credits.
    let busy = r#"{"denied": {"status": 503, "body": "busy"}}"#;
    fs::write(sandbox.path("refusals.json"), busy).unwrap();
    let options = ["--refusals", "refusals.json", "--plan", "default=1/31d"];
    let server = Server::start_at(&sandbox, "unix:socket", &options, &[]);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let _requests = upstream(&sandbox);
    let nginx = documented(&sandbox, "nginx");
    assert_eq!(nginx.get("/200", &[&key]).code(), 200);
    let busy = nginx.get("/200", &[&key]);
    assert_eq!(busy.code(), 503, "{busy:?}");
    assert!(busy.header("Retry-After").parse::<u32>().unwrap() > 0);
    // A response of the service behind the proxy is not replaced.
    let other = sandbox.new_key(&["--account", "42"]).0;
    let failed = nginx.get("/500", &[&format!("X-API-Key: {other}")]);
    assert_eq!((failed.code(), failed.body.as_str()), (500, "ok"));
}

#[test]
fn documented_caddy_forwards_the_holder_of_a_key() {
    forwards_the_holder_of_a_key(support::INVALID, 502, "caddy");
}

#[test]
fn documented_haproxy_forwards_the_holder_of_a_key() {
    forwards_the_holder_of_a_key(support::INVALID, 503, "haproxy");
}

/// A proxy must not forward a header that the client names in `Connection` (RFC 9110, section
/// 7.6.1). The identity headers are not those of the client.
#[test]
fn documented_proxies_keep_headers_named_in_connection() {
    for name in DOCUMENTED {
        let sandbox = Sandbox::new();
        let server = start(&sandbox, &["--settle", "60s"]);
        let key = format!("X-API-Key: {}", server.first_key().unwrap());
        let requests = upstream(&sandbox);
        let proxy = documented(&sandbox, name);
        let all = format!("Connection: {}", IDENTITY.join(", "));
        let upgrade = format!("Connection: {}, Upgrade", IDENTITY[0]);
        let of_upgrade =
            [&*upgrade, "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
        for claims in [&[&*all][..], &[&*all, "Connection: close"], &of_upgrade] {
            let reply = proxy.get("/200", &[&[key.as_str()][..], claims].concat());
            assert_eq!(reply.code(), 200, "{name}: {reply:?}");
            let lines = requests.recv().unwrap();
            for header in IDENTITY {
                assert!(
                    value(&lines, header).is_some_and(|it| !it.is_empty()),
                    "{name}: {lines:?}"
                );
            }
            let connection = value(&lines, "Connection").unwrap_or_default().to_lowercase();
            assert!(!connection.contains("x-"), "{name}: {lines:?}");
            // A WebSocket needs both headers. nginx has its own directives for them.
            let upgrades = claims == of_upgrade && !name.starts_with("nginx");
            assert_eq!(value(&lines, "Upgrade"), upgrades.then_some("websocket"), "{name}");
            assert_eq!(connection == "upgrade", upgrades, "{name}: {lines:?}");
        }
    }
}

#[test]
fn documented_proxies_forward_the_address_of_a_guess() {
    for name in DOCUMENTED {
        let sandbox = Sandbox::new();
        let more = ["--settle", "60s", "--failures", "2/31d", "--trusted-proxy", "unix"];
        let _server = start(&sandbox, &more);
        let _requests = upstream(&sandbox);
        let proxy = documented(&sandbox, name);
        let codes = [1, 2, 3].map(|host| {
            let claim = format!("X-Forwarded-For: 203.0.113.{host}");
            proxy.get("/200", &["X-API-Key: wrong", &claim]).code()
        });
        assert_eq!(codes, [401, 401, 429], "{name}");
    }
}

#[test]
fn documented_proxy_states_groups_and_scopes() {
    let sandbox = Sandbox::new();
    let plan = "default=1000/31d; team: 900/31d; group write: 50/31d; group tokens: 6000/31d";
    let options = ["--plan", plan, "--scope", "read", "--scope", "write"];
    let _server = Server::start_at(&sandbox, "unix:socket", &options, &[]);
    let issue = |scope| sandbox.new_key(&["--account", "42", "--scope", scope]).0;
    let [reader, writer] = ["read", "write"].map(|scope| format!("X-API-Key: {}", issue(scope)));
    let requests = upstream(&sandbox);
    let nginx = documented(&sandbox, "nginx, costs");
    for claim in ["X-Need: write", "X-Group: none", "X-Cost: 5"] {
        let account = "X-Account-Id: 7";
        assert_eq!(nginx.get("/200", &[&reader, claim, account]).code(), 200, "{claim}");
        let lines = requests.recv().unwrap();
        assert_eq!(value(&lines, "X-Account-Id"), Some("42"));
        let (name, _) = claim.split_once(": ").unwrap();
        assert_eq!([name, "X-API-Key"].map(|name| value(&lines, name)), [None; 2]);
    }
    assert_eq!(nginx.get("/200/messages", &[&reader]).code(), 403);
    for claim in ["X-Need: read", "X-Group: tokens=0"] {
        assert_eq!(nginx.get("/200/messages", &[&writer, claim]).code(), 200, "{claim}");
    }
    // There is no room for a third cost of 2,500 tokens.
    let denied = nginx.get("/200/messages", &[&writer]);
    assert!(denied.code() == 429 && denied.has("Retry-After"), "{denied:?}");
    assert_eq!(nginx.get("/200", &[&writer]).code(), 200);
    let mut wire = Wire::to_socket(&sandbox.path("socket"));
    let lines: [&[u8]; 2] = [writer.as_bytes(), b"X-Group: write"];
    let limits = wire.request("GET /auth", &lines).header("RateLimit").to_owned();
    for part in ["s\";r=996", "\"team-2678400s\";r=893", "\"write-2678400s\";r=47"] {
        assert!(limits.contains(part), "{part} is not in {limits}");
    }
}

#[test]
fn documented_proxy_returns_the_charge_of_a_failure() {
    let sandbox = Sandbox::new();
    let server = start(&sandbox, &["--settle", "60s"]);
    let key = server.first_key().unwrap();
    let line = format!("X-API-Key: {key}");
    let requests = upstream(&sandbox);
    let nginx = documented(&sandbox, "nginx, outcomes");
    let mut left = 1000;
    let mut charges = Vec::new();
    for (path, status, cost) in [
        ("/200", 200, 1),
        ("/404", 404, 1),
        ("/500", 500, 0),
        ("/closed", 502, 0),
        ("/503", 503, 0),
        ("/201", 201, 1),
    ] {
        let claims = ["X-Keytally-Charge: mine", "X-Account-Id: 7", "X-Cost: 7"];
        let reply = nginx.get(path, &[&[line.as_str()][..], &claims].concat());
        assert_eq!(reply.code(), status, "{path}");
        assert!(!reply.has("X-Keytally-Charge"), "{reply:?}");
        left -= cost;
        await_remaining(&sandbox, &key, left);
        let lines = requests.recv().unwrap();
        let charge = value(&lines, "X-Keytally-Charge").unwrap().to_owned();
        assert_eq!(charge.len(), 116);
        let found = ["X-Account-Id", "X-Cost", "X-API-Key"].map(|name| value(&lines, name));
        assert_eq!(found, [Some("1"), None, None]);
        charges.push((charge, cost));
    }
    // A client reaches neither location, and a refused request has no charge.
    for path in ["/auth", "/settle"] {
        assert_eq!(nginx.get(path, &[&line]).code(), 404);
    }
    assert_eq!(nginx.get("/500", &[]).code(), 401);
    let mut wire = Wire::to_socket(&sandbox.path("socket"));
    let rest = format!("X-Cost: {left}");
    let taken = wire.request("GET /auth", &[line.as_bytes(), rest.as_bytes()]);
    let taken = taken.header("X-Keytally-Charge").to_owned();
    assert_eq!(nginx.get("/500", &[&line]).code(), 429);
    charges.push((taken, left));
    // The service behind the proxy settles its own charges, those that nginx did not settle.
    for (charge, cost) in charges {
        let lines = [format!("X-Keytally-Charge: {charge}"), "X-Cost: 0".to_owned()];
        let mut wire = Wire::to_socket(&sandbox.path("socket"));
        let reply = wire.request("POST /settle", &lines.each_ref().map(|line| line.as_bytes()));
        assert_eq!(reply.code(), if cost == 0 { 409 } else { 200 });
    }
    assert_eq!(remaining(&sandbox, &key), 1000);
}
