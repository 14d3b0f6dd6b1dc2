//! TLS: whom an endpoint is trusted by, and what it is shown.

use aquarium_egress::{ClientCertificate, Tls, TlsError};
use aquarium_testkit::certificates::{Shown, self_signed};
use rustls::ServerConfig;

use super::*;

const NAMES: &[&str] = &["127.0.0.1"];

fn trusting(authority: &Authority) -> Egress {
    egress(Roots::Pem(authority.pem().as_bytes().to_vec()))
}

fn tls(ca: Option<&Authority>, shown: Option<&Shown>) -> Arc<Tls> {
    let client = shown
        .map(|shown| ClientCertificate { chain: shown.certificate.as_bytes(), key: shown.key.as_bytes() });
    Arc::new(Tls::new(ca.map(|ca| ca.pem().as_bytes()), client).unwrap())
}

async fn send_with(egress: &Egress, url: &str, tls: Arc<Tls>) -> Sent {
    let endpoint = Endpoint::new(url, [], TIMEOUT, TIMEOUT).unwrap().with_tls(tls);
    egress.send(&endpoint, message(), pending()).await.unwrap()
}

/// What went wrong with TLS.
fn reason(sent: &Sent) -> &str {
    match &sent.outcome {
        Outcome::Failed(failure) if failure.kind == FailureKind::Tls => &failure.detail,
        other => panic!("{other:?}"),
    }
}

async fn serve(config: ServerConfig) -> Receiver {
    Receiver::builder().tls(config).start().await
}

#[tokio::test]
async fn a_certificate_must_be_valid_for_the_host_and_from_a_trusted_authority() {
    let authority = Authority::new();
    let egress = trusting(&authority);
    let genuine = serve(authority.server(NAMES)).await;
    let sent = send(&egress, &genuine.url("/")).await;
    assert_eq!(sent.outcome, answered(204));
    assert!(sent.phases.tls.is_some());

    let expired = serve(authority.expired(NAMES)).await;
    let sent = send(&egress, &expired.url("/")).await;
    let expected = "the certificate has expired (subject CN=127.0.0.1, issued by CN=testkit ";
    assert!(reason(&sent).starts_with(expected), "{}", reason(&sent));
    let dates = ", valid from 2001-01-01T00:00:00Z until 2002-01-01T00:00:00Z)";
    assert!(reason(&sent).ends_with(dates), "{}", reason(&sent));

    let elsewhere = serve(authority.wrong_host()).await;
    let sent = send(&egress, &elsewhere.url("/")).await;
    let expected = "the certificate is not for 127.0.0.1, but for ";
    assert!(reason(&sent).starts_with(expected), "{}", reason(&sent));
    assert!(reason(&sent).contains("elsewhere.invalid"), "{}", reason(&sent));

    for stranger in [self_signed(NAMES), Authority::new().server(NAMES)] {
        let receiver = serve(stranger).await;
        let sent = send(&egress, &receiver.url("/")).await;
        let expected = "the certificate's issuer is not trusted (subject CN=127.0.0.1, issued by CN=";
        assert!(reason(&sent).starts_with(expected), "{}", reason(&sent));
        assert_eq!(receiver.count(), 0);
    }
}

#[tokio::test]
async fn an_older_tls_is_spoken_with_who_knows_no_newer() {
    let authority = Authority::new();
    let receiver = serve(authority.only_tls12(NAMES)).await;
    let egress = trusting(&authority);
    for _ in 0..2 {
        assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_can_have_an_authority_of_its_own() {
    let (common, own) = (Authority::new(), Authority::new());
    let (ordinary, special) = (serve(common.server(NAMES)).await, serve(own.server(NAMES)).await);
    let egress = trusting(&common);
    assert_eq!(send(&egress, &ordinary.url("/")).await.outcome, answered(204));
    assert!(reason(&send(&egress, &special.url("/")).await).contains("is not trusted"));
    assert_eq!(send_with(&egress, &special.url("/"), tls(Some(&own), None)).await.outcome, answered(204));
    let sent = send_with(&egress, &ordinary.url("/"), tls(Some(&own), None)).await;
    assert!(reason(&sent).contains("is not trusted"), "{}", reason(&sent));
    assert_eq!(ordinary.count(), 1, "the connection that is there was made for another trust");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let egress = trusting(&authority);
    let shown = clients.client_certificate("aquarium");
    let of_a_stranger = Authority::new().client_certificate("aquarium");
    let both = || [&["http/1.1"][..], &["h2", "http/1.1"]];
    for protocols in both() {
        let receiver = serve(with_protocols(authority.requiring(NAMES, &clients), protocols)).await;
        let url = receiver.url("/");
        let sent = send(&egress, &url).await;
        assert!(reason(&sent).contains("requires a client certificate"), "{}", reason(&sent));
        let sent = send_with(&egress, &url, tls(None, Some(&of_a_stranger))).await;
        assert!(reason(&sent).contains("does not accept the client certificate"), "{}", reason(&sent));
        assert_eq!(receiver.count(), 0);
    }
    let receiver = serve(authority.requiring(NAMES, &clients)).await;
    let with = tls(None, Some(&shown));
    for _ in 0..2 {
        assert_eq!(send_with(&egress, &receiver.url("/"), with.clone()).await.outcome, answered(204));
    }
    assert_eq!(receiver.connections(), 1);
    let sent = send(&egress, &receiver.url("/")).await;
    assert!(reason(&sent).contains("requires a client certificate"), "not over the connection of another");
    // And to nobody else.
    let plain = serve(authority.server(NAMES)).await;
    assert_eq!(send_with(&egress, &plain.url("/"), with).await.outcome, answered(204));
}

#[test]
fn what_cannot_be_used_is_told_beforehand() {
    let authority = Authority::new();
    let (one, other) = (authority.client_certificate("one"), authority.client_certificate("other"));
    let new = |chain: &str, key: &str| {
        Tls::new(None, Some(ClientCertificate { chain: chain.as_bytes(), key: key.as_bytes() })).unwrap_err()
    };
    assert!(matches!(new(&one.certificate, &other.key), TlsError::KeyMismatch));
    assert!(matches!(new(&one.certificate, "nothing"), TlsError::Key(_)));
    assert!(matches!(new("nothing", &one.key), TlsError::NoCertificate));
    assert!(matches!(Tls::new(Some(b"nothing"), None), Err(TlsError::NoCertificate)));
    let shown = ClientCertificate { chain: one.certificate.as_bytes(), key: one.key.as_bytes() };
    let debug = format!("{shown:?} {:?}", Tls::new(None, Some(shown)).unwrap());
    assert_eq!(debug, "ClientCertificate(..) Tls { roots: false, client: true, .. }");
}
