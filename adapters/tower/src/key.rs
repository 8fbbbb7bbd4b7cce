//! Where the key of a request comes from.

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use keytally::redact::redact;
use keytally::{API_KEY_HEADER, Outcome, Verdict, now};

use crate::error::ConfigError;
use crate::respond;

/// The name of the source that reads `Authorization: Bearer`.
const BEARER: &str = "Authorization: Bearer";

/// A field that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The whole value of the field.
    Header(HeaderName),
    /// The credentials after `Bearer` in `Authorization` (RFC 6750).
    Bearer,
}

/// The fields that may carry the key of a request, for routes that check a gate themselves.
///
/// [`GateLayer::key_from`](crate::GateLayer::key_from) has the same rules. The default is
/// `X-API-Key` alone.
///
/// ```
/// use http::HeaderMap;
/// use keytally::{Gate, GateConfig, Outcome, pepper};
/// use keytally_tower::{KeySources, refusal, set_fields};
/// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
/// let sources = KeySources::parse(["X-Token", "Authorization: Bearer"])?;
/// let headers = HeaderMap::new();
/// let verdict = sources.check(&headers, |key| gate.check(key, 1));
/// assert_eq!(verdict.outcome(), Outcome::MissingKey);
///
/// let mut response = refusal(&verdict, &headers);
/// set_fields(response.headers_mut(), &verdict);
/// sources.name_in(&verdict, &mut response);
/// assert_eq!(response.body(), r#"{"error": "Missing API key"}"#);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeySources {
    sources: Vec<Source>,
    /// The value of `WWW-Authenticate`; `None` if it is that of a verdict.
    challenges: Option<HeaderValue>,
}

impl Default for KeySources {
    /// Returns `X-API-Key` alone.
    fn default() -> Self {
        let name = HeaderName::from_bytes(API_KEY_HEADER.as_bytes());
        Self { sources: name.map(Source::Header).into_iter().collect(), challenges: None }
    }
}

impl KeySources {
    /// Returns the fields of these names: headers, and `Authorization: Bearer`.
    ///
    /// # Errors
    /// If a name is not that of a header, is `Authorization` or `Cookie`, looks like a key, or is
    /// repeated. If the list is empty.
    pub fn parse<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        let mut challenges = Vec::new();
        for name in names {
            let name = name.as_ref();
            let (source, challenge) = if name.eq_ignore_ascii_case(BEARER) {
                (Source::Bearer, r#"Bearer realm="api""#.to_owned())
            } else {
                (parse_header(name)?, format!(r#"ApiKey realm="api", header="{name}""#))
            };
            if sources.contains(&source) {
                return Err(ConfigError::new(name, "is named twice as a source of the key"));
            }
            sources.push(source);
            challenges.push(challenge);
        }
        if sources.is_empty() {
            return Err(ConfigError::new(
                "",
                "is an empty list of sources of the key: name at least one, such as X-API-Key",
            ));
        }
        // Names of fields are valid in values.
        let challenges = HeaderValue::try_from(challenges.join(", ")).ok();
        let is_default = sources == Self::default().sources;
        Ok(Self { sources, challenges: challenges.filter(|_| !is_default) })
    }

    /// Calls `check` with the key of a request, `None` if it has none, and returns the verdict or
    /// what was made of it.
    ///
    /// If a field is there twice, or if two fields have keys that differ, returns the verdict of a
    /// duplicate header instead.
    pub fn check<T: From<Verdict>>(
        &self,
        headers: &HeaderMap,
        check: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        match self.read(headers) {
            Key::Missing => check(None),
            Key::One(key) => check(Some(key.as_bytes())),
            Key::Several => Verdict::duplicate_header(now()).into(),
        }
    }

    /// Makes the response of [`refusal`](crate::refusal) name these fields: in `WWW-Authenticate`
    /// (RFC 9110, 11.6.1), and in the text of a missing key, which becomes `Missing API key`.
    ///
    /// Call it after [`set_fields`](crate::set_fields), which sets the `WWW-Authenticate` of the
    /// verdict. If the fields are `X-API-Key` alone, the response stays as it is.
    pub fn name_in(&self, verdict: &Verdict, response: &mut Response<Bytes>) {
        let Some(challenges) = self.challenges(verdict) else { return };
        response.headers_mut().insert(WWW_AUTHENTICATE, challenges.clone());
        if verdict.outcome() == Outcome::MissingKey {
            respond::remove_field_name(response);
        }
    }

    /// Returns the value of `WWW-Authenticate` in a refusal. Returns `None` if it is that of the
    /// verdict, or if the refusal is not for a key that is missing or invalid.
    pub(crate) fn challenges(&self, verdict: &Verdict) -> Option<&HeaderValue> {
        self.challenges.as_ref().filter(|_| verdict.http_status() == 401)
    }

    /// Returns the key of a request.
    pub(crate) fn read(&self, headers: &HeaderMap) -> Key {
        let mut key = Key::Missing;
        for source in &self.sources {
            let found = match source {
                Source::Header(name) => only(headers, name, |_| Some(0)),
                Source::Bearer => only(headers, &AUTHORIZATION, bearer_start),
            };
            key = match (key, found) {
                (key, Key::Missing) => key,
                (Key::Missing, found) => found,
                (Key::One(one), Key::One(other)) if one.as_bytes() == other.as_bytes() => {
                    Key::One(one)
                }
                _ => Key::Several,
            };
        }
        key
    }
}

/// Parses the name of a header that carries a key.
fn parse_header(name: &str) -> Result<Source, ConfigError> {
    let problem = "is not a source of the key: name a header, such as X-API-Key, \
        or \"Authorization: Bearer\"";
    // A key is a valid name of a header, and refusals would show it in `WWW-Authenticate`. In a
    // path, only parts that look like a secret are hidden: names of headers may be long.
    let path = format!("/{name}");
    if redact(&path) != path {
        let problem = "looks like a key or a pepper, not like the name of a header";
        return Err(ConfigError::new(name, problem));
    }
    let header = name.parse::<HeaderName>().map_err(|_| ConfigError::new(name, problem))?;
    // The values of these fields are not only a key.
    if [AUTHORIZATION, COOKIE].contains(&header) {
        return Err(ConfigError::new(name, problem));
    }
    Ok(Source::Header(header))
}

/// Returns the key in the fields of a name. `start` returns where the key begins in a value; `None`
/// if the value has no key.
///
/// Two fields of one name are refused, as by the service, if one of them has a key.
fn only(
    headers: &HeaderMap,
    name: &HeaderName,
    start: impl Fn(&HeaderValue) -> Option<usize>,
) -> Key {
    let mut values = headers.get_all(name).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        let has_key = headers.get_all(name).iter().any(|value| start(value).is_some());
        return if has_key { Key::Several } else { Key::Missing };
    }
    let presented =
        first.and_then(|value| start(value).map(|start| Presented { value: value.clone(), start }));
    presented.map_or(Key::Missing, Key::One)
}

/// Returns where the credentials begin in a value of `Authorization`; `None` if its scheme is not
/// `Bearer`. RFC 9110, 11.4.
fn bearer_start(value: &HeaderValue) -> Option<usize> {
    let bytes = value.as_bytes();
    let (scheme, rest) = bytes.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") || !(rest.is_empty() || rest.starts_with(b" ")) {
        return None;
    }
    let blanks = rest.iter().take_while(|&&byte| byte == b' ').count();
    Some(scheme.len() + blanks)
}

/// The key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Missing,
    One(Presented),
    /// More than one key. The request is refused, whatever the keys are.
    Several,
}

/// A key in a field's value. It shares the value's memory.
#[derive(Clone)]
pub(crate) struct Presented {
    value: HeaderValue,
    start: usize,
}

impl Presented {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.start..).unwrap_or_default()
    }
}

impl PartialEq for Presented {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Presented {}

impl core::fmt::Debug for Presented {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Presented(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sources: &[&str], fields: &[(&'static str, &'static [u8])]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        match KeySources::parse(sources).unwrap().read(&headers) {
            Key::Missing => None,
            Key::One(key) => Some(key.as_bytes().to_vec()),
            Key::Several => Some(b"several".to_vec()),
        }
    }

    #[test]
    fn key_is_read_from_each_source() {
        let all = &["X-API-Key", "Authorization: Bearer", "X-Token"];
        for (fields, key) in [
            (&[][..], None),
            (&[("x-api-key", &b"k"[..])], Some(&b"k"[..])),
            (&[("x-api-key", b"\xff")], Some(b"\xff")),
            (&[("x-api-key", b"")], Some(b"")),
            (&[("x-token", b"k")], Some(b"k")),
            (&[("authorization", b"Bearer k")], Some(b"k")),
            (&[("authorization", b"bearer   k")], Some(b"k")),
            (&[("authorization", b"Bearer")], Some(b"")),
            (&[("authorization", b"Bearers k")], None),
            (&[("authorization", b"Basic k")], None),
            (&[("authorization", b"")], None),
            (&[("authorization", b"Basic k"), ("x-api-key", b"k")], Some(b"k")),
        ] {
            assert_eq!(read(all, fields).as_deref(), key, "{fields:?}");
        }
        assert_eq!(read(&["X-Token"], &[("x-api-key", b"k")]), None);
    }

    #[test]
    fn two_keys_that_differ_are_several() {
        let all = &["X-API-Key", "Authorization: Bearer"];
        let several = Some(b"several".to_vec());
        let bearer = |value| [("x-api-key", &b"k"[..]), ("authorization", value)];
        assert_eq!(read(all, &bearer(b"Bearer k")), Some(b"k".to_vec()));
        assert_eq!(read(all, &bearer(b"Bearer other")), several);
        assert_eq!(read(all, &[("x-api-key", b"k"), ("x-api-key", b"k")]), several);
        let twice = [("authorization", &b"Basic k"[..]), ("authorization", b"Bearer k")];
        assert_eq!(read(all, &twice), several);
        let basic = [("authorization", &b"Basic k"[..]), ("authorization", b"Basic l")];
        assert_eq!(read(all, &basic), None);
    }

    #[test]
    fn wrong_source_is_an_error_that_names_it() {
        for wrong in ["", "X API Key", "Authorization", "cookie", "Authorization: Basic"] {
            let error = KeySources::parse([wrong]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{wrong}\" is not a source")), "{error}");
        }
        let twice = KeySources::parse(["X-API-Key", "x-api-key"]).unwrap_err().to_string();
        assert_eq!(twice, "\"x-api-key\" is named twice as a source of the key");
        assert!(KeySources::parse([""; 0]).is_err());
        let key = "kt_live_0Gq5Xk2LmPz7Hc1nT9vYbR4sWdEfUaJoQi83ZKM";
        let error = KeySources::parse([key]).unwrap_err().to_string();
        assert_eq!(
            error,
            "\"kt_live_…\" looks like a key or a pepper, not like the name of a header"
        );
    }
}
