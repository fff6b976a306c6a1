//! Programs that a test needs, and the one line that installs a missing one.

use std::path::{Path, PathBuf};

/// Debian packages by the program they bring; `cargo xtask test` installs the same ones.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("gpg", "gnupg"),
    ("gpgv", "gpgv"),
    ("lxc", "lxd-client"),
    ("lxc-start", "lxc"),
    ("lxd", "lxd"),
    ("mksquashfs", "squashfs-tools"),
    ("sqfs2tar", "squashfs-tools-ng"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("tar", "tar"),
    ("xdelta3", "xdelta3"),
    ("xz", "xz-utils"),
];

/// Where `program` is; fails the test with the line that installs it.
pub fn require(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| {
        let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |p| p.1);
        panic!("{program} is missing: apt-get install --no-install-recommends {package}")
    })
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(program)).find(|p| p.is_file())
}

/// A program of this workspace, built beside the running test.
pub fn ours(program: &str) -> PathBuf {
    let built = target_profile_dir().join(program);
    assert!(built.is_file(), "{} is missing: cargo build --workspace", built.display());
    built
}

/// `target/<profile>`, where cargo put the running test.
fn target_profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let dir = test.parent().expect("a test binary lies in a directory");
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_owned() } else { dir.to_owned() }
}

/// `target`, for what outlives one run (the Python environment).
pub fn target_dir() -> PathBuf {
    let profile = target_profile_dir();
    profile.parent().unwrap_or(&profile).to_owned()
}

/// The Python that has pylxd; fails the test with the line that makes it.
pub fn python_with_pylxd() -> PathBuf {
    python_environment("python")
}

/// `sstream-query` or `sstream-mirror`; fails the test with the line that installs it.
pub fn sstream(program: &str) -> PathBuf {
    python_environment(program)
}

/// A program of the Python environment that `cargo xtask test` makes.
fn python_environment(program: &str) -> PathBuf {
    let venv = target_dir().join("pylxd");
    let found = venv.join("bin").join(program);
    let shown = venv.display();
    assert!(
        venv.join("ready").is_file() && found.is_file(),
        "{program} is missing: python3 -m venv {shown} && \
         {shown}/bin/pip install pylxd python-simplestreams && touch {shown}/ready"
    );
    found
}

/// The `incus` client, which few systems have: `LXD_TEST_INCUS`, in PATH, or below `target/incus`.
pub fn incus() -> Option<PathBuf> {
    let named = std::env::var_os("LXD_TEST_INCUS").map(PathBuf::from);
    let unpacked = target_dir().join("incus/usr/bin/incus");
    named.or_else(|| find("incus")).or_else(|| unpacked.is_file().then_some(unpacked))
}

/// Whether the test runs as root, which mounts and real containers need.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Copies a program where any user may run it.
pub fn copy_for_all(program: &Path, to: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::copy(program, to).unwrap_or_else(|e| panic!("copying {}: {e}", program.display()));
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}
