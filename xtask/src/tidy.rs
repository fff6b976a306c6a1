//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a compiler does not check.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

/// A word that may stand in source lines only in some places.
struct Rule {
    /// What may not be written; a path's beginning (`sqlx::`) or a literal's.
    word: &'static str,
    /// Where the rule holds: paths that begin so.
    within: &'static [&'static str],
    /// Where it does not.
    except: &'static [&'static str],
    /// Why.
    because: &'static str,
}

const EVERYWHERE: &[&str] = &["lxd-", "xtask/", "tests/"];
const BELOW_HTTP: &[&str] = &[
    "lxd-imaged/src/service/",
    "lxd-imaged/src/tasks/",
    "lxd-imaged/src/db/",
    "lxd-imaged/src/store/",
    "lxd-imaged/src/ops/",
];

const RULES: &[Rule] = &[
    Rule {
        word: "sqlx::",
        within: EVERYWHERE,
        except: &["lxd-imaged/src/db/"],
        because: "SQL lives in lxd-imaged/src/db",
    },
    Rule {
        word: "object_store::",
        within: EVERYWHERE,
        except: &["lxd-imaged/src/store/"],
        because: "blobs live in lxd-imaged/src/store",
    },
    Rule {
        word: "axum::",
        within: BELOW_HTTP,
        except: &[],
        because: "HTTP ends at lxd-imaged/src/http",
    },
    Rule {
        word: "http::",
        within: BELOW_HTTP,
        except: &[],
        because: "HTTP ends at lxd-imaged/src/http",
    },
    Rule {
        word: "hyper::",
        within: BELOW_HTTP,
        except: &[],
        because: "HTTP ends at lxd-imaged/src/http",
    },
    Rule {
        word: "crate::store",
        within: &["lxd-imaged/src/db/"],
        except: &[],
        because: "db and store don't know each other",
    },
    Rule {
        word: "crate::db",
        within: &["lxd-imaged/src/store/"],
        except: &[],
        because: "db and store don't know each other",
    },
    Rule {
        word: "crate::service",
        within: &["lxd-imaged/src/db/", "lxd-imaged/src/store/", "lxd-imaged/src/ops/"],
        except: &[],
        because: "services stand above db, store and ops",
    },
    Rule {
        word: "lxd_imaged::",
        within: EVERYWHERE,
        except: &["lxd-imaged/", "tests/"],
        because: "nothing depends on the daemon",
    },
    Rule {
        word: "lxd_simplestreams::",
        within: &["lxd-proto/"],
        except: &[],
        because: "lxd-proto is the lowest crate",
    },
    Rule {
        word: "\"/1.0",
        within: EVERYWHERE,
        except: &["lxd-proto/", "tests/", "xtask/"],
        because: "routes are told once, in lxd-proto",
    },
];

/// What `lxd-proto` without features may depend on.
const PROTO_BASE: &[&str] =
    &["serde", "serde_json", "jiff", "hex", "regex", "thiserror", "percent-encoding", "base64"];

/// Crates that may be nowhere: the workspace has one TLS stack and one crypto provider.
const BANNED: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls"];

/// Prints every breach; an error if there is one.
pub(crate) fn run() -> Result<()> {
    let breaches = breaches()?;
    for breach in &breaches {
        println!("{breach}");
    }
    if breaches.is_empty() {
        println!("tidy: all rules hold");
        return Ok(());
    }
    bail!("{} breaches of the rules in xtask/src/tidy.rs", breaches.len())
}

fn breaches() -> Result<Vec<String>> {
    let root = shell::root();
    let mut breaches = Vec::new();
    for file in sources(&root)? {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let name = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().into_owned();
        check_source(&name, &text, &mut breaches);
    }
    check_dependencies(&mut breaches)?;
    Ok(breaches)
}

/// Every Rust source of the workspace, in order.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["lxd-proto", "lxd-imaged", "lxd-cli", "lxd-simplestreams", "tests", "xtask"]
            .map(|name| root.join(name))
            .into();
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn check_source(name: &str, text: &str, breaches: &mut Vec<String>) {
    if !text.starts_with("//!") {
        breaches.push(format!("{name}:1: no `//!` sentence that says what the module owns"));
    }
    // This file spells out the forbidden words.
    let own = name == file!();
    let applies = |rule: &&Rule| {
        let begins = |places: &[&str]| places.iter().any(|place| name.starts_with(place));
        !own && begins(rule.within) && !begins(rule.except)
    };
    let rules: Vec<&Rule> = RULES.iter().filter(applies).collect();
    let mut in_tests = name.contains("/tests/");
    for (number, line) in text.lines().enumerate() {
        in_tests |= line.trim() == "#[cfg(test)]";
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for rule in &rules {
            // Tests in a module may spell out a route.
            if mentions(code, rule.word) && !(in_tests && rule.word.starts_with('"')) {
                breaches.push(format!("{name}:{}: `{}`: {}", number + 1, rule.word, rule.because));
            }
        }
    }
}

/// Whether `code` has `word` where no longer name ends in it.
fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_') || word.starts_with('"')
    })
}

fn check_dependencies(breaches: &mut Vec<String>) -> Result<()> {
    let tree = |arguments: &[&str]| -> Result<Vec<String>> {
        let mut command =
            shell::cargo(&["tree", "--locked", "--prefix", "none", "--format", "{p}"]);
        let listed = shell::output(command.args(["--edges", "normal"]).args(arguments))?;
        let names = listed.lines().filter_map(|line| line.split(' ').next());
        Ok(names.map(str::to_owned).collect())
    };
    for name in tree(&["--workspace"])? {
        if BANNED.contains(&name.as_str()) {
            breaches.push(format!("Cargo.lock: {name} is banned"));
        }
    }
    if tree(&["--package", "lxd-cli"])?.iter().any(|name| name.starts_with("sqlx")) {
        breaches.push("lxd-cli: depends on sqlx".to_owned());
    }
    let base = tree(&["--package", "lxd-proto", "--no-default-features", "--depth", "1"])?;
    for name in base.iter().skip(1).filter(|name| !PROTO_BASE.contains(&name.as_str())) {
        breaches.push(format!("lxd-proto without features: depends on {name}"));
    }
    if tree(&["--package", "xtask"])?.iter().any(|name| name.starts_with("lxd-")) {
        breaches.push("xtask: depends on a crate of the workspace".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{breaches, check_source};

    #[test]
    fn the_rules_hold() {
        let found = breaches().unwrap();
        assert!(found.is_empty(), "\n{}", found.join("\n"));
    }

    #[test]
    fn a_breach_is_found_where_it_is() {
        let check = |name: &str, text: &str| {
            let mut found = Vec::new();
            check_source(name, text, &mut found);
            found
        };
        let sql = "//! M.\nuse sqlx::Any;\n";
        assert_eq!(check("lxd-imaged/src/db/images.rs", sql), [""; 0]);
        assert_eq!(check("lxd-imaged/src/http/images.rs", sql).len(), 1);
        assert_eq!(
            check("lxd-imaged/src/service/a.rs", "//! M.\nfn f() { axum::serve() }\n").len(),
            1
        );
        assert_eq!(check("lxd-cli/src/a.rs", "//! M.\n// sqlx::query\nmod not_sqlx;\n"), [""; 0]);
        assert_eq!(check("lxd-cli/src/a.rs", "//! M.\nlet x = \"/1.0/images\";\n").len(), 1);
        assert_eq!(check("lxd-cli/src/a.rs", "fn main() {}\n").len(), 1);
    }
}
