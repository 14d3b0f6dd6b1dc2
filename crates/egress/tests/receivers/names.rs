//! Names, whose addresses may be others the next time.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;

use aquarium_egress::{Resolve, Resolving, Unresolved};

use super::*;

/// Answers with what is next in its list, and counts.
#[derive(Debug)]
struct Scripted {
    answers: Mutex<VecDeque<&'static [&'static str]>>,
    asked: AtomicUsize,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = &'static [&'static str]>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            assert_eq!(name, "hooks.example");
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answer = self.answers.lock().unwrap().pop_front();
            let answer = answer.ok_or_else(|| Unresolved("there is no such name".to_owned()))?;
            Ok(answer.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect())
        })
    }
}

/// A receiver at 127.0.0.1, which is all that is allowed, and its URL by name.
async fn receiver() -> (Receiver, String) {
    let closing = Behaviour::status(204).then_close();
    let receiver = Receiver::builder().script(move |_: &_| closing.clone()).start().await;
    let url = format!("http://hooks.example:{}/", receiver.address().port());
    (receiver, url)
}

fn egress_with(resolver: &Arc<Scripted>) -> Egress {
    Egress::with_resolver(options(&["127.0.0.1/32"], Roots::Webpki), Vec::new(), resolver.clone()).unwrap()
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_the_connection_goes_where_was_checked() {
    let (receiver, url) = receiver().await;
    // The second answer would be for somebody who looks it up again to connect.
    let resolver = Scripted::new([&["127.0.0.1"][..], &["127.0.0.2"]]);
    let sent = send(&egress_with(&resolver), &url).await;
    assert_eq!(sent.outcome, answered(204));
    assert!(sent.phases.dns.is_some() && sent.phases.connect.is_some() && sent.phases.first_byte.is_some());
    assert_eq!((resolver.asked(), receiver.count()), (1, 1));
    let host = format!("hooks.example:{}", receiver.address().port());
    assert_eq!(receiver.received()[0].header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_time_is_judged_anew() {
    let (receiver, url) = receiver().await;
    let resolver = Scripted::new([&["127.0.0.1"][..], &["127.0.0.2"], &["169.254.169.254"], &["127.0.0.1"]]);
    let egress = egress_with(&resolver);
    assert_eq!(send(&egress, &url).await.outcome, answered(204));
    for _ in 0..2 {
        assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Blocked));
    }
    assert_eq!(send(&egress, &url).await.outcome, answered(204));
    assert_eq!((resolver.asked(), receiver.count()), (4, 2));
}

#[tokio::test]
async fn of_several_addresses_only_those_that_are_allowed_are_tried() {
    let (receiver, url) = receiver().await;
    let mixed = &["::1", "10.0.0.1", "127.0.0.1", "169.254.169.254"][..];
    let resolver = Scripted::new([mixed, &["::1", "10.0.0.1"], &[]]);
    let egress = egress_with(&resolver);
    assert_eq!(send(&egress, &url).await.outcome, answered(204));
    assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Blocked));
    assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Dns), "it has no address");
    assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Dns), "there is no such name");
    assert_eq!(receiver.count(), 1);
}

/// Of two that are allowed, the first refuses: nothing listens there.
#[tokio::test]
async fn an_address_that_refuses_makes_way_for_the_next() {
    let (receiver, url) = receiver().await;
    let resolver = Scripted::new([&["127.0.0.2", "127.0.0.1"][..], &["127.0.0.2", "127.0.0.3"]]);
    let egress =
        Egress::with_resolver(options(&["127.0.0.0/8"], Roots::Webpki), Vec::new(), resolver).unwrap();
    assert_eq!(send(&egress, &url).await.outcome, answered(204));
    assert_eq!(kind(&send(&egress, &url).await), Some(FailureKind::Connect));
    assert_eq!(receiver.count(), 1);
}
