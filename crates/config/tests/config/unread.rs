//! What is in the directory of the organizations and is not read: an error or a warning, or nothing to speak of.

use aquarium_config::{Fs, Memory, Severity, load};

use crate::{directory, errors, loaded};

fn warnings(source: &Memory) -> Vec<String> {
    loaded(source).warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_looks_like_an_organization_and_is_not_read_is_warned_about() {
    for (file, said) in [
        ("ACME.TOML", "its ending is not \".toml\" in small letters; rename it to ACME.toml"),
        ("acme.yaml", "its name does not end in \".toml\"; write it as TOML, to acme.toml"),
        ("acme.json", "its name does not end in \".toml\"; write it as TOML, to acme.toml"),
        ("acme.toml.txt", "its name does not end in \".toml\"; rename it to acme.toml"),
        ("acme", "its name does not end in \".toml\"; rename it to acme.toml"),
        (
            "eu/x.toml",
            "the files of organizations are not in directories of their own; move it to organizations",
        ),
        (
            "eu/north/x.toml",
            "the files of organizations are not in directories of their own; move it to organizations",
        ),
    ] {
        let found = warnings(&directory("", "").file(format!("organizations/{file}"), "version = 1\n"));
        let [warning] = found.as_slice() else { panic!("{file}: {found:?}") };
        assert!(
            warning.starts_with(&format!("organizations/{file}: warning: is not read: {said}")),
            "{warning}"
        );
    }
}

#[test]
fn what_is_used_hidden_or_left_behind_is_not_warned_about() {
    let source = directory("", "secret = { file = \"acme.conf\" }\n")
        .file("organizations/acme.conf", "correct-horse-battery-staple\n");
    assert_eq!(warnings(&source), [""; 0], "the configuration refers to it");
    let source = directory("[ingest]\ntoken = { file = \"./organizations/../organizations/token\" }\n", "")
        .file("organizations/token", "correct-horse-battery-staple\n");
    assert_eq!(warnings(&source), [""; 0], "the configuration refers to it");
    let mut source = directory("", "");
    for harmless in [
        ".acme.toml.swp",
        "acme.toml~",
        "#acme.toml#",
        ".#acme.toml",
        "4913",
        "acme.toml.orig",
        "acme.toml.bak",
        "README.md",
        "..data/x.toml",
        ".git/x.toml",
        "old.bak/x.toml",
        "acme.toml.disabled",
        "LICENSE",
        "eu/README.md",
        "eu/x.yaml~",
    ] {
        source = source.file(format!("organizations/{harmless}"), "[");
    }
    assert_eq!(warnings(&source), [""; 0]);
}

#[test]
fn a_directory_with_the_name_of_an_organization_is_an_error() {
    let said =
        errors(&directory("", "").file("organizations/beta.toml/beta.toml", "version = 1\n")).to_string();
    assert_eq!(
        said,
        "organizations/beta.toml: is a directory, and has the name of an organization's file; put the file itself there, or \
         rename the directory"
    );
}

#[test]
fn that_there_is_no_organization_is_a_warning() {
    let source = Memory::new().file("aquarium.toml", "version = 1\n").directory("organizations", 0);
    let found = warnings(&source);
    assert!(
        found[0].starts_with("organizations: warning: there is no organization: every event is refused"),
        "{found:?}"
    );
}

#[test]
fn many_files_that_are_not_read_are_warned_about_in_few_lines() {
    let mut source = directory("", "");
    for number in 0..500 {
        source = source
            .file(format!("organizations/a{number}.yaml"), "")
            .file(format!("organizations/d{number}/x.toml"), "");
    }
    let found = warnings(&source);
    assert_eq!(found.len(), 21);
    assert!(found[20].ends_with("more files in it are not read"), "{}", found[20]);
}

/// On a real file system, with links in circles.
#[test]
fn links_that_lead_in_circles_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    std::fs::create_dir_all(root.join("organizations/eu")).unwrap();
    std::fs::write(root.join("aquarium.toml"), "version = 1\n").unwrap();
    std::fs::write(root.join("organizations/eu/x.toml"), "version = 1\n").unwrap();
    std::fs::write(root.join("organizations/acme.toml"), "version = 1\n").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("..", root.join("organizations/eu/up")).unwrap();
    let loaded = load(root, &Fs).unwrap();
    assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    assert!((1..=21).contains(&loaded.warnings.len()), "{:?}", loaded.warnings);
    assert!(loaded.inputs.are_unchanged(&Fs));
}
