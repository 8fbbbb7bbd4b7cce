//! The API Keys page: signing in, every role on every route, secrets that are shown once, proofs,
//! and what other sites may not do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[path = "support/browser.rs"]
mod browser;

use alloc::collections::BTreeSet;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use browser::{Answer, encoded, exchange};
use keytally::{Timestamp, now};
use keytally_keys::codes::Code;
use keytally_keys::keys::KeyFilter;
use keytally_keys::log::Filter;
use keytally_keys::page::{LinkCommand, Page, Settings, router};
use keytally_keys::reconcile::Comparison;
use keytally_keys::roles::Role;
use sqlx::Connection as _;
use support::{Site, creation, operator};

/// By how many seconds the clock of the page is ahead.
static AHEAD_S: Mutex<u64> = Mutex::new(0);

/// Moves the clock of the page ahead of that of the system.
fn set_ahead(seconds: u64) {
    *AHEAD_S.lock().unwrap() = seconds;
}

/// The clock of the page.
fn clock() -> Timestamp {
    Timestamp::from_unix_s(now().unix_s() + *AHEAD_S.lock().unwrap())
}

/// Tests that move the clock, and those that read it, take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The command that makes a link to the page.
const LINK_COMMAND: &str = "keytally keys link --data /srv/api";

/// A list with its page.
struct Portal {
    site: Site,
    routes: Router,
    team: u32,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// A browser: a cookie, and requests as a browser sends them.
struct Browser<'p> {
    portal: &'p Portal,
    cookie: String,
    address: &'static str,
}

/// What the tests read of an answer.
trait Read {
    fn header(&self, name: &str) -> &str;
    fn field(&self, name: &str) -> String;
    fn secret(&self) -> String;
}

impl Read for Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the value of a field of the page.
    #[track_caller]
    fn field(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        let (_, rest) =
            self.text.split_once(&begin).unwrap_or_else(|| panic!("{name}: {}", self.text));
        rest.split_once('"').unwrap().0.to_owned()
    }

    /// Returns the secret that the page shows.
    #[track_caller]
    fn secret(&self) -> String {
        let (_, rest) = self.text.split_once("<textarea id=\"secret\" readonly").unwrap();
        let (_, rest) = rest.split_once('>').unwrap();
        rest.split_once("</textarea>").unwrap().0.to_owned()
    }
}

impl Portal {
    async fn new() -> Self {
        Self::with("http://localhost:8080", "").await
    }

    async fn with(public_url: &str, base_path: &str) -> Self {
        let turn = TURN.lock().await;
        set_ahead(0);
        let site = Site::new().await;
        let settings = Settings {
            public_url: public_url.to_owned(),
            base_path: base_path.to_owned(),
            example_url: format!("{public_url}/api/v1/contacts"),
            link_command: LinkCommand { line: LINK_COMMAND.to_owned(), variables: Vec::new() },
            clock,
        };
        let routes = router(Page::new(site.list.clone(), settings).unwrap()).unwrap();
        let team = site.list.create_team(None, "Acme", operator()).await.unwrap().team;
        Self { site, routes, team, _turn: turn }
    }

    fn browser(&self) -> Browser<'_> {
        Browser { portal: self, cookie: String::new(), address: "192.0.2.1" }
    }

    /// Returns the code of a new link.
    async fn code(&self, user: Option<&str>, role: Role) -> Code {
        let team = user.map(|_| self.team);
        let mut caller = operator();
        caller.now = clock();
        let link = self.site.list.create_link(team, user, role, caller).await;
        link.unwrap().code
    }

    /// Returns a browser that is signed in.
    async fn signed_in(&self, role: Role) -> Browser<'_> {
        let user = (role != Role::Operator).then_some(role.as_str());
        let code = self.code(user, role).await;
        let mut browser = self.browser();
        let answer = browser.post("/in", &[("code", code.expose())]).await.expect(303);
        assert_eq!(answer.header("location"), "/keys");
        browser
    }

    /// Makes a key, and returns its id.
    async fn key(&self) -> String {
        let (_, row) = self.site.list.create_key(creation(self.team), operator()).await.unwrap();
        row.key_id.to_string()
    }
}

impl Browser<'_> {
    async fn send(&mut self, request: Request<Body>) -> Answer {
        exchange(&self.portal.routes, &mut self.cookie, self.address, request).await
    }

    async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(format!("/keys{path}")).body(Body::empty());
        self.send(request.unwrap()).await
    }

    async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::post(format!("/keys{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("host", "localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(encoded(fields))).unwrap()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.post_with(path, fields, &[("sec-fetch-site", "same-origin")]).await
    }

    /// Makes a key as a person does. Returns the page with its secret.
    async fn make(&mut self, name: &str) -> Answer {
        let form = self.get("/new").await.expect(200);
        let fields = [("form_id", &*form.field("form_id")), ("name", name), ("env", "test")];
        let rest = [("plan", "default"), ("lifetime", "90"), ("scope", "read")];
        self.post("/new", &[&fields[..], &rest].concat()).await
    }
}

#[tokio::test]
async fn link_signs_in_once_and_only_by_post() {
    let portal = Portal::new().await;
    let mut browser = portal.browser();
    let away = browser.get("").await.expect(303);
    assert_eq!(away.header("location"), "/keys/in");
    // A program that previews the link does not use it up.
    browser.get("/in").await.expect(200).shows(LINK_COMMAND);
    let code = portal.code(Some("ann"), Role::Viewer).await;
    let answer = browser.post("/in", &[("code", code.expose())]).await.expect(303);
    let cookie = answer.header("set-cookie").to_owned();
    for part in ["keytally=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604800"] {
        assert!(cookie.contains(part), "{part}: {cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    browser.get("").await.expect(200).shows("ann, viewer").shows("No keys yet");

    // One answer to used, expired and foreign codes.
    let mut texts = BTreeSet::new();
    let late = portal.code(Some("ann"), Role::Viewer).await;
    set_ahead(601);
    for code in [code.expose(), late.expose(), "0".repeat(64).as_str(), "x", ""] {
        let answer = portal.browser().post("/in", &[("code", code)]).await.expect(403);
        assert!(answer.headers.get("set-cookie").is_none());
        texts.insert(answer.text);
    }
    assert_eq!(texts.len(), 1);
}

#[tokio::test]
async fn whole_link_is_a_code_too() {
    let portal = Portal::new().await;
    let code = portal.code(Some("ann"), Role::Viewer).await;
    let link = format!("http://localhost:8080/keys/in#{}", code.expose());
    portal.browser().post("/in", &[("code", &link)]).await.expect(303);
}

#[tokio::test]
async fn page_that_was_opened_is_shown_after_the_sign_in() {
    let portal = Portal::new().await;
    let at = format!("/k/{}", portal.key().await);
    let note = "you get to the page that you opened";
    let mut browser = portal.browser();
    browser.get("/in").await.expect(200).hides(note);
    for path in [&*at, &format!("{at}/rotate"), "/log?key=0000000000A&from=2027-01-31%2B01%3A00"] {
        let away = browser.get(path).await.expect(303);
        // The address has nothing of it, so no log has.
        assert_eq!(away.header("location"), "/keys/in");
        let cookie = away.header("set-cookie");
        for part in ["keytally-opened=/keys", "HttpOnly", "SameSite=Lax", "Max-Age=600"] {
            assert!(cookie.contains(part), "{part}: {cookie}");
        }
        browser.get("/in").await.expect(200).shows(note);
        browser.post("/in", &[("code", "x")]).await.expect(403).shows(note);
        let code = portal.code(Some("ann"), Role::Admin).await;
        let answer = browser.post("/in", &[("code", code.expose())]).await.expect(303);
        assert_eq!(answer.header("location"), format!("/keys{path}"));
        browser.get(path).await.expect(200);
        // It leads there once.
        browser.get("/in").await.expect(200).hides(note);
        browser.post("/out", &[]).await.expect(303);
        assert_eq!(browser.cookie, "");
    }
    // The last page that was opened counts, and a form that was sent is none.
    browser.get(&at).await.expect(303);
    browser.get("").await.expect(303);
    assert_eq!(browser.cookie, "");
    browser.post(&format!("{at}/edit"), &[("name", "a")]).await.expect(303);
    assert_eq!(browser.cookie, "");
}

#[tokio::test]
async fn page_that_was_opened_is_shown_after_the_choice_of_a_team() {
    let portal = Portal::new().await;
    let at = format!("/k/{}", portal.key().await);
    portal.site.list.create_team(None, "Second", operator()).await.unwrap();
    let mut browser = portal.browser();
    browser.get(&at).await.expect(303);
    let code = portal.code(None, Role::Operator).await;
    browser.post("/in", &[("code", code.expose())]).await.expect(303);
    assert_eq!(browser.get(&at).await.expect(303).header("location"), "/keys/teams");
    let chosen = browser.post("/teams", &[("team", "1")]).await.expect(303);
    assert_eq!(chosen.header("location"), format!("/keys{at}"));
    browser.get(&at).await.expect(200);
    let chosen = browser.post("/teams", &[("team", "1")]).await.expect(303);
    assert_eq!(chosen.header("location"), "/keys");
}

#[tokio::test]
async fn sign_in_leads_to_no_other_site() {
    for (base, root) in [("", "/keys"), ("/internal", "/internal/keys")] {
        let portal = Portal::with("http://localhost:8080", base).await;
        for address in [
            "//evil.example",
            "//evil.example/keys/log",
            "/\\evil.example",
            "https://evil.example/keys/log",
            "/keys.evil.example/log",
            "/keys@evil.example/log",
            "/keys//evil.example",
            "/keys/..//evil.example",
            "/keys/%2F%2Fevil.example",
            "/keys/%5Cevil.example",
            "/keys/%2e%2e/%2e%2e/other",
            "/other",
        ] {
            let mut browser = portal.browser();
            // Another host of the domain can put a cookie into the browser.
            browser.cookie = format!("keytally-opened={address}");
            let code = portal.code(Some("ann"), Role::Admin).await;
            let request = Request::post(format!("{root}/in"))
                .header("content-type", "application/x-www-form-urlencoded")
                .header("sec-fetch-site", "same-origin")
                .body(Body::from(encoded(&[("code", code.expose())])));
            let answer = browser.send(request.unwrap()).await.expect(303);
            assert_eq!(answer.header("location"), root, "{address}");
        }
        // Nor does a page keep such an address.
        for path in ["//evil.example", "/%5C%5Cevil.example", "/k/..%2F..%2Fother"] {
            let mut browser = portal.browser();
            let request = Request::get(format!("{root}{path}")).body(Body::empty());
            browser.send(request.unwrap()).await;
            assert_eq!(browser.cookie, "", "{path}");
        }
    }
}

#[tokio::test]
async fn failed_sign_ins_of_an_address_are_limited() {
    let portal = Portal::new().await;
    let mut browser = portal.browser();
    for _ in 0..5 {
        browser.post("/in", &[("code", "x")]).await.expect(403);
    }
    let code = portal.code(Some("ann"), Role::Viewer).await;
    let refused = browser.post("/in", &[("code", code.expose())]).await.expect(429);
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0);
    refused.shows("Too many sign-ins");
    let mut other = Browser { address: "198.51.100.1", ..portal.browser() };
    other.post("/in", &[("code", code.expose())]).await.expect(303);
}

#[tokio::test]
async fn session_ends_when_idle_when_old_and_by_its_user() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Viewer).await;
    set_ahead(8 * 3600 - 60);
    // That request is a use, so the session lasts longer.
    browser.get("").await.expect(200);
    // At an address of this machine, a session of a link lasts 12 hours.
    set_ahead(12 * 3600 - 60);
    browser.get("").await.expect(200);
    set_ahead(12 * 3600);
    browser.get("").await.expect(303);

    let mut browser = portal.signed_in(Role::Viewer).await;
    set_ahead(20 * 3600);
    browser.get("").await.expect(303);

    let mut browser = portal.signed_in(Role::Viewer).await;
    let stolen = browser.cookie.clone();
    let out = browser.post("/out", &[]).await.expect(303);
    // Cookies and the storage of other products on this host stay.
    assert_eq!(out.header("clear-site-data"), "\"cache\"");
    assert!(out.header("set-cookie").starts_with("keytally=;"), "{out:?}");
    browser.cookie = stolen;
    browser.get("").await.expect(303);
}

#[tokio::test]
async fn session_lasts_seven_days_by_https() {
    let portal = Portal::with("https://keys.example", "").await;
    let mut browser = portal.signed_in(Role::Viewer).await;
    for hours in (0..168).step_by(7) {
        set_ahead(hours * 3600);
        browser.get("").await.expect(200);
    }
    set_ahead(168 * 3600 - 60);
    browser.get("").await.expect(200);
    set_ahead(168 * 3600);
    browser.get("").await.expect(303);
}

#[tokio::test]
async fn failed_codes_of_an_account_are_limited_from_all_addresses() {
    const ADDRESSES: [&str; 6] =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"];
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let mut operator = portal.signed_in(Role::Operator).await;
    set_ahead(601);
    // Proofs: the account is that of the session.
    for address in ADDRESSES {
        owner.address = address;
        let fields = [("name", "New"), ("code", "x")];
        let answer = owner.post("/team/rename", &fields).await;
        let is_last = address == ADDRESSES[5];
        assert_eq!(answer.status, if is_last { 429 } else { 403 }, "{answer:?}");
        if is_last {
            assert!(answer.header("retry-after").parse::<u32>().unwrap() > 0);
            answer.shows("Too many codes of this account");
        }
    }
    operator.post("/team/rename", &[("name", "New"), ("code", "x")]).await.expect(403);
    // Old links: the account is that of the code. A code that is valid is accepted.
    let used = portal.code(Some("ann"), Role::Viewer).await;
    portal.browser().post("/in", &[("code", used.expose())]).await.expect(303);
    for (index, address) in [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "198.51.100.4",
        "198.51.100.5",
        "198.51.100.6",
    ]
    .into_iter()
    .enumerate()
    {
        let mut browser = Browser { address, ..portal.browser() };
        let status = if index == 5 { 429 } else { 403 };
        browser.post("/in", &[("code", used.expose())]).await.expect(status);
        browser.post("/in", &[("code", "unknown")]).await.expect(403);
    }
    for user in ["ann", "owner"] {
        let code = portal.code(Some(user), Role::Viewer).await;
        let mut browser = Browser { address: "203.0.113.1", ..portal.browser() };
        browser.post("/in", &[("code", code.expose())]).await.expect(303);
    }
}

#[tokio::test]
async fn refused_code_of_an_account_is_in_the_log_once_a_minute() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let used = portal.code(Some("ann"), Role::Viewer).await;
    portal.browser().post("/in", &[("code", used.expose())]).await.expect(303);
    let entries = async |team_id: Option<u32>| {
        let filter = Filter { team_id, limit: 100, ..Filter::default() };
        let entries = portal.site.list.log(&filter).await.unwrap();
        let failures = entries.into_iter().filter(|entry| entry.action.starts_with("session.fail"));
        failures.map(|entry| (entry.team, entry.action, entry.detail)).collect::<Vec<_>>()
    };
    let of_team = async || entries(Some(portal.team)).await;
    // An unknown code is that of no account.
    for code in ["x", "", &"0".repeat(64)] {
        portal.browser().post("/in", &[("code", code)]).await.expect(403);
    }
    assert_eq!(entries(None).await, []);
    let team = Some(i64::from(portal.team));
    let link = (team, "session.fail".to_owned(), "link: it was used or is too old; ".to_owned());
    for address in ["198.51.100.1", "198.51.100.2"] {
        let mut browser = Browser { address, ..portal.browser() };
        browser.post("/in", &[("code", used.expose())]).await.expect(403);
        assert_eq!(of_team().await, core::slice::from_ref(&link));
    }
    // Another account has its own entries.
    set_ahead(601);
    owner.address = "198.51.100.9";
    for code in ["x", used.expose(), "y"] {
        owner.post("/team/rename", &[("name", "New"), ("code", code)]).await.expect(403);
    }
    let reason = "code: it is not valid: used, too old or unknown; ";
    let proof = (team, "session.fail_proof".to_owned(), reason.to_owned());
    assert_eq!(of_team().await, [proof.clone(), link.clone()]);
    set_ahead(659);
    owner.post("/team/rename", &[("name", "New"), ("code", "x")]).await.expect(403);
    assert_eq!(of_team().await.len(), 2);
    set_ahead(665);
    let mut late = Browser { address: "198.51.100.3", ..portal.browser() };
    late.post("/in", &[("code", used.expose())]).await.expect(403);
    assert_eq!(of_team().await, [link.clone(), proof, link]);
    let page = owner.get("/log?what=session").await.expect(200).shows("failed to sign in</td>");
    let page = page.shows("link: it was used or is too old; Unknown browser");
    page.shows("<small>198.51.100.1</small>").hides(used.expose());
    // A code of an operator is in no team's log.
    let used = portal.code(None, Role::Operator).await;
    portal.browser().post("/in", &[("code", used.expose())]).await.expect(303);
    let before = of_team().await.len();
    let mut browser = Browser { address: "198.51.100.4", ..portal.browser() };
    browser.post("/in", &[("code", used.expose())]).await.expect(403);
    assert_eq!(of_team().await.len(), before);
    assert_eq!(entries(None).await.first().unwrap().0, None);
}

#[tokio::test]
async fn new_sign_in_is_shown_in_other_sessions_until_it_is_seen() {
    let portal = Portal::new().await;
    let notice = "You signed in elsewhere";
    let mut first = portal.signed_in(Role::Viewer).await;
    let mut second = portal.signed_in(Role::Viewer).await;
    let mut other = portal.signed_in(Role::Owner).await;
    first.get("/me/seen").await.expect(405);
    for path in ["", "/log"] {
        first.get(path).await.expect(200).shows(notice).shows("from 192.0.2.1");
        second.get(path).await.expect(200).hides(notice);
        other.get(path).await.expect(200).hides(notice);
    }
    // A session that has ended since is shown too, with what its browser called itself.
    let code = portal.code(Some("viewer"), Role::Viewer).await;
    let body = Body::from(encoded(&[("code", code.expose())]));
    let request = Request::post("/keys/in")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/150.0 <b>");
    let mut third = Browser { address: "198.51.100.7", ..portal.browser() };
    third.send(request.body(body).unwrap()).await.expect(303);
    third.post("/out", &[]).await.expect(303);
    let page = first.get("").await.expect(200).shows("Firefox on Linux, from 198.51.100.7");
    first.get("/log?what=session.begin").await.expect(200).shows("<bdi>Firefox on Linux</bdi>");
    // What one session has seen, another one still shows.
    let seq = page.field("seq");
    first.post("/me/seen", &[("seq", &seq)]).await.expect(303);
    first.get("").await.expect(200).hides(notice);
    second.get("").await.expect(200).shows("Firefox on Linux, from 198.51.100.7");
    second.post("/me/seen", &[("seq", "9223372036854775807")]).await.expect(303);
    second.get("").await.expect(200).hides(notice);
    second.post("/me/seen", &[("seq", "x")]).await.expect(404);
    // A sign-in after that is shown again, also to the session that has seen all.
    portal.signed_in(Role::Viewer).await;
    second.get("").await.expect(200).shows(notice);
    // Operators see those of operators.
    let mut operator = portal.signed_in(Role::Operator).await;
    portal.signed_in(Role::Operator).await;
    let page = operator.get("").await.expect(200).shows("An operator signed in elsewhere");
    page.shows("who can run commands on the machine").hides("inform an owner");
}

#[tokio::test]
async fn older_sign_ins_elsewhere_are_counted_with_a_link() {
    let portal = Portal::new().await;
    let mut first = portal.signed_in(Role::Viewer).await;
    for _ in 0..5 {
        portal.signed_in(Role::Viewer).await;
    }
    let page = first.get("").await.expect(200).hides(" more before");
    assert_eq!(page.text.matches(", from 192.0.2.1</li>").count(), 5, "{}", page.text);
    for _ in 0..2 {
        portal.signed_in(Role::Viewer).await;
    }
    let page = first.get("").await.expect(200).shows("<li>and 2 more before: <a href=\"/keys/log?");
    assert_eq!(page.text.matches(", from 192.0.2.1</li>").count(), 5, "{}", page.text);
    // The link leads to all, also to the sign-in of this session.
    let to = page.text.split("more before: <a href=\"/keys").nth(1).unwrap();
    let to = to.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&");
    let log = first.get(&to).await.expect(200);
    assert_eq!(log.text.matches("<td data-label=\"What\">signed in</td>").count(), 8, "{to}");
    let seq = page.field("seq");
    first.post("/me/seen", &[("seq", &seq)]).await.expect(303);
    first.get("").await.expect(200).hides("signed in elsewhere");
}

#[tokio::test]
async fn sign_in_elsewhere_is_not_shown_above_a_secret() {
    let portal = Portal::new().await;
    let notice = "You signed in elsewhere";
    let mut browser = portal.signed_in(Role::Owner).await;
    portal.signed_in(Role::Owner).await;
    let page = browser.make("billing").await.expect(200).hides(notice);
    assert!(!page.secret().is_empty());
    let invited = [("user", "eve"), ("role", "viewer")];
    let page = browser.post("/team/invite", &invited).await.expect(200).hides(notice);
    assert!(!page.secret().is_empty());
    let key_id = page_of_first_key(&browser.get("").await.expect(200).shows(notice));
    let at = format!("/k/{key_id}/rotate");
    let form_id = browser.get(&at).await.expect(200).shows(notice).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "0")];
    browser.post(&at, &fields).await.expect(200).shows("New secret of").hides(notice);
    // It is not lost by that.
    browser.get("").await.expect(200).shows(notice);
}

/// Returns the id of the first key of a list.
fn page_of_first_key(list: &Answer) -> String {
    list.text.split("/keys/k/").nth(1).unwrap()[..11].to_owned()
}

#[tokio::test]
async fn sign_in_replaces_the_session_of_the_browser() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Viewer).await;
    let before = browser.cookie.clone();
    let code = portal.code(Some("ann"), Role::Viewer).await;
    browser.post("/in", &[("code", code.expose())]).await.expect(303);
    assert_ne!(browser.cookie, before);
    // A session that another person put into the browser is not the one that is signed in.
    let mut other = Browser { cookie: before, ..portal.browser() };
    other.get("").await.expect(303);
    let mut fixed = Browser { cookie: format!("keytally={}", "a".repeat(64)), ..portal.browser() };
    fixed.get("").await.expect(303);
}

#[tokio::test]
async fn sign_in_page_names_the_session_that_would_end() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Viewer).await;
    for path in ["/in", "/in?left=1"] {
        let page = browser.get(path).await.expect(200).hides("Your session ended");
        page.shows("you are signed in as <b><bdi>viewer</bdi></b> of the team <bdi>Acme</bdi>");
    }
    let refused = browser.post("/in", &[("code", "x")]).await.expect(403);
    refused.shows("you are signed in as <b><bdi>viewer</bdi></b>");
    browser.post("/out", &[]).await.expect(303);
    let page = browser.get("/in?left=1").await.expect(200).hides("you are signed in as");
    page.shows("Your session ended");
}

#[tokio::test]
async fn change_of_an_ended_session_says_that_nothing_was_changed() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let sentence = "Your session has ended, so nothing was changed";
    set_ahead(9 * 3600);
    browser.get("").await.expect(303);
    browser.get("/in").await.expect(200).hides(sentence);
    browser.get("/in?done=lost").await.expect(200).hides(sentence);
    let away = browser.post("/team/rename", &[("name", "New")]).await.expect(303);
    let to = away.header("location").strip_prefix("/keys").unwrap().to_owned();
    browser.get(&to).await.expect(200).shows(sentence);
    browser.get(&to).await.expect(200).hides(sentence);
    // Signing out loses no change.
    let away = browser.post("/out", &[]).await.expect(303);
    assert_eq!(away.header("location"), "/keys/in?left=1");
}

#[tokio::test]
async fn message_is_shown_once_and_only_after_its_change() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let (id, other) = (portal.key().await, portal.key().await);
    let at = |id: &str| format!("/k/{id}?done=revoked");
    let sentence = "The key is revoked. Requests with it are refused.";
    for (path, message) in [
        (&*at(&id), sentence),
        ("/team?done=renamed", "The team has its new name"),
        ("/me?done=ended", "The session ended"),
        ("?revoked=2", "Revoked 2 keys"),
    ] {
        browser.get(path).await.expect(200).hides(message);
    }
    let away = browser.post(&format!("/k/{id}/revoke"), &[]).await.expect(303);
    assert_eq!(away.header("location"), format!("/keys{}", at(&id)));
    browser.get(&at(&other)).await.expect(200).hides(sentence);
    browser.get(&at(&id)).await.expect(200).shows(sentence);
    browser.get(&at(&id)).await.expect(200).hides(sentence);
}

#[tokio::test]
async fn https_has_a_host_cookie_and_strict_transport() {
    let portal = Portal::with("https://keys.example", "/internal").await;
    let code = portal.code(Some("ann"), Role::Viewer).await;
    let mut browser = portal.browser();
    let body = Body::from(encoded(&[("code", code.expose())]));
    let request = Request::post("/internal/keys/in")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", "https://keys.example")
        .header("host", "inside:8080");
    let answer = browser.send(request.body(body).unwrap()).await.expect(303);
    assert_eq!(answer.header("location"), "/internal/keys");
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-keytally=") && cookie.contains("; Secure"), "{cookie}");
    assert!(answer.header("strict-transport-security").contains("max-age=31536000"));
    let request = Request::get("/internal/keys").body(Body::empty()).unwrap();
    let page = browser.send(request).await.expect(200);
    assert!(page.text.contains("href=\"/internal/keys/team\""));
    assert!(!page.text.contains("href=\"/keys"), "{}", page.text);
}

#[tokio::test]
async fn change_of_another_site_is_refused() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
    ] {
        let fields = [("name", "Stolen")];
        let answer = browser.post_with("/team/rename", &fields, headers).await.expect(403);
        answer.shows("not sent from this page");
    }
    browser.get("/team").await.expect(200).shows("Acme").hides("Stolen");
    let origin = [("origin", "http://localhost:8080")];
    browser.post_with("/team/rename", &[("name", "Ours")], &origin).await.expect(303);
}

#[tokio::test]
async fn secret_is_in_one_response_only() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let form = browser.get("/new").await.expect(200);
    let fields = [("form_id", &*form.field("form_id")), ("name", "billing"), ("env", "live")];
    let fields = [&fields[..], &[("plan", "pro"), ("lifetime", "90"), ("scope", "read")]].concat();
    let page = browser
        .post_with(
            "/new",
            &fields,
            &[("sec-fetch-site", "same-origin"), ("accept-encoding", "gzip")],
        )
        .await
        .expect(200);
    let secret = page.secret();
    assert_eq!(page.header("cache-control"), "no-store");
    assert_eq!(page.header("content-encoding"), "");
    let url = "http://localhost:8080/api/v1/contacts";
    // The line for a shell names a variable, and has no secret.
    let line = "read -r BILLING_API_KEY &amp;&amp; printf 'X-API-Key: %s' \"$BILLING_API_KEY\"";
    let page = page.shows(&format!("{line} | curl -i -H @- '{url}'"));
    let page = page.shows(&format!("BILLING_API_KEY={secret}"));
    assert_eq!(page.text.matches(&secret).count(), 2);
    assert_eq!(portal.site.gate().peek(Some(secret.as_bytes()), 1).http_status(), 200);

    // The same form again makes no second key and does not show the secret.
    browser.post("/new", &fields).await.expect(409).shows("was sent before").hides(&secret);
    let filter = KeyFilter { team_id: Some(portal.team), limit: 10, ..KeyFilter::default() };
    // It is recorded after the response.
    let mut rows = portal.site.list.keys(&filter, now()).await.unwrap();
    assert_eq!(rows.len(), 1);
    for _ in 0..1000 {
        if rows[0].shown_s.is_some() {
            break;
        }
        tokio::time::sleep(core::time::Duration::from_millis(10)).await;
        rows = portal.site.list.keys(&filter, now()).await.unwrap();
    }
    assert!(rows[0].shown_s.is_some());
    let id = rows[0].key_id.to_string();
    for path in ["", "/log", "/log.csv", &format!("/k/{id}")] {
        browser.get(path).await.expect(200).hides(&secret);
    }
    browser.get("").await.expect(200).shows("billing").shows("owner").hides("never shown");
    browser.get("/log").await.expect(200).shows("created the key");
}

#[tokio::test]
async fn form_with_a_wrong_value_keeps_what_was_filled_in() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let form_id = browser.get("/new").await.expect(200).field("form_id");
    let base = [("form_id", &*form_id), ("note", "kept note"), ("plan", "pro")];
    for (fields, sentence) in [
        (
            [("name", "kept"), ("env", "Live!"), ("lifetime", "90"), ("date", "")],
            "1 to 8 characters",
        ),
        ([("name", ""), ("env", "test"), ("lifetime", "90"), ("date", "")], "It is empty"),
        (
            [("name", "kept"), ("env", "test"), ("lifetime", "date"), ("date", "x")],
            "must be a date",
        ),
        (
            [("name", "kept"), ("env", "test"), ("lifetime", "date"), ("date", "2020-01-01")],
            "later than today",
        ),
        ([("name", "kept"), ("env", "test"), ("lifetime", "-1"), ("date", "")], "choose one"),
    ] {
        let answer = browser.post("/new", &[&base[..], &fields].concat()).await.expect(400);
        let answer = answer.shows("kept note").shows("value=\"pro\" checked");
        assert!(answer.text.to_lowercase().contains(&sentence.to_lowercase()), "{}", answer.text);
    }
    browser.post("/new", &[("name", "a"), ("env", "test")]).await.expect(400);
}

#[tokio::test]
async fn rotation_keeps_the_key_and_can_be_ended() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let old = browser.make("billing").await.expect(200).secret();
    let id = portal.site.gate().list()[0].key_id.to_string();
    let at = format!("/k/{id}");
    let form = browser.get(&format!("{at}/rotate")).await.expect(200);
    let fields = [("form_id", &*form.field("form_id")), ("grace", "3600")];
    let page = browser.post(&format!("{at}/rotate"), &fields).await.expect(200);
    let new = page.secret();
    page.shows("old secret is valid until");
    let status = |key: &str| portal.site.gate().peek(Some(key.as_bytes()), 1).http_status();
    assert_eq!([status(&old), status(&new)], [200, 200]);
    let again = browser.post(&format!("{at}/rotate"), &fields).await.expect(409);
    again.shows("was sent before").hides(&new);
    browser.get(&at).await.expect(200).shows("End it now").shows("0 requests used it");
    browser.get(&format!("{at}/end-grace")).await.expect(200).shows("refused at once");
    browser.post(&format!("{at}/end-grace"), &[]).await.expect(303);
    assert_eq!([status(&old), status(&new)], [401, 200]);
    browser.get(&at).await.expect(200).hides("End it now").shows("ended the old secret");
    for (grace, hours, sentence) in [
        ("own", "0", "1 to 8760"),
        ("own", "x", "1 to 8760"),
        ("own", "9999", "1 to 8760"),
        ("7", "", "hoose one of the times"),
        // Hours that are typed are not ignored.
        ("86400", "3", "another time is chosen"),
        ("", "3", "another time is chosen"),
    ] {
        let form = browser.get(&format!("{at}/rotate")).await.expect(200);
        let fields = [("form_id", &*form.field("form_id")), ("grace", grace), ("hours", hours)];
        let answer = browser.post(&format!("{at}/rotate"), &fields).await.expect(400);
        let id = if sentence.starts_with("hoose") { "grace" } else { "hours" };
        answer
            .shows(sentence)
            .shows(&format!("<a href=\"#{id}\">"))
            .shows(&format!("id=\"hours\" name=\"hours\" inputmode=\"numeric\" value=\"{hours}\""));
    }
}

#[tokio::test]
async fn third_secret_of_a_key_needs_a_tick() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}/rotate", portal.site.gate().list()[0].key_id);
    for (force, status) in [("", 200), ("", 400), ("on", 200)] {
        let form_id = browser.get(&at).await.expect(200).field("form_id");
        let fields = [("form_id", &*form_id), ("grace", "3600"), ("force", force)];
        let answer = browser.post(&at, &fields).await.expect(status);
        if status == 400 {
            answer.shows("<a href=\"#force\">Oldest secret: a key has at most two secrets");
        }
    }
}

#[tokio::test]
async fn wrong_field_is_named_in_a_summary_and_at_the_field() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let form_id = browser.get("/new").await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("name", ""), ("env", "Live!"), ("lifetime", "90")];
    let rest = [("date", "2027-01-31"), ("note", "kept note"), ("scope", "read")];
    let page = browser.post("/new", &[&fields[..], &rest].concat()).await.expect(400);
    let page = page.shows("<title>Error: New key").shows("kept note").shows("role=\"alert\"");
    // All that is wrong at once, each with a link to its field and a sentence at it.
    for (id, label, text) in [
        ("name", "Name", "is empty"),
        ("env", "Environment", "must be 1 to 8 characters"),
        ("date", "Date", "is filled in, but another time is chosen"),
    ] {
        assert!(page.text.contains(&format!("<a href=\"#{id}\">{label}: it {text}")), "{page:?}");
        assert!(page.text.contains(&format!("id=\"{id}-problem\">It {text}")), "{page:?}");
        let (_, tag) = page.text.split_once(&format!("<input id=\"{id}\"")).unwrap();
        let (tag, _) = tag.split_once('>').unwrap();
        let marks = format!("aria-invalid=\"true\" aria-describedby=\"{id}-problem");
        assert!(tag.contains(&marks), "{tag}");
    }
    assert_eq!(page.text.matches("aria-invalid").count(), 3);
    // The form that changes a key has the same.
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}/edit", portal.site.gate().list()[0].key_id);
    let fields = [("name", ""), ("lifetime", "keep"), ("date", "2027-01-31"), ("scope", "read")];
    let page = browser.post(&at, &fields).await.expect(400).shows("value=\"2027-01-31\"");
    page.shows("<a href=\"#name\">Name: it is empty").shows("<a href=\"#date\">Date: it is filled");
}

#[tokio::test]
async fn live_key_of_a_member_is_refused_in_the_form() {
    let portal = Portal::new().await;
    let mut member = portal.signed_in(Role::Member).await;
    let form_id = member.get("/new").await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("name", "kept"), ("env", "live"), ("lifetime", "90")];
    let page = member.post("/new", &[&fields[..], &[("scope", "read")]].concat()).await.expect(403);
    let page = page.shows("Keys of live need the role admin, and your role is member");
    page.shows("value=\"kept\"").shows("href=\"#env\"").hides("the caller");
    assert!(portal.site.gate().list().is_empty());
}

#[tokio::test]
async fn key_without_scopes_or_of_a_known_name_needs_a_tick() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("Billing").await.expect(200);
    let form_id = browser.get("/new").await.expect(200).hides("no_scope").field("form_id");
    let fields = [("form_id", &*form_id), ("name", "billing"), ("env", "test"), ("lifetime", "90")];
    let page = browser.post("/new", &fields).await.expect(400);
    let page = page.shows("Scopes: none is ticked, so the key works only where no scope is needed");
    page.shows("Name: the key kt_test_…").shows("name=\"same_name\"").shows("name=\"no_scope\"");
    assert_eq!(portal.site.gate().list().len(), 1);
    let ticks = [("no_scope", "on"), ("same_name", "on")];
    browser.post("/new", &[&fields[..], &ticks].concat()).await.expect(200);
    let keys = portal.site.gate().list();
    let other = keys.iter().find(|key| key.scopes == 0).unwrap().key_id;
    browser.get(&format!("/k/{other}")).await.expect(200).shows("none: it works only where");

    // A change needs them too, but not for what was so before.
    let at = format!("/k/{other}/edit");
    let keep = [("name", "billing"), ("lifetime", "keep")];
    browser.post(&at, &keep).await.expect(303);
    browser.post(&at, &[("name", "web shop"), ("lifetime", "keep")]).await.expect(303);
    let page = browser.post(&at, &[("name", "BILLING"), ("lifetime", "keep")]).await.expect(400);
    page.shows("name=\"same_name\"").hides("name=\"no_scope\"");
    let read = [("name", "web shop"), ("lifetime", "keep"), ("scope", "read")];
    browser.post(&at, &read).await.expect(303);
    let none = [("name", "web shop"), ("lifetime", "keep")];
    browser.post(&at, &none).await.expect(400).shows("name=\"no_scope\"");
    browser.post(&at, &[&none[..], &[("no_scope", "on")]].concat()).await.expect(303);
    // A revoked key leaves its name free.
    let old = keys.iter().find(|key| key.key_id != other).unwrap().key_id;
    browser.post(&format!("/k/{old}/revoke"), &[]).await.expect(303);
    browser.make("billing").await.expect(200);
}

#[tokio::test]
async fn refused_person_reads_why_and_keeps_the_menu() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let at = format!("/k/{id}");
    let mut member = portal.signed_in(Role::Member).await;
    let page = member.get(&at).await.expect(200).hides("/rotate\"").hides("/revoke\"");
    page.shows(
        "To rotate, change or revoke this key, you need the role admin. Your role is member;",
    );
    for path in ["/rotate", "/edit", "/revoke"] {
        let page = member.get(&format!("{at}{path}")).await.expect(403);
        page.shows("needs the role admin, and yours is member").shows("href=\"/keys/log\"");
    }
    member.get("/nothing").await.expect(404).shows("member, member").shows("href=\"/keys/log\"");
    // What to do, and who can do it.
    let page = member.get(&format!("{at}/revoke")).await.expect(403);
    page.shows("An owner of the team can change your role").shows("href=\"/keys/team#members\"");
    let page = portal.signed_in(Role::Owner).await.get("/teams").await.expect(403);
    page.shows("Only an operator of the service can do this").hides("/keys/team#members");
    let link = portal.code(Some("owner"), Role::Viewer).await;
    let mut lesser = portal.browser();
    lesser.post("/in", &[("code", link.expose())]).await.expect(303);
    let page = lesser.get("/new").await.expect(403);
    page.shows("You are owner of the team, but this session began by a link for the role viewer");
    let mut owner = portal.signed_in(Role::Owner).await;
    let page = owner.get("/team").await.expect(200);
    let user = page.text.split("Role of owner").next().unwrap().rsplit("value=\"").next().unwrap();
    let user = user.split('"').next().unwrap();
    assert!(page.text.contains("The only owner cannot be removed"), "{}", page.text);
    assert!(!page.text.contains("Remove owner"), "{}", page.text);
    owner.get(&format!("/team/remove?user={user}")).await.expect(409).hides("Remove member");
    let fields = [("user", user), ("role", "viewer")];
    let page = owner.post("/team/role", &fields).await.expect(409);
    page.shows("Make another member an owner first").shows("href=\"/keys/team#members\"");
    // Without a session, there is no menu.
    portal.browser().get("/nothing").await.expect(404).hides("href=\"/keys/log\"");
    portal.signed_in(Role::Admin).await.get(&at).await.expect(200).hides("you need the role");
    let mut owner = portal.signed_in(Role::Owner).await;
    owner.post("/team/set", &[("longest", ""), ("live_role", "owner")]).await.expect(303);
    let page = portal.signed_in(Role::Admin).await.get(&at).await.expect(200);
    page.shows("To rotate this key, you need the role owner. Your role is admin;");
    let page = member.get(&at).await.expect(200);
    page.shows("you need the role owner, and to change or revoke it the role admin.");
}

#[tokio::test]
async fn refreshed_part_of_a_key_has_its_rotation_and_last_use() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let id = portal.site.gate().list()[0].key_id;
    let at = format!("/k/{id}");
    let refreshed = async |browser: &mut Browser<'_>| {
        let request = Request::get(format!("/keys{at}")).header("HX-Request-Type", "partial");
        let part = browser.send(request.body(Body::empty()).unwrap()).await.expect(200);
        part.hides("<html").hides(">Log<").shows("<div id=\"live\"")
    };
    let part = refreshed(&mut browser).await.hides("old secret is valid");
    part.shows("<dt>Last use</dt><dd>never</dd>");
    let form_id = browser.get(&format!("{at}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "3600")];
    browser.post(&format!("{at}/rotate"), &fields).await.expect(200);
    portal.mark_used(id).await;
    let part = refreshed(&mut browser).await.shows("0 requests used it").shows(">just now</time>");
    part.shows("<span class=\"state rotating\">rotating</span>");
    // The old secret was used in the running hour.
    let url = format!("sqlite:{}", portal.site.path("keys.db").display());
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    let now_s = i64::try_from(now().unix_s()).unwrap();
    sqlx::query("insert into usage values ('hour', $1, $2, 'test', 9, 9, 4, 0, 0, 0, 3, 0, 0, 0)")
        .bind(id.number().cast_signed())
        .bind(now_s - now_s % 3600)
        .execute(&mut connection)
        .await
        .unwrap();
    let part = refreshed(&mut browser).await.shows("Since the rotation, 3 requests used it");
    for class in ["admitted", "old", "denied"] {
        assert!(part.text.contains(&format!("<rect class=\"open {class}\"")), "{class}: {part:?}");
    }
    part.shows("<b>3</b> of them with an old secret")
        .shows("9 admitted (3 with an old secret), 4 denied");
}

/// Uses of the secret before the old one are no reason to keep the old one.
#[tokio::test]
async fn uses_of_the_old_secret_are_those_since_the_rotation() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let id = portal.site.gate().list()[0].key_id;
    let form_id = browser.get(&format!("/k/{id}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "86400")];
    browser.post(&format!("/k/{id}/rotate"), &fields).await.expect(200);
    let url = format!("sqlite:{}", portal.site.path("keys.db").display());
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    // The rotation was at 30 minutes past the hour. Before it in that hour, 5 requests used an
    // older secret, and 7 used the old one after it. In the hour before, 9 used the older one.
    let now_s = i64::try_from(now().unix_s()).unwrap();
    let hour_s = now_s - now_s % 3600 - 2 * 3600;
    for (width, start_s, old) in [
        ("hour", hour_s, 12),
        ("minute", hour_s + 600, 5),
        ("minute", hour_s + 2400, 7),
        ("hour", hour_s - 3600, 9),
    ] {
        sqlx::query(
            "insert into usage values ($1, $2, $3, 'test', 20, 20, 0, 0, 0, 0, $4, 0, 0, 0)",
        )
        .bind(width)
        .bind(id.number().cast_signed())
        .bind(start_s)
        .bind(old)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    sqlx::query("update \"key\" set rotated_s = $1")
        .bind(hour_s + 1800)
        .execute(&mut connection)
        .await
        .unwrap();
    let text = "Since the rotation, 7 requests used it";
    browser.get(&format!("/k/{id}")).await.expect(200).shows(text);
    browser.get(&format!("/k/{id}/end-grace")).await.expect(200).shows(text);
    // The chip and its filter count the same requests.
    let chip = "<span class=\"chip\">old secret used</span>";
    browser.get("").await.expect(200).shows(chip);
    browser.get("?flag=old_secret_used").await.expect(200).shows(chip);
    sqlx::query("update usage set old_secret = 5 where start_s = $1")
        .bind(hour_s)
        .execute(&mut connection)
        .await
        .unwrap();
    let text = "Since the rotation, 0 requests used it";
    browser.get(&format!("/k/{id}")).await.expect(200).shows(text).hides(chip);
    browser.get("").await.expect(200).shows(">billing<").hides(chip);
    browser.get("?flag=old_secret_used").await.expect(200).shows("No key matches");
}

/// A client that still sends the old secret after its end is seen on the page of the key.
#[tokio::test]
async fn old_secret_that_is_sent_after_its_end_is_counted() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let gate = portal.site.gate();
    gate.set_usage(true).unwrap();
    let old = browser.make("billing").await.expect(200).secret();
    let id = gate.list()[0].key_id;
    let at = format!("/k/{id}");
    let form_id = browser.get(&format!("{at}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "86400")];
    browser.post(&format!("{at}/rotate"), &fields).await.expect(200);
    browser.post(&format!("{at}/end-grace"), &[]).await.expect(303);
    let done = browser.get(&format!("{at}?done=ended")).await.expect(200);
    done.shows("Some seconds after one, this page says how many").hides("is still sent");
    for _ in 0..3 {
        assert_eq!(gate.check(Some(old.as_bytes()), 1).http_status(), 401);
    }
    let list = portal.site.list.clone();
    let mut sampler = keytally_keys::sampler::Sampler::new(list, None, now()).unwrap();
    sampler.sample(now()).await.unwrap();
    let page = browser.get(&at).await.expect(200);
    let page = page.shows("In the last 24 hours, 3 requests with it were refused.");
    page.shows("<b>3</b> refused as expired, revoked or suspended");
    // A guess that has the id of the key alone does not count.
    let mut guess = old.clone();
    guess.replace_range(30..31, if &old[30..31] == "a" { "b" } else { "a" });
    assert_eq!(gate.check(Some(guess.as_bytes()), 1).http_status(), 401);
    sampler.sample(now()).await.unwrap();
    browser.get(&at).await.expect(200).shows("24 hours, 3 requests with it were refused.");
    // A key that is rotated again has another old secret.
    let url = format!("sqlite:{}", portal.site.path("keys.db").display());
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    sqlx::query("update \"key\" set rotated_s = rotated_s + 7200")
        .execute(&mut connection)
        .await
        .unwrap();
    browser.get(&at).await.expect(200).hides("is still sent");
}

/// What the gate knows of the last use is shown before the service adds it to the list.
#[tokio::test]
async fn last_use_is_shown_before_a_sample() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let gate = portal.site.gate();
    gate.set_usage(true).unwrap();
    let secret = browser.make("billing").await.expect(200).secret();
    let at = format!("/k/{}", gate.list()[0].key_id);
    browser.get("").await.expect(200).shows("<td data-label=\"Last use\">never</td>");
    assert_eq!(gate.check(Some(secret.as_bytes()), 1).http_status(), 200);
    browser.get("").await.expect(200).shows(">just now</time></td>");
    browser.get(&at).await.expect(200).hides("<dt>Last use</dt><dd>never</dd>");
    // The key counts as one in use.
    browser.get(&format!("{at}/revoke")).await.expect(200).shows("Name of the key");
}

#[tokio::test]
async fn revoked_keys_are_listed_only_on_request() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Admin).await;
    let count = |text: &str| format!("role=\"status\">{text}</p>");
    let [kept, revoked] = [portal.key().await, portal.key().await];
    let secret = browser.make("leaked").await.expect(200).secret();
    let leaked = portal.site.gate().list();
    let mut leaked = leaked.iter().map(|key| key.key_id.to_string());
    let leaked = leaked.find(|id| ![&kept, &revoked].contains(&id)).unwrap();
    browser.get("").await.expect(200).shows(&count("3 keys")).hides("also revoked");
    for id in [&revoked, &leaked] {
        browser.post(&format!("/k/{id}/revoke"), &[]).await.expect(303);
    }
    let page = browser.get("").await.expect(200).shows(&kept).hides(&revoked).hides(&leaked);
    let page = page.shows(&count("1 key, and 2 revoked keys that are not shown"));
    page.shows("<a href=\"/keys?state=all\">also revoked</a>");
    let page = browser.get("?state=all").await.expect(200).shows(&kept).shows(&revoked);
    let page = page.shows(&count("3 keys")).shows("<option value=\"all\" selected>All</option>");
    page.shows("<a href=\"/keys\" aria-current=\"true\">also revoked");
    browser.get("?state=revoked").await.expect(200).hides(&kept).hides("also revoked");
    let page = browser.get("?search=leaked").await.expect(200).shows("Only revoked keys match.");
    page.shows(&count("0 of 1 key found, and 1 revoked key that is not shown"));
    browser.get("?flag=never_expires").await.expect(200).hides("also revoked");
    // A revoked key that is pasted is found.
    let answer = browser.post("/find", &[("search", &secret)]).await.expect(303);
    assert_eq!(answer.header("location"), format!("/keys?search={leaked}&state=all"));
    // A team whose keys are all revoked is not new.
    browser.post(&format!("/k/{kept}/revoke"), &[]).await.expect(303);
    browser.get("").await.expect(200).hides("No keys yet").shows("Only revoked keys match.");
}

#[tokio::test]
async fn numbers_of_a_picture_are_a_file_too() {
    let portal = Portal::new().await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let id = portal.key().await;
    let now_s = i64::try_from(now().unix_s()).unwrap();
    portal.add_hour(&id, now_s - 7200, [1234, 5, 3]).await;
    let head = "from,admitted,denied by a limit,missing scope,old secret,expired revoked or \
                suspended\r\n";
    for (path, name) in [
        (format!("/k/{id}/usage.csv?range=24h"), format!("usage-{id}-24h.csv")),
        ("/team/usage.csv".to_owned(), format!("usage-team-{}-24h.csv", portal.team)),
    ] {
        let file = viewer.get(&path).await.expect(200);
        assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
        let expected = format!("attachment; filename=\"{name}\"");
        assert_eq!(file.header("content-disposition"), expected);
        let rest = file.text.strip_prefix(head).unwrap();
        assert_eq!(rest.matches(":00:00Z,").count(), 24, "{rest}");
        assert_eq!(rest.matches(":00:00Z,1234,5,3,0,0\r\n").count(), 1, "{rest}");
        assert_eq!(rest.matches(":00:00Z,0,0,0,0,0\r\n").count(), 23, "{rest}");
    }
    viewer.get("/k/00000000001/usage.csv").await.expect(404);
    let page = viewer.get(&format!("/k/{id}?range=30d")).await.expect(200);
    page.shows(&format!("href=\"/keys/k/{id}/usage.csv?range=30d\""));
    viewer.get("/team").await.expect(200).shows("href=\"/keys/team/usage.csv?range=24h\"");
}

#[tokio::test]
async fn team_without_valid_keys_is_deleted_by_its_name() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let mut operator = portal.signed_in(Role::Operator).await;
    viewer.post("/team/delete", &[("typed", "Acme")]).await.expect(403);
    owner.get("/team/delete").await.expect(200).shows("1 valid key").hides("name=\"typed\"");
    owner.post("/team/delete", &[("typed", "Acme")]).await.expect(409).shows("revoke them first");
    // A key that the list does not have counts too.
    let (_, outside) = support::issue_outside(&portal.site, portal.team);
    owner.post(&format!("/k/{id}/revoke"), &[]).await.expect(303);
    owner.post("/team/delete", &[("typed", "Acme")]).await.expect(409).shows("1 of them");
    portal.site.gate().revoke(outside).unwrap();
    let link = owner.post("/team/invite", &[("user", "bob"), ("role", "member")]).await;
    let link = link.expect(200).secret();
    let token =
        portal.site.list.create_token(Some(portal.team), Role::Admin, "ci", support::operator());
    let token = token.await.unwrap().1.token.parse().unwrap();
    owner.post("/team/delete", &[("typed", "Acme")]).await.expect(409).shows("token");
    portal.site.list.revoke_token(Some(portal.team), token, support::operator()).await.unwrap();
    let page = owner.post("/team/delete", &[("typed", "acme")]).await.expect(400);
    page.shows("<a href=\"#typed\">").shows("value=\"acme\"").shows("aria-invalid");
    // It needs a recent sign-in.
    set_ahead(601);
    owner.post("/team/delete", &[("typed", "Acme")]).await.expect(403).shows("Confirm that it is");
    set_ahead(0);
    owner.get("").await.expect(200);
    owner.post("/team/delete", &[("typed", "Acme")]).await.expect(303);
    let page = owner.get("/in?done=deleted").await.expect(200).hides("nothing was changed");
    page.shows("The team is deleted, and the sessions of its members ended.");
    for browser in [&mut owner, &mut viewer] {
        assert_eq!(browser.get("").await.expect(303).header("location"), "/keys/in");
    }
    portal.browser().post("/in", &[("code", &link)]).await.expect(403);
    // An operator chooses among the other teams.
    assert_eq!(operator.get("").await.expect(303).header("location"), "/keys/teams");
    operator.get("/teams").await.expect(200).hides("Acme");
    operator.post("/teams", &[("team", &portal.team.to_string())]).await.expect(404);
    let list = &portal.site.list;
    assert!(list.create_key(creation(portal.team), support::operator()).await.is_err());
    assert!(list.create_team(Some(portal.team), "Other", support::operator()).await.is_err());
    let next = list.create_team(None, "Next", support::operator()).await.unwrap();
    assert_eq!(next.team, portal.team + 1);
    operator.post("/teams", &[("team", &next.team.to_string())]).await.expect(303);
    let away = operator.post("/team/delete", &[("typed", "Next")]).await.expect(303);
    assert_eq!(away.header("location"), "/keys/teams?done=deleted");
    operator.get("/teams?done=deleted").await.expect(200).shows("The team is deleted.");
}

/// What a rule of the team that is newer than a key says of the key.
#[tokio::test]
async fn key_that_ends_later_than_a_newer_rule_is_marked() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    owner.make("billing").await.expect(200);
    let id = portal.site.gate().list()[0].key_id;
    let chip = "<span class=\"chip\">ends later than the rules permit</span>";
    let sentence =
        "This key ends later than the rules of the team permit, which is at most 60 days";
    owner.get("").await.expect(200).hides(chip);
    owner.get(&format!("/k/{id}")).await.expect(200).hides("ends later than");
    owner.post("/team/set", &[("longest", "60"), ("live_role", "admin")]).await.expect(303);
    owner.get("").await.expect(200).shows(chip);
    owner.get(&format!("/k/{id}")).await.expect(200).shows(sentence);
    // The forms offer the longest time, and propose it.
    let form = owner.get("/new").await.expect(200).shows("<span>30 days</span>");
    let form = form.shows("value=\"60\" checked> <span>60 days <small>proposed</small></span>");
    let form_id = form.hides("value=\"90\"").field("form_id");
    let edit = owner.get(&format!("/k/{id}/edit")).await.expect(200);
    edit.shows("value=\"60\"> <span>60 days from now</span>");
    // A date that is too late is wrong at its field.
    let fields = [("form_id", &*form_id), ("name", "web"), ("env", "test"), ("scope", "read")];
    let late = [("lifetime", "date"), ("date", "2099-12-31")];
    let page = owner.post("/new", &[&fields[..], &late].concat()).await.expect(400);
    let page = page.shows("<a href=\"#date\">Date: keys of this team expire within 60 days");
    let (_, tag) = page.text.split_once("<input id=\"date\"").unwrap();
    let tag = tag.split('>').next().unwrap();
    assert!(tag.contains("aria-invalid=\"true\" aria-describedby=\"date-problem\""), "{tag}");
    let edit = [&[("name", "billing"), ("scope", "read")][..], &late].concat();
    let page = owner.post(&format!("/k/{id}/edit"), &edit).await.expect(400);
    page.shows("<a href=\"#date\">Date: keys of this team expire within 60 days");
    let edit = [("name", "billing"), ("scope", "read"), ("lifetime", "60")];
    owner.post(&format!("/k/{id}/edit"), &edit).await.expect(303);
    owner.get("").await.expect(200).hides(chip);
    // A shorter rule is the only choice.
    owner.post("/team/set", &[("longest", "7"), ("live_role", "admin")]).await.expect(303);
    let form = owner.get("/new").await.expect(200).hides("value=\"30\"");
    form.shows("value=\"7\" checked> <span>7 days <small>proposed</small></span>");
}

#[tokio::test]
async fn same_name_in_two_environments_needs_no_tick() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let form_id = browser.get("/new").await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("name", "billing"), ("lifetime", "90")];
    let fields = [&fields[..], &[("scope", "read")]].concat();
    let page = browser.post("/new", &[&fields[..], &[("env", "test")]].concat()).await.expect(400);
    page.shows("of the same environment has this name already");
    browser.post("/new", &[&fields[..], &[("env", "live")]].concat()).await.expect(200);
    let keys = portal.site.list.keys(&KeyFilter { limit: 9, ..KeyFilter::default() }, now()).await;
    let live = keys.unwrap().into_iter().find(|key| key.env.as_str() == "live").unwrap();
    // A key that gets its name by a change is compared with its environment too.
    let at = format!("/k/{}/edit", live.key_id);
    let edit = |name| [("name", name), ("lifetime", "keep"), ("scope", "read")];
    browser.post(&at, &edit("web")).await.expect(303);
    browser.post(&at, &edit("billing")).await.expect(303);
}

#[tokio::test]
async fn second_invitation_replaces_the_first() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let fields = [("user", "bob"), ("role", "member")];
    let again = [&fields[..], &[("again", "on")]].concat();
    let first = owner.post("/team/invite", &fields).await.expect(200).secret();
    let other = owner.post("/team/invite", &[("user", "ann"), ("role", "viewer")]).await.secret();
    let second = owner.post("/team/invite", &again).await.expect(200).secret();
    let page = owner.get("/team").await.expect(200);
    assert_eq!(page.text.matches("aria-label=\"Withdraw the link of bob\"").count(), 1);
    let log = owner.get("/log?what=link.create").await.expect(200);
    let log = log.shows("<bdi>for bob as member; the link before it is withdrawn</bdi>");
    log.shows("<bdi>for bob as member</bdi>").shows("<bdi>for ann as viewer</bdi>");
    portal.browser().post("/in", &[("code", &first)]).await.expect(403);
    portal.browser().post("/in", &[("code", &second)]).await.expect(303);
    portal.browser().post("/in", &[("code", &other)]).await.expect(303);
    // The link that was used is not one that a third one replaces.
    owner.post("/team/invite", &again).await.expect(200);
    let log = owner.get("/log?what=link.create").await.expect(200);
    assert_eq!(log.text.matches("the link before it is withdrawn").count(), 1);
}

#[tokio::test]
async fn stale_form_undoes_no_change_of_another() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}", portal.site.gate().list()[0].key_id);
    let form = browser.get(&format!("{at}/edit")).await.expect(200);
    let hidden: Vec<(String, String)> = ["was_name", "was_note", "was_plan", "was_scopes"]
        .map(|name| (name.to_owned(), form.field(name)))
        .to_vec();
    let with = |rest: &[(&str, &str)]| {
        let mut fields = hidden.clone();
        fields.extend(rest.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        fields
    };
    let post = async |browser: &mut Browser<'_>, fields: &[(String, String)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        browser.post(&format!("{at}/edit"), &fields).await
    };
    // Nothing is changed, and nothing is logged.
    let same = with(&[("name", "billing"), ("scope", "read"), ("lifetime", "keep")]);
    let answer = post(&mut browser, &same).await.expect(303);
    assert!(answer.header("location").ends_with("?done=same"), "{answer:?}");
    browser
        .get(&format!("{at}?done=same"))
        .await
        .expect(200)
        .shows("Nothing was changed")
        .hides("changed the key");
    // One form renames the key. Another one, opened before, adds a note.
    let renamed = with(&[("name", "invoices"), ("scope", "read"), ("lifetime", "keep")]);
    post(&mut browser, &renamed).await.expect(303);
    let noted =
        with(&[("name", "billing"), ("note", "kept"), ("scope", "read"), ("lifetime", "keep")]);
    post(&mut browser, &noted).await.expect(303);
    let page = browser.get(&at).await.expect(200);
    page.shows("invoices").shows("kept").shows("name from &#34;billing&#34; to &#34;invoices&#34;");
    // A third one gives it another name: the person decides by the present one.
    let third = with(&[("name", "bills"), ("scope", "read"), ("lifetime", "keep")]);
    let form = post(&mut browser, &third).await.expect(400);
    let form =
        form.shows("another change made it &#34;invoices&#34; meanwhile").shows("value=\"bills\"");
    assert_eq!([form.field("was_name"), form.field("was_note")], ["invoices", ""]);
}

/// Two people open *Rotate* of one key. The second one must not end the secret of the first.
#[tokio::test]
async fn stale_rotation_ends_no_secret() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}/rotate", portal.site.gate().list()[0].key_id);
    let form = browser.get(&at).await.expect(200).hides("It was last rotated");
    let stale = browser.get(&at).await.expect(200);
    let fields =
        |form: &Answer| ["form_id", "was_rotated"].map(|name| (name, form.field(name))).to_vec();
    let post = async |browser: &mut Browser<'_>, kept: &[(&str, String)], hours: &str| {
        let kept = kept.iter().map(|(name, value)| (*name, &**value));
        let grace = if hours.is_empty() { "0" } else { "own" };
        let fields: Vec<_> = kept.chain([("grace", grace), ("hours", hours)]).collect();
        browser.post(&at, &fields).await
    };
    let secret = post(&mut browser, &fields(&form), "").await.expect(200).secret();
    let is_valid = || portal.site.gate().peek(Some(secret.as_bytes()), 1).http_status() == 200;
    // The same form again is one that was sent before.
    post(&mut browser, &fields(&form), "").await.expect(409).shows("was sent before");
    // A form with another error in it stays stale.
    let wrong = post(&mut browser, &fields(&stale), "x").await.expect(400);
    assert_eq!(wrong.field("was_rotated"), "");
    let again = post(&mut browser, &fields(&stale), "").await.expect(400);
    let again = again.shows("<a href=\"#rotated\">Last rotation: the key was rotated after");
    let again = again.shows("<p id=\"rotated\">It was last rotated");
    assert!(is_valid());
    // The person has seen the other rotation now.
    post(&mut browser, &fields(&again), "").await.expect(200);
    assert!(!is_valid());
}

#[tokio::test]
async fn old_secret_is_valid_no_longer_than_its_key() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}", portal.site.gate().list()[0].key_id);
    let form_id = browser.get(&format!("{at}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "604800")];
    browser.post(&format!("{at}/rotate"), &fields).await.expect(200);
    let day = keytally_keys::time::day(support::in_s(2 * 86_400));
    let fields = [("name", "billing"), ("scope", "read"), ("lifetime", "date"), ("date", &*day)];
    let done = browser.post(&format!("{at}/edit"), &fields).await.expect(303);
    assert!(done.header("location").ends_with("?done=edited"), "{done:?}");
    let end = format!("until <time datetime=\"{day}T00:00:00Z\">");
    for path in ["", "/rotate", "/end-grace"] {
        browser.get(&format!("{at}{path}")).await.expect(200).shows(&end);
    }
}

#[tokio::test]
async fn change_of_a_key_is_in_the_log_in_plain_words() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}", portal.site.gate().list()[0].key_id);
    let base = [("name", "billing"), ("lifetime", "keep")];
    // Requests are not checked by a note.
    let noted = [&base[..], &[("note", "new"), ("scope", "read")]].concat();
    let done = browser.post(&format!("{at}/edit"), &noted).await.expect(303);
    assert!(done.header("location").ends_with("?done=noted"), "{done:?}");
    let page = browser.get(&format!("{at}?done=noted")).await.expect(200);
    page.shows("The change is saved.").hides("the next request is checked by it");
    let both = [("name", "billing"), ("lifetime", "keep"), ("scope", "read"), ("scope", "write")];
    browser.post(&format!("{at}/edit"), &both).await.expect(303);
    let fields = [("name", "billing"), ("lifetime", "date"), ("date", "2030-01-31")];
    let fields = [&fields[..], &[("scope", "read"), ("scope", "write")]].concat();
    browser.post(&format!("{at}/edit"), &fields).await.expect(303);
    let end = "expires at <time datetime=\"2030-01-31T00:00:00Z\">2030-01-31 00:00 UTC</time>";
    for path in ["/log", &at] {
        let page = browser.get(path).await.expect(200);
        let page = page.shows("<bdi>environment test, plan default</bdi>");
        let page = page.shows("<bdi>another note</bdi>").shows("<bdi>note removed, scopes from");
        page.shows("scopes from read to read and write</bdi>").shows(end);
    }
    let file = browser.get("/log.csv?what=key.edit").await.expect(200);
    file.shows(",\"expires at 2030-01-31T00:00:00Z\"");
}

/// Two keys of one name in two environments differ on the page before one of them ends.
#[tokio::test]
async fn key_is_named_with_environment_hint_and_id_before_it_ends() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let secret = browser.make("billing").await.expect(200).secret();
    let id = portal.site.gate().list()[0].key_id.to_string();
    let hint = format!("<code>kt_test_…{}</code>", &secret[secret.len() - 4..]);
    let code = format!("<code>{id}</code>");
    for path in ["/rotate", "/revoke"] {
        let page = browser.get(&format!("/k/{id}{path}")).await.expect(200);
        page.shows("Environment <b>test</b>").shows(&hint).shows(&code);
    }
    let page = browser.get(&format!("/bulk?id={id}")).await.expect(200);
    page.shows("<td data-label=\"Environment\">test</td>").shows(&hint).shows(&code);
}

/// The service enters a revocation of the gate into the list some seconds later.
#[tokio::test]
async fn revocation_of_the_gate_alone_is_shown_at_once() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let id = portal.key().await;
    let at = format!("/k/{id}");
    portal.site.gate().revoke(id.parse().unwrap()).unwrap();
    let revoked = "<span class=\"state revoked\">revoked</span>";
    let waits = "Revoked on this machine: requests with it are refused.";
    browser.get("").await.expect(200).shows(revoked).hides("<span class=\"state unseen\">");
    browser.get(&at).await.expect(200).shows(revoked).shows(waits).hides("/rotate");
    let compared = portal.site.list.compare(Comparison::automatic(), now()).await.unwrap();
    assert_eq!(compared.differences.len(), 1, "{compared:?}");
    let page = browser.get(&at).await.expect(200).hides(waits).shows("by <bdi>the service</bdi>");
    page.shows("matched the list with the gate");
    // The log finds it by its action and by its actor.
    let page = browser.get("/log?what=key.reconcile&actor=the+service").await.expect(200);
    let page = page.shows("matched the list with the gate</td>").hides("signed in</td>");
    let page = page.shows("value=\"key.reconcile\" selected").shows("value=\"the service\"");
    page.shows("/log?actor=reconcile\"><bdi>the service</bdi>");
    let page = browser.get("/log?actor=reconcile").await.expect(200);
    page.shows("name=\"actor\" value=\"the service\"");
}

#[tokio::test]
async fn grace_beyond_the_end_of_the_key_is_refused() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let at = format!("/k/{}/rotate", portal.site.gate().list()[0].key_id);
    let form_id = browser.get(&at).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "own"), ("hours", "8760")];
    browser.post(&at, &fields).await.expect(400).shows("the key itself ends in ");
}

#[tokio::test]
async fn half_filled_form_is_not_left_for_a_sign_in_elsewhere() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let id = portal.key().await;
    portal.signed_in(Role::Owner).await;
    let button = "<button class=\"plain\">I have seen it</button>";
    let hidden = "<button class=\"plain\" hidden>I have seen it</button>";
    owner.get("").await.expect(200).shows(button);
    for path in ["/new", "/k/ID/rotate", "/k/ID/edit", "/k/ID/revoke", "/bulk?id=ID"] {
        let page = owner.get(&path.replace("ID", &id)).await.expect(200);
        page.shows(hidden).shows("When you have finished this form, confirm on the page");
    }
}

#[tokio::test]
async fn key_in_use_is_revoked_only_with_its_name() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    browser.make("billing").await.expect(200);
    let id = portal.site.gate().list()[0].key_id;
    let at = format!("/k/{id}/revoke");
    browser.get(&at).await.expect(200).shows("never used").hides("Name of the key");
    portal.mark_used(id).await;
    // The use is not in the counts yet, which would contradict it.
    let page = browser.get(&at).await.expect(200).shows("Name of the key").shows(">just now<");
    page.hides("no request in the last 24 hours");
    browser.post(&at, &[("why", "leaked"), ("typed", "Billing")]).await.expect(400).shows("leaked");
    browser.post(&at, &[("why", "leaked"), ("typed", "billing")]).await.expect(303);
    let page = browser.get(&format!("/k/{id}?done=revoked")).await.expect(200);
    page.shows("leaked").shows("Requests with it are refused").hides("/rotate");
    browser.post(&at, &[("typed", "billing")]).await.expect(409);
}

#[tokio::test]
async fn key_is_revoked_with_both_numbers_in_view() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let [used, denied, unused] = [portal.key().await, portal.key().await, portal.key().await];
    let now_s = i64::try_from(now().unix_s()).unwrap();
    portal.add_hour(&used, now_s, [1190, 20, 3]).await;
    portal.add_hour(&denied, now_s, [0, 7, 0]).await;
    let page = browser.get(&format!("/k/{used}/revoke")).await.expect(200);
    page.shows("1,213 requests in the last 24 hours: 1,190 admitted and 23 denied");
    // A key whose requests are all denied is in use too.
    let page = browser.get(&format!("/k/{denied}/revoke")).await.expect(200);
    page.shows("7 requests in the last 24 hours: 0 admitted and 7 denied").shows("is in use");
    let page = browser.get(&format!("/k/{unused}/revoke")).await.expect(200);
    page.shows("no request in the last 24 hours").hides("is in use");
    let page = browser.get(&format!("/bulk?id={used}&id={denied}")).await.expect(200);
    page.shows(">1,190</td>").shows(">23</td>").shows(">0</td>").shows(">7</td>");
}

impl Portal {
    /// Adds an hour of use of a key: admitted requests, denied ones, and those without the scope.
    async fn add_hour(&self, key_id: &str, at_s: i64, counts: [i64; 3]) {
        let url = format!("sqlite:{}", self.site.path("keys.db").display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        let key_id: keytally::KeyId = key_id.parse().unwrap();
        sqlx::query(
            "insert into usage values ('hour', $1, $2, 'test', $3, $3, $4, 0, 0, $5, 0, 0, 0, 0)",
        )
        .bind(key_id.number().cast_signed())
        .bind(at_s - at_s % 3600)
        .bind(counts[0])
        .bind(counts[1])
        .bind(counts[2])
        .execute(&mut connection)
        .await
        .unwrap();
    }

    /// Records a use of a key, as the service's counts do.
    async fn mark_used(&self, key_id: keytally::KeyId) {
        let url = format!("sqlite:{}", self.site.path("keys.db").display());
        let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
        sqlx::query("update \"key\" set last_used_s = $2 where key_id = $1")
            .bind(key_id.number().cast_signed())
            .bind(i64::try_from(now().unix_s()).unwrap())
            .execute(&mut connection)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn several_keys_are_revoked_with_their_number() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Admin).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(portal.key().await);
    }
    browser.get("/bulk").await.expect(400).shows("No key is ticked");
    let query = format!("/bulk?id={}&id={}&id={}", ids[0], ids[1], ids[0]);
    browser.get(&query).await.expect(200).shows("Revoke 2 keys");
    let fields = [("id", &*ids[0]), ("id", &*ids[1]), ("why", "leaked")];
    browser.post("/bulk", &[&fields[..], &[("typed", "3")]].concat()).await.expect(400);
    browser.post("/bulk", &[&fields[..], &[("typed", "2")]].concat()).await.expect(303);
    browser.get("?revoked=2").await.expect(200).shows("Revoked 2 keys");
    browser.get("?state=revoked").await.shows(&ids[0]).shows(&ids[1]).hides(&ids[2]);
}

#[tokio::test]
async fn old_session_makes_a_change_only_after_a_proof() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let id = portal.key().await;
    let form_id = browser.get("/new").await.expect(200).field("form_id");
    set_ahead(601);
    let fields = [("form_id", &*form_id), ("name", "kept \"name\""), ("env", "test")];
    let fields = [&fields[..], &[("lifetime", "90"), ("scope", "read")]].concat();
    let confirm = browser.post("/new", &fields).await.expect(403);
    let confirm = confirm.shows("Confirm that it is you").shows("action=\"/keys/new\"");
    confirm.shows("name=\"name\" value=\"kept &#34;name&#34;\"");

    // Everything that a stolen session must not do.
    let rotation = [("form_id", &*form_id), ("grace", "0")];
    for (path, fields) in [
        (format!("/k/{id}/rotate"), &rotation[..]),
        (format!("/k/{id}/end-grace"), &[]),
        (format!("/k/{id}/revoke"), &[]),
        (format!("/k/{id}/edit"), &[("name", "a"), ("lifetime", "never"), ("scope", "read")]),
        ("/bulk".to_owned(), &[("id", &*id), ("typed", "1")]),
        ("/team/invite".to_owned(), &[("user", "eve"), ("role", "owner")]),
        ("/team/rename".to_owned(), &[("name", "Stolen")]),
        ("/team/set".to_owned(), &[("live_role", "member")]),
        ("/team/role".to_owned(), &[("user", "1"), ("role", "owner")]),
    ] {
        browser.post(&path, fields).await.expect(403).shows("Confirm that it is you");
    }
    // A name, a note and an earlier end need none.
    let harmless = [("name", "new name"), ("lifetime", "30"), ("scope", "read")];
    browser.post(&format!("/k/{id}/edit"), &harmless).await.expect(303);
    // An end within a day needs one, as a revocation does. What was filled in is kept.
    let at = format!("/k/{id}/edit");
    let tomorrow = keytally_keys::time::day(support::in_s(601 + 86_400));
    let ends =
        |date| [("name", "new name"), ("lifetime", "date"), ("date", date), ("scope", "read")];
    let confirm = browser.post(&at, &ends(&*tomorrow)).await.expect(403);
    confirm.shows("Confirm that it is you").shows(&format!("name=\"date\" value=\"{tomorrow}\""));
    let in_two_days = keytally_keys::time::day(support::in_s(601 + 3 * 86_400));
    browser.post(&at, &ends(&*in_two_days)).await.expect(303);

    // A code of another user is not a proof.
    let other = portal.code(Some("eve"), Role::Owner).await;
    let with = |code: &Code| {
        [&fields[..], &[("code", code.expose())]]
            .concat()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
    };
    let send = async |browser: &mut Browser<'_>, fields: Vec<(String, String)>| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        browser.post("/new", &fields).await
    };
    send(&mut browser, with(&other)).await.expect(403).shows("another user");
    let own = portal.code(Some("owner"), Role::Owner).await;
    let stolen = browser.cookie.clone();
    let page = send(&mut browser, with(&own)).await.expect(200);
    assert!(!page.secret().is_empty());
    // The token changed, and the old one is worth nothing.
    assert_ne!(browser.cookie, stolen);
    browser.get("").await.expect(200);
    Browser { cookie: stolen, ..portal.browser() }.get("").await.expect(303);
}

#[tokio::test]
async fn html_in_every_text_is_shown_as_text() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let hostile = "<script>alert(1)</script>\"'";
    browser.make(hostile).await.expect(200).hides(hostile);
    let id = portal.site.gate().list()[0].key_id.to_string();
    browser.post("/team/rename", &[("name", hostile)]).await.expect(303);
    browser.post("/team/invite", &[("user", hostile), ("role", "viewer")]).await.expect(200);
    let at = format!("/k/{id}");
    let edit = [("name", hostile), ("note", hostile), ("lifetime", "keep"), ("scope", "read")];
    browser.post(&format!("{at}/edit"), &edit).await.expect(303);
    let escaped = "&#60;script&#62;alert(1)&#60;/script&#62;&#34;&#39;";
    for path in [
        "",
        "?search=%3Cscript%3E%22",
        "/team",
        "/log",
        "/me",
        "/new",
        "/team/remove?user=2",
        "/log?actor=%3Cscript%3E",
        &at,
        &format!("{at}/edit"),
        &format!("{at}/rotate"),
        &format!("{at}/revoke"),
        &format!("/bulk?id={id}"),
    ] {
        let page = browser.get(path).await.expect(200);
        assert!(!page.text.contains("<script>"), "{path}: {}", page.text);
    }
    browser.get("").await.shows(escaped);
    browser.get("/log?key=%3Cscript%3E").await.expect(200).hides("<script>");
    let mut texts = Vec::new();
    for fields in [
        &[("name", hostile), ("env", hostile)][..],
        &[("name", "a"), ("env", "test"), ("plan", hostile)],
        &[("name", "a"), ("env", "test"), ("scope", hostile)],
    ] {
        let form_id = browser.get("/new").await.field("form_id");
        let fields = [fields, &[("form_id", &*form_id), ("lifetime", "90"), ("note", hostile)]];
        texts.push(browser.post("/new", &fields.concat()).await.expect(400).text);
    }
    assert!(texts.iter().all(|text| !text.contains("<script>")));
}

/// A page or a change: the method, the path, the least role, and a form.
type Route = (&'static str, &'static str, Role, &'static [(&'static str, &'static str)]);

/// All routes with a session. `ID` is a key of the team.
const ROUTES: [Route; 36] = [
    ("GET", "", Role::Viewer, &[]),
    ("POST", "/find", Role::Viewer, &[("search", "billing")]),
    ("GET", "/k/ID", Role::Viewer, &[]),
    ("GET", "/k/ID/usage.csv", Role::Viewer, &[]),
    ("GET", "/team", Role::Viewer, &[]),
    ("GET", "/team/usage.csv?range=30d", Role::Viewer, &[]),
    ("GET", "/log", Role::Viewer, &[]),
    ("POST", "/log", Role::Viewer, &[]),
    ("GET", "/log.csv", Role::Viewer, &[]),
    ("GET", "/me", Role::Viewer, &[]),
    ("POST", "/me/seen", Role::Viewer, &[("seq", "1")]),
    ("POST", "/me/passkey/new", Role::Viewer, &[]),
    ("POST", "/me/passkey", Role::Viewer, &[]),
    ("GET", "/me/passkey/name", Role::Viewer, &[]),
    ("POST", "/me/passkey/name", Role::Viewer, &[]),
    ("POST", "/me/passkey/remove", Role::Viewer, &[]),
    ("GET", "/new", Role::Member, &[]),
    ("POST", "/new", Role::Member, &[]),
    ("GET", "/k/ID/rotate", Role::Admin, &[]),
    ("POST", "/k/ID/rotate", Role::Admin, &[]),
    ("GET", "/k/ID/end-grace", Role::Admin, &[]),
    ("POST", "/k/ID/end-grace", Role::Admin, &[]),
    ("GET", "/k/ID/edit", Role::Admin, &[]),
    ("POST", "/k/ID/edit", Role::Admin, &[("lifetime", "x")]),
    ("GET", "/k/ID/revoke", Role::Admin, &[]),
    ("POST", "/k/ID/revoke", Role::Admin, &[("why", "\u{7}")]),
    ("GET", "/bulk?id=ID", Role::Admin, &[]),
    ("POST", "/bulk", Role::Admin, &[("id", "ID"), ("typed", "x")]),
    ("POST", "/team/rename", Role::Owner, &[]),
    ("POST", "/team/set", Role::Owner, &[("live_role", "x")]),
    ("POST", "/team/invite", Role::Owner, &[]),
    ("POST", "/team/withdraw", Role::Owner, &[]),
    ("POST", "/team/role", Role::Owner, &[]),
    ("GET", "/team/delete", Role::Owner, &[]),
    ("GET", "/team/remove?user=99", Role::Owner, &[]),
    ("GET", "/teams", Role::Operator, &[]),
];

#[tokio::test]
async fn each_role_may_do_what_its_name_says() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    for role in Role::ALL {
        let mut browser = portal.signed_in(role).await;
        for (method, path, least, fields) in ROUTES {
            let path = path.replace("ID", &id);
            let fields: Vec<_> = fields
                .iter()
                .map(|&(name, value)| (name, if value == "ID" { &*id } else { value }))
                .collect();
            let answer = match method {
                "GET" => browser.get(&path).await,
                _ => browser.post(&path, &fields).await,
            };
            let is_refused = answer.status == 403;
            assert_eq!(is_refused, role < least, "{role:?} {method} {path}: {answer:#?}");
            assert!(answer.status < 500, "{role:?} {method} {path}: {answer:#?}");
        }
    }
}

#[tokio::test]
async fn key_of_another_team_is_unknown() {
    let portal = Portal::new().await;
    let other = portal.site.list.create_team(None, "Other", operator()).await.unwrap();
    let (_, row) = portal.site.list.create_key(creation(other.team), operator()).await.unwrap();
    let mut browser = portal.signed_in(Role::Owner).await;
    let unknown = "00000000001";
    for path in ["/k/ID", "/k/ID/rotate", "/k/ID/edit", "/k/ID/revoke", "/bulk?id=ID"] {
        let [theirs, none] = [&*row.key_id.to_string(), unknown].map(|id| path.replace("ID", id));
        let [theirs, none] =
            [browser.get(&theirs).await.expect(404), browser.get(&none).await.expect(404)];
        assert_eq!(theirs.text, none.text);
    }
    browser.get("").await.expect(200).hides(&row.key_id.to_string());
    browser.get("/log").await.expect(200).hides("Other").hides(&row.key_id.to_string());
}

#[tokio::test]
async fn removed_member_loses_the_sessions_and_the_keys_stay() {
    let portal = Portal::new().await;
    let mut member = portal.signed_in(Role::Member).await;
    member.make("billing").await.expect(200);
    let mut owner = portal.signed_in(Role::Owner).await;
    owner.get("/team").await.expect(200).shows("member").shows("owner");
    owner.get("/team/remove?user=1").await.expect(200).shows("Keys that the member made stay");
    owner.post("/team/remove", &[("user", "1")]).await.expect(303);
    member.get("").await.expect(303);
    owner.get("").await.expect(200).shows("billing").shows("member");
    // The last owner stays, also for an operator.
    for mut browser in [owner, portal.signed_in(Role::Operator).await] {
        browser.post("/team/remove", &[("user", "2")]).await.expect(409).shows("no owner");
        let fields = [("user", "2"), ("role", "viewer")];
        browser.post("/team/role", &fields).await.expect(409).shows("no owner");
        let fields = [("user", "owner"), ("role", "viewer"), ("again", "on")];
        let page = browser.post("/team/invite", &fields).await.expect(200);
        page.shows("signs in once as owner");
        browser.get("/team").await.expect(200).shows("<option selected>owner</option>");
    }
}

#[tokio::test]
async fn invitation_of_a_member_keeps_the_role() {
    let portal = Portal::new().await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let mut owner = portal.signed_in(Role::Owner).await;
    // For more than the role of the member, and for less.
    owner.get("/team").await.expect(200).hides("Links that are not used yet");
    for role in ["admin", "viewer"] {
        let fields = [("user", "viewer"), ("role", role)];
        let page = owner.post("/team/invite", &fields).await.expect(409);
        let page = page.shows("is a member already").shows("with the role viewer since");
        let is_other = page.text.contains("A link does not change the role of a member");
        assert_eq!(is_other, role == "admin", "{}", page.text);
    }
    owner.get("/team").await.expect(200).hides("Links that are not used yet");
    let fields = [("user", "viewer"), ("role", "admin"), ("again", "on")];
    let page = owner.post("/team/invite", &fields).await.expect(200);
    let link = page.secret();
    page.shows("signs in once as viewer");
    let page = owner.get("/team").await.expect(200);
    page.shows("<td data-label=\"Role\">viewer</td><td data-label=\"Ends\">");
    viewer.get("/new").await.expect(403);
    // The session has the role of the member, also if that changes.
    let mut other = portal.browser();
    other.post("/in", &[("code", &link)]).await.expect(303);
    owner.post("/team/role", &[("user", "1"), ("role", "admin")]).await.expect(303);
    other.get("/me").await.expect(200).shows("viewer, admin");
    // A link of a program may be for less, and the page shows both roles.
    let link = portal.code(Some("viewer"), Role::Viewer).await;
    let mut lesser = portal.browser();
    lesser.post("/in", &[("code", link.expose())]).await.expect(303);
    lesser.get("/me").await.expect(200).shows("by the link of this session; your role is admin");
}

#[tokio::test]
async fn members_show_when_they_joined_and_were_seen() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let fields = [("user", "bob"), ("role", "member")];
    let link = owner.post("/team/invite", &fields).await.expect(200).secret();
    let line = |page: &Answer, name: &str| {
        let lines = page.text.split("<tr>");
        let begin = format!("<th scope=\"row\" data-label=\"Name\"><bdi>{name}</bdi>");
        let found: Vec<_> = lines.filter(|line| line.starts_with(&begin)).collect();
        assert_eq!(found.len(), 1, "{}", page.text);
        found[0].split("</tr>").next().unwrap().to_owned()
    };
    let team = owner.get("/team").await.expect(200);
    let bob = line(&team, "bob");
    assert!(bob.contains(">not yet</span> <small>link until ") && bob.contains(">never</td>"));
    let own = line(&team, "owner");
    assert!(own.contains(">just now</time>") && !own.contains("not yet"), "{own}");
    // Another invitation needs a confirmation, which says that it replaces the first one.
    let page = owner.post("/team/invite", &fields).await.expect(409);
    page.shows("has not signed in yet").shows("A new one replaces it");

    let mut bob = portal.browser();
    bob.post("/in", &[("code", &link)]).await.expect(303);
    set_ahead(7200);
    bob.get("").await.expect(200);
    set_ahead(7200 + 180);
    let team = owner.get("/team").await.expect(200);
    let (bob, own) = (line(&team, "bob"), line(&team, "owner"));
    assert!(bob.contains(">3 minutes ago</time>") && !bob.contains("not yet"), "{bob}");
    assert!(own.contains(">just now</time>"), "{own}");
    let members = portal.site.list.members(portal.team).await.unwrap();
    let bob = members.iter().find(|member| member.name == "bob").unwrap();
    assert!(bob.joined.is_some() && bob.joined < bob.seen, "{bob:?}");
}

#[tokio::test]
async fn new_role_holds_in_open_sessions() {
    let portal = Portal::new().await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let mut owner = portal.signed_in(Role::Owner).await;
    viewer.get("/new").await.expect(403).shows("needs the role member");
    owner.post("/team/role", &[("user", "1"), ("role", "member")]).await.expect(303);
    viewer.get("/new").await.expect(200);
}

#[tokio::test]
async fn invitation_is_shown_once_and_signs_in() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let fields = [("user", "bob@example.com"), ("role", "member")];
    let page = owner.post("/team/invite", &fields).await.expect(200);
    let link = page.secret();
    assert!(link.starts_with("http://localhost:8080/keys/in#"), "{link}");
    page.shows("who opens it and presses <i>Sign in</i> is").hides("who opens it is signed in");
    owner.get("/team").await.shows("bob@example.com").hides(link.split_once('#').unwrap().1);
    set_ahead(72 * 3600 - 60);
    let mut bob = portal.browser();
    bob.post("/in", &[("code", &link)]).await.expect(303);
    let lifetimes = "n invitation for 72 hours, any other link for 10 minutes";
    bob.get("/in").await.expect(200).shows(lifetimes);
    bob.get("").await.expect(200).shows("bob@example.com, member");
    let page = portal.browser().post("/in", &[("code", &link)]).await.expect(403);
    page.shows("n invitation is valid for 72 hours, any other link for 10 minutes");
}

#[tokio::test]
async fn command_for_a_link_is_shown_to_those_who_may_see_paths() {
    let portal = Portal::new().await;
    portal.browser().get("/in").await.expect(200).shows(LINK_COMMAND);
    let mut operator = portal.signed_in(Role::Operator).await;
    let mut member = portal.signed_in(Role::Owner).await;
    set_ahead(601);
    let name = [("name", "New")];
    let page = operator.post("/team/rename", &name).await.expect(403);
    page.shows(&format!("<code>{LINK_COMMAND}</code>"));
    let page = member.post("/team/rename", &name).await.expect(403);
    page.shows(&format!("<code>{LINK_COMMAND} --team 1 --user owner</code>"));
    drop((operator, member));
    drop(portal);

    // Other machines reach this page, so a visitor does not see paths of the machine.
    let portal = Portal::with("https://keys.example", "").await;
    let page = portal.browser().get("/in").await.expect(200).hides("/srv/api");
    page.shows("keytally keys link --data FOLDER").shows("<code>--pepper-file</code>");
    let mut operator = portal.signed_in(Role::Operator).await;
    let mut member = portal.signed_in(Role::Owner).await;
    set_ahead(601);
    let page = operator.post("/team/rename", &name).await.expect(403);
    page.shows(&format!("<code>{LINK_COMMAND}</code>"));
    let page = member.post("/team/rename", &name).await.expect(403).hides("/srv/api");
    page.shows("You are the only owner").shows("--data FOLDER --team 1 --user owner</code>");
    // Another owner can make the link.
    portal.code(Some("second"), Role::Owner).await;
    let page = member.post("/team/rename", &name).await.expect(403).hides("only owner");
    let page = page.shows("An owner of the team makes a link for you").hides("FOLDER");
    assert_eq!(page.text.contains("one on the page Me"), cfg!(feature = "passkeys"));
}

#[tokio::test]
async fn every_date_without_script_is_labeled_utc() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    portal.add_hour(&id, i64::try_from(now().unix_s()).unwrap(), [10, 2, 1]).await;
    browser.post("/team/invite", &[("user", "bob"), ("role", "member")]).await.expect(200);
    let form_id = browser.get(&format!("/k/{id}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "86400")];
    browser.post(&format!("/k/{id}/rotate"), &fields).await.expect(200);
    portal.mark_used(id.parse().unwrap()).await;
    let at = format!("/k/{id}");
    let mut found = 0;
    for path in [
        "",
        "/team",
        "/log",
        "/log?from=2026-01-01",
        "/me",
        &at,
        &format!("{at}/edit"),
        &format!("{at}/rotate"),
        &format!("{at}/end-grace"),
        &format!("{at}/revoke"),
        &format!("/bulk?id={id}"),
    ] {
        let page = browser.get(path).await.expect(200);
        let page = page.shows("<small data-zone>Dates and times are in UTC.</small>");
        // A date is in an element for times, which names UTC, or says how long ago it was.
        let mut outside = String::new();
        let mut rest = &*page.text;
        while let Some((before, after)) = rest.split_once("<time ") {
            outside.push_str(before);
            let (element, after) = after.split_once("</time>").unwrap();
            let (attributes, text) = element.split_once('>').unwrap();
            assert!(attributes.starts_with("datetime=\"20"), "{path}: {attributes}");
            let is_relative = text.ends_with(" ago") || text == "just now";
            assert!(text.ends_with(" UTC") || is_relative, "{path}: {text}");
            found += 1;
            rest = after;
        }
        outside.push_str(rest);
        let outside = outside.replace("value=\"2026-01-01\"", "").replace("from=2026-01-01", "");
        assert!(!outside.contains("\n20") && !outside.contains(">20"), "{path}: {outside}");
    }
    assert!(found > 50, "{found}");
}

#[tokio::test]
async fn proof_of_a_session_that_ended_is_not_used_up() {
    let portal = Portal::new().await;
    let browser = portal.signed_in(Role::Owner).await;
    let list = &portal.site.list;
    let token = browser.cookie.split_once('=').unwrap().1;
    let session = list.session(&Code::from_text(token), now()).await.unwrap().unwrap();
    list.end_session(session.clone(), String::new(), session.actor(None), now()).await.unwrap();
    let code = portal.code(Some("owner"), Role::Owner).await;
    let again = Code::from_text(code.expose());
    let origin = keytally_keys::sessions::Origin::default();
    let error = list.prove(session, again, origin, now()).await.unwrap_err();
    assert_eq!(error.to_string(), "your session ended meanwhile; sign in again");
    portal.browser().post("/in", &[("code", code.expose())]).await.expect(303);
}

#[tokio::test]
async fn sessions_are_listed_and_end_one_by_one() {
    let portal = Portal::new().await;
    let mut one = portal.signed_in(Role::Viewer).await;
    let mut two = portal.signed_in(Role::Viewer).await;
    let mut other = portal.signed_in(Role::Owner).await;
    let page = one.get("/me").await.expect(200);
    // The session of the browser itself is ended last.
    let mut lines: Vec<_> = page.text.split("<tr>").skip(2).collect();
    lines.sort_by_key(|line| line.contains("this browser"));
    let id = |line: &&str| line.split("/me/end?session=").nth(1).unwrap()[..16].to_owned();
    let ids: Vec<_> = lines.iter().map(id).collect();
    assert_eq!(ids.len(), 2);
    // A session of another user is not one's own.
    other.get(&format!("/me/end?session={}", ids[0])).await.expect(404);
    other.post("/me/end", &[("session", &ids[0])]).await.expect(404);
    for (id, title) in ids.into_iter().zip(["End another session", "End this session"]) {
        // A confirmation comes first, and ends nothing.
        let form = one.get(&format!("/me/end?session={id}")).await.expect(200).shows(title);
        assert_eq!(form.field("session"), id);
        let is_this = title == "End this session";
        assert_eq!(form.text.contains("To sign in again, you need a new link."), is_this);
        assert_eq!(form.text.contains("An owner of the team makes a link"), is_this);
        one.get("/me").await.expect(200).shows(&id);
        one.post("/me/end", &[("session", &id)]).await.expect(303);
        one.get(&format!("/me/end?session={id}")).await.expect(if is_this { 303 } else { 404 });
    }
    one.get("").await.expect(303);
    two.get("").await.expect(303);
    other.get("").await.expect(200);
}

#[tokio::test]
async fn operator_chooses_among_teams() {
    let portal = Portal::new().await;
    // With one team, there is nothing to choose.
    let mut only = portal.signed_in(Role::Operator).await;
    only.get("").await.expect(200).shows("Acme");
    only.post("/teams/new", &[("name", "Second")]).await.expect(303);
    only.get("").await.expect(200).shows("Second");
    let mut operator = portal.signed_in(Role::Operator).await;
    assert_eq!(operator.get("").await.expect(303).header("location"), "/keys/teams");
    operator.get("/teams").await.expect(200).shows("Acme").shows("Second");
    operator.post("/teams", &[("team", "1")]).await.expect(303);
    operator.get("").await.expect(200).shows("Acme");
    operator.post("/teams", &[("team", "9")]).await.expect(404);
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let style = browser.get("").await.text;
    let style = style.split("/keys/assets/").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let mut answers = Vec::new();
    for path in [
        "",
        "/in",
        "/new",
        "/team",
        "/log",
        "/log.csv",
        "/me",
        "/nothing",
        "/assets/none",
        "/k/x",
        &format!("/k/{id}"),
        &format!("/assets/{style}"),
        "/k/%ff",
        "/teams",
    ] {
        answers.push((path.to_owned(), browser.get(path).await));
    }
    let long = "x".repeat(70_000);
    answers.push(("long".to_owned(), browser.post("/new", &[("name", &long)]).await.expect(413)));
    answers.push(("method".to_owned(), browser.post("/me", &[]).await.expect(405)));
    answers.push(("away".to_owned(), portal.browser().get("/team").await.expect(303)));
    for (path, answer) in answers {
        let policy = answer.header("content-security-policy");
        for part in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{path}");
        }
        let cache = answer.header("cache-control");
        let is_asset = path == format!("/assets/{style}");
        let expected = if is_asset { "public, max-age=31536000, immutable" } else { "no-store" };
        assert_eq!(cache, expected, "{path}");
        // Neither styles nor scripts in the page.
        assert!(!answer.text.contains(" style=") && !answer.text.contains("<style"), "{path}");
        if answer.status >= 400 {
            assert!(answer.text.contains("<h1>"), "{path}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn list_pages_through_all_keys_and_filters() {
    let portal = Portal::new().await;
    for index in 0..120 {
        let mut new = creation(portal.team);
        new.name = format!("key {index} 100%_a");
        portal.site.list.create_key(new, operator()).await.unwrap();
    }
    let mut browser = portal.signed_in(Role::Viewer).await;
    let (mut names, mut path, mut pages) = (BTreeSet::new(), String::new(), 0);
    loop {
        let page = browser.get(&path).await.expect(200);
        for part in page.text.split("<bdi>key ").skip(1) {
            names.insert(part.split(' ').next().unwrap().to_owned());
        }
        pages += 1;
        let Some(next) = page.text.split("rel=\"next\" href=\"/keys").nth(1) else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert_eq!((names.len(), pages), (120, 3));
    browser.get("?search=key+11+").await.expect(200).shows("key 11 ").hides("key 12 ");
    browser.get("?search=%25_a").await.expect(200).shows("100%_a<");
    browser.get("?search=%25x").await.expect(200).shows("No key matches");
    browser.get("?env=test").await.expect(200).shows("No key matches");
    browser.get("?plan=default&state=active&env=live").await.expect(200).shows("100%_a<");
    // A script gets the lines alone.
    let request = Request::get("/keys?search=key+11+").header("HX-Request-Type", "partial");
    let part = browser.send(request.body(Body::empty()).unwrap()).await.expect(200);
    assert!(part.text.contains("key 11 ") && !part.text.contains("<html"), "{}", part.text);
    let mut varies = part.headers.get_all("vary").iter();
    assert!(varies.any(|value| value == "HX-Request-Type"));
}

/// A form of the search as a script sends it.
fn partial_search(text: &str) -> Request<Body> {
    Request::post("/keys/find")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .header("HX-Request-Type", "partial")
        .body(Body::from(encoded(&[("search", text), ("env", "")])))
        .unwrap()
}

#[tokio::test]
async fn pasted_key_finds_its_key_and_is_in_no_address() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let secret = browser.make("billing").await.expect(200).secret();
    let other = browser.make("web shop").await.expect(200).secret();
    let keys = portal.site.gate().list();
    let id = &secret["kt_test_".len()..][..11];
    assert!(keys.iter().any(|key| key.key_id.to_string() == id));
    for text in [&*secret, &format!(" X-API-Key: {secret}"), &secret[..secret.len() - 3]] {
        // Without script, a form, and then an address with the id.
        let fields = [("search", text), ("env", "test"), ("sort", "name"), ("state", "")];
        let answer = browser.post("/find", &fields).await.expect(303);
        let to = answer.header("location").to_owned();
        assert_eq!(to, format!("/keys?search={id}&env=test&sort=name"));
        let page = browser.get(to.strip_prefix("/keys").unwrap()).await.expect(200);
        let page = page.shows("1 of 2 keys found").shows(">billing<").hides(">web shop<");
        page.hides(&secret[19..]);
        // With script, the address comes from the service too.
        let part = browser.send(partial_search(text)).await.expect(200);
        assert_eq!(part.header("hx-replace-url"), format!("/keys?search={id}"));
        part.shows(&format!("data-search=\"{id}\"")).shows(">billing<").hides(&secret[19..]);
        // An address that has a key leads to one that has not.
        let query = text.trim().replace(' ', "+");
        let answer = browser.get(&format!("?search={query}&flag=unused")).await.expect(303);
        assert_eq!(answer.header("location"), format!("/keys?search={id}&flag=unused"));
    }
    // A key of another team, or of none, is not looked for in names.
    let foreign = portal.site.list.create_team(None, "Other", operator()).await.unwrap();
    let (foreign, row) =
        portal.site.list.create_key(creation(foreign.team), operator()).await.unwrap();
    let answer = browser.post("/find", &[("search", foreign.expose())]).await.expect(303);
    assert_eq!(answer.header("location"), format!("/keys?search={}", row.key_id));
    let part = browser.send(partial_search(foreign.expose())).await.expect(200);
    part.shows("No key matches").hides(&foreign.expose()[19..]);
    let random = "51H8Tq3JxWm9Zc7Va2Nb";
    let answer = browser.post("/find", &[("search", random)]).await.expect(303);
    assert_eq!(answer.header("location"), "/keys?found=nothing");
    let page = browser.get("?found=nothing").await.expect(200);
    page.shows("looks like a key, and no key of your team has it").shows("0 keys found");
    let part = browser.send(partial_search(random)).await.expect(200);
    assert_eq!(part.header("hx-replace-url"), "/keys?found=nothing");
    part.shows("data-search=\"\"").hides(random);
    // A hint, an id and a name stay as they are.
    let last = &other[other.len() - 4..];
    for (text, shown) in [
        (&*format!("kt_test_…{last}"), ">web shop<"),
        (&format!("…{last}"), ">web shop<"),
        (id, ">billing<"),
        ("BILL", ">billing<"),
    ] {
        let answer = browser.post("/find", &[("search", text)]).await.expect(303);
        let to = answer.header("location").strip_prefix("/keys").unwrap().to_owned();
        let page = browser.get(&to).await.expect(200).shows(shown).shows("1 of 2 keys found");
        page.shows(&format!("name=\"search\" value=\"{text}\""));
    }
    // Nothing of it is in the log.
    browser.get("/log").await.expect(200).hides(&secret[19..]).hides(random);
}

#[tokio::test]
async fn imported_key_is_found_by_its_text() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let text = "old-Customer-key-0001";
    let new =
        keytally_keys::change::Creation { name: "imported".to_owned(), ..creation(portal.team) };
    let imported = portal.site.list.import_key(text.to_owned().into(), new, operator()).await;
    let id = imported.unwrap().key_id;
    let answer = browser.post("/find", &[("search", text)]).await.expect(303);
    assert_eq!(answer.header("location"), format!("/keys?search={id}"));
    browser.get(&format!("?search={id}")).await.expect(200).shows(">imported<");
}

#[tokio::test]
async fn list_says_how_many_keys_there_are_and_were_found() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Admin).await;
    let mut ids = Vec::new();
    for index in 0..53 {
        let mut new = creation(portal.team);
        new.name = format!("key {index}");
        let (_, row) = portal.site.list.create_key(new, operator()).await.unwrap();
        ids.push(row.key_id.to_string());
    }
    let count = |text: &str| format!("<p id=\"count\" class=\"hint\" role=\"status\">{text}</p>");
    for (query, text) in [
        ("", "53 keys"),
        ("?sort=name", "53 keys"),
        ("?search=key+5", "4 of 53 keys found"),
        ("?search=key+52", "1 of 53 keys found"),
        ("?env=live", "53 of 53 keys found"),
        ("?env=test", "0 of 53 keys found"),
    ] {
        browser.get(query).await.expect(200).shows(&count(text)).hides("aria-live");
    }
    let second = browser.get("").await.text;
    let second = second.split("rel=\"next\" href=\"/keys").nth(1).unwrap();
    let second = second.split('"').next().unwrap().replace("&#38;", "&");
    browser.get(&second).await.expect(200).shows(&count("53 keys"));
    // What a script gets has the number and the chips of the search.
    let part = browser.send(partial_search("key 5")).await.expect(200).hides("role=\"status\"");
    let part = part.shows("<p id=\"count\" hx-swap-oob=\"innerHTML\">4 of 53 keys found</p>");
    let part = part.shows("href=\"/keys?search=key%205&#38;flag=unused\">unused for 90 days</a>");
    part.shows("href=\"/keys?search=key%205&#38;sort=name\"");
    // Without script, a link ticks all boxes of a page.
    let page = browser.get("?search=key+5&sort=name").await.expect(200).hides("\" checked>");
    let page =
        page.shows("<a href=\"/keys?search=key%205&#38;sort=name&#38;ticked=all\">Choose all");
    assert_eq!(page.text.matches("type=\"checkbox\" name=\"id\"").count(), 4);
    let page = browser.get("?search=key+5&sort=name&ticked=all").await.expect(200);
    assert_eq!(page.text.matches("\" checked>").count(), 4);
    page.shows("<a href=\"/keys?search=key%205&#38;sort=name\">Choose none</a>");
    let mut viewer = portal.signed_in(Role::Viewer).await;
    viewer.get("?ticked=all").await.expect(200).hides("Choose all").hides("\" checked>");
}

#[tokio::test]
async fn list_is_sorted_by_the_links_of_its_headings() {
    let portal = Portal::new().await;
    for index in 0..60 {
        let mut new = creation(portal.team);
        new.name = format!("{} key {:03}", if index % 2 == 0 { "a" } else { "A" }, 999 - index);
        portal.site.list.create_key(new, operator()).await.unwrap();
    }
    let mut browser = portal.signed_in(Role::Viewer).await;
    let names = |page: &Answer| -> Vec<String> {
        let names = page.text.split("<bdi>").skip(1).map(|part| part.split('<').next().unwrap());
        names.filter(|name| name.contains(" key ")).map(str::to_lowercase).collect()
    };
    let page = browser.get("").await.expect(200);
    let page = page.shows("aria-sort=\"descending\"><a href=\"/keys?sort=created\">Made</a>");
    let page = page.shows("<th scope=\"col\"><a href=\"/keys?sort=name\">Name</a>");
    assert_eq!(page.text.matches("aria-sort").count(), 1);
    for (path, is_descending) in [("?sort=name", false), ("?sort=-name&env=live", true)] {
        let page = browser.get(path).await.expect(200);
        let mut found = names(&page);
        let (_, next) = page.text.split_once("rel=\"next\" href=\"/keys").unwrap();
        let next = next.split('"').next().unwrap().replace("&#38;", "&");
        let page = browser.get(&next).await.expect(200);
        found.extend(names(&page));
        // Filters and order stay on the way back to the first page.
        page.shows(&format!(
            "<a href=\"/keys{}\">First page",
            match is_descending {
                true => "?env=live&#38;sort=-name",
                false => "?sort=name",
            }
        ));
        let mut sorted = found.clone();
        sorted.sort();
        if is_descending {
            sorted.reverse();
        }
        assert_eq!((found.len(), &found), (60, &sorted), "{path}");
    }
    let page = browser.get("?sort=name&search=key").await.expect(200);
    let page = page.shows("<input type=\"hidden\" name=\"sort\" value=\"name\">");
    page.shows("aria-sort=\"ascending\"><a href=\"/keys?search=key&#38;sort=-name\">Name</a>");
    // An order that there is none of is that of a new visit.
    let page = browser.get("?sort=size&after=x").await.expect(200);
    page.shows("aria-sort=\"descending\"><a href=\"/keys?sort=created\">Made</a>");
}

#[tokio::test]
async fn use_of_a_team_is_read_alone_by_a_script() {
    let portal = Portal::new().await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let key = portal.key().await;
    viewer.get("/team").await.expect(200).shows("No request in the last 24 hours").shows("Members");
    portal.add_hour(&key, i64::try_from(now().unix_s()).unwrap(), [1234, 5, 0]).await;
    let request = Request::get("/keys/team").header("HX-Request-Type", "partial");
    let part = viewer.send(request.body(Body::empty()).unwrap()).await.expect(200);
    let part = part.shows(">1,234</td>").shows(">5</td>").shows("id=\"team-use\"");
    let part = part.shows("aria-label=\"1,234 requests admitted, 5 denied\"").hides("Members");
    let table = part.text.split("<tbody>").nth(1).unwrap().split("</tbody>").next().unwrap();
    // The running hour, and one row for the 23 hours without requests before it.
    assert_eq!(table.matches("<tr>").count(), 2);
    assert!(table.contains("<td colspan=\"5\">no requests</td>"), "{table}");
    // The buckets of an hour that several keys used are added.
    let second = portal.key().await;
    portal.add_hour(&second, i64::try_from(now().unix_s()).unwrap(), [6, 0, 0]).await;
    let page = viewer.get("/team").await.expect(200);
    page.shows("<b>1,240</b> admitted").shows("<span>1,245</span><span>0</span>");
    let page = viewer.get("/team?range=30d").await.expect(200);
    page.shows("No request in the last 30 days").shows("hx-get=\"/keys/team?range=30d\"");
}

#[tokio::test]
async fn chips_are_filters_of_the_list() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let url = format!("sqlite:{}", portal.site.path("keys.db").display());
    let mut connection = sqlx::AnyConnection::connect(&url).await.unwrap();
    let now_s = i64::try_from(now().unix_s()).unwrap();
    let day = 86_400;
    // Name, expiry, last use, age and grace in days, and uses of the old secret.
    for (name, expires, used, age, grace, old_uses) in [
        ("plain", Some(60), Some(1), 200, None, 0),
        ("soon", Some(13), Some(1), 200, None, 0),
        ("endless", None, Some(1), 200, None, 0),
        ("idle", Some(60), Some(91), 200, None, 0),
        ("never used", Some(60), None, 91, None, 0),
        ("new", Some(60), None, 1, None, 0),
        ("rotating", Some(60), Some(1), 200, Some(1), 3),
        ("quiet", Some(60), Some(1), 200, Some(1), 0),
        ("rotated", Some(60), Some(1), 200, Some(-1), 3),
        ("over", Some(-1), Some(91), 200, Some(1), 3),
    ] {
        let mut new = creation(portal.team);
        new.name = format!("key {name}!");
        let (_, row) = portal.site.list.create_key(new, operator()).await.unwrap();
        sqlx::query(
            "update \"key\" set not_after_s = $2, last_used_s = $3, created_s = $4, \
             grace_until_s = $5 where key_id = $1",
        )
        .bind(row.key_id.number().cast_signed())
        .bind(expires.map(|days: i64| now_s + days * day))
        .bind(used.map(|days: i64| now_s - days * day))
        .bind(now_s - age * day)
        .bind(grace.map(|days: i64| now_s + days * day))
        .execute(&mut connection)
        .await
        .unwrap();
        sqlx::query(
            "insert into usage values ('hour', $1, $2, 'test', 9, 9, 0, 0, 0, 0, $3, 0, 0, 0)",
        )
        .bind(row.key_id.number().cast_signed())
        .bind(now_s - now_s % 3600)
        .bind(i64::from(old_uses))
        .execute(&mut connection)
        .await
        .unwrap();
    }
    browser.get("").await.expect(200).shows("href=\"/keys?flag=unused\">unused for 90 days</a>");
    let names = async |browser: &mut Browser<'_>, query: &str| {
        let page = browser.get(query).await.expect(200);
        let parts = page.text.split("<bdi>key ").skip(1);
        parts.map(|part| part.split('!').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    for (flag, found) in [
        ("expires_soon", &["soon"][..]),
        ("never_expires", &["endless"]),
        ("unused", &["idle", "never used"]),
        ("old_secret_used", &["rotating"]),
    ] {
        let found: BTreeSet<_> = found.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(names(&mut browser, &format!("?flag={flag}")).await, found, "{flag}");
        // The chip leads back, and stays on while another filter is changed.
        let page = browser.get(&format!("?flag={flag}&env=live")).await.expect(200);
        let page = page.shows("<a href=\"/keys?env=live\" aria-current=\"true\">");
        page.shows(&format!("<input type=\"hidden\" name=\"flag\" value=\"{flag}\">"));
    }
    assert_eq!(names(&mut browser, "?flag=unused&search=idle").await.len(), 1);
    assert_eq!(names(&mut browser, "?flag=x").await.len(), 10);
}

#[tokio::test]
async fn closed_database_is_a_sentence_and_keys_work_on() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let secret = browser.make("billing").await.expect(200).secret();
    portal.site.list.database().close().await;
    let page = browser.get("").await.expect(503);
    assert!(!page.header("retry-after").is_empty());
    page.shows("Requests with keys are still answered").shows("run keytally revoke");
    assert_eq!(portal.site.gate().peek(Some(secret.as_bytes()), 1).http_status(), 200);
}

#[tokio::test]
async fn full_gate_is_a_sentence_with_what_to_do() {
    let portal = Portal::new().await;
    let mut browser = portal.signed_in(Role::Owner).await;
    let gate = portal.site.gate();
    let new = keytally::NewKey::new(portal.team, keytally::Name::new("test").unwrap());
    while gate.issue(&new).is_ok() {}
    let page = browser.make("one more").await.expect(409);
    // It says what to do once.
    page.shows("records hold keys.</p>")
        .shows("larger gate")
        .shows("longest window")
        .hides("once its");
}

#[tokio::test]
async fn rules_of_a_team_hold_for_all_its_keys() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    for days in ["0", "3651", "x", "-1"] {
        let fields = [("longest", days), ("live_role", "member")];
        owner.post("/team/set", &fields).await.expect(400).shows("from 1 to 3650");
    }
    owner.post("/team/set", &[("longest", "60"), ("live_role", "member")]).await.expect(303);
    owner.get("/team?done=set").await.expect(200).shows("The settings hold");
    // A member makes a live key, and no key is valid for more than 60 days.
    let mut member = portal.signed_in(Role::Member).await;
    let form = member.get("/new").await.expect(200).hides("value=\"never\"").hides("1 year");
    let form = form.shows("The rules of the team permit at most 60 days");
    let form_id = form.field("form_id");
    let fields = [("form_id", &*form_id), ("name", "a"), ("env", "live"), ("scope", "read")];
    let days = |days| [&fields[..], &[("lifetime", days)]].concat();
    for late in ["61", "never"] {
        member.post("/new", &days(late)).await.expect(400).shows("within 60 days");
    }
    member.post("/new", &days("60")).await.expect(200);
    let id = portal.site.gate().list()[0].key_id;
    member.get(&format!("/k/{id}/rotate")).await.expect(200);
    let edit = [("name", "a"), ("lifetime", "never"), ("scope", "read")];
    owner.post(&format!("/k/{id}/edit"), &edit).await.expect(400).shows("within 60 days");
    owner.post("/team/set", &[("longest", ""), ("live_role", "owner")]).await.expect(303);
    member.get(&format!("/k/{id}/rotate")).await.expect(403);
    owner.post(&format!("/k/{id}/edit"), &edit).await.expect(303);
}

#[tokio::test]
async fn invitation_is_listed_until_it_is_withdrawn() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let fields = [("user", "bob"), ("role", "member")];
    let link = owner.post("/team/invite", &fields).await.expect(200).secret();
    let page = owner.get("/team").await.expect(200).shows("Links that are not used yet");
    let id = page.field("link");
    portal.signed_in(Role::Admin).await.get("/team").await.hides("not used yet");
    owner.post("/team/withdraw", &[("link", &id)]).await.expect(303);
    owner.get("/team?done=withdrawn").await.expect(200).hides("not used yet");
    owner.post("/team/withdraw", &[("link", &id)]).await.expect(404);
    portal.browser().post("/in", &[("code", &link)]).await.expect(403);
}

#[tokio::test]
async fn log_is_filtered_on_the_page_and_in_the_file() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let mut viewer = portal.signed_in(Role::Viewer).await;
    let mut owner = portal.signed_in(Role::Owner).await;
    owner.make("web shop").await.expect(200);
    viewer.get("/log").await.expect(200).shows("signed in").shows("created the key");
    for (query, shown, hidden) in [
        ("what=key", "created the key</td>", "signed in</td>"),
        ("what=key.", "created the key</td>", "signed in</td>"),
        ("what=session.begin", "signed in</td>", "created the key</td>"),
        ("actor=user+1", "signed in</td>", "created the key</td>"),
        ("actor=owner", "billing", "made the team</td>"),
        ("actor=operator&what=team", "made the team</td>", "signed in</td>"),
        ("from=2026-01-01&what=member", "set a member", "signed in</td>"),
        ("to=2026-01-01", "No entry matches", "signed in</td>"),
        ("actor=unknown", "No entry matches", "signed in</td>"),
        ("key=00000000001", "No entry matches", "signed in</td>"),
    ] {
        let page = viewer.get(&format!("/log?{query}")).await.expect(200);
        // The key's own page has its name.
        let shown = if shown == "billing" { "created the key</td>" } else { shown };
        page.shows(shown).hides(hidden);
    }
    for (query, sentence) in [
        ("key=nothing", "No key of the team has this id, or this in its name"),
        ("from=x", "must be a day, such as 2027-01-31"),
        ("from=2027-02-01&to=2027-01-01", "must not be before the first day"),
        ("what=%25", "must be an action"),
        ("actor=%07", "has the control character"),
    ] {
        for path in ["/log", "/log.csv"] {
            viewer.get(&format!("{path}?{query}")).await.expect(400).shows(sentence);
        }
    }
    // What is filled in stays, and the file has the same filter. A day includes its end.
    let today = keytally_keys::time::day(now());
    let query = format!("key={id}&actor=operator&what=key.create&from={today}&to={today}");
    let page = viewer.get(&format!("/log?{query}")).await.expect(200);
    let page = page.shows(&format!("value=\"{today}\"")).shows("value=\"key.create\" selected");
    page.shows(&format!("log.csv?{}", query.replace('&', "&#38;")));
    let file = viewer.get(&format!("/log.csv?{query}")).await.expect(200);
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<_> = file.text.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains(&format!("\"created the key\",\"{id}\"")), "{lines:?}");
}

#[tokio::test]
async fn log_names_people_and_keys() {
    let portal = Portal::new().await;
    let id = portal.key().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let fields = [("user", "Zoë Baker"), ("role", "member")];
    let link = owner.post("/team/invite", &fields).await.expect(200).secret();
    owner.post("/team/role", &[("user", "2"), ("role", "viewer")]).await.expect(303);
    portal.browser().post("/in", &[("code", &link)]).await.expect(303);
    let form_id = owner.get(&format!("/k/{id}/rotate")).await.expect(200).field("form_id");
    let fields = [("form_id", &*form_id), ("grace", "86400")];
    owner.post(&format!("/k/{id}/rotate"), &fields).await.expect(200);
    let page = owner.get("/log").await.expect(200).hides("86400").hides("user 2");
    let page = page
        .shows("<bdi>Zoë Baker has the role viewer</bdi>")
        .shows("<bdi>Zoë Baker has the role member</bdi>");
    let page = page.shows("<bdi>for Zoë Baker as member</bdi>");
    let page = page.shows("<bdi>the old secret is valid for 1 day</bdi>");
    page.shows(&format!("<bdi>billing</bdi> <code>{id}</code></a>"));
    // A part of a name finds the person, and the name stays in the field.
    for (part, is_found) in [("zoë", true), ("BAKER", true), ("Zoë Baker", true), ("bakers", false)]
    {
        let path = format!("/log?actor={}", encoded(&[("", part)]).trim_start_matches('='));
        let page = owner.get(&path).await.expect(200).hides("rotated the key</td>");
        assert_eq!(page.text.contains("signed in</td>"), is_found, "{part}: {}", page.text);
    }
    let page = owner.get("/log?actor=user+2&what=session").await.expect(200);
    page.shows("name=\"actor\" value=\"Zoë Baker\"").shows("signed in</td>");
    let page = owner.get("/log?actor=operat").await.expect(200);
    page.shows("made the team</td>").hides("signed in</td>");
    // A key is found by its name.
    let page = owner.get("/log?key=bill").await.expect(200);
    page.shows("created the key</td>").shows("rotated the key</td>").hides("signed in</td>");
    let page = owner.get("/log?key=bill&what=key.rotate").await.expect(200);
    page.hides("created the key</td>").shows("rotated the key</td>");
    let file = owner.get("/log.csv?key=BILL").await.expect(200);
    assert_eq!(file.text.lines().count(), 3, "{}", file.text);
    assert!(file.text.contains(&format!("\"{id}\",\"billing\",")), "{}", file.text);
    // A name in more than 20 actors or keys is not enough.
    for index in 0..21 {
        portal.key().await;
        portal.code(Some(&format!("guest {index}")), Role::Viewer).await;
        let guest = portal.code(Some(&format!("guest {index}")), Role::Viewer).await;
        portal.browser().post("/in", &[("code", guest.expose())]).await.expect(303);
    }
    for query in ["key=bill", "actor=guest"] {
        owner.get(&format!("/log?{query}")).await.expect(400).shows("ore than 20 ");
    }
    owner.get("/log?actor=guest+2").await.expect(200).shows("signed in</td>");
}

#[tokio::test]
async fn filter_of_the_log_has_no_secret_in_its_address() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    let secret = owner.make("billing").await.expect(200).secret();
    let id = portal.site.gate().list()[0].key_id.to_string();
    owner.get("/log").await.expect(200).shows("method=\"post\" action=\"/keys/log\"");
    let to = |answer: &Answer| answer.header("location").to_owned();
    let answer = owner.post("/log", &[("key", &secret), ("what", "key")]).await.expect(303);
    assert_eq!(to(&answer), format!("/keys/log?key={id}&what=key"));
    let page = owner.get(&format!("/log?key={id}&what=key")).await.expect(200);
    page.shows("created the key</td>");
    // With a typing error, it is a secret too.
    let wrong = format!("{}x", &secret[..secret.len() - 1]);
    let answer = owner.post("/log", &[("key", &wrong)]).await.expect(303);
    assert!(!to(&answer).contains(&wrong[20..]), "{answer:?}");
    let answer = owner.post("/log", &[("from", "2027-01-31+01:00"), ("key", "a b")]).await;
    assert_eq!(to(&answer), "/keys/log?key=a%20b&from=2027-01-31%2B01%3A00");
    assert_eq!(to(&owner.post("/log", &[]).await.expect(303)), "/keys/log");
}

#[tokio::test]
async fn day_of_a_filter_begins_and_ends_in_its_zone() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    // In some hours of a day, it is another day elsewhere.
    let now_s = now().unix_s();
    let day = |offset_s: i64| {
        let local = Timestamp::from_unix_s(now_s.checked_add_signed(offset_s).unwrap());
        keytally_keys::time::day(local)
    };
    for (offset, offset_s) in [("", 0), ("+14:00", 50_400), ("-11:00", -39_600)] {
        let escaped = offset.replace('+', "%2B");
        let own = day(offset_s);
        let path = format!("/log?from={own}{escaped}&to={own}{escaped}");
        let page = owner.get(&path).await.expect(200).shows("signed in</td>");
        let page = page.shows(&format!("value=\"{own}\" data-offset=\"{offset}\""));
        page.shows(&format!("From <small>(UTC{offset})</small>"));
        let after = day(offset_s + 86_400);
        let path = format!("/log?from={after}{escaped}");
        owner.get(&path).await.expect(200).shows("No entry matches");
    }
    owner.get("/log?from=2027-01-31x").await.expect(400).shows("must be a day");
}

#[tokio::test]
async fn token_has_its_name_in_the_log_and_the_list() {
    let portal = Portal::new().await;
    let list = &portal.site.list;
    let (_, token) =
        list.create_token(Some(portal.team), Role::Owner, "backend", operator()).await.unwrap();
    let actor = keytally_keys::roles::Actor::token(token.token.parse().unwrap(), None);
    let caller = keytally_keys::change::Caller { actor, ..operator() };
    list.create_key(creation(portal.team), caller).await.unwrap();
    let mut viewer = portal.signed_in(Role::Viewer).await;
    viewer.get("").await.expect(200).shows("by <bdi>token backend</bdi>");
    let link = format!("<a href=\"/keys/log?actor=token%20{}\">", token.token);
    viewer.get("/log").await.expect(200).shows(&format!("{link}<bdi>token backend</bdi></a>"));
}

#[tokio::test]
async fn log_file_has_all_entries_and_pages_keep_the_filter() {
    let portal = Portal::new().await;
    let mut owner = portal.signed_in(Role::Owner).await;
    for number in 0..1003 {
        let name = format!("Name {number}");
        portal.site.list.rename_team(portal.team, &name, operator()).await.unwrap();
    }
    owner.get("/log.csv?from=x").await.expect(400).shows("From: it must be a day, such as");
    let file = owner.get("/log.csv?what=team.rename").await.expect(200);
    let lines: BTreeSet<_> = file.text.lines().skip(1).collect();
    assert_eq!(lines.len(), 1003);
    let (mut path, mut found) = ("/log?what=team.rename&actor=operator".to_owned(), 0);
    loop {
        let page = owner.get(&path).await.expect(200);
        found += page.text.matches("renamed the team</td>").count();
        assert!(!page.text.contains("signed in</td>"));
        let Some(next) = page.text.split("rel=\"next\" href=\"/keys").nth(1) else { break };
        path = next.split('"').next().unwrap().replace("&#38;", "&");
    }
    assert_eq!(found, 1003);
}
