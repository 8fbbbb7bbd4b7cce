//! The alert rules and the dashboard in `packaging`, in a real Prometheus that scrapes the service.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::HashSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use keytally::now;
use serde_json::Value;
use support::ports::free_port;
use support::program::Sandbox;
use support::server::Server;
use support::wire::Wire;

/// How long a test waits for Prometheus, in seconds.
const PATIENCE_S: u64 = 60;

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(file)
}

/// Ports of Prometheus, of its Pushgateway and Alertmanager, and of the exporter of machines. They
/// may be taken where the service runs.
const PORTS_OF_PROMETHEUS: [&str; 4] = ["9090", "9091", "9093", "9100"];

#[test]
fn documented_ports_for_metrics_are_not_those_of_prometheus() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut ports = Vec::new();
    for path in [
        docs.join("SERVICE.md"),
        docs.join("how-to/monitoring.md"),
        docs.join("how-to/run.md"),
        docs.join("how-to/share-limits.md"),
        packaging("compose/keytally.yaml"),
    ] {
        let text = fs::read_to_string(&path).unwrap();
        // The address follows an option, in a list also on the next line, or a target.
        for (_, rest) in ["--metrics-listen", "--metrics ", "targets: ["]
            .iter()
            .flat_map(|before| text.match_indices(before).map(|(at, _)| text.split_at(at)))
        {
            let address = rest.split(['\n', '\r']).take(2).find_map(|line| {
                let host = ["127.0.0.1:", "0.0.0.0:"].iter().find_map(|it| line.split_once(it))?;
                host.1.split(|letter: char| !letter.is_ascii_digit()).next()
            });
            ports.extend(address.map(str::to_owned));
        }
    }
    assert!(ports.len() >= 6, "{ports:?}");
    assert!(ports.iter().all(|port| !PORTS_OF_PROMETHEUS.contains(&port.as_str())), "{ports:?}");
    // All pages about the service name one port, and those about the agent another.
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 2, "{ports:?}");
}

/// A Prometheus that scrapes an address each second, and is ended when dropped.
#[derive(Debug)]
struct Prometheus {
    process: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(sandbox: &Sandbox, scraped: SocketAddr) -> Self {
        let address = ([127, 0, 0, 1], free_port()).into();
        let rules = packaging("prometheus/keytally.rules.yml");
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{job_name: keytally, static_configs: [{{targets: [\"{scraped}\"]}}]}}]\n",
            rules.canonicalize().unwrap().display()
        );
        fs::write(sandbox.path("prometheus.yml"), config).unwrap();
        let log = fs::File::create(sandbox.path("prometheus.log")).unwrap();
        let process = Command::new("prometheus")
            .current_dir(sandbox.path("."))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=series"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("cannot run prometheus; `cargo xtask test service` installs it");
        let prometheus = Self { process, address };
        let end_s = now().unix_s() + PATIENCE_S;
        while !is_ready(address) {
            let log = || fs::read_to_string(sandbox.path("prometheus.log")).unwrap_or_default();
            assert!(now().unix_s() < end_s, "{}", log());
            thread::sleep(Duration::from_millis(20));
        }
        prometheus
    }

    /// Requests a path of the API with these parameters, and returns the data of the response.
    fn data(&self, path: &str, parameters: &[&str]) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sSG", &format!("http://{}/api/v1/{path}", self.address)]);
        for parameter in parameters {
            curl.args(["--data-urlencode", parameter]);
        }
        let json: Value = serde_json::from_slice(&curl.output().unwrap().stdout).unwrap();
        assert_eq!(json["status"], "success", "{parameters:?}: {json}");
        json["data"].clone()
    }

    /// Evaluates an expression, and returns the series that it has.
    fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.data("query", &[&format!("query={expression}")]);
        data["result"].as_array().unwrap().clone()
    }
}

/// Returns whether the Prometheus at this address has read its files.
fn is_ready(address: SocketAddr) -> bool {
    let stream = TcpStream::connect(address);
    stream.is_ok_and(|stream| Wire::over(stream).request("GET /-/ready", &[]).code() == 200)
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the expressions of the dashboard, without its variables.
fn expressions_of_the_dashboard() -> Vec<String> {
    let text = fs::read_to_string(packaging("grafana/keytally.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap().clone());
    let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    expressions
        .map(|text| text.replace("$__rate_interval", "1m").replace("$instance", ".*"))
        .collect()
}

/// Returns the panels of the dashboard that lie over each other, or beyond its 24 columns.
fn misplaced_panels(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let edges = |panel: &Value| {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|it| panel["gridPos"][it].as_u64().unwrap());
        (x, x + w, y, y + h)
    };
    let title = |panel: &Value| panel["title"].as_str().unwrap().to_owned();
    let mut found = Vec::new();
    for (index, panel) in panels.iter().enumerate() {
        let (left, right, top, bottom) = edges(panel);
        let overlaps = panels[..index].iter().any(|other| {
            let (its_left, its_right, its_top, its_bottom) = edges(other);
            left < its_right && its_left < right && top < its_bottom && its_top < bottom
        });
        if overlaps || right > 24 || left == right || top == bottom {
            found.push(title(panel));
        }
    }
    found
}

#[test]
fn dashboard_has_distinct_panels_and_known_variables() {
    let text = fs::read_to_string(packaging("grafana/keytally.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(misplaced_panels(&dashboard), [""; 0]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: HashSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|it| it["name"].as_str().unwrap()).collect();
    for panel in panels {
        let source = &panel["datasource"];
        assert_eq!(
            (&source["type"], &source["uid"]),
            (&"prometheus".into(), &"${datasource}".into())
        );
        let targets = panel["targets"].as_array().unwrap();
        let references: HashSet<_> = targets.iter().map(|it| it["refId"].as_str()).collect();
        assert_eq!(references.len(), targets.len(), "{panel}");
    }
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    for part in text.split('$').skip(1) {
        let name: String =
            part.trim_start_matches('{').chars().take_while(|&it| is_part(it)).collect();
        let is_built_in = name.starts_with("__");
        assert!(is_built_in || names.contains(&name.as_str()), "{name} is not a variable");
    }
}

/// Returns the names of metrics in a text.
fn metrics(text: &str) -> Vec<&str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    words.filter(|word| word.starts_with("keytally_")).collect()
}

#[test]
fn examples_of_alert_rules_pass_in_promtool() {
    let folder = packaging("prometheus");
    let mut promtool = Command::new("promtool");
    promtool.current_dir(folder).args(["test", "rules", "keytally.tests.yml"]);
    let output = promtool.output().expect("cannot run promtool");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn prometheus_finds_every_metric_of_rules_and_dashboard() {
    let sandbox = Sandbox::new();
    let plan = ["--plan", "default=3/31d warn 50%", "--settle", "60s", "--metrics-keys", "10"];
    let server = Server::start(&sandbox, &plan);
    let key = format!("X-API-Key: {}", server.first_key().unwrap());
    let mut wire = Wire::to(server.address);
    let mut get = |lines: &[&[u8]]| wire.request("GET /api/v1/contacts", lines).code();
    // Two more are refused than the plan and the limit of invalid keys admit.
    assert_eq!([(); 5].map(|()| get(&[key.as_bytes()])), [200, 200, 200, 429, 429]);
    assert_eq!(get(&[b"X-API-Key: wrong"]), 401);
    let prometheus = Prometheus::start(&sandbox, server.address);

    // A rate needs two scrapes.
    let end_s = now().unix_s() + PATIENCE_S;
    let scrapes = "count_over_time(up{job=\"keytally\"}[1m])";
    let are_enough = |series: &Value| series["value"][1].as_str().is_some_and(|count| count != "1");
    while !prometheus.query(scrapes).first().is_some_and(are_enough) {
        assert!(now().unix_s() < end_s, "the service is not scraped");
        thread::sleep(Duration::from_millis(50));
    }
    let expressions = expressions_of_the_dashboard();
    assert!(expressions.len() > 10, "{expressions:?}");
    for expression in &expressions {
        assert!(!prometheus.query(expression).is_empty(), "no series: {expression}");
    }
    let rules = fs::read_to_string(packaging("prometheus/keytally.rules.yml")).unwrap();
    for metric in metrics(&rules) {
        assert!(!prometheus.query(metric).is_empty(), "no series: {metric}");
    }
    let groups = prometheus.data("rules", &[])["groups"].clone();
    let loaded = groups[0]["rules"].as_array().unwrap();
    assert_eq!(loaded.len(), rules.matches("- alert:").count());
    for rule in loaded {
        assert_eq!(rule["lastError"].as_str().unwrap_or_default(), "", "{rule}");
    }
}

#[test]
fn guide_explains_every_alert() {
    let rules = fs::read_to_string(packaging("prometheus/keytally.rules.yml")).unwrap();
    let guide = include_str!("../../../docs/how-to/monitoring.md");
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10);
    for alert in alerts {
        assert!(guide.contains(&format!("| `{alert}` |")), "{alert}");
    }
}
