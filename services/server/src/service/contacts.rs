//! `GET /api/v1/contacts`: the example resource, a built-in list for each account.

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use keytally_tower::Extras;
use serde::Serialize;

use super::check::{Caller, Check, Route};
use super::json::json_of;
use super::state::Service;

/// Charges 1 and returns the contacts of the account.
pub(crate) async fn contacts(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let check = Check::Charge(1, Extras::default());
    let respond = |caller: &Caller<'_>| json_of(&Contacts::new(caller.account()));
    service.check_and_respond(Route::Contacts, &request, check, respond).await
}

#[derive(Debug, Serialize)]
struct Contacts {
    account: u32,
    contacts: Vec<Contact>,
}

#[derive(Debug, Serialize)]
struct Contact {
    id: u64,
    name: &'static str,
    email: &'static str,
}

const PEOPLE: [(&str, &str); 8] = [
    ("Amal Haddad", "amal.haddad@example.com"),
    ("Birgit Lund", "birgit.lund@example.com"),
    ("Chidi Okafor", "chidi.okafor@example.com"),
    ("Dolores Vega", "dolores.vega@example.com"),
    ("Emre Aydin", "emre.aydin@example.com"),
    ("Farah Qureshi", "farah.qureshi@example.com"),
    ("Greta Novak", "greta.novak@example.com"),
    ("Hiro Tanaka", "hiro.tanaka@example.com"),
];

/// The number of contacts of each account.
const CONTACTS: u32 = 3;

impl Contacts {
    /// Returns the contacts of an account: the same on each call, with ids that no other account
    /// has.
    fn new(account: u32) -> Self {
        let contact = |number: u32| {
            let id = u64::from(account) * u64::from(CONTACTS) + u64::from(number);
            let (name, email) = usize::try_from(id % 8)
                .ok()
                .and_then(|index| PEOPLE.get(index))
                .unwrap_or(&PEOPLE[0]);
            Contact { id: id + 1, name, email }
        };
        Self { account, contacts: (0..CONTACTS).map(contact).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_share_no_contact_id() {
        let ids = |account| {
            Contacts::new(account).contacts.iter().map(|contact| contact.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(0), [1, 2, 3]);
        assert_eq!(ids(1), [4, 5, 6]);
        assert_eq!(ids(u32::MAX)[2], u64::from(u32::MAX) * 3 + 3);
    }
}
