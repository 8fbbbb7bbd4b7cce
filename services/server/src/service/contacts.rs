//! `GET /api/v1/contacts`: a small built-in list for every account, so that there is something to protect.

use alloc::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::guard::{Ask, Route};
use super::{Service, json_of};

/// Charges 1 and gives the account's contacts.
pub(crate) async fn contacts(State(service): State<Arc<Service>>, request: Request) -> Response {
    service
        .guard(Route::Contacts, &request, Ask::Charge(1), |caller| json_of(&Contacts::of(caller.account())))
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

/// How many contacts an account has.
const CONTACTS: u32 = 3;

impl Contacts {
    /// The same for an account every time, and others for its neighbours.
    fn of(account: u32) -> Self {
        let contact = |number: u32| {
            let id = u64::from(account) * u64::from(CONTACTS) + u64::from(number);
            let (name, email) =
                usize::try_from(id % 8).ok().and_then(|place| PEOPLE.get(place)).unwrap_or(&PEOPLE[0]);
            Contact { id: id + 1, name, email }
        };
        Self { account, contacts: (0..CONTACTS).map(contact).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_accounts_share_a_contact() {
        let ids =
            |account| Contacts::of(account).contacts.iter().map(|contact| contact.id).collect::<Vec<_>>();
        assert_eq!(ids(0), [1, 2, 3]);
        assert_eq!(ids(1), [4, 5, 6]);
        assert_eq!(ids(u32::MAX)[2], u64::from(u32::MAX) * 3 + 3);
    }
}
