//! Following without a watcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aquarium_config::Inputs;
use aquarium_config::reload::{FileWatch, Hints, Watch, WatchError};

use crate::{ACME, By, Files, Following, acme, directories, links, promptness, rejected, saves, secrets};

/// All at once, since each takes its time.
#[tokio::test]
async fn the_poll_finds_what_a_watcher_would() {
    let by = By::Poll;
    tokio::join!(
        saves::in_place(by),
        saves::by_rename(by),
        saves::emptied(by),
        secrets::gone(by),
        rejected::reverted(by),
        directories::added_and_removed(by),
        directories::organizations_removed(by),
        directories::secrets_removed(by),
        directories::secrets_elsewhere_removed(by),
        directories::everything_removed(by),
        links::organizations_mounted(by),
        links::secrets_mounted(by),
        links::everything_mounted(by),
        links::retargeted(by),
        links::target_edited(by),
        links::organizations_retargeted(by),
        links::retargeted_on_the_way(by),
        links::release(by),
        promptness::polls(),
        a_watcher_that_comes_late_is_used(),
    );
}

async fn a_watcher_that_comes_late_is_used() {
    let (hints, room) = (Hints::new(), Arc::new(AtomicBool::new(false)));
    let watch = Late { room: room.clone(), watch: FileWatch::new(hints.clone()), inputs: None };
    let mut following = Following::with(Files::new(), By::Poll, Box::new(watch), hints, |_| {});
    following.soon(|_, status| status.watched.is_err()).await;
    let watched = following.handle.status().watched.clone();
    assert_eq!(watched.unwrap_err(), "the configuration's files cannot be watched: there is no room");
    following.files.write(ACME, acme("second"));
    following.comes("second").await;

    room.store(true, Ordering::Relaxed);
    following.soon(|_, status| status.watched.is_ok()).await;
    following.has_watcher();
    following.rest().await;
    following.files.write(ACME, acme("third"));
    following.comes("third").await;
}

/// Has no watcher until there is room for one.
struct Late {
    room: Arc<AtomicBool>,
    watch: FileWatch,
    inputs: Option<Inputs>,
}

impl Watch for Late {
    fn watch(&mut self, inputs: &Inputs) -> Result<(), WatchError> {
        self.inputs = Some(inputs.clone());
        self.renew()
    }

    fn renew(&mut self) -> Result<(), WatchError> {
        match &self.inputs {
            Some(inputs) if self.room.load(Ordering::Relaxed) => self.watch.watch(inputs),
            _ => Err(WatchError("there is no room".to_owned())),
        }
    }
}
