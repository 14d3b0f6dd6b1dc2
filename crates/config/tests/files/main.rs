//! What comes of changes on a real file system, where a watcher tells of them and where none does.
//!
//! A case that takes a [`By`] is run both ways: on its own with the real watcher, which then has to notice every step
//! before the first poll, and in [`polling`] without one.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod directories;
mod files;
mod following;
mod links;
mod log;
mod polling;
mod promptness;
mod rejected;
mod requests;
mod saves;
mod secrets;

use files::{ACME, AQUARIUM, Files, SECRET, acme};
use following::{By, Following};
