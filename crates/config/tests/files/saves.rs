//! The ways in which programs save a file.

use std::fs::{File, Permissions, set_permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use aquarium_config::reload::{QUIET, QUIET_AT_MOST};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::following::place;
use crate::{ACME, AQUARIUM, By, Files, Following, SECRET, acme};

const NEW_URL: &str = "acme/p/ops: new url";
/// How long a file is away that is not just being saved.
const AWAY: Duration = Duration::from_secs(3);

pub(crate) async fn in_place(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    following.came(&[NEW_URL]);
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_read() {
    in_place(By::Watcher).await;
}

pub(crate) async fn by_rename(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.replace(ACME, acme("second"));
    following.comes("second").await;
    following.came(&[NEW_URL]);
}

#[tokio::test]
async fn a_file_that_another_is_renamed_over_is_read() {
    by_rename(By::Watcher).await;
}

#[tokio::test]
async fn a_file_that_is_renamed_to_a_backup_and_written_anew_is_read() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.write("organizations/4913", "");
    following.files.remove("organizations/4913");
    following.files.rename(ACME, "organizations/acme.toml~");
    following.files.write(ACME, acme("second"));
    following.files.remove("organizations/acme.toml~");
    following.comes("second").await;
    following.came(&[NEW_URL]);
}

#[tokio::test]
async fn a_file_that_is_empty_for_a_moment_is_no_error() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.write(ACME, "");
    sleep(Duration::from_millis(400)).await;
    assert_eq!(following.place().unwrap(), "first");
    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    following.came(&[NEW_URL]);
}

#[tokio::test]
async fn a_file_that_is_saved_in_two_parts_loses_no_webhook() {
    let both =
        |at: &str| acme(at) + &acme(at)[acme(at).find("[projects").unwrap()..].replace("ops]", "labels]");
    let files = Files::new();
    files.write(ACME, both("first"));
    let following = Following::start(files, By::Watcher).await;
    let content = both("second");
    let border = content.rfind("[projects").unwrap();
    let mut file = File::create(following.files.path(ACME)).unwrap();
    file.write_all(&content.as_bytes()[..border]).unwrap();
    sleep(QUIET + Duration::from_millis(50)).await;
    file.write_all(&content.as_bytes()[border..]).unwrap();
    following.comes("second").await;
    following.came(&["acme/p/labels: new url\nacme/p/ops: new url"]);
}

/// A volume is unmounted, and mounted again.
#[tokio::test]
async fn a_directory_that_is_emptied_for_a_while_is_refused_until_it_is_filled() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.rename("organizations", "../elsewhere");
    following.files.make("organizations");
    let error = following.rejected().await;
    assert!(
        error.starts_with("organizations: no organization has a file in it any more, and there were 1"),
        "{error}"
    );
    assert_eq!(following.place().unwrap(), "first");
    following.files.clear("organizations");
    following.files.rename("../elsewhere", "organizations");
    following.soon(|_, status| status.rejected.is_none()).await;
    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    assert_eq!(following.history(), [NEW_URL]);
}

#[tokio::test]
async fn aquarium_toml_that_is_gone_for_a_moment_is_no_error() {
    let following = Following::start(Files::new(), By::Watcher).await;
    let content = following.files.read(AQUARIUM);
    following.files.remove(AQUARIUM);
    sleep(Duration::from_millis(300)).await;
    following.files.write(AQUARIUM, format!("{content}max_event_size = \"2MiB\"\n"));
    following.soon(|config, _| config.ingest.max_event_size == 2 << 20).await;
    following.came(&["ingest.max_event_size: changed"]);
}

#[tokio::test]
async fn an_organization_whose_file_is_gone_for_a_moment_comes_back() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.remove(ACME);
    sleep(Duration::from_millis(300)).await;
    following.files.write(ACME, acme("second"));
    following.comes("second").await;
    assert_eq!(following.rejections(), 0);
    following.came(&[NEW_URL]);
}

/// All at once, since each takes its time.
#[tokio::test]
async fn a_file_that_is_away_for_long_is_missed_until_it_is_back() {
    tokio::join!(truncated_for_long(), aquarium_toml_gone_for_long(), organization_gone_for_long());
}

async fn truncated_for_long() {
    let following = Following::start(Files::new(), By::Watcher).await;
    let back = Instant::now() + AWAY;
    following.files.write(ACME, "");
    let error = following.rejected().await;
    assert!(
        error.starts_with("organizations/acme.toml:1:1: the file is empty, or not written yet"),
        "{error}"
    );
    sleep_until(back).await;
    assert_eq!((following.place().unwrap().as_str(), following.history()), ("first", vec![]));

    following.files.write(ACME, acme("second"));
    following.eventually(|_, status| status.generation == 2 && status.rejected.is_none()).await;
    assert_eq!((following.history(), following.rejections()), (vec![NEW_URL.to_owned()], 1));
}

async fn aquarium_toml_gone_for_long() {
    let following = Following::start(Files::new(), By::Watcher).await;
    let (content, back) = (following.files.read(AQUARIUM), Instant::now() + AWAY);
    following.files.remove(AQUARIUM);
    let error = following.rejected().await;
    assert_eq!(error, "aquarium.toml: cannot be read: there is no such file");
    sleep_until(back).await;
    assert_eq!((following.place().unwrap().as_str(), following.history()), ("first", vec![]));

    following.files.write(AQUARIUM, format!("{content}max_event_size = \"2MiB\"\n"));
    following.eventually(|_, status| status.generation == 2 && status.rejected.is_none()).await;
    assert_eq!(following.history(), ["ingest.max_event_size: changed"]);
    assert_eq!(following.rejections(), 1);
}

/// That is no error: it is how an organization is removed.
async fn organization_gone_for_long() {
    let files = Files::new();
    files.write("organizations/beta.toml", acme("beta"));
    let following = Following::start(files, By::Watcher).await;
    let back = Instant::now() + AWAY;
    following.files.remove(ACME);
    following.soon(|config, status| config.organization("acme").is_none() && status.generation == 2).await;
    sleep_until(back).await;
    assert_eq!(following.generation(), 2);

    following.files.write(ACME, acme("second"));
    following.eventually(|_, status| status.generation == 3).await;
    assert_eq!(following.place().unwrap(), "second");
    following.came(&[
        "acme: organization removed\nacme/p/ops: removed",
        "acme: organization added\nacme/p/ops: added",
    ]);
}

pub(crate) async fn emptied(by: By) {
    let following = Following::start(Files::new(), by).await;
    following.files.replace(AQUARIUM, "");
    let error = following.rejected().await;
    assert!(error.starts_with("aquarium.toml:1:1: the file is empty, or not written yet"), "{error}");
    assert_eq!((following.place().unwrap().as_str(), following.history()), ("first", vec![]));
    assert_eq!((following.generation(), following.rejections()), (1, 1));
}

#[tokio::test]
async fn an_empty_file_is_rejected() {
    emptied(By::Watcher).await;
}

/// What has no effect is looked at, and neither loaded nor told.
async fn is_of_no_consequence(act: impl FnOnce(&Files)) {
    let following = Following::start(Files::new(), By::Watcher).await;
    let (loads, told) = (following.loads(), following.told());
    following.noticed(act).await;
    assert_eq!((following.generation(), following.loads()), (1, loads));
    assert_eq!((following.told(), following.history()), (told, vec![]));
}

#[tokio::test]
async fn another_mode_alone_is_no_change() {
    let chmod = |files: &Files, path, mode| {
        set_permissions(files.path(path), Permissions::from_mode(mode)).unwrap();
    };
    tokio::join!(
        is_of_no_consequence(|files| chmod(files, ACME, 0o600)),
        is_of_no_consequence(|files| chmod(files, SECRET, 0o640)),
    );
}

#[tokio::test]
async fn another_time_alone_is_no_change() {
    is_of_no_consequence(|files| {
        let file = File::options().write(true).open(files.path(ACME)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_same_content_again_is_no_change() {
    is_of_no_consequence(|files| files.replace(ACME, acme("first"))).await;
}

#[tokio::test]
async fn what_editors_leave_beside_a_file_is_no_change() {
    is_of_no_consequence(|files| {
        for dropping in
            [".acme.toml.swp", "acme.toml~", "4913", "#acme.toml#", ".#acme.toml", "acme.toml.orig"]
        {
            files.write(&format!("organizations/{dropping}"), "[");
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_content_after_a_moment_is_no_news() {
    let following = Following::start(Files::new(), By::Watcher).await;
    following.files.write(ACME, "");
    sleep(2 * QUIET).await;
    following.files.write(ACME, acme("first"));
    following.rest().await;
    assert_eq!((following.generation(), following.told()), (1, vec![]));
}

#[tokio::test]
async fn a_look_at_the_files_is_no_reason_for_another() {
    let following = Following::start(Files::new(), By::Watcher).await;
    let looks = following.looks();
    sleep(5 * QUIET).await;
    assert_eq!(following.looks(), looks);
}

#[tokio::test]
async fn of_many_saves_in_a_row_few_are_read_and_the_last_one_wins() {
    const SAVES: usize = 100;
    let following = Following::start(Files::new(), By::Watcher).await;
    let (before, started) = (following.loads(), Instant::now());
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The files are read when the saves have gone on for long enough, when they pause, which they do if the machine is
    // busy with other things, and at the end.
    let (mut occasions, mut last) = (1, Instant::now());
    for save in 1..=SAVES {
        tick.tick().await;
        if save % 2 == 0 {
            following.files.write(ACME, acme(&save.to_string()));
        } else {
            following.files.replace(ACME, acme(&save.to_string()));
        }
        occasions += usize::from(last.elapsed() > QUIET / 2);
        last = Instant::now();
    }
    occasions += usize::try_from(started.elapsed().as_millis() / QUIET_AT_MOST.as_millis()).unwrap();
    following.eventually(|config, _| place(config) == Some(SAVES.to_string())).await;
    following.rest().await;

    let loads = following.loads() - before;
    println!("{SAVES} saves in {:?}: {loads} loads", last - started);
    // Each may find a file that is being written, and is then repeated.
    assert!(loads <= 2 * occasions, "{loads} loads on {occasions} occasions");
    following.came(&vec![NEW_URL; following.history().len()]);
}
