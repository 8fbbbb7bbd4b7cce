//! Header fields as Python strings and bytes.
//!
//! Every response has header fields, so the Python objects of their names are created once per
//! process.

use keytally::FIELD_NAMES;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

/// The Python objects of one field name.
struct Name {
    text: Py<PyString>,
    lowercase: Py<PyBytes>,
}

/// The objects of [`FIELD_NAMES`], in the same order.
static NAMES: PyOnceLock<Vec<Name>> = PyOnceLock::new();

/// Returns the objects of a name; `None` if core does not write the name.
fn known<'py>(py: Python<'py>, name: &[u8]) -> Option<&'py Name> {
    let index = FIELD_NAMES.iter().position(|known| known.as_bytes() == name)?;
    let names = NAMES.get_or_init(py, || {
        let objects = |name: &&str| Name {
            text: PyString::new(py, name).unbind(),
            lowercase: lowercase(py, name.as_bytes()).unbind(),
        };
        FIELD_NAMES.iter().map(objects).collect()
    });
    names.get(index)
}

/// Returns the name and the value of each line `Name: value\r\n` of a block that core wrote.
///
/// Lines are split at single bytes, because a search for `\r\n` or `: ` is slower.
pub(crate) fn split(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    block.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((line.get(..colon)?, line.get(colon + 2..line.len() - 1)?))
    })
}

/// Returns the name of a field as a `str`.
pub(crate) fn name<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyString> {
    match known(py, name) {
        Some(known) => known.text.bind(py).clone(),
        None => text(py, name),
    }
}

/// Returns the name of a field as lowercase `bytes`.
pub(crate) fn raw_name<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
    match known(py, name) {
        Some(known) => known.lowercase.bind(py).clone(),
        None => lowercase(py, name),
    }
}

fn lowercase<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &name.to_ascii_lowercase())
}

/// Returns the name or the value of a field, which are ASCII, as a `str`.
pub(crate) fn text<'py>(py: Python<'py>, ascii: &[u8]) -> Bound<'py, PyString> {
    PyString::new(py, core::str::from_utf8(ascii).unwrap_or_default())
}
