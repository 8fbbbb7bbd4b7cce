//! The body of a response.

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::charge::OpenCharge;

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

/// A charge that the end of the body may change.
struct End {
    charge: OpenCharge,
    /// The length that the body announced.
    announced: Option<u64>,
}

impl End {
    /// Records a frame that the server takes.
    fn take(&mut self, frame: &Frame<Bytes>, is_last: bool) {
        let taken = frame.data_ref().map_or(0, |data| data.remaining());
        let taken = u64::try_from(taken).unwrap_or(u64::MAX);
        self.charge.bytes = self.charge.bytes.saturating_add(taken);
        if let Some(trailers) = frame.trailers_ref() {
            self.charge.set_trailers(trailers);
        }
        self.charge.is_complete = is_last || self.announced == Some(self.charge.bytes);
    }
}

impl<B> GuardBody<B> {
    pub(crate) fn refusal(bytes: Bytes) -> Self {
        Self { inner: Inner::Refusal { bytes: Some(bytes) }, end: None }
    }
}

impl<B: Body> GuardBody<B> {
    pub(crate) fn service(body: B, charge: Option<OpenCharge>) -> Self {
        let end = charge.map(|mut charge| {
            charge.is_complete = body.is_end_stream();
            End { charge, announced: body.size_hint().exact() }
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
                Some(Ok(frame)) => end.take(frame, body.is_end_stream()),
                Some(Err(_)) => end.charge.is_failed = true,
                None => end.charge.is_complete = true,
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
