//! Files beside those of the organizations that look as if they were meant to be read, and are not.
//!
//! Decided by the name alone. Hidden files, what editors and package managers leave behind, what is switched off by its name, and
//! what is plainly something else (`README.md`) are none of them.

use std::path::Path;

/// Endings of files that somebody may take for configuration.
const FORMATS: [&str; 9] = ["tml", "tom", "yaml", "yml", "json", "json5", "conf", "cfg", "ini"];

/// What programs add to the name of a file that they put aside or have not finished, and people to one that is not to be used.
const ASIDE: [&str; 31] = [
    "bak",
    "backup",
    "old",
    "orig",
    "rej",
    "save",
    "tmp",
    "temp",
    "new",
    "part",
    "swp",
    "swo",
    "swx",
    "lock",
    "rpmsave",
    "rpmnew",
    "rpmorig",
    "dpkg-old",
    "dpkg-new",
    "dpkg-dist",
    "dpkg-tmp",
    "ucf-old",
    "ucf-new",
    "ucf-dist",
    "disabled",
    "off",
    "example",
    "sample",
    "template",
    "dist",
    "inactive",
];

/// Why a file is not read that looks as if it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stray {
    /// What is wrong with its name.
    pub(crate) reason: &'static str,
    /// What to do about it.
    pub(crate) help: String,
}

/// Why this file in `organizations/` is not read. None if it is read, or has nothing to do with organizations.
pub(crate) fn stray(file: &Path) -> Option<Stray> {
    const ENDING: &str = "its name does not end in \".toml\"";
    let name = file.file_name()?.to_string_lossy();
    if is_not_meant(&name) || name.ends_with(".toml") {
        return None;
    }
    let rename = |stem: &str| format!("rename it to {stem}.toml if it is an organization's");
    let Some((stem, ending)) = name.rsplit_once('.') else {
        // README, LICENSE and Makefile are in capitals.
        let bare =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b'0'..=b'9'));
        return bare.then(|| Stray { reason: ENDING, help: rename(&name) });
    };
    if ending.eq_ignore_ascii_case("toml") {
        return Some(Stray { reason: "its ending is not \".toml\" in small letters", help: rename(stem) });
    }
    if FORMATS.iter().any(|format| ending.eq_ignore_ascii_case(format)) {
        return Some(Stray { reason: ENDING, help: format!("write it as TOML, to {stem}.toml") });
    }
    // An editor that adds an ending of its own: `acme.toml.txt`.
    let (inner, middle) = stem.rsplit_once('.')?;
    middle.eq_ignore_ascii_case("toml").then(|| Stray { reason: ENDING, help: rename(inner) })
}

/// Whether the name of a file or directory says that it is not meant to be read: it is hidden, a leftover, or put aside.
pub(crate) fn is_not_meant(name: &str) -> bool {
    let is_aside = |ending: &str| ASIDE.iter().any(|aside| ending.eq_ignore_ascii_case(aside));
    name.starts_with(['.', '#', '~'])
        || name.ends_with(['~', '#'])
        // Vim writes a file called 4913 to see whether it can.
        || name.bytes().all(|byte| byte.is_ascii_digit())
        || name.contains("___jb_")
        || name.rsplit_once('.').is_some_and(|(_, ending)| is_aside(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_an_organization_are_told_from_those_that_do_not() {
        let strays = [
            "ACME.TOML",
            "acme.Toml",
            "acme.yaml",
            "acme.YML",
            "acme.json",
            "acme.tml",
            "acme.conf",
            "acme.toml.txt",
            "acme",
            "acme-2",
            "a.b.yaml",
        ];
        for name in strays {
            assert!(stray(Path::new(name)).is_some(), "{name}");
        }
        let others = [
            "acme.toml",
            ".toml",
            ".acme.toml.swp",
            ".gitkeep",
            "acme.toml~",
            "#acme.toml#",
            ".#acme.toml",
            "4913",
            "acme.toml.orig",
            "acme.toml.bak",
            "acme.yaml.bak",
            "acme.toml.disabled",
            "acme.toml.dpkg-dist",
            "acme.toml.new",
            "README",
            "LICENSE",
            "README.md",
            "notes.txt",
            "acme.secret",
            "ca.pem",
            "acme.toml___jb_tmp___",
        ];
        for name in others {
            assert_eq!(stray(Path::new(name)), None, "{name}");
        }
        assert!(stray(Path::new("ACME.TOML")).unwrap().help.contains("ACME.toml"));
        assert!(stray(Path::new("acme.toml.txt")).unwrap().help.contains("rename it to acme.toml "));
    }
}
