//! Reloads that are asked for, and the start.

use aquarium_config::reload::{Refused, Reloaded};

use crate::{ACME, By, Files, Following, acme};

#[tokio::test]
async fn who_asks_is_told_what_came_of_it() {
    // Nothing else tells of the changes in time.
    let following = Following::start(Files::new(), By::Poll).await;
    let nothing = following.handle.reload().await.unwrap();
    assert_eq!(nothing, Reloaded { generation: 1, changes: vec![] });

    following.files.replace(ACME, acme("second"));
    let changed = following.handle.reload().await.unwrap();
    assert_eq!(changed, Reloaded { generation: 2, changes: vec!["acme/p/ops: new url".to_owned()] });
    assert_eq!(following.place().unwrap(), "second");

    following.files.replace(ACME, "version = 2\n");
    let Err(Refused::Rejected(rejected)) = following.handle.reload().await else {
        panic!("it cannot be in force");
    };
    assert!(rejected.errors[0].contains("acme.toml:1:11: this version of the format is not known"));
    assert_eq!(following.handle.status().rejected, Some(rejected));
    assert_eq!((following.place().unwrap().as_str(), following.generation()), ("second", 2));

    following.files.replace(ACME, acme("second"));
    let nothing = following.handle.reload().await.unwrap();
    assert_eq!(nothing, Reloaded { generation: 2, changes: vec![] });
}

#[tokio::test]
async fn a_change_between_loading_and_watching_is_found() {
    let late = |files: &Files| files.replace(ACME, acme("second"));
    let following = Following::start_late(Files::new(), By::Watcher, late);
    following.comes("second").await;
    assert_eq!(following.history(), ["acme/p/ops: new url"]);
}
