//! Limits by address: a client counts in its network of each prefix, all or none.
//!
//! Requests are made one after another, so no charge loses a race.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::HashMap;

use super::compound::{Answer, Charged};
use super::http::Outcome;
use super::policy::{Algorithm, Policy, PolicyError, parse_policy, split_algorithm};
use super::tally::{Charge, Decision, Model};

const LONGEST_TEXT: usize = 512;
const MOST_PREFIXES: usize = 4;
/// The prefixes of a policy that names none, and the factors of their limits.
const DEFAULTS: [(u8, u32); 3] = [(64, 1), (56, 8), (48, 64)];

/// A limiter of client addresses.
#[derive(Debug, Clone)]
pub struct Prefixes {
    /// Each prefix with its policy, the longest prefix first.
    prefixes: Vec<(u8, Model)>,
    /// The word of each network.
    words: HashMap<(u8, String), u64>,
}

impl Prefixes {
    /// Parses a policy. The error is its name in the vector files.
    pub fn parse(text: &str) -> Result<Prefixes, &'static str> {
        if text.len() > LONGEST_TEXT {
            return Err("too_long");
        }
        let list =
            trim(text).strip_prefix("addresses").map(trim).and_then(|it| it.strip_prefix(':'));
        let list = trim(list.ok_or("prefix")?);
        if ["", "fixed", "sliding"].contains(&list) {
            return Err("empty");
        }
        let (algorithm, list) = match split_algorithm(list) {
            (Algorithm::Fixed, list) => ("", list),
            (Algorithm::Sliding, list) => ("sliding ", list),
        };
        // A prefix has no algorithm of its own, so each quota is parsed alone.
        let quotas = |list: &str| {
            let mut texts = Vec::new();
            for quota in list.split(',') {
                let quota = trim(quota);
                if split_algorithm(quota).1 != quota {
                    return Err("syntax");
                }
                texts.push(parse(&format!("{algorithm}{quota}"))?.quotas_text());
            }
            parse(&format!("{algorithm}{}", texts.join(", ")))
        };
        let mut prefixes = Vec::new();
        let parts: Vec<&str> = list.split(';').map(trim).collect();
        for part in &parts {
            let Some(named) = part.strip_prefix('/') else {
                if parts.len() > 1 {
                    return Err("prefix");
                }
                for (prefix, factor) in DEFAULTS {
                    let mut policy = quotas(part)?;
                    for quota in &mut policy.quotas {
                        quota.limit = quota.limit.saturating_mul(factor);
                    }
                    prefixes.push((prefix, policy));
                }
                break;
            };
            let end = named.find([' ', '\t']).ok_or("prefix")?;
            let (number, list) = named.split_at(end);
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            let prefix: u8 = number.parse().ok().filter(|_| is_number).ok_or("prefix")?;
            let is_named = prefixes.iter().any(|(other, _)| *other == prefix);
            if !(33..=64).contains(&prefix) || is_named || prefixes.len() == MOST_PREFIXES {
                return Err("prefix");
            }
            prefixes.push((prefix, quotas(list)?));
        }
        // The windows of all prefixes, each with its largest limit, must fit one tally.
        let mut all = prefixes[0].1.clone();
        for quota in prefixes[1..].iter().flat_map(|(_, policy)| &policy.quotas) {
            match all.quotas.iter_mut().find(|other| other.window == quota.window) {
                Some(other) => other.limit = other.limit.max(quota.limit),
                None => all.quotas.push(*quota),
            }
        }
        parse(&all.to_string())?;
        prefixes.sort_by_key(|(prefix, _)| u8::MAX - prefix);
        let prefixes =
            prefixes.into_iter().map(|(prefix, policy)| (prefix, Model::new(policy))).collect();
        Ok(Prefixes { prefixes, words: HashMap::new() })
    }

    /// Returns the canonical text of the policy.
    #[must_use]
    pub fn text(&self) -> String {
        let mut algorithm = "";
        let mut parts = Vec::new();
        for (prefix, model) in &self.prefixes {
            if model.policy().algorithm == Algorithm::Sliding {
                algorithm = "sliding ";
            }
            parts.push(format!("/{prefix} {}", model.policy().quotas_text()));
        }
        format!("addresses: {algorithm}{}", parts.join("; "))
    }

    /// Charges a client to its network of every prefix, if all have room, else to none. Returns
    /// what each network was charged, the longest prefix first.
    pub fn check(&mut self, now_ms: u64, client: &str, cost: u32) -> (Answer, Vec<Charge>) {
        let networks = self.networks(client);
        let mut decisions: Vec<Decision> = Vec::new();
        for ((_, model), network) in self.prefixes.iter().zip(&networks) {
            decisions.push(model.check(self.word(network), now_ms, cost));
        }
        let admitted = decisions.iter().all(|decision| decision.outcome == Outcome::Admitted);
        let is_too_costly = decisions.iter().any(|decision| decision.outcome == Outcome::TooCostly);
        let mut answer = Answer {
            admitted,
            tallies: Vec::new(),
            retry_after_s: if is_too_costly {
                None
            } else {
                decisions.iter().filter_map(|decision| decision.retry_after_s).max()
            },
            crossed: Vec::new(),
        };
        let mut charges = Vec::new();
        for (index, decision) in decisions.into_iter().enumerate() {
            let network = &networks[index];
            let mut quotas = decision.quotas;
            if admitted {
                self.words.insert(network.clone(), decision.next);
                let at_ms = u64::try_from(decision.time_ms).expect("a time after 1970");
                charges.push(Charge { cost, at_ms });
            } else {
                quotas = self.prefixes[index].1.peek(self.word(network), now_ms, cost).quotas;
            }
            answer.tallies.push(Charged {
                section: self.section(index),
                outcome: decision.outcome,
                quotas,
            });
        }
        (answer, charges)
    }

    /// Gives charges back, and returns the state after it.
    pub fn refund(&mut self, now_ms: u64, client: &str, charges: &[Charge]) -> Answer {
        for (index, network) in self.networks(client).into_iter().enumerate() {
            let next = self.prefixes[index].1.refund(self.word(&network), charges[index], now_ms);
            self.words.insert(network, next);
        }
        self.check(now_ms, client, 0).0
    }

    fn word(&self, network: &(u8, String)) -> u64 {
        self.words.get(network).copied().unwrap_or(0)
    }

    /// Returns the section of the prefix at this index. The longest prefix is the client itself.
    fn section(&self, index: usize) -> String {
        match index {
            0 => String::new(),
            _ => format!("prefix-{}", self.prefixes[index].0),
        }
    }

    /// Returns the prefix and the bits of each network of a client.
    fn networks(&self, client: &str) -> Vec<(u8, String)> {
        let (family, bits) = client_bits(client);
        let mut networks = Vec::new();
        for (prefix, _) in &self.prefixes {
            // An IPv4 prefix is shorter by 32.
            let kept = usize::from(*prefix) - if family == "IPv4" { 32 } else { 0 };
            networks.push((*prefix, format!("{family} {}", &bits[..kept])));
        }
        networks
    }
}

/// Parses a policy for one prefix. The error is its name in the vector files.
fn parse(text: &str) -> Result<Policy, &'static str> {
    parse_policy(text).map_err(PolicyError::kind)
}

/// Returns the family and the binary digits of an address, which may have a port, brackets and a
/// zone.
fn client_bits(text: &str) -> (&'static str, String) {
    let text = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next().expect("a part of a split"),
        None if text.matches(':').count() == 1 => {
            text.split(':').next().expect("a part of a split")
        }
        None => text,
    };
    let text = text.split('%').next().expect("a part of a split");
    let address: IpAddr = text.parse().expect("the vectors have valid addresses");
    let ipv6 = match address {
        IpAddr::V4(ipv4) => return ("IPv4", format!("{:032b}", ipv4.to_bits())),
        IpAddr::V6(ipv6) => ipv6,
    };
    let bits = format!("{:0128b}", ipv6.to_bits());
    // The position of the IPv4 address that a network embeds.
    for (network, length, at) in [
        ("::ffff:0:0", 96, 96),
        ("::ffff:0:0:0", 96, 96),
        ("64:ff9b::", 96, 96),
        ("2002::", 16, 16),
        ("::", 96, 96),
    ] {
        let network: Ipv6Addr = network.parse().expect("an address");
        let is_in = bits[..length] == format!("{:0128b}", network.to_bits())[..length];
        // `::` and `::1` are addresses of their own.
        if is_in && ipv6.to_bits() > 1 {
            return ("IPv4", bits[at..at + 32].to_owned());
        }
    }
    ("IPv6", bits)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
