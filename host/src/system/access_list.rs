//! Access to a file on Windows: which owners and access control lists are refused.
//!
//! The system writes both as text, in its security descriptor definition language (SDDL):
//! `O:BAD:P(A;;FA;;;SY)(A;;FA;;;S-1-5-21-1-2-3-1001)`. Each entry has a type, flags, rights, two
//! fields for directories of accounts, and an account. `A` and `XA` are entries that allow access.

/// The owner of a file and the accounts that have access to it, as the system writes them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AccessList {
    owner: String,
    /// `None` if the descriptor has no list, which gives every user access.
    accounts: Option<Vec<String>>,
}

/// The user that a process runs as.
#[derive(Debug)]
pub(super) struct User {
    /// The account, as the system writes it in lists: some are abbreviated.
    pub(super) account: String,
    /// Whether the process may open files of every user.
    pub(super) is_administrator: bool,
}

/// The reason why a file is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// This account owns it.
    Owner(&'a str),
    /// This account has access.
    Access(&'a str),
}

/// The system and the administrators.
const ADMINISTRATORS: [&str; 2] = ["SY", "BA"];

/// The account that stands for the owner.
const OWNER: &str = "OW";

/// The accounts of all users, with their names.
const ALL_USERS: [(&str, &str); 7] = [
    ("WD", "Everyone"),
    ("AU", "Authenticated Users"),
    ("BU", "Users"),
    ("BG", "Guests"),
    ("AN", "Anonymous"),
    ("NU", "Network"),
    ("IU", "Interactive"),
];

impl AccessList {
    /// Parses what the system wrote. `None` if it has no owner.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (owner, list) = text.strip_prefix("O:")?.split_once("D:").unwrap_or_else(|| {
            // Without a list, only the owner is left.
            (text.strip_prefix("O:").unwrap_or_default(), "NO_ACCESS_CONTROL")
        });
        let owner = owner.split_once("G:").map_or(owner, |(owner, _)| owner).to_owned();
        if owner.is_empty() {
            return None;
        }
        if list.contains("NO_ACCESS_CONTROL") {
            return Some(Self { owner, accounts: None });
        }
        let accounts = list.split('(').skip(1).filter_map(|entry| {
            let fields: Vec<&str> = entry.split([';', ')']).collect();
            let [kind, flags, _, _, _, account, ..] = fields[..] else { return None };
            let is_allowed = kind.ends_with('A') && !kind.starts_with('S');
            // Such an entry is for the files in a folder only.
            let is_inherited_only = flags.as_bytes().chunks(2).any(|flag| flag == b"IO");
            (is_allowed && !is_inherited_only).then(|| account.to_owned())
        });
        let accounts = accounts.collect();
        Some(Self { owner, accounts: Some(accounts) })
    }

    /// Returns the owner.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Applies the rule for tables: all users must not have access.
    pub(super) fn refuse_for_table(&self, user: &User) -> Result<(), Refusal<'_>> {
        self.refuse(user, |account| ALL_USERS.iter().any(|(all, _)| *all == account))
    }

    /// Applies the rule for pepper files: only the owner and the administrators may have access.
    pub(super) fn refuse_for_secret(&self, user: &User) -> Result<(), Refusal<'_>> {
        let trusted = [&user.account, &self.owner, OWNER];
        self.refuse(user, |account| {
            !trusted.contains(&account) && !ADMINISTRATORS.contains(&account)
        })
    }

    fn refuse(&self, user: &User, is_refused: impl Fn(&str) -> bool) -> Result<(), Refusal<'_>> {
        // The owner comes first, because an owner can change the list at any time.
        let is_trusted = *self.owner == *user.account || ADMINISTRATORS.contains(&self.owner());
        if !is_trusted && !user.is_administrator {
            return Err(Refusal::Owner(&self.owner));
        }
        let Some(accounts) = &self.accounts else { return Err(Refusal::Access("WD")) };
        match accounts.iter().find(|account| is_refused(account)) {
            Some(account) => Err(Refusal::Access(account)),
            None => Ok(()),
        }
    }
}

/// Returns the name of an account of all users, or any other account unchanged.
pub(super) fn shown(account: &str) -> &str {
    ALL_USERS.iter().find(|(all, _)| *all == account).map_or(account, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "S-1-5-21-1-2-3-1001";

    fn user(is_administrator: bool) -> User {
        User { account: USER.to_owned(), is_administrator }
    }

    fn list(text: &str) -> AccessList {
        AccessList::parse(&text.replace("USER", USER)).unwrap()
    }

    #[test]
    fn file_that_this_crate_creates_is_accepted() {
        let own = list("O:USERD:P(A;;FA;;;USER)(A;;FA;;;SY)(A;;FA;;;BA)");
        assert_eq!(own.refuse_for_table(&user(false)), Ok(()));
        assert_eq!(own.refuse_for_secret(&user(false)), Ok(()));
        assert_eq!(own.owner(), USER);
    }

    #[test]
    fn access_of_all_users_is_refused() {
        for (account, name) in ALL_USERS {
            for kind in ["A", "XA"] {
                let text = format!("O:USERG:BAD:AI(A;;FA;;;USER)({kind};ID;0x1200a9;;;{account})");
                assert_eq!(
                    list(&text).refuse_for_table(&user(true)),
                    Err(Refusal::Access(account))
                );
                assert_eq!(shown(account), name);
            }
        }
        assert_eq!(
            list("O:USERD:NO_ACCESS_CONTROL").refuse_for_table(&user(false)),
            Err(Refusal::Access("WD"))
        );
        assert_eq!(list("O:USER").refuse_for_table(&user(false)), Err(Refusal::Access("WD")));
    }

    #[test]
    fn entry_that_denies_or_is_only_inherited_gives_no_access() {
        for entry in ["(D;;FA;;;WD)", "(XD;;FA;;;WD)", "(A;OICIIO;FA;;;WD)"] {
            assert_eq!(list(&format!("O:USERD:{entry}")).refuse_for_secret(&user(false)), Ok(()));
        }
    }

    #[test]
    fn access_of_a_group_is_refused_for_secrets_only() {
        let group = list("O:BAD:P(A;;FA;;;BA)(A;;FR;;;S-1-5-21-1-2-3-2000)(A;;FA;;;OW)");
        assert_eq!(group.refuse_for_table(&user(false)), Ok(()));
        assert_eq!(
            group.refuse_for_secret(&user(false)),
            Err(Refusal::Access("S-1-5-21-1-2-3-2000"))
        );
    }

    #[test]
    fn file_of_another_user_is_refused_unless_an_administrator_opens_it() {
        let other = list("O:S-1-5-21-1-2-3-1002D:P(A;;FA;;;S-1-5-21-1-2-3-1002)");
        for rule in [AccessList::refuse_for_table, AccessList::refuse_for_secret] {
            assert_eq!(rule(&other, &user(false)), Err(Refusal::Owner("S-1-5-21-1-2-3-1002")));
            assert_eq!(rule(&other, &user(true)), Ok(()));
        }
        assert_eq!(AccessList::parse("D:P(A;;FA;;;WD)"), None);
        assert_eq!(AccessList::parse("O:D:P(A;;FA;;;WD)"), None);
    }
}
