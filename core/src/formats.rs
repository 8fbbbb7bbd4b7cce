//! The features `serde` and `defmt`.
//!
//! Values that are a text in logs serialize as the text of `Display`: names, outcomes, errors. The
//! others serialize as structs. A member has the name of the Rust field or method, which is also
//! that of `keytally --json` and of the Python package. The exceptions are in CONTRIBUTING.md. A
//! time without a unit in that name gets it at the end: `_s` for Unix seconds, `_ms` for Unix
//! milliseconds. No form contains a secret.

/// Implements `Serialize` as the text of `Display`.
macro_rules! as_text {
    ($($name:ident)+) => {$(
        #[cfg(feature = "serde")]
        impl serde::Serialize for crate::$name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

as_text!(
    AdminError Algorithm AttachError CreateError KeyId Name Outcome Policy Reason Section Sections
    TableKind
);

#[cfg(feature = "defmt")]
mod format {
    use defmt::{Display2Format, Format, Formatter};

    /// Implements `Format` as the text of `Display`.
    macro_rules! by_display {
        ($($name:ident)+) => {$(
            impl Format for crate::$name {
                fn format(&self, f: Formatter<'_>) {
                    Display2Format(self).format(f);
                }
            }
        )+};
    }

    by_display!(KeyId Name Policy Sections);

    impl<const N: usize> Format for crate::Text<N> {
        fn format(&self, f: Formatter<'_>) {
            self.as_str().format(f);
        }
    }

    /// Implements `Format` as a list, as `Debug` does.
    macro_rules! as_list {
        ($($name:ident($value:ident) $items:expr,)+) => {$(
            impl Format for crate::$name {
                fn format(&self, f: Formatter<'_>) {
                    let $value = self;
                    defmt::write!(f, "[");
                    for (index, item) in $items.enumerate() {
                        if index > 0 {
                            defmt::write!(f, ", ");
                        }
                        defmt::write!(f, "{}", item);
                    }
                    defmt::write!(f, "]");
                }
            }
        )+};
    }

    as_list! {
        Charge(charge) charge.entries(),
        Quotas(quotas) quotas.iter(),
    }
}

#[cfg(feature = "serde")]
mod serialize {
    use core::fmt;

    use serde::{Serialize, Serializer};

    use crate::charge::Entry;
    use crate::{
        AccountInfo, Charge, Flaw, FlawKind, Holder, KeyId, KeyInfo, KeyState, Name, Outcome, Plan,
        Quota, QuotaState, Quotas, Reason, Sections, Text, Timestamp, Verdict, Window,
    };

    /// Implements `Serialize` by a function that returns the serialized value.
    macro_rules! by_form {
        ($($name:ident($value:ident) $form:expr,)+) => {$(
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let $value = self;
                    $form.serialize(serializer)
                }
            }
        )+};
    }

    by_form! {
        AccountInfo(info) AccountInfoForm::new(info),
        Charge(charge) ChargeForm {
            tallies: charge.entries().as_slice(),
            unreserved: charge.is_unreserved(),
        },
        Flaw(flaw) FlawForm::new(flaw),
        FlawKind(kind) kind.as_str(),
        Holder(holder) HolderForm::new(*holder),
        KeyInfo(info) KeyInfoForm::new(info),
        KeyState(state) state.as_str(),
        Plan(plan) PlanForm { name: &plan.name, sections: &plan.sections },
        Quota(quota) QuotaForm::new(quota),
        QuotaState(state) QuotaStateForm::new(state),
        Verdict(verdict) VerdictForm::new(verdict),
    }

    impl Serialize for Quotas {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.iter())
        }
    }

    impl<const N: usize> Serialize for Text<N> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(self)
        }
    }

    #[derive(Serialize)]
    struct ChargeForm<'a> {
        tallies: &'a [Entry],
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        unreserved: bool,
    }

    #[derive(Serialize)]
    struct VerdictForm<'a> {
        outcome: Outcome,
        reason: Option<Reason>,
        http_status: u16,
        cost: u32,
        uncharged: u32,
        key_id: Option<KeyId>,
        account: Option<u32>,
        plan_number: Option<u8>,
        env_number: Option<u8>,
        quotas: &'a Quotas,
        remaining: Option<u32>,
        retry_after_s: Option<u32>,
        clock_ahead_s: u32,
        charge: Option<Charge>,
        now_ms: Timestamp,
    }

    impl<'a> VerdictForm<'a> {
        fn new(verdict: &'a Verdict) -> Self {
            let holder = verdict.holder();
            Self {
                outcome: verdict.outcome(),
                reason: verdict.reason(),
                http_status: verdict.http_status(),
                cost: verdict.cost(),
                uncharged: verdict.uncharged(),
                key_id: holder.map(|holder| holder.key_id),
                account: holder.map(|holder| holder.account),
                plan_number: holder.map(|holder| holder.plan),
                env_number: holder.map(|holder| holder.env),
                quotas: verdict.quotas(),
                remaining: verdict.remaining(),
                retry_after_s: verdict.retry_after_s(),
                clock_ahead_s: verdict.clock_ahead_s(),
                charge: verdict.charge(),
                now_ms: verdict.now(),
            }
        }
    }

    /// The members `plan` and `env` would be names elsewhere, which a holder does not have.
    #[derive(Serialize)]
    struct HolderForm {
        key_id: KeyId,
        account: u32,
        plan_number: u8,
        env_number: u8,
    }

    impl HolderForm {
        fn new(holder: Holder) -> Self {
            let Holder { key_id, account, plan, env } = holder;
            Self { key_id, account, plan_number: plan, env_number: env }
        }
    }

    #[derive(Serialize)]
    struct QuotaForm {
        limit: u32,
        window: DisplayText<Window>,
        window_s: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        month_day: Option<u32>,
    }

    impl QuotaForm {
        fn new(quota: &Quota) -> Self {
            let Quota { limit, window } = *quota;
            Self {
                limit,
                window: DisplayText(window),
                window_s: window.seconds(),
                month_day: window.month_day(),
            }
        }
    }

    #[derive(Serialize)]
    struct QuotaStateForm {
        window: DisplayText<Window>,
        window_s: u32,
        limit: u32,
        used: u32,
        remaining: u32,
        reset_unix_s: u64,
        lacking: bool,
        lasting: bool,
    }

    impl QuotaStateForm {
        fn new(state: &QuotaState) -> Self {
            Self {
                window: DisplayText(state.window),
                window_s: state.window.seconds(),
                limit: state.limit,
                used: state.used(),
                remaining: state.remaining,
                reset_unix_s: state.reset_unix_s,
                lacking: state.lacking,
                lasting: state.lasting,
            }
        }
    }

    /// Serializes the text of `Display` of a value that itself serializes differently.
    struct DisplayText<T>(T);

    impl<T: fmt::Display> Serialize for DisplayText<T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&self.0)
        }
    }

    #[derive(Serialize)]
    struct KeyInfoForm<'a> {
        key_id: KeyId,
        account: u32,
        env: Option<Name>,
        plan_number: u8,
        /// Instead of a `state`, which may be `expired` and so depends on the time.
        revoked: bool,
        last_characters: Option<&'a Text<4>>,
        expires_s: Option<u64>,
        grace_until_s: Option<u64>,
        last_used_ms: Option<Timestamp>,
        pepper: u8,
        quotas: &'a Quotas,
        clock_ahead_s: u32,
    }

    impl<'a> KeyInfoForm<'a> {
        fn new(info: &'a KeyInfo) -> Self {
            Self {
                key_id: info.key_id,
                account: info.account,
                env: info.env,
                plan_number: info.plan,
                revoked: info.state == KeyState::Revoked,
                last_characters: info.last_characters.as_ref(),
                expires_s: info.expires.map(Timestamp::unix_s),
                grace_until_s: info.grace_until.map(Timestamp::unix_s),
                last_used_ms: info.last_used,
                pepper: info.pepper,
                quotas: &info.quotas,
                clock_ahead_s: info.clock_ahead_s,
            }
        }
    }

    #[derive(Serialize)]
    struct AccountInfoForm<'a> {
        account: u32,
        suspended: bool,
        plan_number: u8,
        has_own_limits: bool,
        quotas: &'a [Quotas],
    }

    impl<'a> AccountInfoForm<'a> {
        fn new(info: &'a AccountInfo) -> Self {
            Self {
                account: info.account,
                suspended: info.is_suspended,
                plan_number: info.plan,
                has_own_limits: info.has_own_limits,
                quotas: info.quotas(),
            }
        }
    }

    #[derive(Serialize)]
    struct PlanForm<'a> {
        name: &'a Text<{ crate::MAX_PLAN_NAME_LEN }>,
        sections: &'a Sections,
    }

    #[derive(Serialize)]
    struct FlawForm {
        record: u32,
        key_id: Option<KeyId>,
        kind: FlawKind,
        sentence: DisplayText<Flaw>,
    }

    impl FlawForm {
        fn new(flaw: &Flaw) -> Self {
            Self {
                record: flaw.record,
                key_id: flaw.key_id,
                kind: flaw.kind,
                sentence: DisplayText(*flaw),
            }
        }
    }
}

#[cfg(feature = "serde")]
mod deserialize {
    use core::fmt;
    use core::marker::PhantomData;
    use core::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

    use crate::charge::{Entry, MAX};
    use crate::{Charge, MAX_PLAN_NAME_LEN, Name, Plan, Sections, Text};

    /// Deserializes a text by its `FromStr`. The text in it says what was expected.
    struct Parse<T>(&'static str, PhantomData<T>);

    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Parse<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }

    /// Implements `Deserialize` by `FromStr`.
    macro_rules! from_text {
        ($($name:ident $expected:literal,)+) => {$(
            impl<'de> Deserialize<'de> for crate::$name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    deserializer.deserialize_str(Parse($expected, PhantomData))
                }
            }
        )+};
    }

    from_text! {
        KeyId "a key id of 11 base62 characters",
        Policy "a policy such as 100/minute, 1000/hour",
        Sections "sections such as 100/minute; team: 1000/minute",
    }

    /// Deserializes a text of at most `N` bytes.
    struct TextVisitor<const N: usize>;

    impl<const N: usize> Visitor<'_> for TextVisitor<N> {
        type Value = Text<N>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a text of at most {N} bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Text<N>, E> {
            Text::from_text(text).ok_or_else(|| E::invalid_length(text.len(), &self))
        }
    }

    impl<'de, const N: usize> Deserialize<'de> for Text<N> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(TextVisitor)
        }
    }

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text: Text<{ crate::MAX_NAME_LEN }> = Text::deserialize(deserializer)?;
            Self::new(&text)
                .ok_or_else(|| Error::custom("a name is 1 to 8 characters of a-z and 0-9"))
        }
    }

    impl<'de> Deserialize<'de> for Charge {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Form {
                tallies: Tallies,
                #[serde(default)]
                unreserved: bool,
            }

            let Form { tallies: Tallies(mut charge), unreserved } =
                Form::deserialize(deserializer)?;
            if unreserved {
                charge.set_unreserved();
            }
            Ok(charge)
        }
    }

    /// Deserializes the tallies of a charge.
    struct Tallies(Charge);

    impl<'de> Deserialize<'de> for Tallies {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct List;

            impl<'de> Visitor<'de> for List {
                type Value = Charge;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "1 to {MAX} tallies")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Charge, A::Error> {
                    let mut charge = Charge::EMPTY;
                    while let Some(entry) = list.next_element::<Entry>()? {
                        if !charge.push(entry.tally, entry.unit, entry.charge()) {
                            return Err(Error::invalid_length(MAX + 1, &self));
                        }
                    }
                    if charge == Charge::EMPTY {
                        return Err(Error::invalid_length(0, &self));
                    }
                    Ok(charge)
                }
            }

            deserializer.deserialize_seq(List).map(Tallies)
        }
    }

    impl<'de> Deserialize<'de> for Plan {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            struct Form {
                name: Text<MAX_PLAN_NAME_LEN>,
                sections: Sections,
            }

            let form = Form::deserialize(deserializer)?;
            Self::new(&form.name, form.sections).ok_or_else(|| {
                Error::custom("a plan's name is 1 to 16 characters of a-z, 0-9, - and _")
            })
        }
    }
}
