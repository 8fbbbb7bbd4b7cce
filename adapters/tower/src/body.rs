//! The body of a response.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::rule::AtEnd;

pin_project! {
    /// The body of a response that passed through a layer: that of the inner service, or that of a
    /// refusal.
    pub struct GuardBody<B> {
        #[pin]
        inner: Inner<B>,
        end: Option<End>,
    }
}

pin_project! {
    #[project = InnerProjection]
    enum Inner<B> {
        Refusal { bytes: Option<Bytes> },
        Service { #[pin] body: B },
    }
}

/// What was sent of a response's body, for [`settle_at_end`](crate::GateLayer::settle_at_end).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Sent<'t> {
    /// The status of the response.
    pub status: StatusCode,
    /// The bytes of the body that the server took.
    pub bytes: u64,
    /// Whether the body ended. It did not if it returned an error, or if the client closed the
    /// connection.
    pub is_complete: bool,
    /// The trailers, if the server took them.
    pub trailers: Option<&'t HeaderMap>,
}

/// Settles the charge when the body ends or is dropped.
struct End {
    at_end: AtEnd,
    bytes: u64,
    /// The length that the body announced.
    announced: Option<u64>,
    is_complete: bool,
    trailers: Option<HeaderMap>,
}

impl Drop for End {
    fn drop(&mut self) {
        let is_complete = self.is_complete || self.announced == Some(self.bytes);
        self.at_end.settle(&Sent {
            status: self.at_end.status,
            bytes: self.bytes,
            is_complete,
            trailers: self.trailers.as_ref(),
        });
    }
}

impl<B> GuardBody<B> {
    pub(crate) fn refusal(bytes: Bytes) -> Self {
        Self { inner: Inner::Refusal { bytes: Some(bytes) }, end: None }
    }
}

impl<B: Body> GuardBody<B> {
    pub(crate) fn service(body: B, at_end: Option<AtEnd>) -> Self {
        let end = at_end.map(|at_end| End {
            at_end,
            bytes: 0,
            announced: body.size_hint().exact(),
            is_complete: body.is_end_stream(),
            trailers: None,
        });
        Self { inner: Inner::Service { body }, end }
    }
}

impl<B: Body<Data = Bytes>> Body for GuardBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let mut body = match this.inner.project() {
            InnerProjection::Refusal { bytes } => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            InnerProjection::Service { body } => body,
        };
        let frame = ready!(body.as_mut().poll_frame(context));
        if let Some(end) = this.end {
            match &frame {
                Some(Ok(frame)) => {
                    let taken = frame.data_ref().map_or(0, |data| data.remaining());
                    end.bytes = end.bytes.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
                    if let Some(trailers) = frame.trailers_ref() {
                        end.trailers = Some(trailers.clone());
                    }
                    end.is_complete = body.is_end_stream();
                }
                Some(Err(_)) => end.announced = None,
                None => end.is_complete = true,
            }
        }
        if !matches!(frame, Some(Ok(_))) {
            *this.end = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Refusal { bytes } => bytes.as_ref().is_none_or(Bytes::is_empty),
            Inner::Service { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Refusal { bytes } => {
                let len = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
            }
            Inner::Service { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for GuardBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardBody").finish_non_exhaustive()
    }
}
