//! Which files lie in a tree.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

use super::join;
use crate::builder::digest::Stamp;
use crate::builder::error::{Broken, Result, TreeError};

/// Directories below each other; a tree has six.
const DEEPEST: usize = 16;
/// Files of a tree, at most.
const MOST_FILES: usize = 1_000_000;
/// How names of files end that editors and downloads leave behind.
const LEFTOVERS: [&str; 5] = [".bak", ".old", "~", ".orig", ".part"];

/// A directory and the regular files in it, all names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::builder) struct Directory {
    /// From where the walk began; empty for the beginning itself.
    pub(in crate::builder) path: String,
    pub(in crate::builder) files: Vec<(String, Stamp)>,
}

/// What a walk found.
#[derive(Debug, Default)]
pub(in crate::builder) struct Walked {
    pub(in crate::builder) directories: Vec<Directory>,
    /// Directories that cannot be read; the others are there.
    pub(in crate::builder) broken: Vec<Broken>,
    /// What has a name or a kind that nothing of a tree has.
    pub(in crate::builder) passed: Vec<Broken>,
}

/// All directories below `top` of `root`, with their files. Names that begin with a dot and backup
/// copies are passed over without a word, links and odd names with one.
pub(in crate::builder) fn walk(root: &Path, top: &str) -> Result<Walked> {
    let mut walked = Walked::default();
    let mut count = 0;
    let mut open = vec![(top.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let mut files = Vec::new();
        let mut entry = |entry: DirEntry, walked: &mut Walked| -> io::Result<()> {
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if name.as_encoded_bytes().starts_with(b".") {
                return Ok(());
            }
            let plain = name.to_str().filter(|name| !name.chars().any(char::is_control));
            let shown = join(&path, &name.to_string_lossy().escape_debug().to_string());
            let reason = match plain {
                None => "its name is no plain text, which no document can tell: rename it",
                Some(name) if kind.is_dir() && depth < DEEPEST => {
                    open.push((join(&path, name), depth + 1));
                    return Ok(());
                }
                Some(_) if kind.is_dir() => "it lies too deep",
                Some(name) if LEFTOVERS.iter().any(|end| name.ends_with(end)) => return Ok(()),
                Some(name) if kind.is_file() => {
                    // It may go while we look.
                    files.extend(Stamp::of(&entry.path()).ok().map(|it| (name.to_owned(), it)));
                    return Ok(());
                }
                Some(_) if kind.is_symlink() => "it is a link, and links are not followed",
                Some(_) => "it is no regular file",
            };
            walked.passed.push(Broken::new(shown, format!("passed over: {reason}")));
            Ok(())
        };
        let full = root.join(&path);
        let read = fs::read_dir(&full).and_then(|mut list| {
            list.try_for_each(|one| one.and_then(|one| entry(one, &mut walked)))
        });
        match read {
            Ok(()) => {}
            // A builder beside us may take its own away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if depth == 0 => return Err(TreeError::io("read", &full)(error)),
            Err(error) => {
                let reason = format!("cannot read this directory: {error}");
                walked.broken.push(Broken::new(&path, reason));
            }
        }
        count += files.len();
        if count > MOST_FILES {
            let error = io::Error::other(format!("it has more than {MOST_FILES} files"));
            return Err(TreeError::io("use", root)(error));
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        if !files.is_empty() {
            walked.directories.push(Directory { path, files });
        }
    }
    walked.directories.sort_by(|a, b| a.path.cmp(&b.path));
    walked.broken.sort();
    walked.passed.sort();
    Ok(walked)
}
