//! The text of limits by address, such as `addresses: /64 20/minute; /48 1000/minute`.

use core::fmt;
use core::str::FromStr;

use heapless::Vec;

use crate::address::{MAX_PREFIX, MIN_PREFIX};
use crate::policy::{
    Fault, ParsePolicyError, ParsePolicyErrorKind, each_quota, leading_number, parse_quota,
    put_in_order, split, split_algorithm, trimmed,
};
use crate::quota::{Algorithm, MAX_QUOTAS, Quota};
use crate::sections::MAX_SECTIONS_LEN;
use crate::sort::sort_by_key;
use crate::tally::Layout;

/// The most prefixes of a policy for addresses.
pub const MAX_PREFIXES: usize = 4;

/// The word that a policy for addresses begins with.
const WORD: &str = "addresses";

/// The prefixes of a policy that names none, and by how much their limits are larger than those of
/// the client.
const DEFAULTS: [(u8, u32); 3] = [(64, 1), (56, 8), (48, 64)];

/// Limits of the networks that a client's address is in: `addresses: /64 20/minute; /48
/// 1000/minute`.
///
/// A client counts in its network of every prefix, and is admitted if all have room. A prefix is
/// one of IPv6, from `/33` to `/64`. An IPv4 address counts by the prefix that is shorter by 32:
/// `/64`, `/56` and `/48` are `/32`, `/24` and `/16`. Without prefixes, as in `addresses:
/// 20/minute`, the limits are those of `/64`. Those of `/56` are 8 times, and those of `/48` are 64
/// times as large: a customer has a `/56` or a `/48`, and can use all networks in it, while several
/// customers may share an IPv4 `/24`.
///
/// ```
/// use keytally_core::AddressPolicy;
/// let text = "addresses: /64 20/minute, 200/hour; /56 200/minute; /48 1000/minute";
/// let policy: AddressPolicy = text.parse()?;
/// assert_eq!(policy.to_string(), text);
///
/// let policy: AddressPolicy = "addresses: 20/minute".parse()?;
/// let text = "addresses: /64 20/minute; /56 160/minute; /48 1280/minute";
/// assert_eq!(policy.to_string(), text);
/// # Ok::<(), keytally_core::ParsePolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Longest prefix first.
    prefixes: Vec<(u8, Vec<Quota, MAX_QUOTAS>), MAX_PREFIXES>,
    /// That of the windows of all prefixes.
    layout: Layout,
}

impl AddressPolicy {
    /// Returns whether a text begins as a policy for addresses does.
    pub fn is_beginning(text: &str) -> bool {
        let rest = trimmed(text).strip_prefix(WORD);
        rest.is_some_and(|rest| trimmed(rest).starts_with(':'))
    }

    /// Returns the algorithm by which all windows count.
    pub fn algorithm(&self) -> Algorithm {
        self.layout.algorithm()
    }

    /// Returns each prefix with its quotas, longest prefix first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u8, &[Quota])> {
        self.prefixes.iter().map(|(prefix, quotas)| (*prefix, &quotas[..]))
    }

    /// Returns the layout of all windows. Each prefix uses some of them.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn new(
        algorithm: Algorithm,
        mut prefixes: Vec<(u8, Vec<Quota, MAX_QUOTAS>), MAX_PREFIXES>,
    ) -> Result<Self, Fault<'static>> {
        let mut all = Vec::<Quota, MAX_QUOTAS>::new();
        for (_, quotas) in &mut prefixes {
            put_in_order(algorithm, quotas)?;
            for quota in quotas.iter() {
                match all.iter_mut().find(|other| other.window == quota.window) {
                    Some(other) => other.limit = other.limit.max(quota.limit),
                    None => all.push(*quota).map_err(|quota| {
                        Fault::about(ParsePolicyErrorKind::TooManyQuotas, quota)
                    })?,
                }
            }
        }
        put_in_order(algorithm, &mut all)?;
        sort_by_key(&mut prefixes, |(prefix, _)| u8::MAX - prefix);
        let layout = Layout::new(algorithm, &all)
            .map_err(|needed| Fault::new(ParsePolicyErrorKind::TooManyBits { needed }, ""))?;
        Ok(Self { prefixes, layout })
    }

    fn parse(text: &str) -> Result<Self, Fault<'_>> {
        if text.len() > MAX_SECTIONS_LEN {
            let kind = ParsePolicyErrorKind::TooLong { max: MAX_SECTIONS_LEN };
            return Err(Fault::new(kind, text));
        }
        let text = trimmed(text);
        let list = text.strip_prefix(WORD).and_then(|rest| trimmed(rest).strip_prefix(':'));
        let list = list.ok_or(Fault::new(ParsePolicyErrorKind::Prefix, text))?;
        let (algorithm, list) = split_algorithm(trimmed(list));
        let mut prefixes = Vec::new();
        let mut rest = Some(list);
        while let Some(list) = rest {
            let (part, after) =
                split(list, b';').map_or((list, None), |(part, after)| (part, Some(after)));
            let part = trimmed(part);
            rest = after;
            let Some(named) = part.strip_prefix('/') else {
                // Without a prefix, the quotas are those of a client.
                let is_only = prefixes.is_empty() && rest.is_none();
                if !is_only {
                    return Err(Fault::new(ParsePolicyErrorKind::Prefix, part));
                }
                let quotas = parse_quotas(if part.is_empty() { text } else { part }, part)?;
                for (prefix, factor) in DEFAULTS {
                    let larger = |quota: &Quota| Quota {
                        limit: quota.limit.saturating_mul(factor),
                        window: quota.window,
                    };
                    // There is room for the default prefixes.
                    let _ = prefixes.push((prefix, quotas.iter().map(larger).collect()));
                }
                break;
            };
            let (number, digits) = leading_number(named);
            let prefix = number.and_then(|number| u8::try_from(number).ok());
            let prefix = prefix.filter(|prefix| {
                (MIN_PREFIX..=MAX_PREFIX).contains(prefix)
                    && prefixes.iter().all(|(other, _)| other != prefix)
            });
            let quotas = named.get(digits..).unwrap_or_default();
            let is_separate = quotas.starts_with([' ', '\t']);
            let prefix = prefix
                .filter(|_| is_separate && !prefixes.is_full())
                .ok_or(Fault::new(ParsePolicyErrorKind::Prefix, part))?;
            let _ = prefixes.push((prefix, parse_quotas(part, trimmed(quotas))?));
        }
        Self::new(algorithm, prefixes)
    }
}

fn parse_quotas<'t>(text: &'t str, list: &'t str) -> Result<Vec<Quota, MAX_QUOTAS>, Fault<'t>> {
    let mut quotas = Vec::new();
    each_quota(text, list, |part| {
        let quota = parse_quota(part)?;
        quotas.push(quota).map_err(|_| Fault::new(ParsePolicyErrorKind::TooManyQuotas, part))
    })?;
    Ok(quotas)
}

impl FromStr for AddressPolicy {
    type Err = ParsePolicyError;

    /// # Errors
    /// [`ParsePolicyError`] if the text does not have the form above, or if the windows of all
    /// prefixes together do not fit a tally.
    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Ok(Self::parse(text)?)
    }
}

impl fmt::Display for AddressPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WORD}: ")?;
        if self.algorithm() == Algorithm::Sliding {
            f.write_str("sliding ")?;
        }
        for (index, (prefix, quotas)) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "/{prefix}")?;
            let mut before = " ";
            for quota in quotas {
                write!(f, "{before}{quota}")?;
                before = ", ";
            }
        }
        Ok(())
    }
}
