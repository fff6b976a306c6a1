//! Editing an object as YAML: in the user's editor with a second chance, or from standard input.

use std::env;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::Command;

use lxd_proto::remote::Error;

use crate::diff::diff;
use crate::expand::words;
use crate::failure::{Failure, Outcome};
use crate::interrupt::lend_terminal;
use crate::output::{emit, note};
use crate::prompt::ask;

/// How often a document from standard input is applied to a newer version of the object.
const RETRIES: usize = 5;

/// An object on the server that can be edited as YAML.
pub(crate) trait Editable {
    /// The editable part.
    type Value: Clone + PartialEq;
    /// Comment lines above the YAML in the editor.
    const HEADER: &'static str;

    /// Reads the object, with the tag of its version.
    async fn read(&self) -> Outcome<(Self::Value, Option<String>)>;
    /// Saves it, if its version is still that of the tag.
    async fn save(&self, value: &Self::Value, etag: Option<&str>) -> Result<(), Error>;
    /// As YAML.
    fn to_yaml(value: &Self::Value) -> Outcome<String>;
    /// From YAML; a key that is absent stays as it is in `base`, an unknown one is an error.
    fn parse(text: &str, base: &Self::Value) -> Result<Self::Value, String>;
    /// The changes from `base` to `mine`, made to `theirs`.
    fn merge(base: &Self::Value, mine: &Self::Value, theirs: &Self::Value) -> Self::Value;
}

/// How to edit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EditOptions {
    /// Only show what would change.
    pub(crate) dry_run: bool,
    /// Don't show what changes.
    pub(crate) quiet: bool,
}

/// Edits the object: in an editor when standard input is a terminal, else from standard input.
pub(crate) async fn edit<E: Editable>(object: &E, options: EditOptions) -> Outcome {
    if io::stdin().is_terminal() {
        edit_interactively(object, options).await
    } else {
        edit_from_stdin(object, options).await
    }
}

async fn edit_from_stdin<E: Editable>(object: &E, options: EditOptions) -> Outcome {
    let text = blocking(|| {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    })
    .await?
    .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
    if is_empty(&text) {
        return Err(Failure::new("standard input is empty; nothing was changed")
            .hint("Send the YAML that the show command prints, with your changes."));
    }
    let mut tries = 0;
    loop {
        let (base, etag) = object.read().await?;
        let mine = E::parse(&text, &base)
            .map_err(|error| Failure::new(format!("{error}; nothing was changed")))?;
        show_change::<E>(&base, &mine, options)?;
        if options.dry_run {
            return Ok(());
        }
        match object.save(&mine, etag.as_deref()).await {
            Err(error) if error.is_changed_meanwhile() && tries < RETRIES => tries += 1,
            saved => return Ok(saved?),
        }
    }
}

/// Whether there is nothing in it but white space, comments and document marks.
fn is_empty(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// What to do about a version that someone else has saved.
enum Choice {
    Merge,
    EditAgain,
    Stop,
}

async fn edit_interactively<E: Editable>(object: &E, options: EditOptions) -> Outcome {
    let (mut base, mut etag) = object.read().await?;
    let draft = Draft::new(&format!("{}\n\n{}", E::HEADER, E::to_yaml(&base)?))?;
    loop {
        let text = draft.edit().await?;
        let mut mine = match E::parse(&text, &base) {
            Ok(_) if is_empty(&text) => {
                return Err(Failure::new("the text is empty; nothing was changed"));
            }
            Ok(mine) => mine,
            Err(error) => {
                note(&format!("Config parsing error: {error}"));
                let question = "Press enter to open the editor again or ctrl+c to abort change";
                if ask(question).await?.is_none() {
                    return Err(Failure::new("nothing was changed"));
                }
                continue;
            }
        };
        show_change::<E>(&base, &mine, options)?;
        if options.dry_run || mine == base {
            return draft.discard();
        }
        loop {
            match object.save(&mine, etag.as_deref()).await {
                Ok(()) => return draft.discard(),
                Err(error) if error.is_changed_meanwhile() => {}
                Err(error) => return Err(error.into()),
            }
            let (theirs, new_etag) = object.read().await?;
            let change = diff(&E::to_yaml(&base)?, &E::to_yaml(&theirs)?);
            note(&format!("It was changed by someone else in the meantime:\n{change}"));
            match choice().await? {
                Choice::Merge => {
                    mine = E::merge(&base, &mine, &theirs);
                    show_change::<E>(&theirs, &mine, options)?;
                    (base, etag) = (theirs, new_etag);
                }
                Choice::EditAgain => {
                    let merged = E::merge(&base, &mine, &theirs);
                    draft.write(&format!("{}\n\n{}", E::HEADER, E::to_yaml(&merged)?))?;
                    (base, etag) = (theirs, new_etag);
                    break;
                }
                Choice::Stop => return Err(Failure::new("nothing was changed")),
            }
        }
    }
}

async fn choice() -> Outcome<Choice> {
    let question = "Merge your changes into the new version, edit again, or stop and keep your \
                    text in a file? [m/e/s] ";
    loop {
        match ask(question).await?.as_deref().map(str::trim) {
            Some("m" | "merge") => return Ok(Choice::Merge),
            Some("e" | "edit") => return Ok(Choice::EditAgain),
            Some("s" | "stop" | "save") | None => return Ok(Choice::Stop),
            Some(_) => {}
        }
    }
}

/// Shows what changes: on standard output when that is all that was asked for.
fn show_change<E: Editable>(base: &E::Value, mine: &E::Value, options: EditOptions) -> Outcome {
    let change = diff(&E::to_yaml(base)?, &E::to_yaml(mine)?);
    let change = change.trim_end();
    match (change.is_empty(), options) {
        (true, EditOptions { quiet: false, .. }) => note("Nothing changes."),
        (false, EditOptions { dry_run: true, .. }) => emit(&format!("{change}\n"))?,
        (false, EditOptions { quiet: false, .. }) => note(change),
        (_, EditOptions { quiet: true, .. }) => {}
    }
    Ok(())
}

/// Runs what blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new(format!("an internal task failed: {error}")))
}

/// A file with the text being edited. It is kept, and named, unless it is discarded.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    /// The text before it was edited.
    original: String,
    discarded: bool,
}

impl Draft {
    fn new(text: &str) -> Outcome<Self> {
        let cannot = |error: io::Error| Failure::new(format!("cannot write a draft: {error}"));
        let mut file = tempfile::Builder::new()
            .prefix("lxd_editor_")
            .suffix(".yaml")
            .tempfile()
            .map_err(cannot)?;
        file.write_all(text.as_bytes()).map_err(cannot)?;
        let (_, path) = file.keep().map_err(|error| cannot(error.error))?;
        Ok(Self { path, original: text.to_owned(), discarded: false })
    }

    fn write(&self, text: &str) -> Outcome {
        std::fs::write(&self.path, text)
            .map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }

    /// Opens the editor and returns the text when it ends.
    async fn edit(&self) -> Outcome<String> {
        let mut words = editor()?.into_iter();
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words).arg(&self.path);
        // Until it ends, Ctrl-C is the editor's.
        let lent = lend_terminal();
        let status = blocking(move || command.status()).await;
        drop(lent);
        let status = status?.map_err(|error| {
            Failure::new(format!("cannot start the editor \"{program}\": {error}"))
        })?;
        if !status.success() {
            return Err(Failure::new(format!("the editor \"{program}\" failed: {status}")));
        }
        std::fs::read_to_string(&self.path)
            .map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }

    fn discard(mut self) -> Outcome {
        self.discarded = true;
        std::fs::remove_file(&self.path)
            .map_err(|error| Failure::new(format!("{}: {error}", self.path.display())))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.discarded {
            return;
        }
        let now = std::fs::read_to_string(&self.path).unwrap_or_default();
        if now == self.original {
            // Nothing of the user's is in it.
            let _ = std::fs::remove_file(&self.path);
        } else {
            note(&format!("Your text is kept in {}", self.path.display()));
        }
    }
}

/// The words of the editor's command line.
fn editor() -> Outcome<Vec<String>> {
    for name in ["VISUAL", "EDITOR"] {
        if let Ok(value) = env::var(name)
            && !value.trim().is_empty()
        {
            return Ok(words(&value));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = ["editor", "vi", "emacs", "nano"]
        .into_iter()
        .find(|name| env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    found.map(|name| vec![name.to_owned()]).ok_or_else(|| {
        Failure::new("No text editor found, please set the EDITOR environment variable")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_marks_are_an_empty_document() {
        assert!(is_empty("") && is_empty("\n# a\n---\n  \n"));
        assert!(!is_empty("# a\npublic: true\n") && !is_empty("{}"));
    }
}
