//! Files that cannot be used, until they can.

use aquarium_config::reload::Refused;

use crate::{ACME, By, Files, Following, acme};

fn invalid() -> String {
    acme("second").replace("events", "evnets")
}

#[tokio::test]
async fn what_is_wrong_is_told_until_it_is_put_right() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.replace(ACME, invalid());
    let error = following.rejected().await;
    assert!(error.starts_with("organizations/acme.toml:4:1: \"events\" is missing"), "{error}");
    assert_eq!((following.place().unwrap().as_str(), following.generation()), ("first", 1));

    following.files.replace(ACME, acme("second"));
    following.comes("second").await;
    assert_eq!((following.generation(), following.rejections()), (2, 1));
    assert_eq!(following.history(), ["acme/p/ops: new url"]);
}

pub(crate) async fn reverted(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.replace(ACME, invalid());
    following.rejected().await;
    following.files.replace(ACME, acme("first"));
    following.soon(|_, status| status.rejected.is_none()).await;
    assert_eq!((following.generation(), following.rejections(), following.history()), (1, 1, vec![]));
}

#[tokio::test]
async fn what_is_taken_back_leaves_nothing_behind() {
    reverted(By::Watcher).await;
}

#[tokio::test]
async fn the_same_mistake_is_told_once() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.replace(ACME, invalid());
    following.rejected().await;
    following.rest().await;
    let before = following.handle.status().rejected.clone();
    let (loads, told) = (following.loads(), following.told());

    following.noticed(|files| files.replace(ACME, invalid())).await;
    following.poll().await;
    let Err(Refused::Rejected(rejected)) = following.handle.reload().await else {
        panic!("it cannot be in force");
    };
    assert_eq!(Some(rejected), before);
    assert_eq!((following.rejections(), following.loads(), following.told()), (1, loads, told));
}
