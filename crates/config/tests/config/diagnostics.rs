//! What is wrong is said where it is, all of it at once, with what would be right.

mod refused;

use aquarium_config::Memory;

use super::{directory, errors, loaded};

/// A good webhook, to add what is wrong to.
const OPS: &str = "[projects.p.webhooks.ops]\nurl = \"https://ops.example.com/\"\nevents = [\"*\"]\n";

#[test]
fn a_file_that_cannot_be_one_is_refused_as_a_whole() {
    let good = || directory("", OPS);
    let table = [
        (
            good().file("aquarium.toml", ""),
            "aquarium.toml:1:1: the file is empty, or not written yet; start the file with version = 1",
        ),
        (
            good().file("aquarium.toml", "# version = 1\n"),
            "aquarium.toml:1:1: the file is empty, or not written yet; start the file with version = 1",
        ),
        (
            good().file("aquarium.toml", "[ingest]\n"),
            r#"aquarium.toml:1:1: "version" is missing: a file without it may be half written; start the file with version = 1"#,
        ),
        (
            good().file("aquarium.toml", "version = 2\n[injest]\n"),
            "aquarium.toml:1:11: this version of the format is not known; accepted: 1",
        ),
        (
            good().file("aquarium.toml", "version = \"1\"\n"),
            r#"aquarium.toml:1:11: "version" must be the integer 1, not a string"#,
        ),
        (
            good().file(
                "aquarium.toml",
                "version = 1\n# \u{fc}"
                    .replace('\u{fc}', "u")
                    .into_bytes()
                    .into_iter()
                    .chain([0xff, b'\n'])
                    .collect::<Vec<u8>>(),
            ),
            "aquarium.toml:2:4: the file is not UTF-8 text",
        ),
        (good().without("aquarium.toml"), "aquarium.toml: cannot be read: there is no such file"),
        (
            good().file("organizations/x.toml", " ".repeat((4 << 20) + 1)),
            "organizations/x.toml: cannot be read: it is larger than 4.0 MiB",
        ),
        (
            good().file("organizations/my org.toml", "version = 1"),
            r#"organizations/my org.toml: "my org" cannot name an organization; accepted: up to 128 letters, digits, ".", "_" and "-", not starting with a sign"#,
        ),
        (
            good()
                .file("secrets/acme", "x".repeat(70_000))
                .file("organizations/acme.toml", "version = 1\nsecret = { file = \"../secrets/acme\" }"),
            r#"organizations/acme.toml:2:19: cannot read file "organizations/../secrets/acme": it is larger than 64.0 KiB"#,
        ),
        (Memory::new(), "aquarium.toml: cannot be read: there is no such file"),
    ];
    for (source, expected) in table {
        assert_eq!(errors(&source).to_string(), expected);
    }
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let aquarium =
        "[delivery]\ngive_up_after = \"1h\"\n[egress]\nallow = [\"::/0\"]\n[events]\ncustom = [\"a\", \"a\"]";
    let acme = "[projects.p.webhooks.w]\nurl = \"https://x.example.com/\"\nevents = [\"*\", \"issue-update\", \"issue-updated\"]";
    let plain = "[projects.p.webhooks.w]\nurl = \"http://x.example.com/\"\nevents = [\"*\"]";
    let table = [
        (
            directory(aquarium, acme),
            r#"aquarium.toml:3:17: warning: deliveries are given up before their last retry, which is after 1day 3h 35m 5s
aquarium.toml:5:9: warning: this allows every address, also the machine's own and its metadata service
aquarium.toml:7:16: warning: "a" is there twice
organizations/acme.toml:4:10: warning: "*" is all events: the others need not be named
organizations/acme.toml:4:32: warning: "issue-updated" is there twice"#,
        ),
        (
            directory("", plain),
            "organizations/acme.toml:3:7: warning: \
             nothing can be sent here: http:// goes only to egress.allow, which is empty",
        ),
    ];
    for (source, expected) in table {
        let warnings: Vec<_> = loaded(&source).warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.join("\n"), expected);
    }
}

#[test]
fn a_directory_that_is_not_there_is_a_mistake() {
    let nothing = errors(&Memory::new());
    assert_eq!(nothing.to_string(), "aquarium.toml: cannot be read: there is no such file");
    let half = errors(&Memory::new().file("aquarium.toml", "version = 1"));
    let expected =
        "organizations: there is no such directory; it may be empty, if there is no organization yet";
    assert_eq!(half.to_string(), expected);
}

#[test]
fn all_errors_of_all_files_are_reported_at_once() {
    let source = directory("[delivery]\njitter = 2\n", "secret = 3\n[projects.p.webhooks.w]\nurl = \"x\"\n")
        .file(
            "organizations/beta.toml",
            "version = 1\n[projects]\n\"\u{fc}\u{fc}\" = {}\n  \"\u{fc}/\" = { x = 1 }\n",
        )
        .file("organizations/gamma.toml", "\u{feff}versoin = 1\r\n")
        .file("organizations/delta.toml", "version = 1\nsecret = \n[projects\n");
    let places: Vec<_> = errors(&source)
        .diagnostics
        .iter()
        .map(|d| (d.file.display().to_string(), d.location.as_ref().map(|at| (at.line, at.column)).unwrap()))
        .collect();
    let places: Vec<_> = places.iter().map(|(file, at)| (file.as_str(), *at)).collect();
    assert_eq!(
        places,
        [
            ("aquarium.toml", (3, 10)),
            ("organizations/acme.toml", (2, 10)),
            ("organizations/acme.toml", (3, 1)),
            ("organizations/acme.toml", (4, 7)),
            ("organizations/beta.toml", (4, 3)),
            ("organizations/delta.toml", (2, 10)),
            ("organizations/delta.toml", (3, 10)),
            ("organizations/gamma.toml", (1, 1)),
            ("organizations/gamma.toml", (1, 1)),
        ]
    );
}

#[test]
fn an_error_is_shown_the_way_a_compiler_does() {
    let acme = "[projects.p.webhooks.w]\nurl = \"https://x/\"\nevents = [\"issue-exportd\"] # all of them\n";
    let rendered = errors(&directory("", acme)).diagnostics[0].render(false);
    assert_eq!(
        rendered,
        r#"error: unknown event "issue-exportd"
 --> organizations/acme.toml:4:11
  |
4 | events = ["issue-exportd"] # all of them
  |           ^^^^^^^^^^^^^^^ did you mean "issue-exported"?
  |
  = note: accepted: "*", dataset-complete, dataset-failed, issues-created, issue-updated, issue-exported, test"#
    );
}

#[test]
fn what_is_hidden_or_left_out_does_not_move_what_is_shown() {
    let literal = "[projects.p.webhooks.w]\nurl = \"https://x/\"\nevents = [\"*\"]\n\
        headers = { Authorization = \"Bearer of-a-long-token\", Host = \"x\" }\n";
    let long = format!(
        "[ingest]\nlisten = \"127.0.0.1:1\"\nmax_event_size = {}1{}\n",
        " ".repeat(300),
        " ".repeat(300)
    );
    for (source, column, line) in [
        (directory("", literal), 55, "5 | headers = { Authorization = …, Host = … }"),
        (directory(&long, ""), 318, "4 | ..."),
    ] {
        let errors = errors(&source);
        let rendered = errors.diagnostics[0].render(false);
        assert!(rendered.contains(&format!(":{column}\n")), "{rendered}");
        assert!(rendered.contains(line), "{rendered}");
        assert!(rendered.lines().all(|line| line.chars().count() < 300), "{rendered}");
    }
}
