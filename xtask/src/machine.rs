//! What must be on the machine: the Debian packages by use, and how they get there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A Debian package and a program that shows that it is there.
type Package = (&'static str, &'static str);

/// For the tests: the real client and daemon, image tools, GnuPG, Python for pylxd.
pub(crate) const TESTS: &[Package] = &[
    ("lxd-client", "lxc"),
    ("lxd", "lxd"),
    ("squashfs-tools", "mksquashfs"),
    ("squashfs-tools-ng", "sqfs2tar"),
    ("xz-utils", "xz"),
    ("xdelta3", "xdelta3"),
    ("gnupg", "gpg"),
    ("gpgv", "gpgv"),
    ("python3", "python3"),
    ("lxc", "lxc-start"),
    ("dnsmasq-base", "dnsmasq"),
    ("busybox-static", "busybox"),
];

/// For the demo: a Debian root file system and the tools that pack it.
pub(crate) const DEMO: &[Package] = &[
    ("debootstrap", "debootstrap"),
    ("squashfs-tools", "mksquashfs"),
    ("xz-utils", "xz"),
    ("diffutils", "cmp"),
    ("lxc", "lxc-start"),
];

/// Installs the packages that are missing; without root, fails with the one line to run.
pub(crate) fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|(_, program)| find(program).is_none())
        .map(|(name, _)| *name)
        .collect();
    apt_get(&missing)
}

/// Whether this runs as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn apt_get(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!("apt-get install --yes --no-install-recommends {}", missing.join(" "));
    if find("apt-get").is_none() {
        bail!(
            "these Debian packages (or what your system calls them) are missing: {}",
            missing.join(" ")
        );
    }
    if !is_root() {
        bail!("some packages are missing; run this line once:\n\n    sudo {line}\n");
    }
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    shell::run(&mut apt_get(&["update", "--quiet"]))?;
    let install: Vec<&str> = line.split(' ').skip(1).chain(["--quiet"]).collect();
    shell::run(&mut apt_get(&install))
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// Makes the Python environment with pylxd and the simplestreams tools that the tests use, once.
pub(crate) fn python_with_pylxd() -> Result<()> {
    let venv = shell::target().join("pylxd");
    let ready = venv.join("ready");
    let packages = PYTHON.join("\n");
    if std::fs::read_to_string(&ready).is_ok_and(|made| made == packages) {
        return Ok(());
    }
    let makes_environments =
        Command::new("python3").args(["-c", "import ensurepip, venv"]).output()?.status.success();
    if !makes_environments {
        apt_get(&["python3-venv"])?;
    }
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let pip = venv.join("bin/pip");
    let install = ["install", "--quiet", "--disable-pip-version-check"];
    shell::run(Command::new(&pip).args(install).args(PYTHON))?;
    std::fs::write(ready, packages)?;
    Ok(())
}

/// The releases of pylxd and of the simplestreams tools that the tests were written for.
const PYTHON: [&str; 2] = ["pylxd==2.4.2", "python-simplestreams==0.1.0.post59"];

/// The Debian mirror that this machine uses, from its own package sources.
pub(crate) fn debian_mirror() -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = Path::new("/etc/apt/sources.list.d").read_dir() {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
}

/// The first `…/debian` address in a sources file of either format.
fn mirror_in(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("URIs:") || line.starts_with("deb "))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(|word| word.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn finds_the_mirror_in_both_formats() {
        let old = "# deb http://no/debian x\ndeb [arch=amd64] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://mirror.example/debian"));
        let new = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("deb http://x/debian-security y main"), None);
    }
}
