//! `cargo xtask dist`: what a release hands out.

use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Programs of a release.
const PROGRAMS: [&str; 2] = ["lxd-imaged", "lxd-cli"];
/// Files that go with them.
const DOCUMENTS: [&str; 3] = ["README.md", "CHANGELOG.md", "LICENSE"];

/// Builds the programs for release and packs them, with a checksum file beside the tarball.
pub(crate) fn run() -> Result<()> {
    shell::run(shell::cargo(&["build", "--release", "--locked"]).args(shell::PROGRAMS))?;

    let name = format!("lxd-imaged-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dist = shell::target().join("dist");
    let folder = dist.join(&name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let programs = PROGRAMS.map(|name| shell::target().join("release").join(name));
    let documents = DOCUMENTS.map(|name| shell::root().join(name));
    for file in programs.iter().chain(&documents) {
        let to = folder.join(file.file_name().unwrap_or_default());
        std::fs::copy(file, to).with_context(|| format!("copying {}", file.display()))?;
    }

    let tarball = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    // The same input makes the same tarball.
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    tar.args(["--use-compress-program=gzip -n", "-cf", &tarball, &name]);
    shell::run(tar.current_dir(&dist))?;
    let sums = shell::output(Command::new("sha256sum").arg(&tarball).current_dir(&dist))?;
    std::fs::write(dist.join("SHA256SUMS"), &sums)?;
    print!("\n{}:\n{sums}", dist.display());
    Ok(())
}
