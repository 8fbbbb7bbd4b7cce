//! Plans as they are written on a command line: `NAME=POLICY`.

use keytally::redact::{policy_error, redact_name};
use keytally::{AdminError, Plan};
use keytally::{Layout, Policy};

use crate::failure::Failure;

/// Reads `default=100/minute, 1000/hour`.
pub fn parse(text: &str) -> Result<Plan, String> {
    let Some((name, policy)) = text.split_once('=') else {
        return Err(format!(
            "{:?} is no plan; a plan is NAME=POLICY, like \"default=100/minute, 1000/hour\"",
            redact_name(text)
        ));
    };
    let name = name.trim();
    let policy: Policy =
        policy.parse().map_err(|error| format!("plan {:?}: {}", redact_name(name), policy_error(&error)))?;
    Plan::new(name, policy).ok_or_else(|| wrong_name(name))
}

/// Reads the name of a plan.
pub fn parse_name(text: &str) -> Result<String, String> {
    let policy = "1/second".parse().ok();
    match policy.and_then(|policy| Plan::new(text, policy)) {
        Some(plan) => Ok(plan.name.as_str().to_owned()),
        None => Err(wrong_name(text)),
    }
}

fn wrong_name(name: &str) -> String {
    format!("{:?} can't be a plan's name: that is 1 to 16 characters of a-z, 0-9, - and _", redact_name(name))
}

/// Refuses plans of which two have one name.
pub fn refuse_twins(plans: &[Plan]) -> Result<(), Failure> {
    for (place, plan) in plans.iter().enumerate() {
        if plans[..place].iter().any(|other| other.name == plan.name) {
            return Err(Failure::usage(format!("plan {:?} is given twice", plan.name)));
        }
    }
    Ok(())
}

/// Returns a sentence about each quota of `policy` that can never deny a request.
pub fn warnings(owner: &str, policy: &Policy) -> Vec<String> {
    let warning = |(idle, other)| {
        format!(
            "keytally: warning: {idle} in {owner} can never deny a request, since {other} allows no more already"
        )
    };
    policy.never_binding().map(warning).collect()
}

/// Whether a gate of this layout can have the plan: it's asked for several plans before the first of them is changed.
pub fn fits(plan: &Plan, layout: &Layout) -> Result<(), AdminError> {
    let windows = plan.policy.quotas().iter().map(|quota| &quota.window);
    if plan.policy.algorithm() != layout.algorithm() || !windows.eq(layout.windows()) {
        return Err(AdminError::PlanWindows);
    }
    for (place, quota) in plan.policy.quotas().iter().enumerate() {
        let max = layout.max_limit(place);
        if quota.limit > max {
            return Err(AdminError::PlanLimit { limit: quota.limit, max });
        }
    }
    Ok(())
}

/// `default = 100/minute, 1000/hour; pro = …`.
pub fn in_words(plans: impl IntoIterator<Item = Plan>) -> String {
    let words = plans.into_iter().map(|plan| format!("{} = {}", plan.name, plan.policy));
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn a_plan_is_a_name_and_a_policy() {
        let plan = parse(" pro = 1000/minute,20000/hour").unwrap();
        assert_eq!(
            (plan.name.as_str(), plan.policy.to_string()),
            ("pro", "1000/minute, 20000/hour".to_owned())
        );
        assert!(sentence("100/minute").starts_with("\"100/minute\" is no plan"));
        assert!(sentence("Pro=1/s").starts_with("\"Pro\" can't be a plan's name"));
        assert!(sentence("=1/s").starts_with("\"\" can't be a plan's name"));
        for secret in ["kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM", "an-old-key-of-421"] {
            for text in [secret, &format!("{secret}=1/s"), &format!("x={secret}"), &format!("x=1/{secret}")] {
                let sentence = sentence(text);
                assert!(!sentence.contains("Xk2L") && !sentence.contains("old-key"), "{sentence}");
            }
        }
        assert!(sentence("x=5/fortnight").starts_with("plan \"x\": \"fortnight\" is no unit"));
    }

    #[test]
    fn fits_is_what_a_gate_says() {
        let plan = parse("default=100/minute, 1000/hour").unwrap();
        let layout = plan.policy.layout();
        let max = layout.max_limit(0);
        assert_eq!(fits(&parse(&format!("x={max}/minute, 5/hour")).unwrap(), layout), Ok(()));
        assert_eq!(
            fits(&parse(&format!("x={}/minute, 5/hour", max + 1)).unwrap(), layout),
            Err(AdminError::PlanLimit { limit: max + 1, max })
        );
        for other in
            ["x=1/minute", "x=1/minute, 2/day", "x=sliding 1/minute, 2/hour", "x=1/minute, 2/hour, 3/day"]
        {
            assert_eq!(fits(&parse(other).unwrap(), layout), Err(AdminError::PlanWindows), "{other}");
        }
    }
}
