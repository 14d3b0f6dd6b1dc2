//! Files that are saved in parts, directories that are emptied or unmounted: what is in force is not lost by it.

use std::sync::Arc;
use std::time::Duration;

use aquarium_config::Memory;
use aquarium_config::reload::{DOUBT_AT_MOST, POLL, QUIET, QUIET_AT_MOST, Refused, ReloadOptions, SETTLE};
use tokio::time::{Instant, sleep};

use crate::reloading::{Following, OPS, about, follow, follow_these};

const ACME: &str = "organizations/acme.toml";
/// How long programs may pause in the middle of a file: longer than the files have to be quiet.
const PAUSE: Duration = Duration::from_millis(250);

/// An organization's file with everything that must not be lost.
const FULL: &str = r#"version = 1
secret = { file = "../acme" }

[projects.p.webhooks.ops]
url = "https://ops.example.com/first"
events = ["dataset-complete"]
headers = { X-Team = "blue" }
concurrency = 16
active = false

[projects.q.webhooks.labels]
url = "https://labels.example.com/"
events = ["*"]
order = "fifo"
"#;
const MAIN: &str = "version = 1\n\n[delivery]\nconcurrency = 12\n\n[egress]\nallow = [\"10.0.0.0/8\"]\n\n\
    [events]\ncustom = [\"model-trained\"]\n";

fn files() -> Memory {
    Memory::new()
        .file("aquarium.toml", MAIN)
        .file("acme", "the-first-secret-of-acme")
        .file(ACME, FULL)
        .file("organizations/beta.toml", format!("version = 1\n{OPS}"))
}

/// Saves the first part of a file, and the rest after a pause; returns whether the first part ever counted.
async fn saved_in_two(following: &Following, file: &str, content: &str, at: usize) -> bool {
    let before = following.config();
    following.disk.write(file, &content[..at]);
    following.hints.give();
    sleep(QUIET + PAUSE).await;
    let counted = !Arc::ptr_eq(&following.config(), &before);
    following.disk.write(file, content);
    following.hints.give();
    sleep(QUIET_AT_MOST + DOUBT_AT_MOST).await;
    counted
}

#[tokio::test(start_paused = true)]
async fn no_part_of_a_file_takes_anything_away_wherever_it_is_cut() {
    let mut cuts = 0;
    let again = FULL.replace("/first", "/other");
    for (file, old, new) in [
        (ACME, FULL, again.as_str()),
        ("aquarium.toml", MAIN, &MAIN.replace("12", "34")),
        ("acme", "the-first-secret-of-acme", "the-other-secret-of-acme"),
    ] {
        let following = follow_these(files()).await;
        for at in 0..new.len() {
            cuts += 1;
            let counted = saved_in_two(&following, file, new, at).await;
            assert!(!counted, "{file} counts when it ends after {:?}", &new[..at]);
            assert_eq!(following.errors(), [""; 0]);
            following.disk.write(file, old);
            following.handle.reload().await.unwrap();
        }
        assert_eq!(following.handle.status().rejections, 0);
    }
    println!("{cuts} places to cut a file at");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_is_missing_for_a_moment_stays_in_force() {
    let following = follow_these(files()).await;
    let border = FULL.find("\n[projects.q").unwrap() + 1;
    let labels = "acme/q/labels".parse().unwrap();
    following.disk.write(ACME, &FULL[..border]);
    following.hints.give();
    sleep(QUIET + PAUSE).await;
    assert!(following.config().webhook(&labels).is_some());
    let full = FULL.replace("/first", "/other");
    following.disk.write(ACME, &full);
    following.hints.give();
    // What is complete need not settle.
    about(following.next().await, QUIET);
    assert!(following.config().webhook(&labels).is_some());
    assert_eq!((following.generation(), following.handle.status().rejections), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_gone_after_it_has_settled() {
    let border = FULL.find("\n[projects.q").unwrap() + 1;
    type Change = (&'static str, Box<dyn Fn(Memory) -> Memory>);
    let cases: [Change; 5] = [
        ("a webhook", Box::new(move |files| files.file(ACME, &FULL[..border]))),
        ("a key", Box::new(|files| files.file(ACME, FULL.replace("active = false\n", "")))),
        (
            "a secret",
            Box::new(|files| files.file(ACME, FULL.replace("secret = { file = \"../acme\" }\n", ""))),
        ),
        ("an organization", Box::new(|files| files.without(ACME))),
        (
            "a setting",
            Box::new(|files| {
                files.file("aquarium.toml", MAIN.replace("[events]\ncustom = [\"model-trained\"]\n", ""))
            }),
        ),
    ];
    for (what, change) in cases {
        let following = follow_these(files()).await;
        following.disk.change(change);
        following.hints.give();
        let took = following.next().await;
        println!("{what}: {took:?}");
        about(took, QUIET + SETTLE);
    }
}

/// A program that writes a file again and again does not keep what was removed in force for ever.
#[tokio::test(start_paused = true)]
async fn what_is_removed_is_gone_within_the_bound_though_the_file_is_written_all_the_time() {
    for every in [QUIET / 2, QUIET * 2, SETTLE * 4 / 5] {
        let following = follow_these(files()).await;
        let border = FULL.find("\n[projects.q").unwrap() + 1;
        let (disk, hints) = (following.disk.clone(), following.hints.clone());
        let writing = tokio::spawn(async move {
            for number in 0.. {
                disk.write(ACME, &format!("{}# {number}\n", &FULL[..border]));
                hints.give();
                sleep(every).await;
            }
        });
        let took = following.next().await;
        println!("written every {every:?}: {took:?}");
        assert!(took <= QUIET_AT_MOST + DOUBT_AT_MOST + QUIET, "{took:?}");
        writing.abort();
    }
}

fn emptied(files: Memory) -> Memory {
    files.without(ACME).without("organizations/beta.toml").directory("organizations", 0)
}

#[tokio::test(start_paused = true)]
async fn an_emptied_directory_is_refused_until_it_is_filled_or_an_operator_says_so() {
    let following = follow().await;
    let (full, before) = (following.disk.memory(), following.config());
    following.disk.change(emptied);
    following.hint().await;
    let refused = "organizations: no organization has a file in it any more, and there were 2; is the volume mounted? \
        if all are to be removed: aquarium-sidecar config reload --allow-empty";
    assert_eq!(following.errors(), [refused]);
    assert!(Arc::ptr_eq(&following.config(), &before));
    sleep(10 * POLL).await;
    let Err(Refused::Rejected(again)) = following.handle.reload().await else { panic!("it is in force") };
    assert_eq!(
        (again.errors.as_slice(), following.handle.status().rejections),
        (&[refused.to_owned()][..], 1)
    );

    following.disk.change(|_| full);
    following.hint().await;
    assert_eq!((following.errors(), following.generation()), (vec![], 1));

    following.disk.change(emptied);
    let allowed = following.handle.reload_with(ReloadOptions { allow_empty: true }).await.unwrap();
    assert_eq!(allowed.changes.len(), 4, "{:?}", allowed.changes);
    assert!(following.config().organizations.is_empty());
    // It is as if it had been started so.
    following.disk.write("aquarium.toml", "version = 1 # again\n");
    assert_eq!(following.handle.reload().await.unwrap().generation, 3);
    following.disk.acme(OPS);
    assert_eq!(following.handle.reload().await.unwrap().generation, 4);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_was_started_without_organizations_takes_those_that_are_mounted_later() {
    let empty = Memory::new().file("aquarium.toml", "version = 1\n").directory("organizations", 1);
    let following = follow_these(empty).await;
    assert!(!following.handle.status().uncertain.contains("acme"), "there is none");
    following
        .disk
        .change(|files| files.file("acme", "the-first-secret-of-acme\n").directory("organizations", 2));
    following.disk.acme(OPS);
    sleep(2 * POLL).await;
    assert_eq!((following.generation(), following.errors()), (2, vec![]));
    assert!(following.config().organization("acme").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_directory_on_another_device_is_refused_unless_it_says_the_same() {
    let following = follow().await;
    // Mounted anew: another number, the same files. No hint tells of it.
    following.disk.change(|files| files.directory("organizations", 5));
    sleep(2 * POLL).await;
    assert_eq!((following.generation(), following.errors()), (1, vec![]));
    following.disk.acme(&format!("{OPS}timeout = \"3s\""));
    following.hint().await;
    assert_eq!((following.generation(), following.errors()), (2, vec![]), "the device is that of before");

    // Unmounted: what lies below is an old copy.
    following.disk.acme(&format!("{OPS}timeout = \"4s\""));
    following.disk.change(|files| files.directory("organizations", 0));
    sleep(3 * POLL).await;
    let errors = following.errors();
    assert!(errors[0].starts_with("organizations: it is on another device than"), "{errors:?}");
    assert_eq!((following.generation(), following.timeout_of_ops().as_secs()), (2, 3));
    assert!(following.handle.status().uncertain.contains("anyone"));
    let allowed = following.handle.reload_with(ReloadOptions { allow_empty: true }).await.unwrap();
    assert_eq!((allowed.generation, following.timeout_of_ops().as_secs()), (3, 4));
    assert!(!following.handle.status().uncertain.contains("anyone"));
}

#[tokio::test(start_paused = true)]
async fn it_is_uncertain_which_organizations_there_are_while_the_files_cannot_be_used() {
    let following = follow().await;
    let uncertain = || {
        let status = following.handle.status();
        ["acme", "gamma", "delta"].map(|name| status.uncertain.contains(name))
    };
    assert_eq!(uncertain(), [false; 3]);

    // A new one, beside a mistake.
    following.disk.write("organizations/gamma.toml", &format!("version = 1\n{OPS}"));
    following.disk.acme("what is this?");
    following.hints.give();
    sleep(QUIET + SETTLE / 2).await;
    assert_eq!((uncertain(), following.errors()), ([false, true, false], vec![]), "while it settles");
    following.rest().await;
    assert_eq!((uncertain(), following.errors().len()), ([false, true, false], 1), "when it is rejected");
    following.disk.acme(OPS);
    following.hint().await;
    assert_eq!((uncertain(), following.errors()), ([false; 3], vec![]));
    assert!(following.config().organization("gamma").is_some());

    // Nothing can be told from a directory that is empty, or not there.
    for change in
        [emptied as fn(Memory) -> Memory, |files| files.without("organizations/beta.toml").without(ACME)]
    {
        let before = following.disk.memory();
        following.disk.change(|files| change(files).without("organizations/gamma.toml"));
        following.hints.give();
        sleep(QUIET + SETTLE / 2).await;
        assert_eq!(uncertain(), [true; 3]);
        following.rest().await;
        assert_eq!(uncertain(), [true; 3]);
        following.disk.change(|_| before);
        following.hint().await;
        assert_eq!((uncertain(), following.errors()), ([false; 3], vec![]));
    }

    // What passes leaves nothing behind.
    following.disk.write(ACME, "");
    following.disk.write("organizations/delta.toml", "");
    following.hints.give();
    sleep(QUIET + SETTLE / 2).await;
    assert_eq!(uncertain(), [false, false, true]);
    following.disk.acme(OPS);
    following.disk.change(|files| files.without("organizations/delta.toml"));
    following.hints.give();
    let started = Instant::now();
    following.handle.reload().await.unwrap();
    assert!(started.elapsed() < SETTLE);
    assert_eq!((uncertain(), following.generation()), ([false; 3], 2));
}
