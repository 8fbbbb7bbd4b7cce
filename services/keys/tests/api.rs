//! The JSON API: every role on every route, every invalid value, and where secrets appear.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use alloc::collections::BTreeSet;
use std::fs;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use keytally::{Outcome, now};
use keytally_keys::api::{Api, PREFIX, description, router};
use keytally_keys::roles::Role;
use serde_json::{Value, json};
use support::{Site, operator};
use tower::ServiceExt as _;

/// A list with its API, and two teams.
struct Portal {
    site: Site,
    api: Router,
    /// The token of an operator.
    operator: String,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Asserts a problem of this status whose sentence begins with this text.
    #[track_caller]
    fn expect_problem(self, status: u16, begin: &str) -> Value {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.expect(status);
        let detail = problem["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(begin), "{detail:?} does not begin with {begin:?}");
        assert_eq!(problem["status"], status);
        problem
    }
}

impl Portal {
    async fn new() -> Self {
        let site = Site::new().await;
        let api = router(Api::new(site.list.clone(), "https://keys.example/", now));
        let token = site.list.create_token(None, Role::Operator, "test", operator()).await;
        let operator = token.unwrap().0.expose().to_owned();
        let portal = Self { site, api, operator };
        for name in ["Acme", "Other"] {
            portal.post(&portal.operator, "teams", json!({ "name": name })).await.expect(201);
        }
        portal
    }

    /// Returns a token of a team.
    async fn token(&self, team: u32, role: Role) -> String {
        let token = self.site.list.create_token(Some(team), role, role.as_str(), operator()).await;
        token.unwrap().0.expose().to_owned()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.api.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = Request::builder().method(method).uri(format!("{PREFIX}/{path}"));
        let request = request.header("X-API-Key", token);
        let request = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json");
                request.body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    async fn get(&self, token: &str, path: &str) -> Answer {
        self.call(token, "GET", path, None).await
    }

    async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.call(token, "POST", path, Some(body)).await
    }

    /// Creates a key. Returns the key and its id.
    async fn create(&self, token: &str, env: &str) -> (String, String) {
        let key =
            self.post(token, "keys", json!({ "name": "billing", "env": env })).await.expect(201);
        [&key["key"], &key["key_id"]].map(|text| text.as_str().unwrap().to_owned()).into()
    }
}

/// A route: its method, its path in the description, the least role, and a body with which it
/// succeeds.
type Route = (&'static str, &'static str, Role, Option<&'static str>);

const ROUTES: &[Route] = &[
    ("get", "/keys", Role::Viewer, None),
    ("post", "/keys", Role::Member, Some(r#"{"name": "a", "env": "test"}"#)),
    ("get", "/keys/{id}", Role::Viewer, None),
    ("patch", "/keys/{id}", Role::Admin, Some(r#"{"note": "b"}"#)),
    ("post", "/keys/{id}/rotate", Role::Member, Some(r#"{"grace_s": 60}"#)),
    ("post", "/keys/{id}/end-grace", Role::Member, None),
    ("post", "/keys/{id}/revoke", Role::Admin, Some("{}")),
    ("post", "/keys/revoke", Role::Admin, Some(r#"{"key_ids": ["{id}"]}"#)),
    ("get", "/keys/{id}/usage", Role::Viewer, None),
    ("get", "/usage", Role::Viewer, None),
    ("get", "/plans", Role::Viewer, None),
    ("get", "/teams", Role::Operator, None),
    ("post", "/teams", Role::Operator, Some(r#"{"name": "New"}"#)),
    ("get", "/team", Role::Viewer, None),
    ("patch", "/team", Role::Owner, Some(r#"{"name": "Renamed"}"#)),
    ("get", "/members", Role::Viewer, None),
    ("post", "/members", Role::Owner, Some(r#"{"name": "ann", "role": "viewer"}"#)),
    ("delete", "/members/{user}", Role::Owner, None),
    ("get", "/tokens", Role::Owner, None),
    ("post", "/tokens", Role::Owner, Some(r#"{"name": "t", "role": "viewer"}"#)),
    ("delete", "/tokens/{id}", Role::Owner, None),
    ("post", "/sessions", Role::Owner, Some(r#"{"user": "bob", "role": "member"}"#)),
    ("get", "/log", Role::Viewer, None),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_role_has_exactly_its_routes() {
    // The table has every route of the description, and no other.
    let description = serde_json::to_value(description()).unwrap();
    let described: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (method.clone(), path.clone()))
        })
        .collect();
    let listed: BTreeSet<_> = ROUTES
        .iter()
        .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, listed);
    // The description has every route of the router: `routes!` adds both, and only the description
    // itself is added otherwise.
    let source = include_str!("../src/api.rs");
    let others = source.matches(", any(no_route))").count();
    assert_eq!((source.matches(".route(").count(), others), (4, 3));
    assert!(source.contains(".route(\"/openapi.json\""));

    let portal = Portal::new().await;
    let admin_of_other = portal.token(2, Role::Admin).await;
    for role in Role::ALL {
        let token = match role {
            Role::Operator => portal.operator.clone(),
            _ => portal.token(1, role).await,
        };
        for &(method, path, least, body) in ROUTES {
            let name = format!("{} on {method} {path}", role.as_str());
            // A key, a member and a token to change, of the caller's team and of another one.
            for team in [1, 2] {
                let admin = format!("keys?team={team}");
                let body_of_key = json!({ "name": "k", "env": "test" });
                let key = portal.post(&portal.operator, &admin, body_of_key).await.expect(201);
                let mut id = key["key_id"].as_str().unwrap().to_owned();
                if path.starts_with("/tokens") {
                    let tokens = format!("tokens?team={team}");
                    let body = json!({ "name": "t", "role": "viewer" });
                    let token = portal.post(&portal.operator, &tokens, body).await.expect(201);
                    id = token["token"].as_str().unwrap().to_owned();
                }
                let members = format!("members?team={team}");
                let name_of_user = format!("user {team}");
                let body_of_user = json!({ "name": name_of_user, "role": "viewer" });
                let member =
                    portal.post(&portal.operator, &members, body_of_user).await.expect(200);
                let user = member["user"].to_string();
                let has_id = path.contains('{') || body.is_some_and(|body| body.contains("{id}"));
                if team == 2 && !has_id {
                    continue;
                }
                let fill = |text: &str| text.replace("{id}", &id).replace("{user}", &user);
                let mut path = fill(path.trim_start_matches('/'));
                if role == Role::Operator {
                    path.push_str("?team=1");
                }
                let body = body.map(|body| serde_json::from_str(&fill(body)).unwrap());
                let answer = portal.call(&token, &method.to_uppercase(), &path, body).await;
                let expected = if role < least {
                    403
                } else if team == 2 {
                    404
                } else {
                    answer.status
                };
                assert_eq!(answer.status, expected, "{name}, team {team}: {answer:?}");
                if role >= least && team == 1 {
                    assert!((200..300).contains(&answer.status), "{name}: {answer:?}");
                }
                assert_eq!(answer.headers["cache-control"], "no-store");
            }
        }
    }
    for &(method, path, ..) in ROUTES {
        let path =
            path.trim_start_matches('/').replace("{id}", "0000000000A").replace("{user}", "1");
        for token in ["", "kt_admin_x", &"A".repeat(300)] {
            let answer = portal.call(token, &method.to_uppercase(), &path, None).await;
            answer.expect_problem(401, "the header X-API-Key needs an admin token");
        }
    }
    // A team's token names no other team, not even one that is not there.
    for team in [2, 99] {
        let answer = portal.get(&admin_of_other, &format!("keys?team={}", team + 100)).await;
        answer.expect_problem(404, "there is no team");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_foreign_ids_have_one_answer() {
    let portal = Portal::new().await;
    let (mine, other) = (portal.token(1, Role::Owner).await, portal.token(2, Role::Owner).await);
    let (_, foreign) = portal.create(&other, "test").await;
    let role = json!({ "name": "t", "role": "viewer" });
    let token = portal.post(&other, "tokens", role.clone()).await.expect(201);
    let token = token["token"].as_str().unwrap().to_owned();
    let user = portal.post(&other, "members", role).await.expect(200)["user"].to_string();
    let mut routes = 0;
    for &(method, path, _, body) in ROUTES {
        let (placeholder, foreign, unknown) = match path {
            _ if path.contains("{user}") => ("{user}", &user, "999"),
            _ if path.starts_with("/tokens/") => ("{id}", &token, "0000000000A"),
            _ if path.contains("{id}") || body.is_some_and(|body| body.contains("{id}")) => {
                ("{id}", &foreign, "0000000000A")
            }
            _ => continue,
        };
        routes += 1;
        let mut answers = Vec::new();
        for id in [foreign, unknown] {
            let path = path.trim_start_matches('/').replace(placeholder, id);
            let body = body.map(|body| serde_json::from_str(&body.replace(placeholder, id)));
            let body = body.map(|body| body.unwrap());
            let answer = portal.call(&mine, &method.to_uppercase(), &path, body).await;
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
            // The others count the caller's requests.
            let fields: Vec<_> = ["content-type", "cache-control", "x-content-type-options"]
                .map(|name| answer.headers.get(name).cloned())
                .into();
            answers.push((answer.text.replace(id, "ID"), fields));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
    }
    assert_eq!(routes, 9);
    // Nothing of the other team has changed.
    let key = portal.get(&other, &format!("keys/{foreign}")).await.expect(200);
    assert_eq!((&key["state"], &key["note"]), (&json!("active"), &json!("")));
    let tokens = portal.get(&other, "tokens").await.expect(200);
    assert!(tokens["tokens"].as_array().unwrap().iter().all(|token| token["revoked"].is_null()));
    for id in [2, 999] {
        let answer = portal.get(&mine, &format!("keys?team={id}")).await;
        let problem = answer.expect_problem(404, "there is no team");
        assert_eq!(problem["detail"], format!("there is no team {id}"));
    }
    let log = portal.get(&mine, &format!("log?key={foreign}")).await.expect(200);
    assert_eq!(log["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn last_owner_stays_and_a_session_changes_no_role() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let member = |role: &str| json!({ "name": "ann", "role": role });
    let ann = portal.post(&token, "members", member("owner")).await.expect(200);
    let path = format!("members/{}", ann["user"]);
    for (token, query) in [(&token, ""), (&portal.operator, "?team=1")] {
        let refused = portal.post(token, &format!("members{query}"), member("viewer")).await;
        refused.expect_problem(409, "the team would have no owner");
        let refused = portal.call(token, "DELETE", &format!("{path}{query}"), None).await;
        refused.expect_problem(409, "the team would have no owner");
        let session = json!({ "user": "ann", "role": "viewer" });
        let link = portal.post(token, &format!("sessions{query}"), session).await.expect(201);
        assert_eq!(link["role"], "viewer");
        let members = portal.get(token, &format!("members{query}")).await.expect(200);
        assert_eq!(members["members"][0]["role"], "owner");
    }
    // A session for more than the member's role has the member's role.
    let body = json!({ "name": "bob", "role": "member" });
    portal.post(&token, "members", body).await.expect(200);
    let session = json!({ "user": "bob", "role": "admin" });
    let link = portal.post(&token, "sessions", session).await.expect(201);
    assert_eq!(link["role"], "member");
    let members = portal.get(&token, "members").await.expect(200);
    assert_eq!(members["members"][1]["role"], "member");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_is_filtered_by_parameters() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let (_, id) = portal.create(&token, "test").await;
    portal.create(&token, "test").await;
    let actions = async |path: &str| {
        let log = portal.get(&token, path).await.expect(200);
        let actions =
            log["entries"].as_array().unwrap().iter().map(|entry| entry["action"].clone());
        actions.collect::<Vec<_>>()
    };
    let own = format!("token+{}", &token[9..20]);
    assert_eq!(actions(&format!("log?actor={own}")).await, ["key.create", "key.create"]);
    assert_eq!(actions(&format!("log?actor={own}&key={id}")).await, ["key.create"]);
    assert_eq!(actions("log?actor=operator&action=token").await, ["token.create"]);
    assert_eq!(actions("log?actor=unknown").await, [""; 0]);
    assert_eq!(actions("log?action=key.create&limit=1").await, ["key.create"]);
    assert_eq!(actions("log?action=team").await, ["team.create"]);
    assert_eq!(actions("log?to=2026-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(actions("log?from=2026-01-01T00:00:00Z&action=key").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_sorted_page_by_page() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    for name in ["b é&=", "C", "a", "d"] {
        let body = json!({ "name": name, "env": "test" });
        portal.post(&token, "keys", body).await.expect(201);
    }
    for (sort, expected) in [("name", "abcd"), ("-name", "dcba")] {
        let (mut path, mut found) = (format!("keys?sort={sort}&limit=1"), String::new());
        loop {
            let page = portal.get(&token, &path).await.expect(200);
            let name = page["keys"][0]["name"].as_str().unwrap();
            found.extend(name.to_lowercase().chars().next());
            // The cursor needs no escape.
            let Some(next) = page["next"].as_str() else { break };
            path = format!("keys?sort={sort}&limit=1&after={next}");
        }
        assert_eq!(found, expected);
    }
    let page = portal.get(&token, "keys?flag=never_expires&sort=expires").await.expect(200);
    assert_eq!(page["keys"].as_array().unwrap().len(), 4);
    let page = portal.get(&token, "keys?flag=unused").await.expect(200);
    assert_eq!(page["keys"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_team_are_changed_by_its_owner() {
    let portal = Portal::new().await;
    let (owner, member) = (portal.token(1, Role::Owner).await, portal.token(1, Role::Member).await);
    let patch =
        async |token: &str, body: Value| portal.call(token, "PATCH", "team", Some(body)).await;
    let entries = async || {
        let log = portal.get(&owner, "log?action=team").await.expect(200);
        let entries = log["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["detail"].clone()).collect::<Vec<_>>()
    };
    let before = entries().await;
    let rules = json!({ "longest_days": 30, "live_role": "member" });
    // Twice: the second request changes nothing, and the log gets no entry.
    for _ in 0..2 {
        let team = patch(&owner, rules.clone()).await.expect(200);
        assert_eq!((&team["settings"], &team["name"]), (&rules, &json!("Acme")));
    }
    let added = "keys expire within 30 days; live keys need member";
    assert_eq!(entries().await, [&[json!(added)], &before[..]].concat());
    // They hold for the next key.
    let late = json!({ "name": "a", "env": "live", "expires": "2090-01-01T00:00:00Z" });
    portal.post(&member, "keys", late.clone()).await.expect_problem(400, "expires: keys of this");
    let never = json!({ "longest_days": null, "name": "Renamed" });
    let team = patch(&owner, never).await.expect(200);
    assert_eq!(team["settings"], json!({ "longest_days": null, "live_role": "member" }));
    assert_eq!(team["name"], "Renamed");
    assert_eq!(entries().await.len(), before.len() + 3);
    portal.post(&member, "keys", late).await.expect(201);
    for (body, detail) in [
        (json!({}), "body: it names nothing to change"),
        (json!({ "longest_days": 0 }), "longest_days: it must be a number of days from 1"),
        (json!({ "longest_days": 3651 }), "longest_days: it must be"),
        (json!({ "longest_days": "30" }), "body: longest_days: invalid type"),
        (json!({ "live_role": "viewer" }), "live_role: it must be member, admin or owner"),
        (json!({ "live_role": "operator" }), "live_role: \"operator\" is not a role"),
        (json!({ "name": "New", "live_role": "viewer" }), "live_role: "),
    ] {
        patch(&owner, body).await.expect_problem(400, detail);
    }
    assert_eq!(portal.get(&owner, "team").await.expect(200), team);
    patch(&member, rules).await.expect_problem(403, "this needs the role owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_value_is_named() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let (_, id) = portal.create(&token, "test").await;
    for (path, detail) in [
        ("keys?limit=0", "limit: it must be a number from 1 to 200"),
        ("keys?limit=201", "limit: it must be"),
        ("keys?limit=x", "limit: it must be"),
        ("keys?after=1", "after: it must be the value of next"),
        ("keys?after=-1.0000000000A", "after: it must be"),
        ("keys?after=1700000000.0000000000A&sort=name", "after: it must be the value of next"),
        ("keys?sort=size", "sort: it must be one of: created, -created, name"),
        ("keys?flag=x", "flag: it must be one of: expires_soon"),
        ("keys?state=old", "state: it must be one of: active, expired, revoked"),
        ("keys?search=%00", "search: it has the control character"),
        ("keys?team=x", "team: \"x\" is not the number of a team"),
        ("keys?team=0", "team: \"0\" is not"),
        ("keys?team=%2B1", "team: \"+1\" is not"),
        ("keys?team=4294967296", "team: \"4294967296\" is not"),
        ("keys?team=an-old-key-of-42", "team: a text of 16 characters is not the number of a team"),
        ("keys?an-old-key-of-42=1", "query: a text of 16 characters is not a parameter"),
        ("keys?page=2", "query: \"page\" is not a parameter of this route"),
        ("keys?limit=1&limit=2", "query: a parameter is given twice"),
        ("keys/short", "id: "),
        ("keys/00000000000", "id: a key id stands for a number from 1"),
        ("keys/zzzzzzzzzzz", "id: a key id stands for a number from 1"),
        ("log?before=-1", "before: it must be the value of next"),
        ("log?before=9223372036854775808", "before: it must be"),
        ("log?key=x", "key: "),
        ("log?actor=", "actor: it is empty"),
        ("log?actor=%00", "actor: it has the control character"),
        ("log?action=Key", "action: it must be an action, such as key.revoke, or a kind"),
        ("log?action=key.", "action: it must be an action"),
        ("log?from=yesterday", "from: it must be a time, such as"),
        ("log?from=2027-01-01T00:00:00Z&to=2027-01-01T00:00:00Z", "to: it must be later than from"),
        (&*format!("keys/{id}/usage?width=week"), "width: it must be minute, hour or day"),
        (&*format!("keys/{id}/usage?from=yesterday"), "from: it must be a time, such as"),
        (
            &*format!("keys/{id}/usage?from=2027-01-01T00:00:00Z&to=2026-01-01T00:00:00Z"),
            "to: it must be later than from",
        ),
        (
            &*format!("keys/{id}/usage?width=minute&from=2026-01-01T00:00:00Z"),
            "width: the range has more than 1500 buckets",
        ),
        ("usage?group=team", "group: it must be key, env or plan"),
    ] {
        portal.get(&token, path).await.expect_problem(400, detail);
    }
    let key = |name: &str, value: Value| {
        let mut body = json!({ "name": "a", "env": "test" });
        body[name] = value;
        body
    };
    for (path, body, detail) in [
        ("keys", json!({}), "body: missing field"),
        ("keys", json!([]), "body: "),
        ("keys", key("name", json!("")), "name: it is empty"),
        ("keys", key("name", json!(5)), "body: name: invalid type"),
        ("keys", key("env", json!("Live")), "env: it must be 1 to 8 characters"),
        ("keys", key("env", json!("abcdefghi")), "env: it must be 1 to 8 characters"),
        ("keys", key("plan", json!("max")), "plan: the gate has no plan of that name"),
        ("keys", key("scopes", json!(["x"])), "scopes: the gate has no scope"),
        ("keys", key("scopes", json!("read")), "body: scopes: invalid type"),
        ("keys", key("expires", json!("2107-01-01T00:00:00Z")), "expires: a gate keeps times"),
        ("keys", key("expires", json!("90d")), "expires: it must be a time, such as"),
        ("keys", key("expires", json!("2100-01-01T00:00:60Z")), "expires: it must be a time"),
        ("keys", key("name", json!("\u{200b}\u{2060}\u{feff}")), "name: it has only characters"),
        ("keys", key("name", json!("a\u{202e}b")), "name: it has the character \\u{202e}"),
        ("keys", key("note", json!("a\u{2066}b")), "note: it has the character \\u{2066}"),
        ("keys", key("owner", json!("x")), "body: owner: unknown field"),
        (&*format!("keys/{id}/rotate"), json!({}), "body: missing field"),
        (&*format!("keys/{id}/rotate"), json!({ "grace_s": -1 }), "body: grace_s: invalid value"),
        (&*format!("keys/{id}/rotate"), json!({ "grace_s": u64::MAX }), "grace_s: a gate keeps"),
        (&*format!("keys/{id}/revoke"), json!({ "why": "w".repeat(501) }), "why: it has 501"),
        ("keys/revoke", json!({ "key_ids": [] }), "key_ids: it must name 1 to 100 keys"),
        ("keys/revoke", json!({ "key_ids": vec!["x"; 101] }), "key_ids: it must name"),
        ("keys/revoke", json!({ "key_ids": ["x"] }), "key_ids: "),
        ("members", json!({ "name": "a", "role": "operator" }), "role: \"operator\" is not a role"),
        ("tokens", json!({ "name": "a", "role": "root" }), "role: \"root\" is not a role"),
        ("tokens", json!({ "name": "\u{7}", "role": "viewer" }), "name: it has the control"),
        ("sessions", json!({ "user": "", "role": "viewer" }), "user: it is empty"),
    ] {
        portal.post(&token, path, body).await.expect_problem(400, detail);
    }
    let expect = async |request: Request<Body>, status, detail: &str| {
        portal.send(request).await.expect_problem(status, detail);
    };
    let request = |path: &str| {
        let request = Request::builder().method("POST").uri(format!("{PREFIX}/{path}"));
        request.header("X-API-Key", &token)
    };
    expect(request("keys").body("{}".into()).unwrap(), 415, "Content-Type: ").await;
    let typed = |path: &str| request(path).header("Content-Type", "application/json");
    expect(typed("keys").body("{".into()).unwrap(), 400, "body: ").await;
    expect(typed("keys").body(vec![b' '; 16_385].into()).unwrap(), 413, "body: it cannot be").await;
    let headers = typed("keys").header("Idempotency-Key", "k".repeat(65));
    expect(headers.body("{}".into()).unwrap(), 400, "Idempotency-Key: ").await;
    let twice = typed("keys").header("X-API-Key", &token);
    expect(twice.body("{}".into()).unwrap(), 401, "the header X-API-Key").await;
    portal.get(&token, "nothing").await.expect_problem(404, "there is no such route");
    portal.call(&token, "PUT", "keys", None).await.expect_problem(405, "the route has no such");
    portal
        .get(&portal.operator, "keys")
        .await
        .expect_problem(400, "team: the token of an operator");
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_is_in_one_answer_only() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let once = |path: &str, body: Value| {
        let request = Request::builder().method("POST").uri(format!("{PREFIX}/{path}"));
        let request = request.header("X-API-Key", &token).header("Idempotency-Key", "once");
        let request = request.header("Content-Type", "application/json");
        request.body(Body::from(body.to_string())).unwrap()
    };
    let new = json!({ "name": "billing", "env": "live" });
    let answer = portal.send(once("keys", new.clone())).await;
    let id = answer.json()["key_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.headers["location"], format!("{PREFIX}/keys/{id}"));
    let first = answer.expect(201)["key"].as_str().unwrap().to_owned();
    let repeated = portal.send(once("keys", new)).await;
    let problem = repeated.expect_problem(409, "a request with this Idempotency-Key was answered");
    assert_eq!(problem["key_id"], *id);

    let rotated = portal.post(&token, &format!("keys/{id}/rotate"), json!({ "grace_s": 60 })).await;
    let second = rotated.expect(200)["key"].as_str().unwrap().to_owned();
    let made = json!({ "name": "backend", "role": "admin" });
    let made = portal.post(&token, "tokens", made).await.expect(201);
    let third = made["key"].as_str().unwrap().to_owned();
    portal.get(&third, "keys").await.expect(200);
    let link = json!({ "user": "ann", "role": "member" });
    let link = portal.post(&token, "sessions", link).await.expect(201);
    let (begin, code) = link["url"].as_str().unwrap().split_once('#').unwrap();
    assert_eq!(begin, "https://keys.example/keys/in");

    // The secret was shown: the answer was read to its end.
    let mut shown = Value::Null;
    for _ in 0..100 {
        shown = portal.get(&token, &format!("keys/{id}")).await.expect(200)["shown"].clone();
        if !shown.is_null() {
            break;
        }
        tokio::time::sleep(core::time::Duration::from_millis(20)).await;
    }
    assert!(shown.is_string());

    let secrets = [&first, &second, &third, &token, &portal.operator]
        .map(|key| key[key.len() - 28..].to_owned());
    let secrets: Vec<_> = secrets.into_iter().chain([code.to_owned()]).collect();
    for path in ["keys", &*format!("keys/{id}"), "tokens", "log", "members", "usage", "team"] {
        let text = portal.get(&token, path).await.text;
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{path}: {text}");
    }
    let has =
        |bytes: &[u8], secret: &str| bytes.windows(secret.len()).any(|at| at == secret.as_bytes());
    let mut files = 0;
    for entry in fs::read_dir(portal.site.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(secrets.iter().all(|secret| !has(&bytes, secret)), "{}", path.display());
        files += 1;
    }
    // Database, write-ahead log, its index, and two gates.
    assert!(files >= 5);
    assert!(has(&fs::read(portal.site.path("keys.db-wal")).unwrap(), "billing"));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_limited_and_revoked_at_once() {
    let portal = Portal::new().await;
    let owner = portal.token(1, Role::Owner).await;
    let token = portal.token(1, Role::Viewer).await;
    let answer = portal.get(&token, "plans").await;
    assert_eq!(answer.headers["x-ratelimit-limit"], "20000");
    assert_eq!(answer.json()["plans"][1]["limits"], "1000/minute, 20000/hour");
    let mut last = answer;
    for _ in 0..600 {
        last = portal.get(&token, "plans").await;
        if last.status != 200 {
            break;
        }
    }
    assert!(last.headers.contains_key("retry-after"), "{last:?}");
    last.expect_problem(429, "the token has made too many requests");
    let id = &token[9..20];
    portal.call(&owner, "DELETE", &format!("tokens/{id}"), None).await.expect(204);
    portal.get(&token, "plans").await.expect_problem(401, "the header X-API-Key needs");
    let tokens = portal.get(&owner, "tokens").await.expect(200);
    let revoked =
        tokens["tokens"].as_array().unwrap().iter().filter(|token| !token["revoked"].is_null());
    assert_eq!(revoked.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_is_valid_until_it_is_revoked() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let (key, id) = portal.create(&token, "live").await;
    let outcome = || portal.site.gate().check(Some(key.as_bytes()), 1).outcome();
    assert_eq!(outcome(), Outcome::Admitted);
    let edit = json!({ "expires": "2100-01-01T00:00:00Z", "plan": "pro" });
    let path = format!("keys/{id}");
    let edited = portal.call(&token, "PATCH", &path, Some(edit)).await.expect(200);
    assert_eq!(
        (&edited["expires"], &edited["plan"]),
        (&json!("2100-01-01T00:00:00Z"), &json!("pro"))
    );
    let never = json!({ "expires": null });
    let edited = portal.call(&token, "PATCH", &path, Some(never)).await.expect(200);
    assert!(edited["expires"].is_null());
    let body = json!({ "why": "left" });
    let revoked = portal.post(&token, &format!("{path}/revoke"), body).await.expect(200);
    assert_eq!(revoked["listed"], true);
    assert_eq!(outcome(), Outcome::InvalidKey);
    let problem = portal.post(&token, &format!("{path}/rotate"), json!({ "grace_s": 0 })).await;
    problem.expect_problem(409, &format!("key {id} was revoked"));
    let log = portal.get(&token, &format!("log?key={id}&limit=2")).await.expect(200);
    assert_eq!(log["entries"][0]["action"], "key.revoke");
    let next = format!("log?key={id}&before={}", log["next"]);
    let log = portal.get(&token, &next).await.expect(200);
    assert_eq!(log["entries"][1]["action"], "key.create");
    assert_eq!(portal.get(&token, "openapi.json").await.status, StatusCode::OK.as_u16());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_team_is_not_found_by_operators() {
    let portal = Portal::new().await;
    for path in ["keys", "log", "usage", "team", "members", "tokens", "plans"] {
        let answer = portal.get(&portal.operator, &format!("{path}?team=99")).await;
        answer.expect_problem(404, "there is no team 99");
        portal.get(&portal.operator, &format!("{path}?team=2")).await.expect(200);
    }
    portal.get(&portal.operator, "log").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn last_number_of_a_team_leaves_the_others_free() {
    let portal = Portal::new().await;
    let create = async |body: Value| {
        let answer = portal.post(&portal.operator, "teams", body).await;
        answer.expect(201)["team"].as_u64().unwrap()
    };
    assert_eq!(create(json!({ "name": "Fifth", "team": 5 })).await, 5);
    assert_eq!(create(json!({ "name": "Sixth" })).await, 6);
    assert_eq!(create(json!({ "name": "Last", "team": u32::MAX })).await, u64::from(u32::MAX));
    // Teams 1, 2, 5 and 6 are there.
    for team in [3, 4, 7] {
        assert_eq!(create(json!({ "name": "New" })).await, team);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_names_what_the_first_one_made() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let send = async |token: &str, key: &str, path: &str, body: Value| {
        let request = Request::builder().method("POST").uri(format!("{PREFIX}/{path}"));
        let request = request.header("X-API-Key", token).header("Idempotency-Key", key);
        let request = request.header("Content-Type", "application/json");
        portal.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let team = json!({ "name": "New" });
    let number =
        send(&portal.operator, "a", "teams", team.clone()).await.expect(201)["team"].clone();
    let (role, env) =
        (json!({ "name": "t", "role": "viewer" }), json!({ "name": "a", "env": "test" }));
    let made = send(&token, "b", "tokens", role.clone()).await.expect(201)["token"].clone();
    let key = send(&token, "c", "keys", env.clone()).await.expect(201)["key_id"].clone();
    let rotate = format!("keys/{}/rotate", key.as_str().unwrap());
    let grace = json!({ "grace_s": 60 });
    let begin = "a request with this Idempotency-Key was answered before, for";
    for (path, body) in
        [("teams", &team), ("tokens?team=1", &role), ("keys?team=1", &env), (&*rotate, &grace)]
    {
        let answer = send(&portal.operator, "a", path, body.clone()).await;
        let problem = answer.expect_problem(409, &format!("{begin} team {number}"));
        assert_eq!((&problem["team"], &problem["key_id"]), (&number, &Value::Null));
    }
    for (path, body) in [("tokens", &role), ("keys", &env), (&*rotate, &grace)] {
        let answer = send(&token, "b", path, body.clone()).await;
        let problem = answer.expect_problem(409, &format!("{begin} token "));
        assert_eq!((&problem["token"], &problem["key_id"]), (&made, &Value::Null));
        let answer = send(&token, "c", path, body.clone()).await;
        let problem = answer.expect_problem(409, &format!("{begin} key "));
        assert_eq!((&problem["key_id"], &problem["token"]), (&key, &Value::Null));
    }
    let teams = portal.get(&portal.operator, "teams").await.expect(200);
    assert_eq!(teams["teams"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn time_with_an_offset_is_accepted_everywhere() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let new = json!({ "name": "a", "env": "test", "expires": "2100-01-01T00:30:00+01:00" });
    let key = portal.post(&token, "keys", new).await.expect(201);
    assert_eq!(key["expires"], "2099-12-31T23:30:00Z");
    let path = format!("keys/{}", key["key_id"].as_str().unwrap());
    let edit = json!({ "expires": "2099-12-31T20:30:00-03:30" });
    let edited = portal.call(&token, "PATCH", &path, Some(edit)).await.expect(200);
    assert_eq!(edited["expires"], "2100-01-01T00:00:00Z");
    // A plus in a URL is a space.
    for from in ["2027-01-01T00:00:00%2B01:00", "2027-01-01T00:00:00+01:00"] {
        let to = "2027-01-01T01:00:00-02:00";
        portal.get(&token, &format!("{path}/usage?from={from}&to={to}")).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_in_a_grace_shows_its_end_as_a_time() {
    let portal = Portal::new().await;
    let token = portal.token(1, Role::Owner).await;
    let (_, id) = portal.create(&token, "test").await;
    let path = format!("keys/{id}/rotate");
    let rotated = portal.post(&token, &path, json!({ "grace_s": 3600 })).await.expect(200);
    let ends = rotated["grace_until"].as_str().unwrap();
    let refused = portal.post(&token, &path, json!({ "grace_s": 0 })).await;
    let problem = refused.expect_problem(409, "the secret that key");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("is valid until {ends}")), "{detail}");
}
