//! The words of `image import`, told apart: files, a remote, properties.

use std::path::Path;

use lxd_proto::image::Properties;

use crate::failure::{Failure, Outcome};
use crate::remotes::Remotes;

/// How an image on a web server begins.
const WEB: &str = "https://";

/// What the words are.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) remote: String,
    pub(super) files: Vec<String>,
    pub(super) properties: Properties,
}

impl Words {
    pub(super) fn sort(remotes: &Remotes, words: &[String]) -> Outcome<Self> {
        let mut remote = None;
        let mut files: Vec<String> = Vec::new();
        let mut properties = Properties::new();
        for word in words {
            let is_file = Path::new(word).exists();
            if word.starts_with(WEB) {
                files.push(word.clone());
                continue;
            }
            if word.starts_with("http://") {
                return Err(Failure::new("Only https:// is supported for remote image import"));
            }
            match word.split_once('=') {
                Some((key, value)) if !is_file && !key.is_empty() => {
                    properties.insert(key.to_owned(), value.to_owned());
                    continue;
                }
                _ => {}
            }
            if let Some(name) = remotes.parse_bare(word).filter(|_| !is_file) {
                if remote.replace(name?).is_some() {
                    return Err(Failure::usage("an image is imported to one remote at a time"));
                }
            } else if let Some(failure) = remotes.lacks_colon(word) {
                return Err(failure);
            } else {
                files.push(word.clone());
            }
        }
        if files.len() > 1
            && let Some(url) = files.iter().find(|file| file.starts_with(WEB))
        {
            return Err(Failure::usage(format!(
                "{url} is a whole image; it goes with no other file"
            )));
        }
        match files.len() {
            0 => Err(Failure::usage("there is no file to import")),
            1 | 2 => {
                let remote = remote.unwrap_or_else(|| remotes.config.default_remote.clone());
                Ok(Self { remote, files, properties })
            }
            _ => Err(Failure::usage(format!(
                "an image has at most two files, not {}: {}",
                files.len(),
                files.join(", ")
            ))),
        }
    }
}

impl Words {
    /// The web address, if that is what is imported.
    pub(super) fn url(&self) -> Option<&str> {
        let first = self.files.first()?;
        first.starts_with(WEB).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn sort(words: &[&str]) -> Outcome<Words> {
        let remotes = Remotes::new(Config::load(true), None);
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Words::sort(&remotes, &words)
    }

    #[test]
    fn words_may_come_in_any_order() {
        let expected = Words {
            remote: "local".into(),
            files: vec!["meta.tar.xz".into(), "-".into()],
            properties: Properties::from([("os".into(), "a=b".into())]),
        };
        for words in [
            ["meta.tar.xz", "-", "local:", "os=a=b"],
            ["os=a=b", "local:", "meta.tar.xz", "-"],
            ["meta.tar.xz", "os=a=b", "-", "local:"],
        ] {
            assert_eq!(sort(&words).unwrap(), expected, "{words:?}");
        }
        assert_eq!(sort(&["x"]).unwrap().remote, "local");
    }

    #[test]
    fn mistakes_are_explained() {
        let failure = sort(&["x", "images"]).unwrap_err();
        assert_eq!(failure.hints, ["Did you mean \"images:\"?"]);
        assert!(sort(&["x", "nope:"]).unwrap_err().error.contains("doesn't exist"));
        assert!(sort(&["a", "b", "c"]).unwrap_err().error.contains("at most two"));
        assert!(sort(&["os=x"]).unwrap_err().error.contains("no file"));
        assert!(sort(&["http://x/y"]).unwrap_err().error.contains("Only https"));
        assert!(sort(&["https://x/y", "z"]).unwrap_err().error.contains("whole image"));
        let words = sort(&["https://x/y?a=b", "os=x"]).unwrap();
        assert_eq!((words.url(), words.properties.len()), (Some("https://x/y?a=b"), 1));
        assert_eq!(sort(&["z"]).unwrap().url(), None);
    }
}
