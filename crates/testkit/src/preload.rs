//! Libraries in C that are compiled when they are needed, and preloaded into a process under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles a library with `$CC`, or `cc`, and returns where it is in `home`.
///
/// # Panics
/// If it cannot be compiled.
pub(crate) fn compile(name: &str, code: &str, home: &Path) -> PathBuf {
    let (source, library) = (home.join(format!("{name}.c")), home.join(format!("{name}.so")));
    fs::write(&source, code).expect("a temporary file can be written");
    let compiler = std::env::var_os("CC").filter(|compiler| !compiler.is_empty());
    let compiler = compiler.unwrap_or_else(|| "cc".into());
    let compiled = Command::new(&compiler)
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .output();
    match compiled {
        Ok(output) if output.status.success() => library,
        Ok(output) => panic!("{compiler:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{compiler:?} cannot be run: {error}"),
    }
}
