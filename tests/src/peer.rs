//! A real LXD beside ours, for comparisons.

use crate::daemon::{Daemon, Kind};
use crate::tool;
use crate::wait::Turn;

/// A running `lxd` 5.0.2 with a private directory and a `dir` storage pool.
pub fn start() -> Daemon {
    assert!(tool::is_root(), "a real lxd needs root: run the tests as root");
    let mut daemon = Daemon::prepare(Kind::Lxd, Turn::shared());
    daemon.launch();
    let wait = crate::client::Invocation::new(&tool::require("lxd"), "waitready --timeout 60");
    daemon.point(wait).ok();
    daemon.lxc("storage create default dir").ok();
    daemon.lxc("profile device add default root disk path=/ pool=default").ok();
    daemon
}
