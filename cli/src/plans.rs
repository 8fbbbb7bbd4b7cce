//! Plans as text: `NAME=POLICY`, such as `default=100/minute, 1000/hour`.

use keytally::redact::{policy_error, redact_name};
use keytally::{AdminError, Gate, Plan};
use keytally::{Layout, Policy};

use crate::failure::Failure;

/// Parses a plan.
///
/// # Errors
/// A sentence that names the wrong part, with secrets redacted.
pub fn parse(text: &str) -> Result<Plan, String> {
    let Some((name, policy)) = text.split_once('=') else {
        return Err(format!(
            "{:?} is not a plan; write NAME=POLICY, such as \"default=100/minute, 1000/hour\"",
            redact_name(text)
        ));
    };
    let name = name.trim();
    let policy: Policy = policy
        .parse()
        .map_err(|error| format!("plan {:?}: {}", redact_name(name), policy_error(&error)))?;
    Plan::new(name, policy).ok_or_else(|| invalid_name(name))
}

/// Parses the name of a plan.
///
/// # Errors
/// A sentence that says which names are valid.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let policy = "1/second".parse().ok();
    match policy.and_then(|policy| Plan::new(text, policy)) {
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

/// Returns a warning for each quota of `policy` that can never deny a request.
///
/// `owner` names the policy, such as `plan default`.
pub fn warnings(owner: &str, policy: &Policy) -> Vec<String> {
    let warning = |(idle, other)| {
        format!(
            "keytally: warning: {idle} in {owner} can never deny a request, because {other} never allows more than that"
        )
    };
    policy.never_binding().map(warning).collect()
}

/// Checks that a gate of this layout can hold the plan. A caller that changes several plans checks
/// all of them first.
///
/// # Errors
/// The error that the gate would return.
pub fn check_layout(plan: &Plan, layout: &Layout) -> Result<(), AdminError> {
    let windows = plan.policy.quotas().iter().map(|quota| &quota.window);
    if plan.policy.algorithm() != layout.algorithm() || !windows.eq(layout.windows()) {
        return Err(AdminError::PlanWindows);
    }
    for (index, quota) in plan.policy.quotas().iter().enumerate() {
        if let Some(max) = layout.max_limit(index)
            && quota.limit > max
        {
            return Err(AdminError::PlanLimit { limit: quota.limit, max });
        }
    }
    Ok(())
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

/// Returns the failure of a change of `plan`. If its windows or algorithm are not the gate's, the
/// failure has its policy and those of the gate's plans.
pub(crate) fn not_a_plan(gate: &Gate, plan: &Plan, error: keytally::Error) -> Failure {
    let source = AdminError::PlanWindows;
    if !matches!(&error, keytally::Error::Admin { source: found, .. } if *found == source) {
        return error.into();
    }
    let plans = plans_of(gate);
    let sentence = format!("{source}: {} was given, and the plans are: {plans}", plan.policy);
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
    let texts = plans.into_iter().map(|plan| format!("{} = {}", plan.name, plan.policy));
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
            (plan.name.as_str(), plan.policy.to_string()),
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

    #[test]
    fn check_layout_returns_the_error_of_the_gate() {
        let plan = parse("default=100/minute, 1000/hour").unwrap();
        let layout = plan.policy.layout();
        let max = layout.max_limit(0).unwrap();
        let check = |text: &str| check_layout(&parse(text).unwrap(), layout);
        assert_eq!(check(&format!("x={max}/minute, 5/hour")), Ok(()));
        assert_eq!(
            check(&format!("x={}/minute, 5/hour", max + 1)),
            Err(AdminError::PlanLimit { limit: max + 1, max })
        );
        for other in [
            "x=1/minute",
            "x=1/minute, 2/day",
            "x=sliding 1/minute, 2/hour",
            "x=1/minute, 2/hour, 3/day",
        ] {
            assert_eq!(check(other), Err(AdminError::PlanWindows), "{other}");
        }
    }
}
