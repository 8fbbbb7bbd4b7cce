//! Exempt paths: the paths of requests that are not checked.

use crate::error::ConfigError;

/// The most times that the path of a request may be percent-encoded. A path that is encoded more
/// often is not exempt.
const MAX_ENCODINGS: usize = 4;

/// The exempt paths of a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExemptPaths {
    exact: Vec<String>,
    prefixes: Vec<String>,
}

impl ExemptPaths {
    pub(crate) fn parse<T: AsRef<str>>(
        paths: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let mut exempt = Self::default();
        for path in paths {
            let path = path.as_ref();
            let (list, text) = match path.strip_suffix('*') {
                Some(prefix) => (&mut exempt.prefixes, prefix),
                None => (&mut exempt.exact, path),
            };
            if !text.starts_with('/') || text.contains('*') {
                return Err(ConfigError::new(
                    path,
                    "cannot be exempt: pass a path such as /health, or a prefix such as /static/*",
                ));
            }
            if has_dot_segment(text) || text.contains("//") || text.contains(['%', '?', '#', '\\'])
            {
                return Err(ConfigError::new(
                    path,
                    "cannot be exempt, because no request's path is compared in that form: \
                     pass it without dot segments, repeated slashes, percent signs and query",
                ));
            }
            list.push(text.to_owned());
        }
        Ok(exempt)
    }

    /// Returns whether a path is exempt. Repeated slashes are not joined, because a router may have
    /// another route for them.
    pub(crate) fn contains(&self, path: &str) -> bool {
        self.exact.iter().any(|exact| exact == path)
            || self.prefixes.iter().any(|prefix| path.starts_with(&**prefix))
                && !has_dot_segment(path)
    }
}

/// Returns whether a path has a dot segment, encoded or not, or is encoded too many times.
///
/// The component that serves the path may decode it again, treat a backslash as a slash, or drop
/// the text after a semicolon. A dot segment then leads out of an exempt folder.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains(['%', '\\']) && !path.contains("/.") {
        return false;
    }
    let mut decoded = path.as_bytes().to_vec();
    for _ in 0..MAX_ENCODINGS {
        let next = decode(&decoded);
        if next == decoded {
            let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
            return segments.any(|segment| {
                let name = segment.split(|&byte| byte == b';').next();
                name.is_some_and(|name| matches!(name, b"." | b".."))
            });
        }
        decoded = next;
    }
    true
}

/// Decodes the percent-encoded bytes of a path once.
fn decode(path: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let byte = match rest {
            [b'%', high, low, ..] => {
                digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low)
            }
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { rest.get(3..).unwrap_or_default() } else { after };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_with_a_dot_segment_is_never_exempt() {
        let exempt = ExemptPaths::parse(["/health", "/static/*"]).unwrap();
        for path in ["/health", "/static/a.css", "/static//a.css", "/static/%20", "/static/.well"] {
            assert!(exempt.contains(path), "{path}");
        }
        for path in [
            "/",
            "//health",
            "/health/",
            "/%2fhealth",
            "//static/a.css",
            "/static/../secret",
            "/static/%2e%2e/secret",
            "/static/..%5csecret",
            "/static/..;/secret",
            "/static/%252e%252e/secret",
            "/static/%2525252525252e",
            "/static/%2e",
        ] {
            assert!(!exempt.contains(path), "{path}");
        }
    }

    #[test]
    fn path_that_can_never_match_is_an_error() {
        for path in ["", "health", "/a*b", "*", "/a/../b", "//a", "/%61", "/a?b", "/a#b", "/a\\b"] {
            assert!(ExemptPaths::parse([path]).is_err(), "{path}");
        }
        let error = ExemptPaths::parse(["health"]).unwrap_err().to_string();
        assert!(error.starts_with("\"health\" cannot be exempt"), "{error}");
    }
}
