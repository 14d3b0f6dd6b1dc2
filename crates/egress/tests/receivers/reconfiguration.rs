//! Options that change while the way out is in use.

use aquarium_egress::TlsError;
use aquarium_testkit::eventually;

use super::*;

const BOUND: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_address_is_refused_once_its_network_is_not_allowed_any_more() {
    let receiver = Receiver::start().await;
    let egress = egress(Roots::Webpki);
    assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
    assert_eq!(receiver.open_connections(), 1, "there is an idle connection that could be used");
    egress.clone().reconfigure(options(&["10.0.0.0/8"], Roots::Webpki)).unwrap();
    assert_eq!(kind(&send(&egress, &receiver.url("/")).await), Some(FailureKind::Blocked));
    assert_eq!(receiver.count(), 1);
    eventually(BOUND, "the idle connection is closed", async || receiver.open_connections() == 0).await;
}

#[tokio::test]
async fn an_address_is_reached_once_its_network_is_allowed() {
    let receiver = Receiver::start().await;
    let egress = Egress::new(options(&[], Roots::Webpki), Vec::new()).unwrap();
    let clone = egress.clone();
    assert_eq!(kind(&send(&clone, &receiver.url("/")).await), Some(FailureKind::Blocked));
    egress.reconfigure(options(&["127.0.0.0/8"], Roots::Webpki)).unwrap();
    assert_eq!(send(&clone, &receiver.url("/")).await.outcome, answered(204));
}

#[tokio::test]
async fn new_roots_count_for_the_next_connection_and_bad_ones_change_nothing() {
    let authority = Authority::new();
    let receiver = Receiver::builder().tls(authority.server(&["127.0.0.1"])).start().await;
    let egress = egress(Roots::Webpki);
    assert_eq!(kind(&send(&egress, &receiver.url("/")).await), Some(FailureKind::Tls));
    let trusting = Roots::Pem(authority.pem().as_bytes().to_vec());
    egress.reconfigure(options(&["127.0.0.0/8"], trusting)).unwrap();
    assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));

    let refused = egress.reconfigure(options(&[], Roots::Pem(b"nothing".to_vec())));
    assert!(matches!(refused, Err(TlsError::NoCertificate)), "{refused:?}");
    assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
    let connections: Vec<_> = receiver.received().iter().map(|received| received.connection).collect();
    assert_eq!(connections, [1, 1], "not even the connection is another one");
}

#[tokio::test]
async fn an_attempt_under_way_ends_with_the_options_that_it_began_with() {
    let answer = Behaviour::Delay(TIMEOUT / 4, Box::new(Behaviour::status(204)));
    let receiver = Receiver::builder().script(move |_: &_| answer.clone()).start().await;
    let egress = egress(Roots::Webpki);
    let narrowed = async {
        receiver.wait_for(1, BOUND).await;
        egress.reconfigure(options(&[], Roots::Webpki)).unwrap();
    };
    let url = receiver.url("/");
    let (sent, ()) = tokio::join!(send(&egress, &url), narrowed);
    assert_eq!(sent.outcome, answered(204));
}
