//! Names in the store: keys of windows, channels and machines.

use core::fmt::Write as _;
use core::hash::{Hash as _, Hasher as _};
use std::hash::DefaultHasher;

use keytally_core::Window;
use keytally_fleet_plan::credit::CreditLayout;

/// Writes the key of a window, such as `kt:{prod/0Gk3Xb}:key:60:1700000040`. It has the fleet, the
/// subject, its section, the window, and the Unix second at which it begins. The braces keep all
/// windows of a subject in one slot of a cluster.
pub(crate) fn write_key(
    out: &mut String,
    fleet: &str,
    subject: &str,
    window: Window,
    begin_ms: u64,
) {
    let (subject, section) = subject.split_once(':').unwrap_or((subject, ""));
    let _ = write!(out, "kt:{{{fleet}/{subject}}}:{section}:");
    write_window(out, window);
    let _ = write!(out, ":{}", begin_ms / 1000);
}

/// Writes a window: its seconds, or its name if it is one of the calendar.
fn write_window(out: &mut String, window: Window) {
    let _ = if window.is_calendar() {
        write!(out, "{window:?}")
    } else {
        write!(out, "{}", window.seconds())
    };
}

/// A key of a window, as a message names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowKey {
    /// The subject and its section, as [`Subject::name`](crate::Subject).
    pub(crate) subject: String,
    window: String,
}

impl WindowKey {
    /// Reads a key of this fleet.
    pub(crate) fn parse(fleet: &str, key: &str) -> Option<Self> {
        let rest = key.strip_prefix("kt:{")?.strip_prefix(fleet)?.strip_prefix('/')?;
        let (subject, rest) = rest.split_once("}:")?;
        let (section, rest) = rest.split_once(':')?;
        let (window, _) = rest.split_once(':')?;
        Some(Self { subject: format!("{subject}:{section}"), window: window.to_owned() })
    }

    /// Returns the index of the window in a layout.
    pub(crate) fn index(&self, layout: &CreditLayout) -> Option<usize> {
        layout.windows().iter().position(|&window| {
            let mut text = String::new();
            write_window(&mut text, window);
            text == self.window
        })
    }
}

/// Returns the prefix of the channels.
pub(crate) fn channels(fleet: &str) -> String {
    format!("kt:{fleet}")
}

/// Returns the channel on which writes of keys are announced.
pub(crate) fn keys_channel(fleet: &str) -> String {
    format!("{}:keys", channels(fleet))
}

/// Returns the name of a machine in the store.
pub(crate) fn machine(name: u64) -> String {
    format!("{name:016x}")
}

/// Returns a 64-bit hash, never 0.
pub(crate) fn hash(parts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytally_core::Policy;

    #[test]
    fn key_names_subject_section_window_and_begin() {
        let policy: Policy = "10/minute, 100/week, 1000/month@17".parse().unwrap();
        let layout = CreditLayout::new(policy.layout(), &policy.limits()).unwrap();
        let now_ms = 1_700_000_000_000;
        let mut keys = Vec::new();
        for (index, window) in layout.windows().iter().enumerate() {
            let mut key = String::new();
            write_key(
                &mut key,
                "prod",
                "0Gk:group.x",
                *window,
                layout.span(index, now_ms).begin_ms,
            );
            let read = WindowKey::parse("prod", &key).unwrap();
            assert_eq!((&*read.subject, read.index(&layout)), ("0Gk:group.x", Some(index)));
            assert_eq!(WindowKey::parse("pro", &key), None);
            keys.push(key);
        }
        assert_eq!(keys[0], "kt:{prod/0Gk}:group.x:60:1699999980");
        assert_eq!(keys[1], "kt:{prod/0Gk}:group.x:week:1699833600");
        assert_eq!(keys[2], "kt:{prod/0Gk}:group.x:month@17:1697500800");
        for other in ["", "kt:{prod/0Gk", "kt:{prod/0Gk}:key", "kt:{prod/0Gk}:key:60"] {
            assert_eq!(WindowKey::parse("prod", other), None);
        }
    }
}
