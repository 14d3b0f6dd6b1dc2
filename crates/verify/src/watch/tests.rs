//! On the real file system, with looks that follow one another closely.

use std::fs;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;

const OLD: &str = "the-old-secret-of-acme";
const NEW: &str = "the-new-secret-of-acme";
const LOOK: Duration = Duration::from_millis(5);

/// A verifier that follows a file in a directory of its own.
struct Followed {
    directory: TempDir,
    path: PathBuf,
    verifier: Verifier,
    following: Following,
    told: Arc<Mutex<Vec<Change>>>,
}

impl Followed {
    /// It follows `name`, which `prepare` has made.
    fn new(name: &str, prepare: impl FnOnce(&Path)) -> Followed {
        let directory = TempDir::new().unwrap();
        prepare(directory.path());
        let path = directory.path().join(name);
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let (verifier, following) =
            follow(path.clone(), LOOK, Secrets::parse, Verifier::new, Verifier::replace, move |change| {
                tell.lock().unwrap().push(change);
            })
            .unwrap();
        Followed { directory, path, verifier, following, told }
    }

    fn with(text: &str) -> Followed {
        Followed::new("secret", |directory| fs::write(directory.join("secret"), text).unwrap())
    }

    fn accepts(&self, secret: &str) -> bool {
        self.verifier.verify_values([secret.as_bytes()]).is_ok()
    }

    /// Puts another file in the place of the one that is followed.
    fn put(&self, text: impl AsRef<[u8]>) {
        let other = self.directory.path().join("other");
        fs::write(&other, text).unwrap();
        fs::rename(other, &self.path).unwrap();
    }

    /// Waits until the last that was told contains `end`. Until then, one of `either` is always accepted.
    fn until(&self, end: &str, either: &[&str]) {
        for _ in 0..4000 {
            assert!(either.iter().any(|secret| self.accepts(secret)), "{either:?}");
            if self.told.lock().unwrap().last().is_some_and(|change| change.to_string().contains(end)) {
                return;
            }
            thread::sleep(LOOK);
        }
        panic!("{end} was not told, but {:?}", self.told.lock().unwrap());
    }

    /// Waits for some looks to be taken, of which nothing may come.
    fn nothing_more(&self) {
        let told = self.told.lock().unwrap().len();
        thread::sleep(LOOK * 20);
        let now = self.told.lock().unwrap();
        assert_eq!(now.len(), told, "{now:?}");
    }
}

#[test]
fn a_secret_that_is_written_in_place_or_renamed_into_it_replaces_the_old_one() {
    let followed = Followed::with(OLD);
    fs::write(&followed.path, NEW).unwrap();
    followed.until("in use now", &[OLD, NEW]);
    assert!(followed.accepts(NEW) && !followed.accepts(OLD));
    followed.told.lock().unwrap().clear();
    followed.put(OLD);
    followed.until("in use now", &[OLD, NEW]);
    assert!(followed.accepts(OLD) && !followed.accepts(NEW));
}

#[test]
fn a_file_that_is_gone_emptied_or_bad_changes_nothing_and_is_told_once() {
    let followed = Followed::with(OLD);
    fs::remove_file(&followed.path).unwrap();
    followed.until("No such file", &[OLD]);
    followed.nothing_more();
    for (text, reason) in [
        (b"".as_slice(), "no secret was given; what was accepted before still is"),
        (b"short", "has 5 characters"),
        (b"\xff\xfe is no text, but long enough", "not UTF-8"),
    ] {
        fs::write(&followed.path, text).unwrap();
        followed.until(reason, &[OLD]);
        followed.nothing_more();
    }
    fs::remove_file(&followed.path).unwrap();
    fs::create_dir(&followed.path).unwrap();
    followed.until("not a regular file", &[OLD]);
    fs::remove_dir(&followed.path).unwrap();
    fs::write(&followed.path, format!("{OLD}\n{NEW}")).unwrap();
    followed.until("in use now", &[OLD]);
    assert!(followed.accepts(NEW));
    followed.nothing_more();
}

#[test]
fn the_swap_of_a_directory_by_kubernetes_is_followed() {
    use std::os::unix::fs::symlink;
    // secret -> ..data/secret, ..data -> ..1; the new version goes to ..2, and ..data is replaced by rename.
    let followed = Followed::new("secret", |mount| {
        fs::create_dir(mount.join("..1")).unwrap();
        fs::write(mount.join("..1/secret"), OLD).unwrap();
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/secret", mount.join("secret")).unwrap();
    });
    let mount = followed.directory.path();
    fs::create_dir(mount.join("..2")).unwrap();
    fs::write(mount.join("..2/secret"), format!("{NEW}\n{OLD}\n")).unwrap();
    symlink("..2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    fs::remove_dir_all(mount.join("..1")).unwrap();
    followed.until("in use now", &[OLD]);
    assert!(followed.accepts(NEW));
}

#[test]
fn a_rotation_by_two_secrets_rejects_neither_side() {
    let followed = Followed::with(&format!("old {OLD}\n"));
    followed.put(format!("new {NEW}\nold {OLD}\n"));
    followed.until("in use now", &[OLD]);
    let verified = followed.verifier.verify_values([OLD.as_bytes()]).unwrap();
    assert_eq!((verified.index, verified.label.as_deref()), (1, Some("old")));
    followed.told.lock().unwrap().clear();
    followed.put(format!("new {NEW}\n"));
    followed.until("in use now", &[NEW]);
    assert!(!followed.accepts(OLD));
}

#[test]
fn what_was_not_changed_does_nothing() {
    let followed = Followed::with(OLD);
    followed.verifier.replace(Secrets::new([NEW]).unwrap());
    followed.put(OLD);
    followed.nothing_more();
    assert!(followed.accepts(NEW) && followed.told.lock().unwrap().is_empty());
}

#[test]
fn a_look_into_the_middle_of_a_change_does_not_count() {
    let seen = |byte| Ok([byte; 32]);
    let gone = || Err(LoadError::in_file(Path::new("secret"), "gone"));
    let mut looks = Looks::after(seen(1));
    let table = [
        (seen(1), false),
        (gone(), false),
        (seen(1), false),
        (seen(2), false),
        (seen(3), false),
        (seen(3), true),
        (seen(3), false),
        (gone(), false),
        (gone(), true),
        (gone(), false),
        (seen(3), false),
        (seen(3), true),
    ];
    for (step, (seen, expected)) in table.into_iter().enumerate() {
        assert_eq!(looks.settle(seen), expected, "step {step}");
    }
}

#[test]
fn the_thread_ends_with_its_handle_and_not_before() {
    let followed = Followed::with(OLD);
    let Followed { directory: _directory, path, verifier, following, told } = followed;
    // Only the thread holds the other one.
    assert_eq!(Arc::strong_count(&told), 2);
    drop(following);
    assert_eq!(Arc::strong_count(&told), 1);
    fs::write(&path, NEW).unwrap();
    thread::sleep(LOOK * 20);
    assert!(verifier.verify_values([OLD.as_bytes()]).is_ok());
}

#[test]
fn who_panics_when_told_does_not_end_the_following() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, OLD).unwrap();
    let (verifier, _following) =
        follow(path.clone(), LOOK, Secrets::parse, Verifier::new, Verifier::replace, |_| {
            panic!("on purpose")
        })
        .unwrap();
    for secret in [NEW, OLD] {
        fs::write(&path, secret).unwrap();
        let accepted = || verifier.verify_values([secret.as_bytes()]).is_ok();
        assert!((0..2000).any(|_| accepted() || (thread::sleep(LOOK), false).1));
    }
}

#[test]
fn what_cannot_be_followed_is_refused_at_the_start() {
    let directory = TempDir::new().unwrap();
    let refused = |path: &Path| Verifier::follow_file(path, |_| {}).unwrap_err().to_string();
    assert!(refused(directory.path()).ends_with("it is not a regular file"));
    assert!(refused(&directory.path().join("missing")).contains("missing: No such file"));
    assert!(refused(Path::new("/dev/null")).ends_with("it is not a regular file"));
}

#[test]
#[cfg(feature = "signature")]
fn keys_are_followed_too() {
    use crate::signature;
    let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, old).unwrap();
    // At the pace of everybody.
    let (verifier, _following) = signature::Verifier::follow_file(&path, |_| {}).unwrap();
    fs::write(&path, new).unwrap();
    let now = std::time::UNIX_EPOCH;
    let headers = signature::Keys::new([new]).unwrap().headers("evt_1", now, b"body").unwrap();
    let accepted = || verifier.verify_at(&headers, b"body", now).is_ok();
    assert!(!accepted());
    assert!((0..2000).any(|_| accepted() || (thread::sleep(LOOK), false).1));
}
