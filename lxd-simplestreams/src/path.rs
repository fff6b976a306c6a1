//! Where a file of a tree is: a path from the tree's root that cannot leave it.

use std::fmt;

/// The longest path, in bytes.
const MAX_PATH: usize = 4096;

/// A path from the root of a tree: names joined by `/`, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(String);

impl TreePath {
    /// The path as a document spells it; `None` for one that names no file inside the tree.
    ///
    /// As in LXD a leading `/` means the root of the tree, and `https://a/b` is a strange path
    /// inside it. Unlike in LXD `..` is refused.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_PATH || text.chars().any(char::is_control) {
            return None;
        }
        let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
        let names: Vec<&str> = names.collect();
        let escapes = names.contains(&"..");
        (!escapes && !names.is_empty()).then(|| Self(names.join("/")))
    }

    /// The path, relative.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name of it.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_tree() {
        for (text, parsed) in [
            ("images/a:b/lxd.tar.xz", Some("images/a:b/lxd.tar.xz")),
            ("/images//./a", Some("images/a")),
            ("https://other/x", Some("https:/other/x")),
            ("a?b#c", Some("a?b#c")),
            ("", None),
            ("/", None),
            (".", None),
            ("../x", None),
            ("a/../../x", None),
            ("a/..", None),
            ("a\nb", None),
            ("a\0b", None),
        ] {
            assert_eq!(TreePath::parse(text).as_ref().map(TreePath::as_str), parsed, "{text:?}");
        }
        assert_eq!(TreePath::parse(&"a".repeat(5000)), None);
        assert_eq!(TreePath::parse("a/b.tar").unwrap().file_name(), "b.tar");
    }
}
