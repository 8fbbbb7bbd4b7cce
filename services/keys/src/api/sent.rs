//! The responses with a secret. When it has been handed to the connection, the list records that
//! the secret was shown.

use core::pin::Pin;
use core::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use http_body::{Frame, SizeHint};
use keytally::Timestamp;
use tokio::runtime::Handle;

use super::state::PREFIX;
use crate::keys::KeyRow;
use crate::list::List;

/// A body of one piece with a secret.
struct Sent {
    body: Option<Bytes>,
    /// What to record when the body was taken.
    shown: Option<(List, Box<KeyRow>, Timestamp)>,
}

/// Returns a body that records that the secret of a key was shown.
pub(crate) fn body(text: Vec<u8>, list: List, row: KeyRow, now: Timestamp) -> Body {
    Body::new(Sent { body: Some(text.into()), shown: Some((list, Box::new(row), now)) })
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = core::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = self.body.take().map(|body| Ok(Frame::data(body)));
        if frame.is_some()
            && let Some((list, row, now)) = self.shown.take()
        {
            // If the database cannot be used, the list says that the secret was never shown, and
            // its owner rotates the key. The response is not delayed for that.
            let record = async move { drop(list.mark_shown(&row, now).await) };
            Handle::current().spawn(record);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let len = self.body.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
    }
}

/// Returns an answer with a secret, and the URL of what was made.
pub(super) fn created(location: &str, body: Body) -> Response {
    let location = HeaderValue::try_from(format!("{PREFIX}/{location}"));
    let mut response =
        (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], body).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
