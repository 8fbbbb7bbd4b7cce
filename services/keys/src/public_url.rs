//! The URL of the service as people see it: a scheme and a host, and a path before `/keys` if a
//! proxy serves the service below one.

use axum::http::Uri;

/// Parses a URL without a path. Returns it without a slash at its end.
///
/// # Errors
/// A sentence that says what would be right.
pub fn parse(text: &str) -> Result<String, String> {
    match split(text) {
        Some((origin, "/" | "")) => Ok(origin.to_owned()),
        _ => Err("it must be a URL without a path, such as https://api.example.com".to_owned()),
    }
}

/// Parses a path before `/keys`. Returns it without a slash at its end.
///
/// # Errors
/// A sentence that says what would be right.
pub fn parse_path(text: &str) -> Result<String, String> {
    let is_plain = |part: &str| {
        let is_name =
            part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte));
        is_name && !part.is_empty() && part != "." && part != ".."
    };
    match text.trim_end_matches('/').strip_prefix('/') {
        Some(path) if path.split('/').all(is_plain) => Ok(format!("/{path}")),
        None if text.is_empty() || text == "/" => Ok(String::new()),
        _ => Err("it must be a path of letters, digits and -, such as /internal".to_owned()),
    }
}

/// Parses a URL that may have a path before `/keys`.
pub(crate) fn parse_with_path(text: &str) -> Result<String, String> {
    let split = split(text).and_then(|(origin, path)| Some((origin, parse_path(path).ok()?)));
    let (origin, path) = split.ok_or_else(|| {
        "it must be a URL such as https://api.example.com, with the path of --base-path if there \
         is one"
            .to_owned()
    })?;
    Ok(format!("{origin}{path}"))
}

/// Splits a URL before its path. Returns `None` for one with a user, a query or a fragment.
fn split(text: &str) -> Option<(&str, &str)> {
    let uri = text.parse::<Uri>().ok()?;
    let authority = uri.authority()?.as_str();
    let has_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    if !has_scheme || authority.contains('@') || uri.query().is_some() || text.contains('#') {
        return None;
    }
    let begin = text.find("://")?.checked_add(3)?;
    text.split_at_checked(begin.checked_add(authority.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_url_has_a_scheme_and_a_host_only() {
        for url in ["https://api.example.com", "https://api.example.com/", "http://localhost:8080"]
        {
            assert_eq!(parse(url).unwrap(), url.trim_end_matches('/'));
        }
        for url in [
            "",
            "api.example.com",
            "ftp://a",
            "https://a/b",
            "https://u@a",
            "https://a?b",
            "https://a#b",
        ] {
            assert!(parse(url).is_err() && parse_with_path(&format!("{url}?c")).is_err(), "{url}");
        }
        assert_eq!(parse_with_path("https://a/b/").unwrap(), "https://a/b");
    }

    #[test]
    fn base_path_is_a_path_without_dots() {
        for (text, path) in [("", ""), ("/", ""), ("/a", "/a"), ("/a/b-1/", "/a/b-1")] {
            assert_eq!(parse_path(text).unwrap(), path);
        }
        for text in ["a", "//", "/a//b", "/..", "/a/./b", "/a?b", "/a#b", "/{a}", "/ä"] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }
}
