//! Control groups as they are mounted on this machine: version 1, version 2, both, or none.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// What liblxc calls the group of a container, followed by its name.
const PAYLOAD: &str = "lxc.payload.";

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Version 1: its controllers, or `name=…`. Version 2: none.
    controllers: Option<Vec<String>>,
}

/// The hierarchies that are mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hierarchies(Vec<Hierarchy>);

/// Where a controller is, and which version of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// In a hierarchy of version 1.
    One,
    /// In the unified hierarchy.
    Two,
}

/// What the groups of a container have counted; zero where nothing counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) memory: u64,
    pub(super) memory_peak: u64,
    pub(super) swap: u64,
    pub(super) swap_peak: u64,
    /// Nanoseconds.
    pub(super) cpu: u64,
    pub(super) processes: Option<u64>,
}

impl Hierarchies {
    /// What is mounted now.
    pub(super) fn mounted() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::parse(&mounts)
    }

    fn parse(mounts: &str) -> Self {
        Self(mounts.lines().filter_map(hierarchy).collect())
    }

    /// Where a controller can be used, if anywhere.
    pub(super) fn controller(&self, name: &str) -> Option<Version> {
        let has = |hierarchy: &&Hierarchy| match &hierarchy.controllers {
            Some(controllers) => controllers.iter().any(|controller| controller == name),
            None => std::fs::read_to_string(hierarchy.mount.join("cgroup.controllers"))
                .is_ok_and(|controllers| controllers.split_whitespace().any(|one| one == name)),
        };
        let found = self.0.iter().find(has)?;
        Some(if found.controllers.is_some() { Version::One } else { Version::Two })
    }

    /// The directory of a group in the hierarchy that a line of `/proc/PID/cgroup` is about.
    fn directory(&self, line: &str) -> Option<(&Hierarchy, PathBuf)> {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let hierarchy = self.0.iter().find(|hierarchy| match &hierarchy.controllers {
            None => controllers.is_empty(),
            Some(mounted) => {
                controllers.split(',').any(|name| mounted.iter().any(|one| one == name))
            }
        })?;
        let relative = Path::new(path.trim_start_matches('/'));
        if relative.components().any(|part| part.as_os_str() == "..") {
            return None;
        }
        Some((hierarchy, hierarchy.mount.join(relative)))
    }

    /// The container's own groups, by hierarchy, told by its first process.
    fn payloads(&self, groups: &str) -> Vec<(&Hierarchy, PathBuf)> {
        let payload = |(hierarchy, directory): (_, PathBuf)| {
            // Its init system may have moved the first process further down.
            let path = directory.ancestors().find(|path| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with(PAYLOAD))
            })?;
            Some((hierarchy, path.to_owned()))
        };
        groups.lines().filter_map(|line| self.directory(line)).filter_map(payload).collect()
    }

    /// What the container of this first process has used.
    pub(super) fn usage(&self, init: i32) -> Usage {
        let mut usage = Usage::default();
        for (hierarchy, path) in self.payloads(&groups_of(init)) {
            let number = |file: &str| number(&path.join(file));
            if hierarchy.controllers.is_none() {
                usage.memory = number("memory.current").unwrap_or(usage.memory);
                usage.memory_peak = number("memory.peak").unwrap_or(usage.memory_peak);
                usage.swap = number("memory.swap.current").unwrap_or(usage.swap);
                usage.swap_peak = number("memory.swap.peak").unwrap_or(usage.swap_peak);
                usage.processes = number("pids.current").or(usage.processes);
                // This file is there without any controller, and counts everything.
                if let Some(micros) = field(&path.join("cpu.stat"), "usage_usec") {
                    usage.cpu = usage.cpu.max(micros.saturating_mul(1000));
                }
                continue;
            }
            usage.memory = number("memory.usage_in_bytes").unwrap_or(usage.memory);
            usage.memory_peak = number("memory.max_usage_in_bytes").unwrap_or(usage.memory_peak);
            if let Some(both) = number("memory.memsw.usage_in_bytes") {
                usage.swap = both.saturating_sub(usage.memory);
            }
            if let Some(both) = number("memory.memsw.max_usage_in_bytes") {
                usage.swap_peak = both.saturating_sub(usage.memory_peak);
            }
            usage.cpu = number("cpuacct.usage").map_or(usage.cpu, |cpu| cpu.max(usage.cpu));
            usage.processes = number("pids.current").or(usage.processes);
        }
        usage
    }

    /// The container's own group where a controller is, by its first process.
    pub(super) fn group(&self, init: i32, controller: &str) -> Option<(Version, PathBuf)> {
        let version = self.controller(controller)?;
        let groups = groups_of(init);
        let has = |(hierarchy, _): &(&Hierarchy, PathBuf)| match &hierarchy.controllers {
            Some(all) => version == Version::One && all.iter().any(|one| one == controller),
            None => version == Version::Two,
        };
        self.payloads(&groups).into_iter().find(has).map(|(_, path)| (version, path))
    }

    /// The file that freezes the container of this first process, and what is written to it.
    fn freezer(&self, init: i32) -> Option<(PathBuf, [&'static str; 2])> {
        let groups = groups_of(init);
        let payloads = self.payloads(&groups);
        let unified = payloads.iter().find(|(hierarchy, _)| hierarchy.controllers.is_none());
        if let Some(file) = unified.map(|(_, path)| path.join("cgroup.freeze"))
            && file.exists()
        {
            return Some((file, ["0", "1"]));
        }
        let file = payloads.iter().map(|(_, path)| path.join("freezer.state"));
        Some((file.into_iter().find(|file| file.exists())?, ["THAWED", "FROZEN"]))
    }

    /// Stops or continues every process of the container of this first process.
    pub(super) fn freeze(&self, init: i32, frozen: bool) -> io::Result<()> {
        let (file, words) = self.freezer(init).ok_or(io::ErrorKind::Unsupported)?;
        std::fs::write(file, words[usize::from(frozen)])
    }

    /// Whether the container of this first process is frozen, or about to be.
    pub(super) fn is_frozen(&self, init: i32) -> bool {
        let groups = groups_of(init);
        self.payloads(&groups).iter().any(|(_, path)| {
            number(&path.join("cgroup.freeze")) == Some(1)
                || std::fs::read_to_string(path.join("freezer.state"))
                    .is_ok_and(|state| state.starts_with("FR"))
        })
    }
}

/// The files through which a process joins the groups of another one.
pub(super) fn doors(init: i32) -> io::Result<Vec<OwnedFd>> {
    let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup"))?;
    let hierarchies = Hierarchies::mounted();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let open = |directory: PathBuf| {
        rustix::fs::open(directory.join("cgroup.procs"), flags, Mode::empty()).ok()
    };
    let directories = groups.lines().filter_map(|line| hierarchies.directory(line));
    Ok(directories.filter_map(|(_, directory)| open(directory)).collect())
}

fn groups_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

/// The hierarchy that a line of `mountinfo` is about, if it is about one, and about all of it.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, mount) = (mount.next()?, mount.next()?);
    let mut filesystem = filesystem.split(' ');
    let controllers = match filesystem.next()? {
        "cgroup2" => None,
        "cgroup" => {
            let options = filesystem.nth(1)?;
            Some(options.split(',').map(str::to_owned).collect())
        }
        _ => return None,
    };
    (root == "/").then(|| Hierarchy { mount: PathBuf::from(mount), controllers })
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Hierarchies, PathBuf, Version};

    const HYBRID: &str = "\
24 23 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
26 24 0:24 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 24 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
28 24 0:26 /inside /other rw,relatime - cgroup cgroup rw,pids
29 24 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn hybrid_hierarchies_are_told_apart() {
        let hierarchies = Hierarchies::parse(HYBRID);
        assert_eq!(hierarchies.controller("memory"), Some(Version::One));
        assert_eq!(hierarchies.controller("pids"), None);
        let groups = "3:memory:/lxc.payload.c1\n2:cpu,cpuacct:/lxc.payload.c1-1/x\n\
                      1:name=systemd:/lxc.payload.c1/init.scope\n4:pids:/lxc.payload.c1\n\
                      0::/lxc.payload.c1/../../init.scope\n";
        let found: Vec<_> =
            hierarchies.payloads(groups).into_iter().map(|(_, path)| path).collect();
        let expected = ["memory/lxc.payload.c1", "cpu/lxc.payload.c1-1", "systemd/lxc.payload.c1"];
        assert_eq!(found, expected.map(|path| PathBuf::from("/sys/fs/cgroup").join(path)));
    }

    #[test]
    fn a_machine_without_groups_has_none() {
        let hierarchies = Hierarchies::parse("24 23 0:22 / /proc rw - proc proc rw\n");
        assert_eq!(hierarchies, Hierarchies::default());
        assert_eq!(hierarchies.controller("memory"), None);
    }
}
