//! The features `serde` and `defmt` for the types that are serialized or logged as a text.

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

as_text!(Algorithm KeyId Name Outcome Policy Reason);

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

    by_display!(KeyId Name Policy);
}

#[cfg(feature = "serde")]
mod parse {
    use core::fmt;
    use core::marker::PhantomData;
    use core::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error, Visitor};

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
    }
}
