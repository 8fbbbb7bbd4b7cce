//! The style and the scripts. Each name has a part of the file's hash, so browsers keep the file.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;

/// A file that pages refer to.
struct Asset {
    /// The name with the hash.
    name: String,
    kind: &'static str,
    text: &'static str,
}

/// htmx 4.0.1, as its package at npm has it.
const HTMX: &str = include_str!("../../assets/htmx-4.0.1.min.js");

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    asset("page", "css", "text/css; charset=utf-8", include_str!("../../assets/page.css"))
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    asset("page", "js", "text/javascript; charset=utf-8", include_str!("../../assets/page.js"))
});
static LIBRARY: LazyLock<Asset> =
    LazyLock::new(|| asset("htmx", "js", "text/javascript; charset=utf-8", HTMX));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| asset("icon", "svg", "image/svg+xml", include_str!("../../assets/icon.svg")));

fn asset(stem: &str, ending: &str, kind: &'static str, text: &'static str) -> Asset {
    let hash = Sha256::digest(text);
    let hash: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Asset { name: format!("{hash}-{stem}.{ending}"), kind, text }
}

/// Returns the name of the style sheet.
pub(super) fn style() -> &'static str {
    &STYLE.name
}

/// Returns the name of the page's own script.
pub(super) fn script() -> &'static str {
    &SCRIPT.name
}

/// Returns the name of htmx.
pub(super) fn library() -> &'static str {
    &LIBRARY.name
}

/// Returns the name of the icon.
pub(super) fn icon() -> &'static str {
    &ICON.name
}

/// Serves an asset.
pub(super) async fn serve(Path(name): Path<String>) -> Result<Response, Refusal> {
    let all = [&*STYLE, &*SCRIPT, &*LIBRARY, &*ICON];
    let found = all.into_iter().find(|asset| asset.name == name);
    let Asset { kind, text, .. } =
        found.ok_or_else(|| Refusal::missing("There is no file of this name."))?;
    let fields = [(CONTENT_TYPE, *kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((fields, *text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn htmx_is_the_file_of_its_package() {
        let hash: String = Sha256::digest(HTMX).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130");
    }

    #[test]
    fn name_of_a_file_changes_with_its_text() {
        let [one, other] = ["a", "b"].map(|text| asset("page", "css", "text/css", text).name);
        assert!(one.ends_with("-page.css") && one != other);
    }
}
