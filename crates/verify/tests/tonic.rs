//! The middleware before a gRPC server, asked by a gRPC client: both are tonic's, over a real socket.

#![cfg(feature = "tower")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aquarium_verify::tower::VerifyLayer;
use aquarium_verify::{Secrets, Verified, Verifier};
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tower::{Layer as _, Service, ServiceExt as _};

const SECRET: &str = "the-secret-of-acme";

/// Messages that are bytes: no generated code is needed for them.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// `test.Echo`: every method answers what it was sent.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async { Ok(tonic::server::Grpc::new(Raw).unary(Unary, request).await) })
    }
}

struct Unary;

impl Service<tonic::Request<Bytes>> for Unary {
    type Response = tonic::Response<Bytes>;
    type Error = Status;
    type Future = Ready<Result<tonic::Response<Bytes>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        assert!(request.extensions().get::<Verified>().is_some());
        ready(Ok(tonic::Response::new(request.into_inner())))
    }
}

async fn ask(channel: &Channel, secrets: &[&'static str]) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(Bytes::from_static(b"hello"));
    for secret in secrets {
        request.metadata_mut().append("x-aquarium-secret", secret.parse().unwrap());
    }
    let path = PathAndQuery::from_static("/test.Echo/Say");
    client.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_client_of_a_rejected_call_sees_unauthenticated() {
    let verifier = Verifier::new(Secrets::new([SECRET]).unwrap());
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    let server = Server::builder().layer(VerifyLayer::new(verifier)).add_service(Echo);
    let server = tokio::spawn(server.serve_with_incoming(incoming));
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.timeout(Duration::from_secs(10)).connect().await.unwrap();

    assert_eq!(ask(&channel, &[SECRET]).await.unwrap(), "hello");
    for secrets in [&[][..], &["another-secret-of-acme"], &[SECRET, SECRET], &[""]] {
        let status = ask(&channel, secrets).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "Unauthorized"), "{secrets:?}");
    }
    // The connection goes on.
    assert_eq!(ask(&channel, &[SECRET]).await.unwrap(), "hello");
    server.abort();
}

#[tokio::test]
async fn only_grpc_calls_get_an_answer_of_trailers() {
    let service = VerifyLayer::new(Verifier::new(Secrets::new([SECRET]).unwrap())).layer(Echo);
    let answer = async |content_type: &str| {
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        service.clone().oneshot(request).await.unwrap()
    };
    for (content_type, answered) in [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc;charset=x", "application/grpc"),
        ("application/grpc-web+proto; x=y", "application/grpc-web+proto"),
    ] {
        let response = answer(content_type).await;
        assert_eq!(response.status(), 200, "{content_type}");
        let headers = response.headers();
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!((header("grpc-status"), header("content-type")), ("16", answered));
        assert!(http_body::Body::is_end_stream(response.body()), "trailers only: there are no frames");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    for content_type in ["application/json", "application/grpcx", "application/gRPC", "text/application/grpc"]
    {
        assert_eq!(answer(content_type).await.status(), 401, "{content_type}");
    }
}
