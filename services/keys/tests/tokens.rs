//! Admin tokens: what the gate of tokens has, and what the list says about it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate alloc;

#[expect(dead_code, unreachable_pub, reason = "each test uses a part of this module")]
mod support;

use core::time::Duration;

use keytally::{Key, KeyId, pepper};
use keytally_keys::error::Error;
use keytally_keys::roles::Role;
use keytally_keys::tokens::{self, Token, UNKNOWN_NAME};
use sqlx::Executor as _;
use support::{PEPPER, Site, operator};

/// Changes the database, as another service or the restoration of a copy does.
async fn change(site: &Site, query: &'static str) {
    let url = keytally_keys::database::Database::url_of_file(&site.path("keys.db"));
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    pool.execute(query).await.unwrap();
    pool.close().await;
}

async fn create(site: &Site, team: u32) -> (Key, KeyId) {
    let made = site.list.create_token(Some(team), Role::Admin, "backend", operator()).await;
    let (token, listed) = made.unwrap();
    assert_eq!((&*listed.state, listed.machine.as_deref()), ("active", Some("test")));
    (token, listed.token.parse().unwrap())
}

fn is_valid(site: &Site, token: &Key) -> bool {
    tokens::check(site.list.admin(), Some(token.expose().as_bytes())).1.is_some()
}

async fn listed(site: &Site, team: u32) -> Vec<Token> {
    site.list.tokens(Some(team)).await.unwrap()
}

#[tokio::test]
async fn valid_token_that_a_restored_list_does_not_know_is_listed_and_can_be_revoked() {
    let site = Site::new().await;
    let (team, ..) = site.team_with_key().await;
    let (token, token_id) = create(&site, team).await;
    change(&site, "delete from token").await;
    let tokens = listed(&site, team).await;
    assert_eq!((tokens.len(), &*tokens[0].name, &*tokens[0].state), (1, UNKNOWN_NAME, "active"));
    assert_eq!((&*tokens[0].role, tokens[0].machine.as_ref()), ("admin", None));
    assert!(listed(&site, team + 1).await.is_empty(), "it is another team's");
    site.list.revoke_token(Some(team), token_id, operator()).await.unwrap();
    assert!(!is_valid(&site, &token));
    assert!(listed(&site, team).await.is_empty());
}

#[tokio::test]
async fn token_that_a_restored_list_has_as_valid_is_revoked_as_the_gate_says() {
    let site = Site::new().await;
    let (team, ..) = site.team_with_key().await;
    let (_, token_id) = create(&site, team).await;
    site.list.revoke_token(Some(team), token_id, operator()).await.unwrap();
    change(&site, "update token set revoked_s = null").await;
    assert_eq!(listed(&site, team).await[0].state, "revoked");
}

#[tokio::test]
async fn token_of_another_service_is_absent_and_its_machine_is_named() {
    let site = Site::new().await;
    let (team, ..) = site.team_with_key().await;
    change(
        &site,
        "insert into token (key_id, team_id, role, name, machine, created_s, created_by) \
         values (7, 1, 'owner', 'far', 'web-2', 1, 'operator')",
    )
    .await;
    let tokens = listed(&site, team).await;
    assert_eq!((&*tokens[0].state, tokens[0].machine.as_deref()), ("absent", Some("web-2")));
    let token_id = tokens[0].token.parse().unwrap();
    let error = site.list.revoke_token(Some(team), token_id, operator()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Conflict(sentence) if sentence.contains("\"web-2\"")),
        "{error}"
    );
    let unknown = site.list.revoke_token(Some(team + 1), token_id, operator()).await.unwrap_err();
    assert!(matches!(unknown, Error::NotFound { .. }), "another team learns nothing: {unknown}");
}

#[tokio::test]
async fn replaced_gate_of_tokens_decides() {
    let site = Site::new().await;
    let (team, ..) = site.team_with_key().await;
    let (token, _) = create(&site, team).await;
    let other = tempfile::tempdir().unwrap();
    drop(tokens::open_gate(other.path(), &pepper::parse(PEPPER).unwrap()).unwrap());
    std::fs::copy(other.path().join(tokens::FILE), site.path("new.gate")).unwrap();
    assert!(is_valid(&site, &token));
    std::fs::rename(site.path("new.gate"), site.path(tokens::FILE)).unwrap();
    for _ in 0..100 {
        if !is_valid(&site, &token) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!is_valid(&site, &token), "the service uses the former file");
    let (token, _) = create(&site, team).await;
    assert!(is_valid(&site, &token));
    let states: Vec<_> = listed(&site, team).await.into_iter().map(|token| token.state).collect();
    assert_eq!(states.iter().filter(|state| **state == "absent").count(), 1, "{states:?}");
}
