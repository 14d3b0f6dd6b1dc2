//! The servers that receive: the examples of aquarium-verify, and its middleware in front of one of them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use ::axum::Router;
use ::axum::routing::post;
use aquarium_event::Event;
use aquarium_verify::axum::Webhook;
use aquarium_verify::tower::VerifyLayer;
use aquarium_verify::{Secrets, Verified, Verifier};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Layer as _;

use crate::support::SOON;

#[path = "../../crates/verify/examples/actix.rs"]
#[allow(dead_code, unreachable_pub, reason = "it has a main for itself")]
mod actix;
#[path = "../../crates/verify/examples/axum.rs"]
#[allow(dead_code, unreachable_pub, reason = "it has a main for itself")]
mod axum;
#[path = "../../crates/verify/examples/headers.rs"]
#[allow(dead_code, unreachable_pub, reason = "it has a main for itself")]
mod headers;
#[path = "../../crates/verify/examples/hyper.rs"]
#[allow(dead_code, unreachable_pub, reason = "it has a main for itself")]
mod hyper_alone;

/// Where each of them takes calls.
pub(crate) const PATH: &str = "/hooks/aquarium";

/// What reached a handler.
pub(crate) type Call = (Verified, Event);

/// A server that can be started: it reads at most 1 MiB of a body, for at most 5 s.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// Whether it looks at the header before it has the body.
    pub(crate) header_first: bool,
    /// Whether it hangs up as soon as it has refused a body. The other kind goes on reading for a second.
    pub(crate) hangs_up: bool,
    serve: fn(TcpListener, Verifier, Sender<Call>) -> Serving,
}

type Serving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

pub(crate) static SERVERS: &[Server] = &[
    Server {
        name: "axum",
        header_first: true,
        hangs_up: true,
        serve: |listener, verifier, queue| Box::pin(axum::serve(listener, verifier, queue)),
    },
    Server {
        name: "hyper",
        header_first: true,
        hangs_up: true,
        serve: |listener, verifier, queue| Box::pin(hyper_alone::serve(listener, verifier, queue)),
    },
    Server {
        name: "headers",
        header_first: false,
        hangs_up: true,
        serve: |listener, verifier, queue| Box::pin(headers::serve(listener, verifier, queue)),
    },
    Server {
        name: "actix",
        header_first: true,
        hangs_up: false,
        serve: |listener, verifier, queue| Box::pin(serve_with_actix(listener, verifier, queue)),
    },
    Server {
        name: "tower",
        header_first: true,
        hangs_up: true,
        serve: |listener, verifier, queue| Box::pin(serve_with_layer(listener, verifier, queue)),
    },
];

/// actix-web has a runtime of its own, on a thread that ends when this is dropped.
async fn serve_with_actix(listener: TcpListener, verifier: Verifier, queue: Sender<Call>) -> io::Result<()> {
    let listener = listener.into_std()?;
    let (_dropped, stop) = tokio::sync::oneshot::channel::<()>();
    let on_call = move |call: aquarium_verify::actix::Webhook| {
        // A test that has ended wants no more of them.
        let _ = queue.try_send((call.verified, call.event));
    };
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async {
            let server = actix::server(listener, verifier, Arc::new(on_call))?;
            let handle = server.handle();
            actix_web::rt::spawn(async move {
                let _ = stop.await;
                handle.stop(false).await;
            });
            server.await
        })
    });
    std::future::pending().await
}

/// The layer in front of a whole service, which hyper serves.
async fn serve_with_layer(listener: TcpListener, verifier: Verifier, queue: Sender<Call>) -> io::Result<()> {
    let receive = async move |call: Webhook| {
        let sent = queue.send((call.verified, call.event)).await;
        sent.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::NO_CONTENT)
    };
    let limits = aquarium_verify::axum::Limits::default().time(std::time::Duration::from_secs(5));
    let router = Router::new()
        .route(PATH, post(receive))
        .layer(::axum::Extension(limits))
        .with_state(verifier.clone());
    let service = TowerToHyperService::new(VerifyLayer::new(verifier).layer(router));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()));
    }
}

/// A server that runs until it is dropped.
pub(crate) struct Running {
    pub(crate) server: &'static Server,
    pub(crate) address: SocketAddr,
    pub(crate) verifier: Verifier,
    received: Receiver<Call>,
    _serving: JoinSet<io::Result<()>>,
}

impl Server {
    /// Starts it on a free port.
    pub(crate) async fn start(&'static self, secrets: &Secrets) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let verifier = Verifier::new(secrets.clone());
        let (queue, received) = channel(100);
        let mut serving = JoinSet::new();
        serving.spawn((self.serve)(listener, verifier.clone(), queue));
        Running { server: self, address, verifier, received, _serving: serving }
    }
}

/// Starts all of them.
pub(crate) async fn start_all(secrets: &Secrets) -> Vec<Running> {
    let mut running = Vec::new();
    for server in SERVERS {
        running.push(server.start(secrets).await);
    }
    running
}

impl Running {
    pub(crate) fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// The next call that reaches the handler.
    pub(crate) async fn received(&mut self) -> Call {
        match timeout(SOON, self.received.recv()).await {
            Ok(Some(call)) => call,
            _ => panic!("{}: no call reached the handler", self.server.name),
        }
    }

    /// What has reached the handler before it answered last. There is none: a call gets there before its answer is made.
    pub(crate) fn received_nothing(&mut self) {
        if let Ok(call) = self.received.try_recv() {
            panic!("{}: {call:?} reached the handler", self.server.name);
        }
    }
}
