//! Why work on a tree ends early. What is wrong with one image never does: see [`Broken`].

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Why a tree cannot be worked on at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A file or directory of the tree, or one that should go into it.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Doing what.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Somebody else works on it.
    #[error(
        "another program is at work on the tree {}: it holds the lock {}; try again when it has \
         ended",
        .0.display(), .0.join(super::LOCK).display()
    )]
    Locked(PathBuf),
    /// There is no such tree.
    #[error("{} is no directory", .0.display())]
    NoDirectory(PathBuf),
    /// Nothing was ever published there.
    #[error(
        "{} is no simplestreams tree: it has no {}; streams build makes one of it",
        .0.display(), crate::publish::INDEX
    )]
    NoTree(PathBuf),
    /// Others have made what is published there.
    #[error(
        "the tree {} was not made by streams build alone: its documents name {what}, which would be \
         lost; choose another directory, or have streams build --force replace them",
        root.display()
    )]
    Foreign {
        /// Which tree.
        root: PathBuf,
        /// What would be lost.
        what: String,
    },
    /// The program that makes and applies deltas is missing.
    #[error(
        "deltas are made and checked by the program xdelta3, which is not installed; install the \
         package xdelta3"
    )]
    NoXdelta,
    /// A source of images could not be asked.
    #[error(transparent)]
    Remote(#[from] lxd_proto::remote::Error),
    /// The documents could not be signed.
    #[error(transparent)]
    Sign(Box<crate::SignTreeError>),
    /// Nobody has said who signs.
    #[error("the tree has no key to sign with")]
    NoKey,
    /// A thread of ours is lost.
    #[error("an internal task failed")]
    Task,
}

/// The result of work on a tree.
pub type Result<T, E = TreeError> = std::result::Result<T, E>;

impl From<crate::SignTreeError> for TreeError {
    fn from(error: crate::SignTreeError) -> Self {
        Self::Sign(Box::new(error))
    }
}

impl TreeError {
    /// Names what an input or output error belongs to.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// Something that is not published, and why. The rest of the tree is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Broken {
    /// A file or directory: below the tree, or where it should have come from.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Broken {
    pub(super) fn new(path: impl Into<String>, reason: impl ToString) -> Self {
        Self { path: path.into(), reason: reason.to_string() }
    }
}
