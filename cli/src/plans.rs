//! Plans as text: `NAME=SECTIONS`, such as `default=100/minute, 1000/hour`.

use keytally::redact::{policy_error, redact_name};
use keytally::{AdminError, Algorithm, Gate, NewKey, Plan, Quota, Section, Sections, Window};

use crate::failure::Failure;

/// Parses a plan.
///
/// # Errors
/// A sentence that names the wrong part, with secrets redacted.
pub fn parse(text: &str) -> Result<Plan, String> {
    let Some((name, sections)) = text.split_once('=') else {
        return Err(format!(
            "{:?} is not a plan; write NAME=SECTIONS, such as \"default=100/minute, 1000/hour\"",
            redact_name(text)
        ));
    };
    let name = name.trim();
    let sections = sections
        .parse()
        .map_err(|error| format!("plan {:?}: {}", redact_name(name), policy_error(&error)))?;
    Plan::new(name, sections).ok_or_else(|| invalid_name(name))
}

/// Parses the limits of an account: quotas, without what only a plan has.
///
/// # Errors
/// A sentence that names the wrong part, with secrets redacted.
pub(crate) fn parse_limits(text: &str) -> Result<Sections, String> {
    let sections: Sections = text.parse().map_err(|error| policy_error(&error))?;
    let extra = sections.iter().find_map(|section| {
        if *section.section() != Section::Key {
            Some(format!("the section {:?}", redact_name(&section.section().to_string())))
        } else if section.algorithm() != Algorithm::Fixed {
            Some(format!("the algorithm {:?}", section.algorithm().as_str()))
        } else {
            let percent = section.warnings().iter().flatten().find(|&&percent| percent > 0)?;
            Some(format!("the warning at {percent}%"))
        }
    });
    extra.map_or(Ok(sections), |extra| {
        Err(format!(
            "{extra} is not possible here: the limits of an account are quotas, such as \"5000/hour, 100000/day\", and its plan has the rest"
        ))
    })
}

/// Parses the window of a quota.
///
/// # Errors
/// A sentence that names the wrong part, with secrets redacted.
pub fn parse_window(text: &str) -> Result<Window, String> {
    text.parse().map_err(|error| policy_error(&error))
}

/// Parses the name of a plan.
///
/// # Errors
/// A sentence that says which names are valid.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let sections = "1/second".parse().ok();
    match sections.and_then(|sections| Plan::new(text, sections)) {
        Some(plan) => Ok(plan.name.as_str().to_owned()),
        None => Err(invalid_name(text)),
    }
}

fn invalid_name(name: &str) -> String {
    format!(
        "{:?} is not a plan name; use 1 to 16 characters of a-z, 0-9, - and _",
        redact_name(name)
    )
}

/// Checks that no two plans have the same name.
///
/// # Errors
/// A usage error that names the duplicate.
pub fn check_distinct(plans: &[Plan]) -> Result<(), Failure> {
    for (index, plan) in plans.iter().enumerate() {
        if plans[..index].iter().any(|other| other.name == plan.name) {
            return Err(Failure::usage(format!("plan {:?} is given twice", plan.name)));
        }
    }
    Ok(())
}

/// Returns a warning for each quota of a plan that can never deny a request.
pub(crate) fn warnings(plan: &Plan) -> Vec<String> {
    let mut warnings = Vec::new();
    for section in plan.sections.iter() {
        let owner = match section.section() {
            Section::Key => format!("plan {}", plan.name),
            section => format!("{section} of plan {}", plan.name),
        };
        warnings.extend(section.never_binding().map(|quotas| never_binds(&owner, quotas)));
    }
    warnings
}

/// Returns the warning about a quota that can never deny a request, because of another one.
///
/// `owner` names what has the quotas, such as `plan default`.
pub fn never_binds(owner: &str, (idle, other): (Quota, Quota)) -> String {
    format!(
        "keytally: warning: {idle} in {owner} can never deny a request, because {other} never allows more than that"
    )
}

/// Returns the failure of a change that names the plan `name`. If the gate does not have this plan,
/// the failure repeats the name and lists the plans that it has.
pub(crate) fn no_such_plan(gate: &Gate, name: Option<&str>, error: keytally::Error) -> Failure {
    let (keytally::Error::Admin { source: AdminError::NoSuchPlan, .. }, Some(name)) =
        (&error, name)
    else {
        return error.into();
    };
    let name = redact_name(name);
    let sentence = format!("the gate has no plan {name:?}; its plans are: {}", plans_of(gate));
    with_sentence(&error, AdminError::NoSuchPlan, &sentence)
}

/// Returns the failure to issue a key. If the gate does not have its plan or a scope, the failure
/// repeats the name and lists those that the gate has.
pub(crate) fn no_such_name(gate: &Gate, new: &NewKey<'_>, error: keytally::Error) -> Failure {
    let known: Vec<_> = gate.table().scopes().map(|scope| scope.to_string()).collect();
    match new.scopes.iter().find(|scope| known.iter().all(|known| known != *scope)) {
        Some(scope)
            if matches!(error, keytally::Error::Admin { source: AdminError::NoSuchScope, .. }) =>
        {
            let scope = redact_name(scope);
            let sentence = match known.join(", ").as_str() {
                "" => format!("the gate has no scope {scope:?}; it was created without scopes"),
                known => format!("the gate has no scope {scope:?}; its scopes are: {known}"),
            };
            with_sentence(&error, AdminError::NoSuchScope, &sentence)
        }
        _ => no_such_plan(gate, new.plan, error),
    }
}

/// Returns the failure of a change of `plan`. If its windows or algorithm are not the gate's, the
/// failure has its policy and those of the gate's plans.
pub(crate) fn not_a_plan(gate: &Gate, plan: &Plan, error: keytally::Error) -> Failure {
    let source = AdminError::PlanWindows;
    if !matches!(&error, keytally::Error::Admin { source: found, .. } if *found == source) {
        return error.into();
    }
    let plans = plans_of(gate);
    let sentence = format!("{source}: {} was given, and the plans are: {plans}", plan.sections);
    with_sentence(&error, source, &sentence)
}

/// Returns the failure to give an account limits of its own. If their windows are not those of the
/// gate's section `team`, the failure has the limits and the gate's plans.
pub(crate) fn not_limits(gate: &Gate, limits: &Sections, error: keytally::Error) -> Failure {
    let source = AdminError::PlanWindows;
    if !matches!(&error, keytally::Error::Admin { source: found, .. } if *found == source) {
        return error.into();
    }
    let plans = plans_of(gate);
    let sentence = format!(
        "the limits of an account have the windows of the section team: {limits} was given, and the plans are: {plans}"
    );
    with_sentence(&error, source, &sentence)
}

/// Returns the failure of `error`, which keeps its path, with another sentence for its source.
fn with_sentence(error: &keytally::Error, source: AdminError, sentence: &str) -> Failure {
    Failure::new(error.to_string().replace(&source.to_string(), sentence))
}

fn plans_of(gate: &Gate) -> String {
    describe(gate.table().plans().map(|(_, plan)| plan))
}

/// Formats plans for people: `default = 100/minute, 1000/hour; pro = …`.
pub fn describe(plans: impl IntoIterator<Item = Plan>) -> String {
    let texts = plans.into_iter().map(|plan| format!("{} = {}", plan.name, plan.sections));
    texts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn plan_is_parsed_from_name_and_policy() {
        let plan = parse(" pro = 1000/minute,20000/hour").unwrap();
        assert_eq!(
            (plan.name.as_str(), plan.sections.to_string()),
            ("pro", "1000/minute, 20000/hour".to_owned())
        );
        assert!(error("100/minute").starts_with("\"100/minute\" is not a plan;"));
        assert!(error("Pro=1/s").starts_with("\"Pro\" is not a plan name;"));
        assert!(error("=1/s").starts_with("\"\" is not a plan name;"));
        assert!(error("x=5/fortnight").starts_with("plan \"x\": \"fortnight\" is "));
    }

    #[test]
    fn plan_error_repeats_no_secret() {
        for secret in ["kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM", "an-old-key-of-421"] {
            let texts = [
                secret,
                &format!("{secret}=1/s"),
                &format!("x={secret}"),
                &format!("x=1/{secret}"),
            ];
            for text in texts {
                let error = error(text);
                assert!(!error.contains("Xk2L") && !error.contains("old-key"), "{error}");
            }
        }
    }
}
