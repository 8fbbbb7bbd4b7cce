//! Conversion of Python arguments, with the errors for wrong types and values out of range.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::path::PathBuf;

use keytally::pepper;
use keytally::redact::{policy_error, redact, redact_name};
use keytally::{
    IMPORTED_KEY_LEN, KeyId, MAX_KEYS, MAX_SUBJECTS, Name, ParseOnFullError, Peppers, Timestamp,
    Window,
};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDateTime, PyDelta, PyString, PyTzInfoAccess as _};
use zeroize::Zeroizing;

use crate::exceptions::{self, CreateError, KeyIdError, PepperError, PolicyError};

/// Calls `work` with the bytes of a `str`, as UTF-8, or of a `bytes`.
///
/// A `str` may contain surrogates: servers put them in place of bytes that are not UTF-8. A client
/// can send such bytes, so surrogates are not an error. The encoding of a surrogate is not UTF-8
/// either, so it differs from the bytes of any valid text.
///
/// # Errors
/// A `TypeError` that names the argument `argument` if the value has another type.
#[inline]
pub(crate) fn with_bytes<T>(
    value: &Bound<'_, PyAny>,
    argument: &str,
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
        Err(_) => Err(wrong_type(argument, "str or bytes", value)),
    }
}

/// Calls `work` with the value of the `X-API-Key` header: a `str`, a `bytes`, or `None` if the
/// request had no such header.
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

/// Returns the `TypeError` for an argument: its name, what it must be, and the type that it has.
pub(crate) fn wrong_type(argument: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let found =
        value.get_type().qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{argument} must be {expected}, not {found}"))
}

/// A cost in units, 0 to 4294967295.
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

/// The capacity of a limiter in subjects.
pub(crate) struct Capacity(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Capacity {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        room(value, "capacity", 1..=MAX_SUBJECTS).map(Self)
    }
}

/// The capacity of a gate in keys.
pub(crate) struct Keys(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Keys {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        room(value, "keys", 1..=MAX_KEYS).map(Self)
    }
}

/// The capacity of a gate in accounts.
pub(crate) struct Teams(pub(crate) u32);

impl<'py> FromPyObject<'_, 'py> for Teams {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        room(value, "teams", 0..=MAX_KEYS).map(Self)
    }
}

/// What happens to a subject that finds no slot in a limiter: `share` or `refuse`.
pub(crate) struct OnFull(pub(crate) keytally::OnFull);

impl<'py> FromPyObject<'_, 'py> for OnFull {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let text: String =
            value.extract().map_err(|_| wrong_type("on_full", "'share' or 'refuse'", &value))?;
        text.parse().map(Self).map_err(|_: ParseOnFullError| {
            // A text as long as a key may be a secret that was given as a wrong argument.
            let len = text.chars().count();
            let text = match len < IMPORTED_KEY_LEN.start {
                true => format!("{text:?}"),
                false => format!("a text of {len} characters"),
            };
            PyValueError::new_err(format!("on_full is {text}, and must be 'share' or 'refuse'"))
        })
    }
}

/// Declares arguments of several names. A `str` is one name.
macro_rules! names {
    ($($(#[$meta:meta])* $names:ident = $argument:literal,)*) => {$(
        $(#[$meta])*
        #[derive(Default)]
        pub(crate) struct $names(pub(crate) Vec<String>);

        impl<'py> FromPyObject<'_, 'py> for $names {
            type Error = PyErr;

            fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
                names(&value, $argument).map(Self)
            }
        }
    )*};
}

names! {
    /// The groups that a request charges.
    Groups = "groups",
    /// The scopes that a request needs.
    Need = "need",
    /// The scopes of a key or a gate.
    Scopes = "scopes",
}

fn names(value: &Bound<'_, PyAny>, argument: &str) -> PyResult<Vec<String>> {
    if let Ok(name) = value.extract::<String>() {
        return Ok(vec![name]);
    }
    let wrong = |value: &Bound<'_, PyAny>| wrong_type(argument, "a str, or several of them", value);
    let names = value.try_iter().map_err(|_| wrong(value))?;
    let name_of = |name: Bound<'_, PyAny>| name.extract().map_err(|_| wrong(&name));
    names.map(|name| name_of(name?)).collect()
}

/// Extracts an integer of 0 to 4294967295.
///
/// # Errors
/// A `TypeError` or a `ValueError` that names the argument `argument`.
#[inline]
pub(crate) fn whole_number(
    value: Borrowed<'_, '_, PyAny>,
    argument: &str,
    expected: &str,
) -> PyResult<u32> {
    value.extract::<u32>().map_err(|error| {
        if error.is_instance_of::<PyTypeError>(value.py()) {
            wrong_type(argument, expected, &value)
        } else {
            PyValueError::new_err(out_of_range(&value, argument, &(0..=u32::MAX)))
        }
    })
}

/// Extracts how much a new table has room for.
///
/// # Errors
/// A `TypeError` or a `CreateError` that names the argument `argument`.
fn room(
    value: Borrowed<'_, '_, PyAny>,
    argument: &str,
    range: RangeInclusive<u32>,
) -> PyResult<u32> {
    match value.extract::<u32>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
            Err(wrong_type(argument, "a whole number", &value))
        }
        _ => Err(CreateError::new_err(out_of_range(&value, argument, &range))),
    }
}

/// Returns the sentence about an integer that is not in a range.
fn out_of_range(value: &Bound<'_, PyAny>, argument: &str, range: &RangeInclusive<u32>) -> String {
    format!("{argument} is {}, and must be {} to {}", shown(value), range.start(), range.end())
}

/// Returns the `repr` of a value for an error: redacted, and cut after 40 characters. For a
/// `datetime` or a `timedelta`, uses its `str` instead.
fn shown(value: &Bound<'_, PyAny>) -> String {
    let is_time = value.is_instance_of::<PyDateTime>() || value.is_instance_of::<PyDelta>();
    let text = if is_time { value.str() } else { value.repr() };
    let text = text.map_or_else(|_| "?".to_owned(), |text| text.to_string());
    let text = redact(&text).into_owned();
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// A time: Unix seconds as `time.time()` returns them, or a `datetime` with a time zone.
#[derive(Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl<'py> FromPyObject<'_, 'py> for Moment {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let unix_s = match value.cast::<PyDateTime>() {
            Ok(time) => unix_s(&time, "now")?,
            Err(_) => value
                .extract::<f64>()
                .map_err(|_| wrong_type("now", "Unix seconds or a datetime", &value))?,
        };
        if !(unix_s >= 0.0 && unix_s.is_finite()) {
            return Err(PyValueError::new_err(format!(
                "now is {}, and must be seconds since 1970, as time.time() returns them",
                shown(&value)
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value is not negative, and `as` saturates"
        )]
        let unix_ms = (unix_s * 1000.0).round() as u64;
        Ok(Self(Timestamp::from_unix_ms(unix_ms)))
    }
}

/// Returns the seconds since 1970 of a datetime.
///
/// # Errors
/// A `ValueError` that names the argument `argument` if the datetime has no time zone.
fn unix_s(time: &Bound<'_, PyDateTime>, argument: &str) -> PyResult<f64> {
    if time.get_tzinfo().is_none() {
        return Err(PyValueError::new_err(format!(
            "{argument} is {}, which has no time zone; datetime.now(timezone.utc) has one",
            shown(time)
        )));
    }
    time.call_method0("timestamp")?.extract()
}

/// When a key expires: a `datetime` with a time zone, or a `timedelta` from now.
pub(crate) struct Expiry {
    end: End,
    /// The value as an error shows it.
    shown: String,
}

/// The time at which a key expires.
enum End {
    /// In Unix seconds.
    At(f64),
    /// In seconds from now.
    After(f64),
}

impl Expiry {
    /// Returns the time at which the key expires, in whole seconds; `None` if it never does.
    ///
    /// # Errors
    /// A `ValueError` if the time is not later than `now`, or above `u32::MAX` in Unix seconds.
    pub(crate) fn expires(expiry: Option<Self>, now: Timestamp) -> PyResult<Option<Timestamp>> {
        let Some(Self { end, shown }) = expiry else { return Ok(None) };
        let now_s = now.unix_ms() as f64 / 1000.0;
        let unix_s = match end {
            End::At(unix_s) => unix_s.floor(),
            End::After(span_s) => (now_s + span_s).floor(),
        };
        if unix_s <= now_s {
            return Err(PyValueError::new_err(format!(
                "expires is {shown}, and must be a time after now, or a timedelta of at least 1 s"
            )));
        }
        if unix_s > f64::from(u32::MAX) {
            return Err(PyValueError::new_err(format!(
                "expires is {shown}, and must be at most 2106-02-07T06:28:15Z; leave it out for a key \
                 that never expires"
            )));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the value is between the two bounds above"
        )]
        Ok(Some(Timestamp::from_unix_s(unix_s as u64)))
    }
}

impl<'py> FromPyObject<'_, 'py> for Expiry {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let end = if let Ok(time) = value.cast::<PyDateTime>() {
            End::At(unix_s(&time, "expires")?)
        } else if let Ok(span) = value.cast::<PyDelta>() {
            End::After(total_seconds(&span)?)
        } else {
            return Err(wrong_type("expires", "a datetime or a timedelta", &value));
        };
        Ok(Self { end, shown: shown(&value) })
    }
}

/// How long the previous secret of a key stays valid after a rotation: a `timedelta`, or seconds.
pub(crate) struct Grace(Duration);

impl Grace {
    /// Returns the end of the period if it begins at `now`; `None` for a period of 0.
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

/// How long a change waits for another administrator at most: a `timedelta`, or seconds.
pub(crate) struct WaitTime(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for WaitTime {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        span("wait", &value).map(Self)
    }
}

/// How long a request waits for credits of a fleet.
pub(crate) struct CreditWait(pub(crate) Duration);

impl<'py> FromPyObject<'_, 'py> for CreditWait {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        span("credit_wait", &value).map(Self)
    }
}

/// Extracts a duration: a `timedelta`, or seconds.
///
/// # Errors
/// A `TypeError` or a `ValueError` that names the argument `argument`.
fn span(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let seconds = match value.cast::<PyDelta>() {
        Ok(span) => total_seconds(span)?,
        Err(_) => {
            value.extract().map_err(|_| wrong_type(argument, "a timedelta or seconds", value))?
        }
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        PyValueError::new_err(format!(
            "{argument} is {}, and must be a timedelta or seconds, 0 to {}",
            shown(value),
            u64::MAX
        ))
    })
}

fn total_seconds(span: &Bound<'_, PyDelta>) -> PyResult<f64> {
    span.call_method0("total_seconds")?.extract()
}

/// The id of a key, 11 base62 characters.
#[derive(Clone, Copy)]
pub(crate) struct KeyIdText(pub(crate) KeyId);

impl<'py> FromPyObject<'_, 'py> for KeyIdText {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if value.is_none() {
            return Err(PyValueError::new_err(
                "key_id is None: only the verdict on a valid key has one; check verdict.admitted first",
            ));
        }
        let text: String = value.extract().map_err(|_| wrong_type("key_id", "a str", &value))?;
        keytally::redact::parse_key_id(&text).map(Self).map_err(KeyIdError::new_err)
    }
}

/// Parses the name of an environment, or the prefix of all keys.
///
/// # Errors
/// A `CreateError` that names the argument `argument`.
pub(crate) fn name(text: &str, argument: &str) -> PyResult<Name> {
    Name::new(text).ok_or_else(|| {
        let text = redact_name(text);
        CreateError::new_err(format!(
            "{argument} is {text:?}, and must be 1 to 8 characters of a-z and 0-9"
        ))
    })
}

/// Returns the window of a quota, such as `month`.
///
/// # Errors
/// A `PolicyError` that names the wrong part.
pub(crate) fn window(text: &str) -> PyResult<Window> {
    text.parse().map_err(|error| PolicyError::new_err(policy_error(&error)))
}

/// Returns the peppers in a text, in a file, or in the environment variables.
///
/// Without a text and a file, `KEYTALLY_PEPPER_FILE` is used if it is set, and `KEYTALLY_PEPPER`
/// otherwise, as in the program `keytally`.
///
/// # Errors
/// A `PepperError` if there is no pepper or it is not valid; an `OSError` if the file cannot be
/// read.
pub(crate) fn peppers(text: Option<String>, file: Option<PathBuf>) -> PyResult<Peppers> {
    let parsed = match (text.map(Zeroizing::new), file) {
        (Some(_), Some(_)) => {
            return Err(PepperError::new_err(
                "pepper and pepper_file are both given; leave one out",
            ));
        }
        (Some(text), None) => pepper::parse(&text),
        (None, Some(file)) => read_file(file)?,
        (None, None) => match (variable("KEYTALLY_PEPPER_FILE"), variable("KEYTALLY_PEPPER")) {
            (Some(file), _) => read_file(PathBuf::from(file))?,
            (None, Some(text)) => {
                let text = Zeroizing::new(text.into_encoded_bytes());
                let text = core::str::from_utf8(&text).map_err(|_| {
                    PepperError::new_err("KEYTALLY_PEPPER is neither hex nor base64")
                })?;
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
    parsed.map_err(exceptions::from_pepper_error)
}

/// Reads the peppers of a file.
///
/// A read of a pipe or a terminal blocks until there is input. Other Python threads run meanwhile.
/// A signal whose handler raises an exception, such as that of Ctrl-C, ends the wait.
fn read_file(file: PathBuf) -> PyResult<Result<Peppers, keytally::Error>> {
    if std::fs::metadata(&file).is_ok_and(|found| found.is_file()) {
        return Ok(pepper::read_file(file));
    }
    let reader = std::thread::Builder::new().spawn(move || pepper::read_file(file))?;
    Python::attach(|py| {
        while !reader.is_finished() {
            py.detach(|| std::thread::sleep(SIGNAL_INTERVAL));
            py.check_signals()?;
        }
        reader.join().map_err(|_| PyRuntimeError::new_err("the pepper file could not be read"))
    })
}

/// The interval at which a wait checks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(10);

/// Returns the environment variable, unless it is empty.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
