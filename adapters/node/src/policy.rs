//! The functions of the classes `Policy`, `AddressPolicy` and `Sections`.

use keytally::redact::policy_error;
use keytally::{AddressPolicy, Algorithm, Policy, Quota, SectionQuotas, Sections, Warnings};
use napi_derive::napi;

use crate::errors::{Result, error};

/// A limit of units per window.
#[napi(object)]
pub(crate) struct QuotaFacts {
    pub limit: u32,
    /// In seconds.
    pub window: u32,
    pub text: String,
}

fn quota(quota: &Quota) -> QuotaFacts {
    QuotaFacts { limit: quota.limit, window: quota.window.seconds(), text: quota.to_string() }
}

/// A quota that can never deny a request, and the quota that makes it redundant.
#[napi(object)]
pub(crate) struct QuotaPair {
    pub quota: QuotaFacts,
    pub binding: QuotaFacts,
}

fn pairs(pairs: impl Iterator<Item = (Quota, Quota)>) -> Vec<QuotaPair> {
    pairs.map(|(one, other)| QuotaPair { quota: quota(&one), binding: quota(&other) }).collect()
}

/// A policy, or a section of a plan.
#[napi(object)]
pub(crate) struct PolicyFacts {
    /// The name of the section; nothing for a policy.
    pub name: Option<String>,
    pub text: String,
    pub algorithm: String,
    pub quotas: Vec<QuotaFacts>,
    pub warnings: Vec<Vec<u8>>,
    pub never_binding: Vec<QuotaPair>,
}

/// The sections of a plan.
#[napi(object)]
pub(crate) struct SectionsFacts {
    pub text: String,
    pub sections: Vec<PolicyFacts>,
}

/// The limits of a prefix.
#[napi(object)]
pub(crate) struct PrefixFacts {
    pub prefix: u8,
    pub quotas: Vec<QuotaFacts>,
}

/// A policy of client addresses.
#[napi(object)]
pub(crate) struct AddressPolicyFacts {
    pub text: String,
    pub algorithm: String,
    pub prefixes: Vec<PrefixFacts>,
}

fn parse<P: core::str::FromStr<Err = keytally::ParsePolicyError>>(text: &str) -> Result<P> {
    text.parse().map_err(|problem| error("PolicyError", policy_error(&problem)))
}

/// Parses a policy.
#[napi(catch_unwind)]
pub(crate) fn policy_facts(text: String) -> Result<PolicyFacts> {
    let policy: Policy = parse(&text)?;
    Ok(PolicyFacts {
        name: None,
        text: policy.to_string(),
        algorithm: policy.algorithm().as_str().to_owned(),
        quotas: policy.quotas().iter().map(quota).collect(),
        warnings: Vec::new(),
        never_binding: pairs(policy.never_binding()),
    })
}

/// Parses the sections of a plan.
#[napi(catch_unwind)]
pub(crate) fn sections_facts(text: String) -> Result<SectionsFacts> {
    let sections: Sections = parse(&text)?;
    let facts = |section: SectionQuotas<'_>| PolicyFacts {
        name: Some(section.section().name().to_owned()),
        text: String::new(),
        algorithm: section.algorithm().as_str().to_owned(),
        quotas: section.quotas().iter().map(quota).collect(),
        warnings: section.warnings().iter().map(warnings).collect(),
        never_binding: pairs(section.never_binding()),
    };
    Ok(SectionsFacts { text: sections.to_string(), sections: sections.iter().map(facts).collect() })
}

fn warnings(warnings: &Warnings) -> Vec<u8> {
    warnings.iter().copied().filter(|&percent| percent > 0).collect()
}

/// Parses a policy of client addresses.
#[napi(catch_unwind)]
pub(crate) fn address_policy_facts(text: String) -> Result<AddressPolicyFacts> {
    let policy: AddressPolicy = parse(&text)?;
    let prefixes = policy
        .iter()
        .map(|(prefix, quotas)| PrefixFacts { prefix, quotas: quotas.iter().map(quota).collect() });
    Ok(AddressPolicyFacts {
        text: policy.to_string(),
        algorithm: policy.algorithm().as_str().to_owned(),
        prefixes: prefixes.collect(),
    })
}

/// Returns the quotas of a text that has one section, without an algorithm and warnings.
pub(crate) fn quotas_of_account(text: &str) -> Result<Vec<Quota>> {
    let sections: Sections = parse(text)?;
    let mut each = sections.iter();
    let is_plain = |section: &SectionQuotas<'_>| {
        section.algorithm() == Algorithm::Fixed
            && section.warnings().iter().flatten().all(|&percent| percent == 0)
    };
    match (each.next().filter(is_plain), each.next()) {
        (Some(section), None) => Ok(section.quotas().to_vec()),
        _ => Err(error(
            "PolicyError",
            format!(
                "\"{sections}\" has more than quotas: the limits of an account are such as \
                 \"5000/hour\", and its plan has the algorithm and the warnings"
            ),
        )),
    }
}
