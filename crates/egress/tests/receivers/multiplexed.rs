//! HTTP/2, against servers that limit, refuse and say goodbye.

use std::future::poll_fn;
use std::sync::Mutex;

use h2::server::{Builder, Connection, SendResponse, handshake};
use h2::{Reason, RecvStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use super::*;

const BOUND: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(5);

type Stream = TlsStream<TcpStream>;
type Incoming2 = (Request<RecvStream>, SendResponse<Bytes>);

/// A TLS listener that offers HTTP/2, and somebody who trusts it.
struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    url: String,
    egress: Egress,
}

impl Server {
    async fn start() -> Server {
        let authority = Authority::new();
        let egress = egress(Roots::Pem(authority.pem().as_bytes().to_vec()));
        let config = with_protocols(authority.server(&["127.0.0.1"]), &["h2", "http/1.1"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/hook", listener.local_addr().unwrap());
        Server { listener, acceptor: TlsAcceptor::from(Arc::new(config)), url, egress }
    }

    async fn accept(&self) -> Stream {
        self.acceptor.accept(self.listener.accept().await.unwrap().0).await.unwrap()
    }

    async fn send(&self) -> Sent {
        let endpoint = Endpoint::new(&self.url, [], LONG, LONG).unwrap();
        let sent = tokio::time::timeout(BOUND, self.egress.send(&endpoint, message(), pending())).await;
        sent.expect("an attempt ends by its deadline").expect("what is not withdrawn is sent")
    }
}

fn respond(response: &mut SendResponse<Bytes>) {
    response.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
}

async fn next(connection: &mut Connection<Stream, Bytes>) -> Incoming2 {
    connection.accept().await.expect("a request comes").unwrap()
}

/// Goes on with a connection until it ends.
async fn finish(mut connection: Connection<Stream, Bytes>) {
    while let Some(Ok((_, mut response))) = connection.accept().await {
        respond(&mut response);
    }
}

#[tokio::test]
async fn a_burst_of_first_requests_opens_one_connection() {
    let server = Arc::new(Server::start().await);
    let connections = Arc::new(AtomicUsize::new(0));
    let (accepting, counter) = (server.clone(), connections.clone());
    let serving = tokio::spawn(async move {
        loop {
            let stream = accepting.accept().await;
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move { finish(handshake(stream).await.unwrap()).await });
        }
    });
    let mut sending = JoinSet::new();
    for _ in 0..64 {
        let server = server.clone();
        sending.spawn(async move { server.send().await.outcome });
    }
    assert!(sending.join_all().await.iter().all(|outcome| *outcome == answered(204)));
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    serving.abort();
}

#[tokio::test]
async fn no_connection_gets_more_requests_than_it_takes_at_a_time() {
    const LIMIT: usize = 4;
    const REQUESTS: usize = 10;
    let server = Arc::new(Server::start().await);
    let most = Arc::new(Mutex::new(Vec::new()));
    let arrived = Arc::new(AtomicUsize::new(0));
    let (accepting, seen, counter) = (server.clone(), most.clone(), arrived.clone());
    let serving = tokio::spawn(async move {
        loop {
            let stream = accepting.accept().await;
            let (seen, counter) = (seen.clone(), counter.clone());
            tokio::spawn(async move {
                let builder = Builder::new().max_concurrent_streams(LIMIT as u32).handshake(stream);
                let mut connection: Connection<_, Bytes> = builder.await.unwrap();
                let mut held = Vec::new();
                // Answers nothing until all have come, over whatever connections it takes.
                while counter.load(Ordering::SeqCst) < REQUESTS {
                    let waiting = tokio::time::timeout(Duration::from_millis(5), connection.accept());
                    if let Ok(Some(request)) = waiting.await {
                        held.push(request.unwrap());
                        counter.fetch_add(1, Ordering::SeqCst);
                    }
                }
                seen.lock().unwrap().push(held.len());
                for (_, response) in &mut held {
                    respond(response);
                }
                finish(connection).await;
            });
        }
    });
    let mut sending = JoinSet::new();
    for _ in 0..REQUESTS {
        let server = server.clone();
        sending.spawn(async move { server.send().await.outcome });
    }
    assert!(sending.join_all().await.iter().all(|outcome| *outcome == answered(204)));
    let most = most.lock().unwrap().clone();
    assert!(most.iter().all(|held| *held <= LIMIT), "{most:?}");
    assert_eq!((most.iter().sum::<usize>(), most.len()), (REQUESTS, REQUESTS.div_ceil(LIMIT)), "{most:?}");
    serving.abort();
}

#[tokio::test]
async fn a_connection_that_said_goodbye_gets_nothing_more() {
    let server = Server::start().await;
    let serving = async {
        let mut first: Connection<_, Bytes> = handshake(server.accept().await).await.unwrap();
        let (_, mut response) = next(&mut first).await;
        first.graceful_shutdown();
        respond(&mut response);
        let first = tokio::spawn(finish(first));
        let mut second = handshake(server.accept().await).await.unwrap();
        respond(&mut next(&mut second).await.1);
        tokio::spawn(finish(second));
        first.await.unwrap();
    };
    let sending = async {
        assert_eq!(server.send().await.outcome, answered(204));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(server.send().await.outcome, answered(204));
    };
    tokio::time::timeout(BOUND, async { tokio::join!(serving, sending) }).await.unwrap();
}

#[tokio::test]
async fn a_request_that_the_receiver_did_not_look_at_goes_out_again() {
    let server = Server::start().await;
    let serving = async {
        let mut first: Connection<_, Bytes> = handshake(server.accept().await).await.unwrap();
        respond(&mut next(&mut first).await.1);
        next(&mut first).await.1.send_reset(Reason::REFUSED_STREAM);
        first.graceful_shutdown();
        tokio::spawn(finish(first));
        let mut second = handshake(server.accept().await).await.unwrap();
        respond(&mut next(&mut second).await.1);
        // It looked at this one, and did not like it.
        next(&mut second).await.1.send_reset(Reason::INTERNAL_ERROR);
        finish(second).await;
    };
    let sending = async {
        assert_eq!(server.send().await.outcome, answered(204));
        assert_eq!(server.send().await.outcome, answered(204));
        assert_eq!(kind(&server.send().await), Some(FailureKind::Protocol));
        server.egress.reconfigure(options(&[], Roots::Webpki)).unwrap();
    };
    tokio::time::timeout(BOUND, async { tokio::join!(serving, sending) }).await.unwrap();
}

#[tokio::test]
async fn a_body_without_end_ends_the_connection_and_does_not_undo_a_success() {
    let server = Server::start().await;
    let serving = async {
        let mut first: Connection<_, Bytes> = handshake(server.accept().await).await.unwrap();
        let (_, mut response) = next(&mut first).await;
        let mut body = response.send_response(Response::new(()), false).unwrap();
        let first = tokio::spawn(finish(first));
        body.reserve_capacity(16_384);
        while let Some(Ok(capacity)) = poll_fn(|cx| body.poll_capacity(cx)).await {
            body.send_data(vec![b'x'; capacity].into(), false).unwrap();
            body.reserve_capacity(16_384);
        }
        assert_eq!(poll_fn(|cx| body.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
        let mut second = handshake(server.accept().await).await.unwrap();
        respond(&mut next(&mut second).await.1);
        tokio::spawn(finish(second));
        first.await.unwrap();
    };
    let sending = async {
        let sent = server.send().await;
        assert_eq!(sent.outcome, answered(200));
        assert_eq!(sent.excerpt.len(), MAX_EXCERPT);
        assert_eq!(server.send().await.outcome, answered(204));
    };
    tokio::time::timeout(BOUND, async { tokio::join!(serving, sending) }).await.unwrap();
}

/// How much may be read over a connection grows with the requests on it, and with each that comes.
#[tokio::test]
async fn large_answers_to_many_requests_fit_over_one_connection() {
    const REQUESTS: usize = 32;
    let server = Arc::new(Server::start().await);
    let accepting = server.clone();
    let serving = tokio::spawn(async move {
        let mut connection = handshake(accepting.accept().await).await.unwrap();
        let mut answers = JoinSet::new();
        while let Some(Ok((_, mut response))) = connection.accept().await {
            answers.spawn(async move {
                let mut body = response.send_response(Response::new(()), false).unwrap();
                body.send_data(vec![b'x'; MAX_RESPONSE_BODY].into(), true).unwrap();
            });
        }
    });
    for _ in 0..3 {
        let mut sending = JoinSet::new();
        for _ in 0..REQUESTS {
            let server = server.clone();
            sending.spawn(async move { server.send().await.outcome });
        }
        assert!(sending.join_all().await.iter().all(|outcome| *outcome == answered(200)));
    }
    serving.abort();
}

#[tokio::test]
async fn those_who_wait_for_a_connection_go_on_by_themselves_when_it_fails() {
    let server = Arc::new(Server::start().await);
    let accepting = server.clone();
    let serving = tokio::spawn(async move {
        // The first comes to nothing, when the others have begun to wait for it.
        let (stream, _) = accepting.listener.accept().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
        loop {
            let stream = accepting.accept().await;
            tokio::spawn(async move { finish(handshake(stream).await.unwrap()).await });
        }
    });
    let mut sending = JoinSet::new();
    for _ in 0..8 {
        let server = server.clone();
        sending.spawn(async move { server.send().await.outcome });
    }
    let outcomes = sending.join_all().await;
    let delivered = outcomes.iter().filter(|outcome| **outcome == answered(204)).count();
    assert_eq!(delivered, 7, "{outcomes:?}");
    serving.abort();
}
