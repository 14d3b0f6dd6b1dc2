//! Which changes an attempt is made anew for.

use aquarium_config::{Memory, load};

use super::*;

const ACME: &str = "version = 1\nsecret = { env = \"SECRET\" }\n\
     [projects.urban.webhooks.ops]\nurl = \"https://ops.example\"\nevents = [\"*\"]\n\
     [projects.urban.webhooks.other]\nurl = \"https://other.example\"\nevents = [\"*\"]\n";

/// A configuration made of the three; nothing in it is shared with any other.
fn config(aquarium: &str, acme: &str, secret: &str) -> Config {
    let files = Memory::new()
        .file("c/aquarium.toml", format!("version = 1\n{aquarium}"))
        .file("c/organizations/acme.toml", acme)
        .variable("SECRET", secret)
        .variable("KEY", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    load("c".as_ref(), &files).unwrap().config
}

fn name() -> WebhookName {
    "acme/urban/ops".parse().unwrap()
}

#[test]
fn an_attempt_is_made_anew_when_its_webhook_its_secret_or_the_way_out_changes_and_only_then() {
    const SECRET: &str = "first-secret-0123456789";
    let first = config("", ACME, SECRET);
    let target = Target::new(first.webhook(&name()).unwrap().clone());
    let resolved = Resolved::new(&first, &name(), &target).unwrap();
    for (unrelated, what) in [
        (first.clone(), "the same organization"),
        (config("", ACME, SECRET), "one like it"),
        (config("", &ACME.replace("other.example", "another.example"), SECRET), "another webhook"),
        (config("[events]\ncustom = [\"model-trained\"]", ACME, SECRET), "event types"),
    ] {
        assert!(resolved.is_from(&unrelated), "{what}");
    }
    let gone = Config { organizations: Default::default(), ..first };
    let without = "version = 1\nsecret = { env = \"SECRET\" }\n";
    for (related, what) in [
        (config("", ACME, "second-secret-0123456789"), "secret"),
        (config("", &ACME.replace("secret = { env = \"SECRET\" }\n", ""), SECRET), "no secret"),
        (config("", &format!("signing_key = {{ env = \"KEY\" }}\n{ACME}"), SECRET), "signing key"),
        (config("", &ACME.replace("ops.example", "new.example"), SECRET), "URL"),
        (config("", &ACME.replacen("[\"*\"]", "[\"*\"]\nactive = false", 1), SECRET), "inactive"),
        (config("[egress]\nallow = [\"10.0.0.0/8\"]", ACME, SECRET), "networks"),
        (config("[egress]\nroots = \"webpki\"", ACME, SECRET), "roots"),
        (config("", without, SECRET), "no webhook"),
        (gone, "no organization"),
    ] {
        assert!(!resolved.is_from(&related), "{what}");
    }
}

#[test]
fn what_is_gone_or_inactive_is_not_resolved_and_an_endpoint_is_built_for_another_webhook_only() {
    const SECRET: &str = "first-secret-0123456789";
    let first = config("", ACME, SECRET);
    let known = Target::new(first.webhook(&name()).unwrap().clone());
    let like_it = config("", ACME, SECRET);
    let moved = config("", &ACME.replace("ops.example", "new.example"), SECRET);
    let endpoint = |config: &Config| Resolved::new(config, &name(), &known).unwrap().target.endpoint.unwrap();
    let cached = known.endpoint.as_ref().unwrap();
    assert!(Arc::ptr_eq(&endpoint(&first), cached) && Arc::ptr_eq(&endpoint(&like_it), cached));
    assert_eq!(endpoint(&moved).uri(), "https://new.example/");

    let inactive = ACME.replacen("[\"*\"]", "[\"*\"]\nactive = false", 1);
    for nothing in [inactive.as_str(), "version = 1\n"] {
        assert!(Resolved::new(&config("", nothing, SECRET), &name(), &known).is_none());
    }
}
