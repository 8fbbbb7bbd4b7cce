//! Connections of hyper: a request that is refused while its body is being sent.

use core::convert::Infallible;
use core::future::{Ready, ready};
use core::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use keytally_tower::GateLayer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tower::{Layer as _, Service, service_fn};

use crate::support::gate;

/// A response that takes longer is a failure.
const DEADLINE: Duration = Duration::from_secs(20);

type Refused = Ready<Result<Response<Full<Bytes>>, Infallible>>;

/// A service without a layer that refuses each request, and does not read its body.
fn refuse(_: Request<Incoming>) -> Refused {
    ready(Ok(Response::builder().status(401).body(Full::from("{}")).unwrap()))
}

/// Returns a connection to a server of a service.
async fn connect<S, B>(service: S) -> TcpStream
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = auto::Builder::new(TokioExecutor::new());
        let service = TowerToHyperService::new(service);
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    TcpStream::connect(address).await.unwrap()
}

/// Sends a request by HTTP/1.1 with some of the 20 bytes of its body, waits for the response, and
/// sends the rest and a second request. Returns whether that gets a response.
async fn http1_is_kept(mut stream: TcpStream, sent: usize) -> bool {
    let body = [b'x'; 20];
    let (first, rest) = body.split_at(sent);
    let post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n";
    stream.write_all(&[&post[..], first].concat()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"}") {
        assert!(stream.read_buf(&mut response).await.unwrap() > 0, "closed without a response");
    }
    assert!(response.starts_with(b"HTTP/1.1 401 "));
    let get = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let _ = stream.write_all(&[rest, &get[..]].concat()).await;
    let mut second = Vec::new();
    let _ = stream.read_to_end(&mut second).await;
    second.starts_with(b"HTTP/1.1 401 ")
}

#[tokio::test]
async fn http1_connection_after_a_refusal_is_as_without_a_layer() {
    let layer = GateLayer::new(gate("1/31d").0);
    for (sent, is_kept) in [(20, true), (10, false)] {
        assert_eq!(http1_is_kept(connect(service_fn(refuse)).await, sent).await, is_kept);
        let service = layer.layer(service_fn(refuse));
        assert_eq!(http1_is_kept(connect(service).await, sent).await, is_kept, "{sent}");
    }
}

#[tokio::test]
async fn http2_connection_serves_requests_after_refusals() {
    let service = GateLayer::new(gate("1/31d").0).layer(service_fn(refuse));
    let stream = TokioIo::new(connect(service).await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    // More than the server's window, so the client still has most of it when it is refused.
    let body = Full::new(Bytes::from(vec![b'x'; 4 << 20]));
    // More requests than a connection may have at once.
    for _ in 0..250 {
        let request = Request::post("http://localhost/").body(body.clone()).unwrap();
        let response = timeout(DEADLINE, client.send_request(request)).await.unwrap().unwrap();
        assert_eq!(response.status(), 401);
        assert!(response.into_body().collect().await.unwrap().to_bytes().starts_with(b"{"));
    }
}
