//! Creates the gates of `verdict.json` as table files in the folder that the first argument names.
//! Each file has the name of its gate. The tests of other languages open them.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a tool of tests")]

use std::path::PathBuf;
use std::{env, fs};

use keytally::{Entropy, Name, NewKey, Peppers, Plan, Timestamp, parse_key};
use keytally::{Gate, GateConfig};
use keytally_vectors::files::GateSetup;
use keytally_vectors::{load_verdicts, model};

fn main() {
    let folder = PathBuf::from(env::args_os().nth(1).expect("a folder as the first argument"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for setup in &load_verdicts().gates {
        create_gate(&folder.join(&setup.gate), setup);
    }
}

/// Creates a gate with its keys. They are imported, which keeps their ids. A key that has a
/// previous secret is imported with it, and then rotated to the new one.
fn create_gate(path: &PathBuf, setup: &GateSetup) {
    let plans = vec![Plan::new("default", setup.policy.parse().unwrap()).unwrap()];
    let config = GateConfig::default().with_keys(64).with_plans(plans);
    let gate = Gate::create(path, Peppers::new(&[&setup.pepper]).unwrap(), &config).unwrap();
    for key in &setup.keys {
        let parts = parse_key(key.text.as_bytes()).unwrap();
        let env = Name::new(parts.env).unwrap();
        let new = NewKey::new(key.account, env).with_expires(end_time(key.expires_s));
        let first = key.previous.as_ref().unwrap_or(&key.text);
        gate.administer(|administrator| {
            let key_id = administrator.import(first.as_bytes(), &new, Timestamp::default())?;
            assert_eq!(key_id, parts.key_id);
            if key.previous.is_some() {
                let secret = model::parse_key(key.text.as_bytes()).unwrap().secret.to_be_bytes();
                // A rotation takes the new secret from the last 16 bytes of the entropy.
                let entropy: [u8; 24] = [&[0; 8], &secret[..]].concat().try_into().unwrap();
                let entropy = Entropy::new(entropy);
                let rotated = administrator.rotate(
                    key_id,
                    end_time(key.grace_until_s),
                    false,
                    entropy,
                    Timestamp::default(),
                )?;
                assert_eq!(rotated.expose(), key.text);
            }
            if key.revoked {
                administrator.revoke(key_id)?;
            }
            Ok(())
        })
        .unwrap();
    }
}

/// Returns the end of a validity in a vector file as a time. 0 means that there is no end.
fn end_time(unix_s: u32) -> Option<Timestamp> {
    (unix_s != 0).then(|| Timestamp::from_unix_s(unix_s.into()))
}
