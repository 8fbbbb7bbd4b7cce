//! What callers may pass, and what is said of anything else.

use core::time::Duration;
use std::path::PathBuf;

use keytally::pepper;
use keytally::redact::{policy_error, redact, redact_name};
use keytally::{KeyId, Name, Peppers, Plan, Policy, Timestamp};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDateTime, PyDelta, PyMapping, PyString, PyTzInfoAccess as _};
use zeroize::Zeroizing;

use crate::exceptions::{self, CreateError, KeyIdError, PepperError, PolicyError};

/// Calls `work` with the bytes of a `str`, as UTF-8, or of a `bytes`.
///
/// A `str` may hold surrogates: servers put them there for bytes that are no UTF-8. A client sends those, so they are
/// no error, and no text that is one has the same bytes.
#[inline]
pub(crate) fn with_bytes<T>(
    value: &Bound<'_, PyAny>,
    what: &str,
    work: impl FnOnce(&[u8]) -> T,
) -> PyResult<T> {
    if let Ok(text) = value.cast::<PyString>() {
        let bytes = match text.encode_utf8() {
            Ok(bytes) => bytes,
            Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(value.py()) => {
                text.call_method1("encode", ("utf-8", "surrogatepass"))?.cast_into()?
            }
            Err(error) => return Err(error),
        };
        return Ok(work(bytes.as_bytes()));
    }
    match value.cast::<PyBytes>() {
        Ok(bytes) => Ok(work(bytes.as_bytes())),
        Err(_) => Err(wrong_type(what, "str or bytes", value)),
    }
}

/// The value of the `X-API-Key` header: `str`, `bytes`, or `None` when there was none.
#[inline]
pub(crate) fn with_api_key<T>(
    value: &Bound<'_, PyAny>,
    work: impl FnOnce(Option<&[u8]>) -> T,
) -> PyResult<T> {
    if value.is_none() {
        return Ok(work(None));
    }
    with_bytes(value, "api_key", |bytes| work(Some(bytes)))
}

fn wrong_type(what: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found = value.get_type().qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{what} must be {expected}, not {found}"))
}

/// Units of cost, 0 to 4294967295.
#[derive(Clone, Copy)]
pub(crate) struct Cost(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Cost {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        whole_number(value, "cost", "a whole number").map(Self)
    }
}

/// The number of an account, 0 to 4294967295.
pub(crate) struct Account(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Account {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        whole_number(value, "account", "the number of an account").map(Self)
    }
}

/// How many keys or subjects a table is for. What is too many, the table says.
pub(crate) struct Capacity(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Capacity {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        whole_number(value, "capacity", "a whole number").map(Self)
    }
}

#[inline]
fn whole_number(value: Borrowed<'_, '_, PyAny>, what: &str, expected: &str) -> PyResult<u32> {
    value.extract::<u32>().map_err(|error| {
        if error.is_instance_of::<PyTypeError>(value.py()) {
            wrong_type(what, expected, &value)
        } else {
            PyValueError::new_err(format!("{what} is {}, and must be 0 to {}", shown(&value), u32::MAX))
        }
    })
}

/// A value as an error repeats it: without a secret, and cut short.
fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value.repr().map_or_else(|_| "?".to_owned(), |text| text.to_string());
    let text = redact(&text).into_owned();
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// A moment: Unix seconds as `time.time()` gives them, or an aware `datetime`.
#[derive(Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl<'py> FromPyObject<'_, 'py> for Moment {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let unix_s = match value.cast::<PyDateTime>() {
            Ok(time) => unix_s(&time, "now")?,
            Err(_) => {
                value.extract::<f64>().map_err(|_| wrong_type("now", "Unix seconds or a datetime", &value))?
            }
        };
        if !(unix_s >= 0.0 && unix_s.is_finite()) {
            return Err(PyValueError::new_err(format!(
                "now is {}, and must be seconds since 1970, as time.time() gives them",
                shown(&value)
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is positive, and `as` saturates"
        )]
        let unix_ms = (unix_s * 1000.0).round() as u64;
        Ok(Self(Timestamp::from_unix_ms(unix_ms)))
    }
}

/// Seconds since 1970 of a datetime that says which time zone is meant.
fn unix_s(time: &Bound<'_, PyDateTime>, what: &str) -> PyResult<f64> {
    if time.get_tzinfo().is_none() {
        return Err(PyValueError::new_err(format!(
            "{what} is {}, which names no time zone; datetime.now(timezone.utc) has one",
            shown(time)
        )));
    }
    time.call_method0("timestamp")?.extract()
}

/// When a key expires: an aware `datetime`, or a `timedelta` from now.
pub(crate) enum Expiry {
    At(f64),
    After(f64),
}

impl Expiry {
    /// The second from which the key is no longer good, as a gate keeps it.
    pub(crate) fn not_after(expiry: Option<Self>, now: Timestamp) -> PyResult<Option<Timestamp>> {
        let now_s = now.unix_ms() as f64 / 1000.0;
        let unix_s = match expiry {
            None => return Ok(None),
            Some(Self::At(unix_s)) => unix_s.floor(),
            Some(Self::After(span_s)) => (now_s + span_s).floor(),
        };
        if unix_s <= now_s {
            return Err(PyValueError::new_err("expires is not in the future"));
        }
        if unix_s > f64::from(u32::MAX) {
            return Err(PyValueError::new_err(
                "a key can't expire after 2106-02-07T06:28:15Z; leave expires out for one that never does",
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between the two bounds above"
        )]
        Ok(Some(Timestamp::from_unix_s(unix_s as u64)))
    }
}

impl<'py> FromPyObject<'_, 'py> for Expiry {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(time) = value.cast::<PyDateTime>() {
            return unix_s(&time, "expires").map(Self::At);
        }
        match value.cast::<PyDelta>() {
            Ok(span) => Ok(Self::After(total_seconds(&span)?)),
            Err(_) => Err(wrong_type("expires", "a datetime or a timedelta", &value)),
        }
    }
}

/// How long a previous secret stays good: a `timedelta`, or seconds.
pub(crate) struct Grace(Duration);

impl Grace {
    /// Returns when a grace that begins now has passed; `None` for no grace.
    pub(crate) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let grace_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        (!self.0.is_zero()).then(|| Timestamp::from_unix_ms(now.unix_ms().saturating_add(grace_ms)))
    }
}

impl<'py> FromPyObject<'_, 'py> for Grace {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        span("grace", &value).map(Self)
    }
}

/// How long a change waits for another administrator: a `timedelta`, or seconds.
pub(crate) struct Timeout(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for Timeout {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        span("timeout", &value).map(Self)
    }
}

/// A length of time.
fn span(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = match value.cast::<PyDelta>() {
        Ok(span) => total_seconds(span)?,
        Err(_) => value.extract().map_err(|_| wrong_type(name, "a timedelta or seconds", value))?,
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!("{name} is {}, and must be 0 or a length of time", shown(value)))
    })
}

fn total_seconds(span: &Bound<'_, PyDelta>) -> PyResult<f64> {
    span.call_method0("total_seconds")?.extract()
}

/// A policy, or its text.
pub(crate) struct PolicyText(pub(crate) Policy);

impl<'py> FromPyObject<'_, 'py> for PolicyText {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(policy) = value.cast::<crate::policy::Policy>() {
            return Ok(Self(policy.get().policy.clone()));
        }
        let text: String = value.extract().map_err(|_| wrong_type("policy", "a str or a Policy", &value))?;
        text.parse()
            .map(Self)
            .map_err(|error: keytally::ParsePolicyError| PolicyError::new_err(policy_error(&error)))
    }
}

/// The public name of a key, 11 base62 characters.
#[derive(Clone, Copy)]
pub(crate) struct KeyIdText(pub(crate) KeyId);

impl<'py> FromPyObject<'_, 'py> for KeyIdText {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Err(PyValueError::new_err(
                "key_id is None: only the verdict on a good key has one; look at verdict.admitted first",
            ));
        }
        let text: String = value.extract().map_err(|_| wrong_type("key_id", "a str", &value))?;
        text.parse().map(Self).map_err(|error: keytally::ParseKeyIdError| {
            // What is no key id may be a whole key, so it isn't repeated.
            KeyIdError::new_err(error.to_string())
        })
    }
}

/// The name of an environment, or the prefix of all keys.
pub(crate) fn name(text: &str, what: &str) -> PyResult<Name> {
    Name::new(text).ok_or_else(|| {
        let text = redact_name(text);
        CreateError::new_err(format!("{what} is {text:?}, and must be 1 to 8 characters of a-z and 0-9"))
    })
}

/// The plan of this name.
pub(crate) fn plan(name: &str, policy: Policy) -> PyResult<Plan> {
    Plan::new(name, policy).ok_or_else(|| {
        let name = redact_name(name);
        CreateError::new_err(format!(
            "{name:?} can't be a plan's name: that is 1 to 16 characters of a-z, 0-9, - and _"
        ))
    })
}

/// Plans by their names.
pub(crate) fn plans(plans: &Bound<'_, PyMapping>) -> PyResult<Vec<Plan>> {
    plans
        .items()?
        .iter()
        .map(|item| {
            let (text, policy): (String, PolicyText) = item.extract()?;
            plan(&text, policy.0)
        })
        .collect()
}

/// The peppers in a text, of a file, or else of the environment, where the program looks for them.
pub(crate) fn peppers(text: Option<String>, file: Option<PathBuf>) -> PyResult<Peppers> {
    let parsed = match (text.map(Zeroizing::new), file) {
        (Some(_), Some(_)) => {
            return Err(PepperError::new_err("pepper and pepper_file are both given; leave one out"));
        }
        (Some(text), None) => pepper::parse(&text),
        (None, Some(file)) => read_file(file)?,
        (None, None) => match (set("KEYTALLY_PEPPER_FILE"), set("KEYTALLY_PEPPER")) {
            (Some(file), _) => read_file(PathBuf::from(file))?,
            (None, Some(text)) => {
                let text = Zeroizing::new(text.into_encoded_bytes());
                let text = core::str::from_utf8(&text)
                    .map_err(|_| PepperError::new_err("KEYTALLY_PEPPER is neither hex nor base64"))?;
                pepper::parse(text)
            }
            (None, None) => {
                return Err(PepperError::new_err(
                    "no pepper was given: pass pepper or pepper_file, or set KEYTALLY_PEPPER; \
                     keytally.generate_pepper() makes a new one",
                ));
            }
        },
    };
    parsed.map_err(exceptions::of_pepper)
}

/// Reads the peppers of a file. Pipes and terminals wait for a writer: other threads go on meanwhile, and a signal such
/// as Ctrl-C ends the wait.
fn read_file(file: PathBuf) -> PyResult<Result<Peppers, keytally::Error>> {
    if std::fs::metadata(&file).is_ok_and(|found| found.is_file()) {
        return Ok(pepper::read_file(file));
    }
    let reader = std::thread::Builder::new().spawn(move || pepper::read_file(file))?;
    Python::attach(|py| {
        while !reader.is_finished() {
            py.detach(|| std::thread::sleep(SIGNALS_EVERY));
            py.check_signals()?;
        }
        reader.join().map_err(|_| PyRuntimeError::new_err("the pepper file could not be read"))
    })
}

/// How often a wait looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(10);

/// The environment variable, unless it is empty.
fn set(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}
