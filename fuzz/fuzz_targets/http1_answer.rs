//! What an endpoint answers over HTTP/1.1, up to where it closes the connection: the attempt ends in time, and keeps no more
//! of it than it should.

#![no_main]

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::time::Duration;

use aquarium_delivery::{DeliveryId, EventId, FailureKind, Outcome, Timestamp};
use aquarium_egress::{Egress, Endpoint, Guard, MAX_EXCERPT, Message, Options, Roots};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// Far longer than it takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of this machine that listen in turn: a port is not free again at once.
const ADDRESSES: u8 = 100;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
    static TURN: Cell<usize> = const { Cell::new(0) };
}

/// What all inputs share.
struct World {
    runtime: Runtime,
    egress: Egress,
    endpoints: Vec<(TcpListener, Endpoint)>,
}

impl World {
    fn new() -> World {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (egress, endpoints) = runtime.block_on(async {
            let guard = Guard::new(vec!["127.0.0.0/8".parse().expect("a range")]);
            let egress = Egress::new(Options { guard, roots: Roots::Webpki, proxy: None }, Vec::new())
                .expect("a client");
            let mut endpoints = Vec::new();
            for number in 1..=ADDRESSES {
                let listener = TcpListener::bind(("127.0.9.1".replace(".1", &format!(".{number}")), 0));
                let listener = listener.await.expect("a free port");
                let url = format!("http://{}/", listener.local_addr().expect("an address"));
                endpoints.push((listener, Endpoint::new(&url, [], TIMEOUT, TIMEOUT).expect("a URL")));
            }
            (egress, endpoints)
        });
        World { runtime, egress, endpoints }
    }
}

/// Answers with this, whatever is asked, and closes the connection. The client may have gone before.
async fn answer(listener: &TcpListener, data: &[u8]) {
    let Ok((mut stream, _)) = listener.accept().await else { return };
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).await;
    let _ = stream.write_all(data).await;
    let _ = stream.shutdown().await;
    while matches!(stream.read(&mut request).await, Ok(1..)) {}
}

fuzz_target!(|data: &[u8]| {
    WORLD.with_borrow(|world| {
        let turn = TURN.replace((TURN.get() + 1) % world.endpoints.len());
        let (listener, endpoint) = &world.endpoints[turn];
        let at = Timestamp::from_millis(1_800_000_000_000);
        let message = Message {
            body: Bytes::from_static(b"{}"),
            event: EventId::new(at, [1; 10]),
            delivery: DeliveryId::new(at, [2; 10]),
            attempt: 1,
            at,
            secret: None,
            signing_key: None,
            trace: None,
            hops: aquarium_delivery::Hops::FIRST,
        };
        let sent = world.runtime.block_on(async {
            tokio::select! {
                sent = world.egress.send(endpoint, message, pending()) => sent,
                // An answer may be taken for one to a connection that was closed: it is then asked again.
                () = async { loop { answer(listener, data).await } } => None,
            }
        });
        let sent = sent.expect("it was not withdrawn");
        assert!(sent.excerpt.len() <= MAX_EXCERPT);
        if let Outcome::Failed(failure) = &sent.outcome {
            assert!(failure.detail.len() <= 4 * 1024, "{} bytes of detail", failure.detail.len());
            let late = [FailureKind::ResponseTimeout, FailureKind::BodyTimeout, FailureKind::ConnectTimeout];
            assert!(!late.contains(&failure.kind), "it hangs: {failure}");
        }
    });
});
