//! Header fields as Python has them. Every response has some, so their names are made once, and their lines are split at
//! single bytes: a search for text takes longer than all the rest.

use keytally::FIELD_NAMES;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

/// A name as core writes it, and what Python has of it.
struct Name {
    name: &'static str,
    text: PyOnceLock<Py<PyString>>,
    raw: PyOnceLock<Py<PyBytes>>,
}

impl Name {
    const fn new(name: &'static str) -> Self {
        Self { name, text: PyOnceLock::new(), raw: PyOnceLock::new() }
    }
}

static NAMES: [Name; FIELD_NAMES.len()] = [
    Name::new(FIELD_NAMES[0]),
    Name::new(FIELD_NAMES[1]),
    Name::new(FIELD_NAMES[2]),
    Name::new(FIELD_NAMES[3]),
    Name::new(FIELD_NAMES[4]),
    Name::new(FIELD_NAMES[5]),
    Name::new(FIELD_NAMES[6]),
];

/// Name and value of each field of a block of lines, as core writes them.
pub(crate) fn split(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 2..line.len() - 1)?))
    })
}

fn known(name: &[u8]) -> Option<&'static Name> {
    NAMES.iter().find(|known| known.name.as_bytes() == name)
}

/// A name as a `str`.
pub(crate) fn name<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
    let new = || text(py, name);
    match known(name) {
        Some(known) => known.text.get_or_init(py, || new().unbind()).bind(py).clone(),
        None => new(),
    }
}

/// A name as lowercase `bytes`.
pub(crate) fn raw_name<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
    let new = || PyBytes::new(py, &name.to_ascii_lowercase());
    match known(name) {
        Some(known) => known.raw.get_or_init(py, || new().unbind()).bind(py).clone(),
        None => new(),
    }
}

/// A name or a value, which is ASCII, as a `str`.
pub(crate) fn text<'py>(py: Python<'py>, ascii: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, core::str::from_utf8(ascii).unwrap_or_default())
}
