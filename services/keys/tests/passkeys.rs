//! Passkeys: what a browser sends, and what other people may try, with an authenticator in
//! software.
#![cfg(feature = "passkeys")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

#[path = "support/browser.rs"]
mod browser;

#[cfg(target_os = "linux")]
#[path = "support/cluster.rs"]
mod cluster;

use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use base64ct::{Base64UrlUnpadded, Encoding as _};
use browser::{Answer, encoded, exchange};
use crypto_glue::ecdsa_p256::{
    self, EcdsaP256PrivateKey, EcdsaP256PublicSec1Point, EcdsaP256Signature, EcdsaP256SigningKey,
};
use crypto_glue::traits::Signer as _;
use keytally::{Timestamp, now, pepper};
use keytally_keys::database::Database;
use keytally_keys::list::List;
use keytally_keys::log::Filter;
use keytally_keys::page::{LinkCommand, Page, Settings, router};
use keytally_keys::roles::Role;
use keytally_keys::{open, transfer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{PEPPER, Site, creation, operator};

/// By how many seconds the clock of the page is ahead.
static AHEAD_S: Mutex<u64> = Mutex::new(0);

fn set_ahead(seconds: u64) {
    *AHEAD_S.lock().unwrap() = seconds;
}

fn clock() -> Timestamp {
    Timestamp::from_unix_s(now().unix_s() + *AHEAD_S.lock().unwrap())
}

/// Tests that move the clock, and those that read it, take turns.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const URL: &str = "http://localhost:8080";

/// A list with its page.
struct Portal {
    site: Site,
    routes: Router,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// Returns the routes of a page of a list.
fn page(list: &List, public_url: &str) -> Router {
    let settings = Settings {
        public_url: public_url.to_owned(),
        base_path: String::new(),
        example_url: format!("{public_url}/api/v1/contacts"),
        link_command: LinkCommand::default(),
        clock,
    };
    router(Page::new(list.clone(), settings).unwrap()).unwrap()
}

impl Portal {
    async fn new() -> Self {
        Self::at(URL).await
    }

    async fn at(public_url: &str) -> Self {
        Self::of(Site::new().await, public_url).await
    }

    async fn of(site: Site, public_url: &str) -> Self {
        let turn = TURN.lock().await;
        set_ahead(0);
        site.list.create_team(None, "Acme", operator()).await.unwrap();
        let routes = page(&site.list, public_url);
        Self { site, routes, _turn: turn }
    }

    fn browser(&self) -> Browser {
        let address = "192.0.2.1".to_owned();
        Browser { routes: self.routes.clone(), cookie: String::new(), address }
    }

    /// Returns a browser in which a link has signed a user in to a team.
    async fn linked(&self, team: u32, user: &str) -> Browser {
        let mut caller = operator();
        caller.now = clock();
        let link = self.site.list.create_link(Some(team), Some(user), Role::Admin, caller).await;
        let mut browser = self.browser();
        browser.post("/in", &[("code", link.unwrap().code.expose())]).await.expect(303);
        browser
    }

    /// Returns a browser in which a link has signed a user in, and the user's passkey.
    async fn with_passkey(&self, user: &str) -> (Browser, Authenticator) {
        let mut browser = self.linked(1, user).await;
        let mut device = Authenticator::new();
        browser.add(&mut device, "Laptop").await.expect(303);
        (browser, device)
    }

    async fn actions(&self) -> Vec<(String, String)> {
        let filter = Filter { limit: 100, ..Filter::default() };
        let entries = self.site.list.log(&filter).await.unwrap();
        entries.into_iter().map(|entry| (entry.action, entry.detail)).collect()
    }
}

/// A browser: a cookie, and requests as a browser sends them.
#[derive(Clone)]
struct Browser {
    routes: Router,
    cookie: String,
    address: String,
}

/// What the tests read of an answer.
trait Read {
    fn after(&self, begin: &str) -> String;
    fn request(&self) -> Value;
}

impl Read for Answer {
    /// Returns the text behind another one, up to a quotation mark.
    #[track_caller]
    fn after(&self, begin: &str) -> String {
        let (_, rest) =
            self.text.split_once(begin).unwrap_or_else(|| panic!("{begin}: {}", self.text));
        rest.split_once('"').unwrap().0.replace("&#34;", "\"").replace("&#38;", "&")
    }

    /// Returns the request for passkeys that the page has.
    #[track_caller]
    fn request(&self) -> Value {
        serde_json::from_str(&self.after("data-request=\"")).unwrap()
    }
}

impl Browser {
    async fn send(&mut self, request: Request<Body>) -> Answer {
        exchange(&self.routes, &mut self.cookie, &self.address, request).await
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(format!("/keys{path}")).body(Body::empty()).unwrap()).await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let request = Request::post(format!("/keys{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            // A proxy may send any name.
            .header("host", "inside:8080")
            .header("sec-fetch-site", "same-origin");
        self.send(request.body(Body::from(encoded(fields))).unwrap()).await
    }

    /// Returns the request for a new passkey.
    async fn new_passkey(&mut self) -> Value {
        self.post("/me/passkey/new", &[("name", "Laptop")]).await.expect(200).request()
    }

    /// Adds a passkey.
    async fn add(&mut self, device: &mut Authenticator, name: &str) -> Answer {
        let request = self.post("/me/passkey/new", &[("name", name)]).await.expect(200).request();
        let made = device.make(&request, URL);
        self.post("/me/passkey", &[("name", name), ("made", &made)]).await
    }

    /// Returns the request of a sign-in.
    async fn begin(&mut self) -> Value {
        let answer = self.post("/passkey/begin", &[]).await.expect(200);
        assert_eq!(answer.headers["content-type"], "application/json");
        serde_json::from_str(&answer.text).unwrap()
    }

    /// Signs in with a passkey.
    async fn sign_in(&mut self, device: &mut Authenticator) -> Answer {
        let request = self.begin().await;
        self.post("/passkey/in", &[("passkey", &device.answer(&request, URL))]).await
    }
}

/// An authenticator with one passkey, and its owner, whom it verifies.
#[derive(Clone)]
struct Authenticator {
    key: EcdsaP256PrivateKey,
    id: Vec<u8>,
    handle: Vec<u8>,
    counter: u32,
    /// Present, and verified.
    flags: u8,
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn decode(text: &Value) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(text.as_str().unwrap()).unwrap()
}

/// Returns a byte string of CBOR.
fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    [&[0x59][..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Returns a text of CBOR with fewer than 24 bytes.
fn cbor_text(text: &str) -> Vec<u8> {
    [&[0x60 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

impl Authenticator {
    fn new() -> Self {
        let key = ecdsa_p256::new_key();
        let id = EcdsaP256PublicSec1Point::from(key.public_key()).x().unwrap().to_vec();
        Self { key, id, handle: Vec::new(), counter: 0, flags: 0x05 }
    }

    fn client_data(kind: &str, request: &Value, origin: &str) -> Vec<u8> {
        let challenge = request["publicKey"]["challenge"].clone();
        let data = json!({"type": kind, "challenge": challenge, "origin": origin});
        serde_json::to_vec(&data).unwrap()
    }

    fn data(&self, host: &str, flags: u8) -> Vec<u8> {
        [&*Sha256::digest(host), &[flags], &self.counter.to_be_bytes()].concat()
    }

    /// Makes the passkey, as a browser does on the page of an origin.
    fn make(&mut self, request: &Value, origin: &str) -> String {
        let options = &request["publicKey"];
        assert_eq!(options["authenticatorSelection"]["residentKey"], "required");
        assert_eq!(options["authenticatorSelection"]["userVerification"], "required");
        assert_eq!(options["attestation"], "none");
        self.handle = decode(&options["user"]["id"]);
        let point = EcdsaP256PublicSec1Point::from(self.key.public_key());
        // A map with the kind of key, the algorithm, the curve and the point.
        let key = [
            &[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 32][..],
            point.x().unwrap(),
            &[0x22, 0x58, 32],
            point.y().unwrap(),
        ];
        let id_len = u16::try_from(self.id.len()).unwrap().to_be_bytes();
        let data = [
            &*self.data(options["rp"]["id"].as_str().unwrap(), self.flags | 0x40),
            &[0; 16],
            &id_len,
            &self.id,
            &key.concat(),
        ];
        let object = [
            &[0xa3][..],
            &cbor_text("fmt"),
            &cbor_text("none"),
            &cbor_text("attStmt"),
            &[0xa0],
            &cbor_text("authData"),
            &cbor_bytes(&data.concat()),
        ];
        let client_data = Self::client_data("webauthn.create", request, origin);
        let response = json!({
            "attestationObject": encode(&object.concat()),
            "clientDataJSON": encode(&client_data),
            "transports": ["internal"],
        });
        self.message(request, response)
    }

    /// Answers a request, as a browser does on the page of an origin.
    fn answer(&mut self, request: &Value, origin: &str) -> String {
        let options = &request["publicKey"];
        assert_eq!(options["userVerification"], "required");
        if self.counter > 0 {
            self.counter += 1;
        }
        let data = self.data(options["rpId"].as_str().unwrap(), self.flags);
        let client_data = Self::client_data("webauthn.get", request, origin);
        let signed = [&*data, &Sha256::digest(&client_data)].concat();
        let signature: EcdsaP256Signature = EcdsaP256SigningKey::from(&self.key).sign(&signed);
        let response = json!({
            "authenticatorData": encode(&data),
            "clientDataJSON": encode(&client_data),
            "signature": encode(signature.to_der().as_bytes()),
            "userHandle": encode(&self.handle),
        });
        self.message(request, response)
    }

    fn message(&self, request: &Value, response: Value) -> String {
        let id = encode(&self.id);
        let credential = json!({
            "id": id, "rawId": id, "type": "public-key", "response": response,
            "clientExtensionResults": {},
        });
        json!({"challenge": request["challenge"], "credential": credential}).to_string()
    }
}

/// Signs in and proves with a passkey.
async fn passkey_signs_in_and_proves(portal: &Portal) {
    let (mut browser, mut device) = portal.with_passkey("ann").await;
    let me = browser.get("/me?done=added").await.expect(200);
    me.shows("Laptop").shows("never").shows("You can sign in with it now");
    let before = browser.clone();
    let signed_in = browser.sign_in(&mut device).await.expect(303);
    assert_eq!(signed_in.headers["location"], "/keys");
    let cookie = signed_in.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    browser.get("").await.expect(200).shows("ann, admin").shows("Acme");
    browser.get("/me").await.expect(200).shows("just now");
    // The session before it has ended.
    assert_ne!(before.cookie, browser.cookie);
    before.clone().get("").await.expect(303);

    // After 10 minutes, a change needs a proof, and continues with what was filled in.
    let form_id = browser.get("/new").await.expect(200).after("name=\"form_id\" value=\"");
    let fields = [("form_id", &*form_id), ("name", "billing"), ("env", "test")];
    let rest = [("plan", "default"), ("lifetime", "90"), ("scope", "read")];
    let fields = [&fields[..], &rest].concat();
    set_ahead(601);
    let page = browser.post("/new", &fields).await.expect(403);
    let request = page.request();
    page.shows("value=\"billing\"").hides("id=\"secret\"");
    assert_eq!(request["publicKey"]["allowCredentials"][0]["id"], encode(&device.id));
    let old = browser.clone();
    let answer = device.answer(&request, URL);
    let fields = [&fields[..], &[("passkey", &*answer)]].concat();
    let page = browser.post("/new", &fields).await.expect(200);
    page.shows("id=\"secret\"").shows("Key <bdi>billing</bdi>");
    assert_ne!(old.cookie, browser.cookie);
    old.clone().get("").await.expect(303);
    browser.get("/log").await.expect(200).shows("added a passkey").shows("passkey Laptop");
    let actions = portal.actions().await;
    for (action, detail) in [
        ("passkey.add", "Laptop"),
        ("session.begin", " with passkey Laptop"),
        ("session.prove", " with passkey Laptop"),
    ] {
        assert!(actions.contains(&(action.into(), detail.into())), "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn passkey_signs_in_and_proves_in_sqlite() {
    passkey_signs_in_and_proves(&Portal::new().await).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn passkey_signs_in_and_proves_in_postgresql() {
    let cluster = cluster::Cluster::start();
    let url = cluster.database("list", None).await;
    let portal = Portal::of(Site::with_database(&url).await, URL).await;
    passkey_signs_in_and_proves(&portal).await;
    let (mut browser, mut device) = portal.with_passkey("bob").await;
    browser.add(&mut device, "Again").await.expect(409).shows("registered already");
    let me = browser.get("/me").await.expect(200);
    let id = me.after("/me/passkey/remove?id=");
    browser.post("/me/passkey/remove", &[("id", &id)]).await.expect(303);
    browser.sign_in(&mut device).await.expect(403).shows("not known here");
}

#[tokio::test]
async fn refused_passkey_is_in_the_log_once_a_minute() {
    let portal = Portal::new().await;
    let (mut ann, mut device) = portal.with_passkey("ann").await;
    let mut forger = Authenticator {
        id: device.id.clone(),
        handle: device.handle.clone(),
        ..Authenticator::new()
    };
    let mut unregistered = Authenticator::new();
    let mut browser = portal.browser();
    let failures = async || {
        let actions = portal.actions().await;
        let failures = actions.into_iter().filter(|(action, _)| action.starts_with("session.fail"));
        failures.collect::<Vec<_>>()
    };
    let entry = ("session.fail".to_owned(), "passkey: its answer is not valid; ".to_owned());
    browser.sign_in(&mut unregistered).await.expect(403);
    assert_eq!(failures().await, []);
    for _ in 0..3 {
        browser.sign_in(&mut forger).await.expect(403);
        assert_eq!(failures().await, core::slice::from_ref(&entry));
    }
    set_ahead(61);
    browser.address = "198.51.100.9".to_owned();
    browser.sign_in(&mut forger).await.expect(403);
    assert_eq!(failures().await, [entry.clone(), entry.clone()]);
    // A proof that was refused is that of the session.
    set_ahead(602);
    let request = ann.post("/me/passkey/new", &[("name", "a")]).await.expect(403).request();
    let answer = forger.answer(&request, URL);
    ann.post("/me/passkey/new", &[("name", "a"), ("passkey", &answer)]).await.expect(403);
    let proof = ("session.fail_proof".to_owned(), entry.1.clone());
    assert_eq!(failures().await, [proof, entry.clone(), entry]);
    let page = ann.get("/log?what=session.fail_proof").await.expect(200);
    page.shows("failed to confirm a sign-in</td>").shows("passkey: its answer is not valid");
    browser.sign_in(&mut device).await.expect(303);
}

#[tokio::test]
async fn passkey_leads_to_the_page_that_was_opened() {
    let portal = Portal::new().await;
    let (browser, mut device) = portal.with_passkey("ann").await;
    let mut browser = Browser { cookie: String::new(), ..browser };
    browser.get("/log?what=passkey").await.expect(303);
    browser.post("/passkey/in", &[("passkey", "x")]).await.expect(403).shows("that you opened");
    let signed_in = browser.sign_in(&mut device).await.expect(303);
    assert_eq!(signed_in.headers["location"], "/keys/log?what=passkey");
    browser.get("/log?what=passkey").await.expect(200);
    // The end of the session names what is left to sign in with.
    let me = browser.get("/me").await.expect(200);
    let this = me.text.split("this browser").nth(1).unwrap();
    let id = &this.split("/me/end?session=").nth(1).unwrap()[..16];
    let form = browser.get(&format!("/me/end?session={id}")).await.expect(200);
    form.shows("a new link, or your passkey <bdi>Laptop</bdi>.");
    let signed_in = browser.sign_in(&mut device).await.expect(303);
    assert_eq!(signed_in.headers["location"], "/keys");
}

#[tokio::test]
async fn two_services_share_challenges_and_use_each_once() {
    let portal = Portal::new().await;
    let (browser, mut device) = portal.with_passkey("ann").await;
    let mut second = Browser { routes: page(&portal.site.reopen().await, URL), ..browser.clone() };
    let mut first = browser;
    let request = first.begin().await;
    let answer = device.answer(&request, URL);
    second.post("/passkey/in", &[("passkey", &answer)]).await.expect(303);
    for mut browser in [first, second, portal.browser()] {
        let cookie = browser.cookie.clone();
        let replayed = browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403);
        replayed.shows("was answered before");
        assert_eq!(browser.cookie, cookie);
    }
}

#[tokio::test]
async fn challenge_ends_after_five_minutes() {
    let portal = Portal::new().await;
    let (mut browser, mut device) = portal.with_passkey("ann").await;
    let [in_time, late] = [browser.begin().await, browser.begin().await];
    // A second or two pass in the test itself.
    set_ahead(290);
    let answer = device.answer(&in_time, URL);
    browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(303);
    set_ahead(301);
    let answer = device.answer(&late, URL);
    let refused = browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403);
    refused.shows("older than 5 minutes");
}

/// Returns a message of a browser with a member replaced.
fn with(message: &str, pointer: &str, value: Value) -> String {
    let mut message: Value = serde_json::from_str(message).unwrap();
    *message.pointer_mut(pointer).unwrap() = value;
    message.to_string()
}

#[tokio::test]
async fn wrong_answer_begins_no_session() {
    let portal = Portal::new().await;
    let (_, mut device) = portal.with_passkey("ann").await;
    let handle = device.handle.clone();
    let mut unregistered = Authenticator { handle: handle.clone(), ..Authenticator::new() };
    let mut unlocked = Authenticator { flags: 0x01, ..device.clone() };
    // It signs with its own key.
    let mut forger = Authenticator { id: device.id.clone(), handle, ..Authenticator::new() };
    let mut browser = portal.browser();
    let requests = [browser.begin().await, browser.begin().await];
    let right = |request: &Value, device: &mut Authenticator| device.answer(request, URL);
    let one = right(&requests[0], &mut device);
    let other: Value = serde_json::from_str(&right(&requests[1], &mut device)).unwrap();
    let credential = "/credential/response";
    let mut cases = vec![
        (String::new(), "not that of a passkey"),
        ("{".to_owned(), "not that of a passkey"),
        ("[]".to_owned(), "not that of a passkey"),
        (json!({"challenge": "x", "credential": {}}).to_string(), "not that of a passkey"),
        (with(&one, "/credential/response/signature", json!("*")), "not that of a passkey"),
        (with(&one, "/challenge", json!("0".repeat(64))), "was answered before"),
        // The answer to another challenge.
        (with(&one, credential, other["credential"]["response"].clone()), "another request"),
    ];
    let mut begun = Vec::new();
    for _ in 0..8 {
        begun.push(browser.begin().await);
    }
    let at = |device: &mut Authenticator, request: &Value, origin| device.answer(request, origin);
    let [evil, port, scheme, foreign, forged, unverified, nameless, renamed] =
        <[Value; 8]>::try_from(begun).unwrap();
    let elsewhere = "on another page than that of localhost";
    cases.extend([
        (at(&mut device, &evil, "http://evil.example"), elsewhere),
        (at(&mut device, &port, "http://localhost:8081"), elsewhere),
        (at(&mut device, &scheme, "https://localhost:8080"), elsewhere),
        (at(&mut unregistered, &foreign, URL), "not known here"),
        (at(&mut forger, &forged, URL), "answer is not valid"),
        (at(&mut unlocked, &unverified, URL), "did not verify who uses it"),
    ]);
    let message = at(&mut device, &nameless, URL);
    cases.push((with(&message, "/credential/response/userHandle", Value::Null), "not known here"));
    let message = at(&mut device, &renamed, URL);
    let handle = json!(encode(&[7; 16]));
    cases.push((with(&message, "/credential/response/userHandle", handle), "not known here"));
    let sessions = portal.site.list.log(&session_entries()).await.unwrap().len();
    for (index, (answer, sentence)) in cases.into_iter().enumerate() {
        let mut browser = Browser { address: format!("198.51.100.{index}"), ..portal.browser() };
        let refused = browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403);
        refused.shows("role=\"alert\"").shows(sentence);
        assert_eq!(browser.cookie, "", "{sentence}");
        // Nothing is left to try it again with.
        let again = browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403);
        assert!(again.text.contains("was answered before") || again.text.contains("not that of"));
    }
    assert_eq!(portal.site.list.log(&session_entries()).await.unwrap().len(), sessions);
    // The passkey works on.
    browser.sign_in(&mut device).await.expect(303);
}

fn session_entries() -> Filter {
    let action = "session.begin".to_owned();
    Filter { team_id: Some(1), action, limit: 1000, ..Filter::default() }
}

#[tokio::test]
async fn failed_passkeys_of_an_address_are_limited() {
    let portal = Portal::new().await;
    let (_, mut device) = portal.with_passkey("ann").await;
    let mut browser = portal.browser();
    let request = browser.begin().await;
    for _ in 0..5 {
        browser.post("/passkey/in", &[("passkey", "{}")]).await.expect(403);
    }
    let answer = device.answer(&request, URL);
    let refused = browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(429);
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    browser.post("/passkey/begin", &[]).await.expect(429);
    // Codes and passkeys share the limit.
    browser.post("/in", &[("code", "x")]).await.expect(429);
    let mut other = Browser { address: "203.0.113.1".to_owned(), ..portal.browser() };
    other.post("/passkey/in", &[("passkey", &answer)]).await.expect(303);

    let mut many = Browser { address: "203.0.113.2".to_owned(), ..portal.browser() };
    for _ in 0..20 {
        many.begin().await;
    }
    many.post("/passkey/begin", &[]).await.expect(429).shows("Too many sign-ins were begun");
}

#[tokio::test]
async fn passkey_of_another_member_proves_nothing() {
    let portal = Portal::new().await;
    let (mut ann, mut of_ann) = portal.with_passkey("ann").await;
    let (_, mut of_bob) = portal.with_passkey("bob").await;
    set_ahead(601);
    let request = ann.post("/teams/new", &[]).await.expect(403);
    assert!(!request.text.contains("data-request"), "operators only: {}", request.text);
    let fields = [("name", "Phone")];
    let request = ann.post("/me/passkey/new", &fields).await.expect(403).request();
    let answer = of_bob.answer(&request, URL);
    let fields = [("name", "Phone"), ("passkey", &answer)];
    let page = ann.post("/me/passkey/new", &fields).await.expect(403);
    let page = page.shows("that of another user").shows("value=\"Phone\"");
    // The challenge is used up, and the page has another one.
    let replaced = page.request();
    assert_ne!(replaced["challenge"], request["challenge"]);
    // A sign-in is not a proof, and a proof is not a sign-in.
    let sign_in = of_ann.answer(&ann.begin().await, URL);
    let fields = [("name", "Phone"), ("passkey", &sign_in)];
    ann.post("/me/passkey/new", &fields).await.expect(403).shows("was answered before");
    let proof = of_ann.answer(&replaced, URL);
    ann.post("/passkey/in", &[("passkey", &proof)]).await.expect(403).shows("was answered before");
    // A proof of one session is not one of another user's session.
    let mut bob = portal.linked(1, "bob").await;
    set_ahead(1300);
    let theirs = ann.post("/me/passkey/new", &[("name", "a")]).await.expect(403).request();
    let fields = [("name", "a"), ("passkey", &*of_bob.answer(&theirs, URL))];
    bob.post("/me/passkey/new", &fields).await.expect(403).shows("was answered before");
}

#[tokio::test]
async fn passkey_is_registered_once_and_only_by_a_right_answer() {
    let portal = Portal::new().await;
    let (mut ann, mut device) = portal.with_passkey("ann").await;
    let request = ann.new_passkey().await;
    assert_eq!(request["publicKey"]["excludeCredentials"][0]["id"], encode(&device.id));
    let made = device.make(&request, URL);
    let fields = [("name", "Twice"), ("made", &*made)];
    ann.post("/me/passkey", &fields).await.expect(409).shows("registered already");
    // A member who copies the public name of a passkey does not get it.
    let mut bob = portal.linked(1, "bob").await;
    let mut copy = Authenticator { id: device.id.clone(), ..Authenticator::new() };
    bob.add(&mut copy, "Copy").await.expect(409).shows("registered already");

    let mut phone = Authenticator::new();
    for (name, origin, flags, status, sentence) in [
        ("Phone", "http://evil.example", 0x05, 400, "on another page"),
        ("Phone", URL, 0x01, 400, "did not verify who uses it"),
        ("", URL, 0x05, 400, "The name cannot be used"),
        ("a\u{7}", URL, 0x05, 400, "The name cannot be used"),
        (&"n".repeat(65), URL, 0x05, 400, "The name cannot be used"),
    ] {
        let request = ann.new_passkey().await;
        let made = Authenticator { flags, ..phone.clone() }.make(&request, origin);
        let fields = [("name", name), ("made", &*made)];
        ann.post("/me/passkey", &fields).await.expect(status).shows(sentence);
    }
    let request = ann.new_passkey().await;
    let made = phone.make(&request, URL);
    for wrong in ["", "{", "{\"challenge\":1}", &with(&made, "/challenge", json!("x"))] {
        ann.post("/me/passkey", &[("name", "a"), ("made", wrong)]).await.expect(400);
    }
    // Another user cannot add what the browser of a user made.
    let stolen = [("name", "Phone"), ("made", &*made)];
    bob.post("/me/passkey", &stolen).await.expect(400).shows("was answered before");
    ann.post("/me/passkey", &stolen).await.expect(400).shows("was answered before");
    let request = ann.new_passkey().await;
    let made = phone.make(&request, URL);
    set_ahead(300);
    let late = [("name", "Phone"), ("made", &*made)];
    ann.post("/me/passkey", &late).await.expect(400).shows("older than 5 minutes");
    ann.get("/me").await.expect(200).shows("Laptop").hides("Phone").hides("Twice");
    bob.get("/me").await.expect(200).hides("Copy").hides("Phone");

    // One device has one passkey for a member, by the same random name.
    ann.add(&mut phone, "Phone").await.expect(303);
    assert_eq!(phone.handle, device.handle);
    ann.get("/me").await.expect(200).shows("Laptop").shows("Phone");
    portal.browser().sign_in(&mut phone).await.expect(303);
}

#[tokio::test]
async fn removed_passkey_signs_in_no_longer() {
    let portal = Portal::new().await;
    let (mut ann, mut device) = portal.with_passkey("ann").await;
    let (mut bob, mut of_bob) = portal.with_passkey("bob").await;
    let id = ann.get("/me").await.expect(200).after("/me/passkey/remove?id=");
    let at = format!("/me/passkey/remove?id={id}");
    bob.get(&at).await.expect(404).shows("no such passkey");
    // A confirmation comes first, says what is left to sign in with, and removes nothing.
    let form = ann.get(&at).await.expect(200).shows("Remove the passkey <bdi>Laptop</bdi>");
    let form = form.shows("You have no other passkey that works here").hides("<li>");
    assert_eq!(form.after("name=\"id\" value=\""), id);
    let mut phone = Authenticator { handle: device.handle.clone(), ..Authenticator::new() };
    ann.add(&mut phone, "Phone").await.expect(303);
    let form = ann.get(&at).await.expect(200).shows("with a link, or with this passkey");
    form.shows("<li><bdi>Phone</bdi></li>").hides("You have no other passkey");
    let of_phone = ann.get("/me").await.expect(200).text;
    let mut lines =
        of_phone.split("/me/passkey/remove?id=").skip(1).map(|rest| rest[..16].to_owned());
    let of_phone = lines.find(|line| *line != id).unwrap();
    ann.post("/me/passkey/remove", &[("id", &of_phone)]).await.expect(303);
    bob.post("/me/passkey/remove", &[("id", &id)]).await.expect(404).shows("no such passkey");
    let begun = ann.begin().await;
    ann.post("/me/passkey/remove", &[("id", &id)]).await.expect(303);
    ann.post("/me/passkey/remove", &[("id", &id)]).await.expect(404);
    ann.get("/me?done=removed").await.expect(200).hides("Laptop").shows("was removed");
    let answer = device.answer(&begun, URL);
    let mut browser = portal.browser();
    browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403).shows("not known here");
    assert!(portal.actions().await.contains(&("passkey.remove".into(), "Laptop".into())));
    // It can be added again.
    ann.add(&mut device, "Laptop").await.expect(303);
    browser.sign_in(&mut device).await.expect(303);

    // A member who is removed from the team has none, also after another invitation.
    let mut owner = operator();
    owner.role = Role::Owner;
    portal.site.list.remove_member(1, 2, owner).await.unwrap();
    browser.sign_in(&mut of_bob).await.expect(403).shows("not known here");
    let mut bob = portal.linked(1, "bob").await;
    bob.get("/me").await.expect(200).hides("Laptop");
    browser.sign_in(&mut of_bob).await.expect(403).shows("not known here");
}

#[tokio::test]
async fn passkey_is_renamed_by_its_member_alone() {
    let portal = Portal::new().await;
    let (mut ann, mut device) = portal.with_passkey("ann").await;
    let mut bob = portal.linked(1, "bob").await;
    let page = ann.get("/me").await.expect(200);
    let at = page.text.split("/me/passkey/name?id=").nth(1).unwrap();
    let id = at.split('"').next().unwrap().to_owned();
    bob.get(&format!("/me/passkey/name?id={id}")).await.expect(404);
    let fields = [("id", &*id), ("name", "Phone")];
    bob.post("/me/passkey/name", &fields).await.expect(404).shows("no such passkey");
    let form = ann.get(&format!("/me/passkey/name?id={id}")).await.expect(200);
    form.shows("value=\"Laptop\"");
    let long = "x".repeat(65);
    for name in ["", "a\u{7}", &long] {
        let page = ann.post("/me/passkey/name", &[("id", &id), ("name", name)]).await.expect(400);
        page.shows("The name cannot be used").shows("aria-describedby=\"problem\"");
    }
    // A new name needs no proof.
    set_ahead(601);
    ann.post("/me/passkey/name", &fields).await.expect(303);
    ann.get("/me?done=renamed").await.expect(200).shows("<bdi>Phone</bdi>").hides("Laptop");
    let renamed = ("passkey.rename".to_owned(), "Laptop, now Phone".to_owned());
    assert_eq!(portal.actions().await[0], renamed);
    // The same name again changes nothing.
    ann.post("/me/passkey/name", &fields).await.expect(303);
    assert_eq!(portal.actions().await[0], renamed);
    portal.browser().sign_in(&mut device).await.expect(303);
}

#[tokio::test]
async fn counter_that_goes_back_is_refused() {
    let portal = Portal::new().await;
    let (_, mut device) = portal.with_passkey("ann").await;
    let mut browser = portal.browser();
    device.counter = 5;
    browser.sign_in(&mut device).await.expect(303);
    // It counted to 6. A copy counts from where it was copied.
    for counter in [5, 4, 0] {
        let refused =
            browser.sign_in(&mut Authenticator { counter, ..device.clone() }).await.expect(403);
        refused.shows("counter went back").shows("remove the passkey");
    }
    browser.sign_in(&mut device).await.expect(303);
}

#[tokio::test]
async fn passkey_is_of_one_team() {
    let portal = Portal::new().await;
    let other = portal.site.list.create_team(None, "Other", operator()).await.unwrap().team;
    let (_, mut device) = portal.with_passkey("ann").await;
    // An owner of another team who makes a link for ann gets nothing of the first team.
    let mut foreign = portal.linked(other, "ann").await;
    foreign.get("/me").await.expect(200).hides("Laptop");
    let mut of_other = Authenticator::new();
    foreign.add(&mut of_other, "Elsewhere").await.expect(303);
    assert_ne!(of_other.handle, device.handle);
    let mut browser = portal.browser();
    browser.sign_in(&mut of_other).await.expect(303);
    browser.get("").await.expect(200).shows("Other").hides("Acme");
    set_ahead(601);
    let request = foreign.post("/new", &[]).await.expect(403).request();
    assert_eq!(request["publicKey"]["allowCredentials"].as_array().unwrap().len(), 1);
    let fields = [("passkey", &*device.answer(&request, URL))];
    foreign.post("/new", &fields).await.expect(403).shows("that of another user");
    browser.sign_in(&mut device).await.expect(303);
    browser.get("").await.expect(200).shows("Acme").hides("Other");
}

#[tokio::test]
async fn address_without_a_name_has_no_passkeys() {
    for (url, sentence) in [
        ("http://127.0.0.1:8080", "Passkeys need a host name"),
        ("https://[2001:db8::1]", "Passkeys need a host name"),
        ("http://keys.example", "Passkeys need https"),
    ] {
        let portal = Portal::at(url).await;
        let mut browser = portal.browser();
        browser.get("/in").await.expect(200).shows(sentence).hides("data-passkey");
        browser.post("/passkey/begin", &[]).await.expect(400).shows(sentence);
        browser.post("/passkey/in", &[("passkey", "{}")]).await.expect(400).shows(sentence);
        let code = portal.site.list.create_link(Some(1), Some("ann"), Role::Admin, operator());
        let code = code.await.unwrap().code;
        browser.post("/in", &[("code", code.expose())]).await.expect(303);
        browser.get("/me").await.expect(200).shows(sentence).hides("/me/passkey/new");
        browser.post("/me/passkey/new", &[("name", "a")]).await.expect(400).shows(sentence);
        set_ahead(601);
        browser.post("/new", &[]).await.expect(403).hides("data-passkey");
        let fields = [("passkey", "{}")];
        browser.post("/new", &fields).await.expect(403).shows(sentence);
    }
}

#[tokio::test]
async fn passkeys_of_another_host_are_named() {
    let portal = Portal::new().await;
    let (browser, _) = portal.with_passkey("ann").await;
    let url = "https://keys.example";
    let mut moved = Browser { routes: page(&portal.site.list, url), ..browser };
    moved.cookie = format!("__Host-{}", moved.cookie);
    moved.get("/me").await.expect(200).shows("Laptop").shows("only at localhost");
    set_ahead(601);
    moved.post("/new", &[]).await.expect(403).hides("data-passkey");

    let peppers = pepper::parse(PEPPER).unwrap();
    let opened = open::open(portal.site.folder.path(), None, &peppers).await.unwrap();
    let notes = opened.notes_on_passkeys(url).await.unwrap();
    let [note] = &*notes else { panic!("{notes:?}") };
    assert!(note.starts_with("1 passkey of the page of keys has the host localhost"), "{note}");
    assert!(note.contains("not at https://keys.example"), "{note}");
    assert_eq!(opened.notes_on_passkeys("https://192.0.2.1").await.unwrap().len(), 1);
    assert!(opened.notes_on_passkeys("http://localhost:9000").await.unwrap().is_empty());
}

#[tokio::test]
async fn operator_has_no_passkeys() {
    let portal = Portal::new().await;
    let link = portal.site.list.create_link(None, None, Role::Operator, operator()).await.unwrap();
    let mut browser = portal.browser();
    browser.post("/in", &[("code", link.code.expose())]).await.expect(303);
    browser.get("/me").await.expect(200).shows("An operator signs in with links");
    let refused = browser.post("/me/passkey/new", &[("name", "a")]).await.expect(409);
    refused.shows("Passkeys are for members");
    browser.post("/me/passkey/remove", &[("id", "x")]).await.expect(409);
    set_ahead(601);
    browser.post("/new", &[]).await.expect(403).hides("data-passkey");
}

#[tokio::test]
async fn member_has_at_most_twenty_passkeys() {
    let portal = Portal::new().await;
    let mut browser = portal.linked(1, "ann").await;
    for index in 0..20 {
        browser.add(&mut Authenticator::new(), &format!("key {index}")).await.expect(303);
    }
    let refused = browser.post("/me/passkey/new", &[("name", "one more")]).await.expect(409);
    refused.shows("You have 20 passkeys, the most");
}

#[tokio::test]
async fn other_sites_begin_no_sign_in() {
    let portal = Portal::new().await;
    let mut browser = portal.linked(1, "ann").await;
    for path in ["/passkey/begin", "/passkey/in", "/me/passkey/new", "/me/passkey"] {
        let request = Request::post(format!("/keys{path}")).header("sec-fetch-site", "cross-site");
        let answer = browser.send(request.body(Body::empty()).unwrap()).await.expect(403);
        answer.shows("not sent from this page");
        let mut visitor = portal.browser();
        if path.starts_with("/me") {
            let away = visitor.post(path, &[]).await.expect(303);
            assert_eq!(away.headers["location"], "/keys/in");
        }
    }
    let begun = browser.post("/passkey/begin", &[]).await.expect(200);
    assert!(begun.headers["content-security-policy"].to_str().unwrap().contains("'none'"));
    assert_eq!(begun.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn copied_list_has_the_passkeys() {
    let portal = Portal::new().await;
    let (_, mut device) = portal.with_passkey("ann").await;
    let request = portal.browser().begin().await;
    let url = Database::url_of_file(&portal.site.path("copy.db"));
    let copy = Database::open(&url).await.unwrap();
    transfer::copy(portal.site.list.database(), &copy).await.unwrap();
    copy.close().await;
    let list = support::open(portal.site.folder.path(), &url).await;
    let mut browser = Browser { routes: page(&list, URL), ..portal.browser() };
    browser.sign_in(&mut device).await.expect(303);
    browser.get("/me").await.expect(200).shows("Laptop");
    // Challenges are not copied.
    let answer = device.answer(&request, URL);
    browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(403);
}

#[tokio::test]
async fn name_of_a_passkey_is_text() {
    let portal = Portal::new().await;
    let mut browser = portal.linked(1, "ann").await;
    let hostile = "\"><script>alert(1)</script>";
    browser.add(&mut Authenticator::new(), hostile).await.expect(303);
    browser.get("/me").await.expect(200).hides("<script>alert").shows("&#60;script&#62;");
    browser.get("/log").await.expect(200).hides("<script>alert").shows("&#60;script&#62;");
}

#[tokio::test]
async fn stopped_database_is_a_sentence() {
    let portal = Portal::new().await;
    let (mut browser, mut device) = portal.with_passkey("ann").await;
    portal.site.list.create_key(creation(1), operator()).await.unwrap();
    let answer = device.answer(&browser.begin().await, URL);
    portal.site.list.database().close().await;
    browser.post("/passkey/begin", &[]).await.expect(503).shows("Requests with keys are still");
    browser.post("/passkey/in", &[("passkey", &answer)]).await.expect(503);
}
