//! The description of the service in OpenAPI: schemathesis sends requests that it permits, and
//! compares the responses with it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(
    dead_code,
    unreachable_pub,
    reason = "a module of several tests, each of which uses a part of it"
)]
mod support;

use std::process::Command;

use support::program::Sandbox;
use support::server::Server;

#[test]
fn service_is_what_openapi_json_describes() {
    let schemathesis = std::env::var_os("KEYTALLY_TEST_SCHEMATHESIS");
    let schemathesis = schemathesis.expect("`cargo xtask test service` sets this");
    let sandbox = Sandbox::new();
    let plan = ["--plan", "default=4000000/31d", "--settle", "60s", "--failures", "off"];
    let server = Server::start(&sandbox, &plan);
    let url = format!("http://{}/openapi.json", server.address);
    let mut command = Command::new(schemathesis);
    command.args(["run", &url, "--checks=all", "--workers=1", "--no-color", "--seed=1"]);
    // The gate has no groups and no scopes, so each is refused. /auth has every method, and ignores
    // header fields that it does not know.
    let excluded = ["positive_data_acceptance", "unsupported_method", "negative_data_rejection"];
    command.arg(format!("--exclude-checks={}", excluded.join(",")));
    command.args(["-H", &format!("X-API-Key: {}", server.first_key().unwrap())]);
    command.arg("--max-examples=20");
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(sandbox.path("."));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let operations = text.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    assert_eq!(operations, Some("7"), "{text}");
}
