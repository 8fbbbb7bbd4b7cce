//! Charges by outcome: refunds, and the actual cost at the head or the end of the response.

use core::convert::Infallible;
use core::future::{Ready, pending, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full};
use keytally::Gate;
use keytally_tower::{GateLayer, LimiterLayer};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

use crate::support::{call, field, gate, limiter, request, with_key};

/// Responds with the status that the request's field `X-Status` names.
async fn by_status(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let status = request.headers().get("X-Status").map_or("200", |value| value.to_str().unwrap());
    Ok(Response::builder().status(status).body(Full::from("hello")).unwrap())
}

fn with_status(key: &str, status: &str) -> Request<()> {
    request(&[("X-API-Key", key), ("X-Status", status)])
}

fn remaining(gate: &Gate, key: &str) -> u32 {
    gate.peek(Some(key.as_bytes()), 0).remaining().unwrap()
}

#[tokio::test]
async fn response_with_a_named_status_is_refunded() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).cost(2);
    let layer = layer.refund(500..=599).unwrap().refund(404..=404).unwrap();
    let service = layer.layer(service_fn(by_status));
    for (status, left) in [("500", "9"), ("404", "9"), ("403", "7"), ("599", "7"), ("200", "5")] {
        let response = call(&service, with_status(&key, status)).await;
        assert_eq!(field(&response, "X-RateLimit-Remaining"), left, "{status}");
        assert_eq!(remaining(&gate, &key).to_string(), left, "{status}");
    }
}

#[tokio::test]
async fn limiter_refunds_the_subject_of_the_request() {
    let limiter = limiter("9/31d");
    let layer = LimiterLayer::new(Arc::clone(&limiter)).subject(|_| Some("anna"));
    let service = layer.refund(500..=599).unwrap().layer(service_fn(by_status));
    call(&service, with_status("", "503")).await;
    assert_eq!(limiter.peek(b"anna", 0).remaining(), Some(9));
    call(&service, with_status("", "200")).await;
    assert_eq!(limiter.peek(b"anna", 0).remaining(), Some(8));
}

#[tokio::test]
async fn error_of_the_inner_service_counts_as_500() {
    let fails = service_fn(async |_: Request<()>| Err::<Response<Full<Bytes>>, _>("failed"));
    for (statuses, left) in [(500..=599, 9), (501..=599, 8)] {
        let (gate, key) = gate("9/31d");
        let layer = GateLayer::new(Arc::clone(&gate)).refund(statuses).unwrap();
        let service = layer.settle_at_head(|_, _| unreachable!()).layer(fails);
        assert_eq!(service.oneshot(with_key(&key)).await.unwrap_err(), "failed");
        assert_eq!(remaining(&gate, &key), left);
    }
}

#[tokio::test]
async fn canceled_request_stays_charged() {
    let (gate, key) = gate("9/31d");
    let never = service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    let layer = GateLayer::new(Arc::clone(&gate)).refund(500..=599).unwrap();
    let service = layer.settle_at_head(|_, _| unreachable!()).layer(never);
    let mut future = Box::pin(service.oneshot(with_key(&key)));
    poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    drop(future);
    assert_eq!(remaining(&gate, &key), 8);
}

#[tokio::test]
async fn actual_cost_replaces_the_estimate_at_the_head() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).cost(3).settle_at_head(|request, response| {
        assert_eq!(request.uri.path(), "/");
        u32::from(response.status.as_u16()) - 200
    });
    let service = layer.layer(service_fn(by_status));
    // 3 are charged for each estimate, then the actual costs are 1, 0, and 50 of the 8 left.
    for (status, left) in [("201", "8"), ("200", "8"), ("250", "0")] {
        let response = call(&service, with_status(&key, status)).await;
        assert_eq!(field(&response, "X-RateLimit-Remaining"), left, "{status}");
        assert_eq!(remaining(&gate, &key).to_string(), left, "{status}");
    }
}

#[tokio::test]
async fn refusal_is_neither_settled_nor_refunded() {
    let (gate, key) = gate("1/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).settle_at_head(|_, response| {
        assert_eq!(response.status, 200);
        1
    });
    let service = layer.refund(400..=499).unwrap().layer(service_fn(by_status));
    for status in [200, 429, 429] {
        assert_eq!(call(&service, with_key(&key)).await.status(), status);
    }
    assert_eq!(remaining(&gate, &key), 0);
}

#[tokio::test]
async fn inner_layer_settles_a_shared_charge_once() {
    let (gate, key) = gate("9/31d");
    let inner =
        GateLayer::new(Arc::clone(&gate)).settle_at_head(|_, _| 4).layer(service_fn(by_status));
    let service = GateLayer::new(Arc::clone(&gate)).settle_at_head(|_, _| 9).layer(inner);
    let response = call(&service, with_key(&key)).await;
    assert_eq!(field(&response, "X-RateLimit-Remaining"), "5");
    assert_eq!(remaining(&gate, &key), 5);
}

/// A body of these frames. After the last one it ends, or stays pending.
#[derive(Debug)]
struct Frames {
    frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
    ends: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.frames.pop_front() {
            None if !self.ends => Poll::Pending,
            frame => Poll::Ready(frame),
        }
    }
}

/// A call of the function of `settle`: bytes, whether the body is complete, the trailer `x`.
type Calls = Vec<(u64, bool, Option<String>)>;

/// Returns the response to one request with this body, the calls of the function, and the gate.
async fn streamed<B: Body<Data = Bytes> + Clone + Send + Sync + 'static>(
    body: B,
) -> (impl Body<Data = Bytes, Error = B::Error>, impl Fn() -> (u32, Calls)) {
    let (gate, key) = gate("99/31d");
    let calls = Arc::new(Mutex::new(Vec::new()));
    let called = Arc::clone(&calls);
    let layer = GateLayer::new(Arc::clone(&gate)).cost(5).settle(move |_, sent| {
        let trailer = sent.trailers.map(|trailers| trailers["x"].to_str().unwrap().to_owned());
        called.lock().unwrap().push((sent.bytes, sent.is_complete, trailer));
        u32::try_from(sent.bytes).unwrap()
    });
    let inner = service_fn(move |_: Request<()>| {
        core::future::ready(Ok::<_, Infallible>(Response::new(body.clone())))
    });
    let response = layer.layer(inner).oneshot(with_key(&key)).await.unwrap();
    assert_eq!(field(&response, "X-RateLimit-Remaining"), "94");
    let state = move || (99 - remaining(&gate, &key), calls.lock().unwrap().clone());
    (response.into_body(), state)
}

impl Clone for Frames {
    fn clone(&self) -> Self {
        let frames = self.frames.iter().map(|frame| match frame {
            Ok(frame) if frame.is_trailers() => {
                Ok(Frame::trailers(frame.trailers_ref().unwrap().clone()))
            }
            Ok(frame) => Ok(Frame::data(frame.data_ref().unwrap().clone())),
            Err(error) => Err(*error),
        });
        Self { frames: frames.collect(), ends: self.ends }
    }
}

fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
    Ok(Frame::data(Bytes::from(text)))
}

#[tokio::test]
async fn actual_cost_is_charged_at_the_end_of_the_body() {
    let trailers = HeaderMap::from_iter([("x".parse().unwrap(), "y".parse().unwrap())]);
    let frames = [data("twelve bytes"), Ok(Frame::trailers(trailers))];
    let (body, state) = streamed(Frames { frames: frames.into(), ends: true }).await;
    assert_eq!(state(), (5, vec![]));
    body.collect().await.unwrap();
    assert_eq!(state(), (12, vec![(12, true, Some("y".to_owned()))]));
}

#[tokio::test]
async fn canceled_body_is_settled_by_what_was_sent() {
    let (body, state) =
        streamed(Frames { frames: [data("seven b"), data("rest")].into(), ends: false }).await;
    let mut body = Box::pin(body);
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    assert_eq!(state(), (7, vec![(7, false, None)]));
}

#[tokio::test]
async fn body_with_an_error_is_settled_as_incomplete() {
    let frames = [data("ten bytes."), Err("failed")];
    let (body, state) = streamed(Frames { frames: frames.into(), ends: true }).await;
    assert_eq!(body.collect().await.unwrap_err(), "failed");
    assert_eq!(state(), (10, vec![(10, false, None)]));
}

#[tokio::test]
async fn body_of_known_length_is_complete_without_its_last_poll() {
    let (body, state) = streamed(Full::new(Bytes::from("hello"))).await;
    let mut body = Box::pin(body);
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    assert_eq!(state(), (5, vec![(5, true, None)]));

    let (body, state) = streamed(Empty::new()).await;
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(state(), (0, vec![(0, true, None)]));
}

#[tokio::test]
async fn body_with_an_error_is_refunded_as_500() {
    for (frames, left) in [
        (vec![data("one"), Err("failed")], 9),
        (vec![Err("failed")], 9),
        (vec![data("one"), data("two")], 8),
    ] {
        let (gate, key) = gate("9/31d");
        let layer = GateLayer::new(Arc::clone(&gate)).refund(500..=599).unwrap();
        let layer = layer.settle(|_, sent| sent.cost);
        let body = Frames { frames: frames.into(), ends: true };
        let inner = service_fn(move |_: Request<()>| {
            core::future::ready(Ok::<_, Infallible>(Response::new(body.clone())))
        });
        let response = layer.layer(inner).oneshot(with_key(&key)).await.unwrap();
        assert_eq!(remaining(&gate, &key), 8);
        let _ = response.into_body().collect().await;
        assert_eq!(remaining(&gate, &key), left);
    }
}

#[tokio::test]
async fn dropped_body_is_not_refunded_as_500() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).refund(500..=599).unwrap();
    let body = Frames { frames: [data("one"), Err("failed")].into(), ends: true };
    let inner = service_fn(move |_: Request<()>| {
        core::future::ready(Ok::<_, Infallible>(Response::new(body.clone())))
    });
    let response = layer.layer(inner).oneshot(with_key(&key)).await.unwrap();
    let mut body = Box::pin(response.into_body());
    assert!(body.frame().await.unwrap().is_ok());
    drop(body);
    assert_eq!(remaining(&gate, &key), 8);
}

/// What a function of `settle` saw: the status, whether there was an error, the cost.
type Seen = Arc<Mutex<Vec<(Option<u16>, bool, u32)>>>;

/// Returns a layer that costs 3 and settles at 1, and what its function saw.
fn watched(gate: &Arc<Gate>) -> (GateLayer, Seen) {
    let seen = Seen::default();
    let called = Arc::clone(&seen);
    let layer = GateLayer::new(Arc::clone(gate)).cost(3).settle(move |_, sent| {
        let status = sent.status.map(|status| status.as_u16());
        called.lock().unwrap().push((status, sent.is_failed, sent.cost));
        1
    });
    (layer, seen)
}

#[tokio::test]
async fn error_of_the_inner_service_is_settled_as_500() {
    let (gate, key) = gate("9/31d");
    let (layer, seen) = watched(&gate);
    let fails = service_fn(async |_: Request<()>| Err::<Response<Full<Bytes>>, _>("failed"));
    layer.clone().layer(fails).oneshot(with_key(&key)).await.unwrap_err();
    assert_eq!((remaining(&gate, &key), &*seen.lock().unwrap()), (8, &vec![(Some(500), true, 3)]));
    let refunding = layer.refund(500..=500).unwrap();
    refunding.layer(fails).oneshot(with_key(&key)).await.unwrap_err();
    assert_eq!((remaining(&gate, &key), seen.lock().unwrap().len()), (8, 1));
}

#[tokio::test]
async fn canceled_request_is_settled_without_a_status() {
    let never = service_fn(|_: Request<()>| pending::<Result<Response<Full<Bytes>>, Infallible>>());
    for polls in [0, 1] {
        let (gate, key) = gate("9/31d");
        let (layer, seen) = watched(&gate);
        let mut service = layer.refund(500..=599).unwrap().layer(never);
        let mut future = Box::pin(service.ready().await.unwrap().call(with_key(&key)));
        for _ in 0..polls {
            poll_fn(|context| {
                assert!(future.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!((remaining(&gate, &key), seen.lock().unwrap().len()), (6, 0));
        drop(future);
        assert_eq!((remaining(&gate, &key), &*seen.lock().unwrap()), (8, &vec![(None, false, 3)]));
    }
}

#[tokio::test]
async fn refusal_of_an_inner_layer_is_not_settled() {
    let (gate, key) = gate("9/31d");
    let (layer, seen) = watched(&gate);
    let inner = LimiterLayer::new(limiter("1/31d")).subject(|_| Some("anna")).cost(2);
    let service = layer.layer(inner.layer(service_fn(by_status)));
    assert_eq!(call(&service, with_key(&key)).await.status(), 429);
    assert_eq!((remaining(&gate, &key), seen.lock().unwrap().len()), (9, 0));
}

#[tokio::test]
async fn charge_is_not_settled_while_the_thread_panics() {
    let (gate, key) = gate("9/31d");
    let (layer, seen) = watched(&gate);
    let panics = service_fn(|_: Request<()>| -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
        panic!("of the application")
    });
    let mut service = layer.layer(panics);
    service.ready().await.unwrap();
    let call = AssertUnwindSafe(|| drop(service.call(with_key(&key))));
    catch_unwind(call).unwrap_err();
    assert_eq!((remaining(&gate, &key), seen.lock().unwrap().len()), (6, 0));
}

#[tokio::test]
async fn response_to_head_is_complete_without_a_body() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).cost(3);
    let service = layer.settle(|_, sent| if sent.is_complete { 1 } else { 9 });
    let service = service.layer(service_fn(by_status));
    let mut request = with_key(&key);
    *request.method_mut() = Method::HEAD;
    // A server drops the body of the response to HEAD.
    drop(service.oneshot(request).await.unwrap());
    assert_eq!(remaining(&gate, &key), 8);
}

#[tokio::test]
async fn settle_gets_the_fields_of_the_response() {
    let (gate, key) = gate("9/31d");
    let layer = GateLayer::new(Arc::clone(&gate)).settle(|request, sent| {
        assert_eq!(request.uri.path(), "/");
        sent.headers["X-Cost"].to_str().unwrap().parse().unwrap()
    });
    let costs = service_fn(async |_: Request<()>| {
        let response = Response::builder().header("X-Cost", "4");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::from("hello")).unwrap())
    });
    call(&layer.layer(costs), with_key(&key)).await;
    assert_eq!(remaining(&gate, &key), 5);
}

#[tokio::test]
async fn refused_response_has_the_length_of_its_body() {
    let (gate, _) = gate("1/31d");
    let service = GateLayer::new(gate).layer(service_fn(by_status));
    let response = service.oneshot(request(&[])).await.unwrap();
    let body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(37));
    assert!(!body.is_end_stream());
    let mut body = Box::pin(body);
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 37);
    assert!(body.is_end_stream() && body.frame().await.is_none());
}
