//! What the lanes are told.

use aquarium_config::{Memory, load};

use super::*;

/// The one webhook of a configuration with this line in it. It is shared with no other one.
fn webhook(line: &str) -> Arc<Webhook> {
    let acme = format!(
        "version = 1\n[projects.urban.webhooks.ops]\nurl = \"https://ops.example\"\nevents = [\"*\"]\n{line}\n"
    );
    let files = Memory::new().file("c/aquarium.toml", "version = 1").file("c/organizations/acme.toml", acme);
    load("c".as_ref(), &files).unwrap().config.webhooks().next().unwrap().clone()
}

#[test]
fn a_lane_is_told_of_what_changed_once_and_of_nothing_else() {
    let current = webhook("");
    assert_eq!(succeeding(&current, Some(&current)), None);
    assert_eq!(succeeding(&current, Some(&webhook(""))), None, "equal is the same");
    let changed = webhook("timeout = \"3s\"");
    assert_eq!(succeeding(&current, Some(&changed)), Some(changed));
    let removed = succeeding(&current, None).unwrap();
    assert_eq!(removed, webhook("active = false"));
    assert_eq!(succeeding(&removed, None), None, "it knows");
    assert_eq!(succeeding(&removed, Some(&current)), Some(current));
}
