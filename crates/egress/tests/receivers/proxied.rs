//! A way out that leads through a proxy.

use std::net::IpAddr;

use aquarium_egress::{Resolve, Resolving, Unresolved};
use aquarium_testkit::proxy::{Conduct, Proxy};

use super::*;

/// Leads `hooks.example` to an address that is allowed, and `inside.example` to one that is not.
#[derive(Debug)]
struct Names;

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            match name {
                "hooks.example" => Ok(vec![IpAddr::from([127, 0, 0, 9])]),
                "inside.example" => Ok(vec![IpAddr::from([169, 254, 169, 254])]),
                _ => Err(Unresolved("there is no such name".to_owned())),
            }
        })
    }
}

fn through(proxy: &str, roots: Roots) -> Options {
    Options { proxy: Some(proxy.parse().unwrap()), ..options(&["127.0.0.9/32", "::1/128"], roots) }
}

fn egress_through(proxy: &str, roots: Roots) -> Egress {
    Egress::with_resolver(through(proxy, roots), Vec::new(), Arc::new(Names)).unwrap()
}

/// What is said about the proxy.
fn blamed(sent: &Sent) -> &str {
    match &sent.outcome {
        Outcome::Failed(failure) if failure.kind == FailureKind::Proxy => &failure.detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_request_goes_through_the_proxy_which_is_asked_for_the_address_or_the_name() {
    let authority = Authority::new();
    let (clear, encrypted) = (
        Receiver::start().await,
        Receiver::builder().tls(authority.server(&["hooks.example"])).start().await,
    );
    let (name, address) = ("CONNECT hooks.example:8080 HTTP/1.1", "CONNECT 127.0.0.9:8080 HTTP/1.1");
    // In clear text it is the checked address: what the proxy makes of the name could be a public one.
    for (receiver, scheme, by_address, expected) in [
        (&clear, "http", false, address),
        (&clear, "http", true, address),
        (&encrypted, "https", false, name),
        (&encrypted, "https", true, address),
    ] {
        let before = receiver.count();
        let proxy = Proxy::start(Conduct::Forward(receiver.address())).await;
        let mut options = through(&proxy.url(), Roots::Pem(authority.pem().as_bytes().to_vec()));
        options.proxy = options.proxy.map(|proxy| proxy.by_address(by_address));
        let egress = Egress::with_resolver(options, Vec::new(), Arc::new(Names)).unwrap();
        let url = format!("{scheme}://hooks.example:8080/hook");
        for _ in 0..2 {
            assert_eq!(send(&egress, &url).await.outcome, answered(204));
        }
        assert_eq!(proxy.asked(), [expected], "one connection for both");
        let received = &receiver.received()[before + 1];
        assert_eq!((received.path.as_str(), received.header("host")), ("/hook", Some("hooks.example:8080")));
        assert_eq!(received.header("x-aquarium-secret"), Some("0123456789abcdef"));
    }
}

#[tokio::test]
async fn the_proxy_is_not_asked_for_what_is_not_allowed() {
    let proxy = Proxy::start(Conduct::Hang).await;
    let egress = egress_through(&proxy.url(), Roots::Webpki);
    for (url, expected) in [
        ("https://10.0.0.1/", FailureKind::Blocked),
        ("https://[fd00:ec2::254]/", FailureKind::Blocked),
        ("https://inside.example/", FailureKind::Blocked),
        ("http://93.184.215.14/", FailureKind::Blocked),
        ("https://nowhere.example/", FailureKind::Dns),
    ] {
        assert_eq!(kind(&send(&egress, url).await), Some(expected), "{url}");
    }
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_fails_is_blamed_for_it() {
    for (conduct, said) in [
        (
            Conduct::Say(b"HTTP/1.1 403 For\x1bbidden\r\nContent-Length: 5\r\n\r\nnever".to_vec()),
            "does not answer as one: invalid response status",
        ),
        (
            Conduct::Say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nnever".to_vec()),
            "does not connect to hooks.example:443: 403 Forbidden",
        ),
        (Conduct::Say(b"HTTP/1.1 502\r\n\r\n".to_vec()), "does not connect to hooks.example:443: 502"),
        (Conduct::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "does not answer as one: invalid HTTP version"),
        (Conduct::Say(b"HTTP/1.1 200 OK\r\n\r\nearly".to_vec()), "there is more than an answer"),
        (Conduct::Say(Vec::new()), "does not answer as one: the connection ended"),
        (Conduct::SayForEver(b"HTTP/1.1 200 OK\r\nX-".to_vec()), "does not answer as one"),
        (Conduct::SayForEver(b"X".to_vec()), "does not answer as one"),
        (Conduct::Hang, "no answer of the proxy"),
    ] {
        let proxy = Proxy::start(conduct).await;
        let egress = egress_through(&proxy.url(), Roots::Webpki);
        let sent = send(&egress, "https://hooks.example/").await;
        let detail = blamed(&sent);
        assert!(detail.contains(said) && detail.contains(&proxy.address().to_string()), "{detail}");
    }
    let gone = Proxy::start(Conduct::Hang).await.url();
    tokio::task::yield_now().await;
    let sent = send(&egress_through(&gone, Roots::Webpki), "https://hooks.example/").await;
    assert!(blamed(&sent).contains("cannot be reached"), "{}", blamed(&sent));
    let sent =
        send(&egress_through("http://nowhere.example:1", Roots::Webpki), "https://hooks.example/").await;
    let expected = "the proxy nowhere.example:1 cannot be resolved: there is no such name";
    assert_eq!(blamed(&sent), expected);
}

#[tokio::test]
async fn a_proxy_comes_and_goes_with_the_options() {
    let receiver = Receiver::start().await;
    let proxy = Proxy::start(Conduct::Forward(receiver.address())).await;
    let egress = egress_through(&proxy.url(), Roots::Webpki);
    assert_eq!(send(&egress, "http://[::1]:10009/").await.outcome, answered(204));
    assert_eq!(proxy.asked(), ["CONNECT [::1]:10009 HTTP/1.1"]);
    egress.reconfigure(options(&["127.0.0.0/8"], Roots::Webpki)).unwrap();
    assert_eq!(send(&egress, &receiver.url("/")).await.outcome, answered(204));
    assert_eq!(proxy.asked().len(), 1);
    assert_eq!(receiver.connections(), 2);
}
