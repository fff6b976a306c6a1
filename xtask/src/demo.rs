//! `cargo xtask demo`: the main job on a real Debian image, as a user would type it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tempfile::TempDir;

use crate::{machine, shell};

/// Which Debian, and what stays.
#[derive(Args)]
pub(crate) struct Options {
    /// The Debian release to build the image from.
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// The Debian mirror; otherwise the one this machine uses.
    #[arg(long)]
    mirror: Option<String>,
}

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !machine::is_root() {
        bail!(
            "building a root file system takes root; run this line:\n\n    sudo -E cargo xtask demo\n"
        );
    }
    let start = Instant::now();
    machine::install(machine::DEMO)?;
    title("Build lxd-imaged and lxd-cli");
    shell::run(shell::cargo(&["build", "--locked"]).args(shell::PROGRAMS))?;

    let source = Source::prepare(options)?;
    let mut stage = Stage::set(&source)?;
    let played = stage.play();
    let cleaned = stage.clear();
    played?;
    cleaned?;
    println!(
        "\nDone in {} s. Everything above was real, and nothing of it is left running.",
        start.elapsed().as_secs()
    );
    println!("The Debian root is kept in {} for the next time.", source.root.display());
    Ok(())
}

fn title(text: &str) {
    println!("\n── {text} ──");
}

/// The image files, made from a Debian root file system.
struct Source {
    root: PathBuf,
    folder: PathBuf,
}

impl Source {
    /// Makes the root file system (once) and both forms of the image.
    fn prepare(options: &Options) -> Result<Self> {
        let demo = shell::target().join("demo");
        std::fs::create_dir_all(&demo)?;
        let root = demo.join(&options.suite).join("rootfs");
        title("A Debian root file system");
        // Containers need an init, which roots of earlier versions had not.
        if root.join("sbin/init").is_symlink() {
            println!("{} is there from the last time.", root.display());
        } else {
            bootstrap(options, &root)?;
        }
        let source = Self { root, folder: demo.join("image") };
        source.pack(&options.suite)?;
        Ok(source)
    }

    /// metadata.yaml, a unified tarball, and a split pair.
    fn pack(&self, suite: &str) -> Result<()> {
        title("Two forms of one image, and a newer version");
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)?;
        }
        std::fs::create_dir_all(&self.folder)?;
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let metadata = format!(
            "architecture: {}\ncreation_date: {seconds}\nproperties:\n  os: Debian\n  release: {suite}\n  description: Debian {suite}, made by the demo\n",
            std::env::consts::ARCH
        );
        std::fs::write(self.folder.join("metadata.yaml"), &metadata)?;
        println!("$ cat metadata.yaml\n{}", metadata.trim_end());
        let run = |program: &str, arguments: &[&str]| {
            shell::run(Command::new(program).args(arguments).current_dir(&self.folder))
        };
        let debian = format!("../{suite}");
        let unified =
            ["--numeric-owner", "-czf", "debian.tar.gz", "metadata.yaml", "-C", &debian, "rootfs"];
        run("tar", &unified)?;
        run("tar", &["-cJf", "metadata.tar.xz", "metadata.yaml"])?;
        // The same root a little later: what a build of the next day brings.
        let later = format!("s/^creation_date: .*/creation_date: {}/", seconds + 1);
        run("sed", &["-i", &later, "metadata.yaml"])?;
        let mut newer = unified;
        newer[2] = "debian-new.tar.gz";
        run("tar", &newer)?;
        let squashed = format!("{debian}/rootfs");
        let quiet = ["-noappend", "-quiet", "-no-progress", "-comp", "zstd"];
        run("mksquashfs", &[&[squashed.as_str(), "rootfs.squashfs"], &quiet[..]].concat())?;
        run("ls", &["-sh", "."])
    }
}

/// debootstrap into a temporary name, so that a broken run leaves no half root behind.
fn bootstrap(options: &Options, root: &Path) -> Result<()> {
    let half = root.with_extension("part");
    std::fs::create_dir_all(root.parent().context("the root lies in a folder")?)?;
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=systemd-sysv,dbus", &options.suite]);
    debootstrap.arg(&half);
    debootstrap.args(options.mirror.clone().or_else(machine::debian_mirror));
    println!("\n$ {}", shell::show(&debootstrap));
    let output = debootstrap.stdin(Stdio::null()).output().context("cannot run debootstrap")?;
    if !output.status.success() {
        bail!("debootstrap: {}\n{}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    // Packages that were unpacked are in the root already.
    let _ = std::fs::remove_dir_all(half.join("var/cache/apt/archives"));
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    std::fs::rename(&half, root)?;
    Ok(())
}

/// Running daemons on a temporary folder, and a folder to work in.
struct Stage {
    home: TempDir,
    /// Each with the folder below `home` that is its `LXD_DIR`.
    daemons: Vec<(&'static str, Child)>,
    image: PathBuf,
    /// Whose `LXD_DIR` is exported now.
    here: &'static str,
}

/// The first machine: it makes and serves images.
const SERVER: &str = "var";
/// The second machine: it copies them.
const GUEST: &str = "var2";

impl Stage {
    fn set(source: &Source) -> Result<Self> {
        title("Start the daemon on an empty folder");
        let home = tempfile::Builder::new().prefix("lxd-imaged-demo-").tempdir()?;
        for name in [SERVER, GUEST, "var.conf", "var2.conf", "out"] {
            std::fs::create_dir(home.path().join(name))?;
        }
        println!("$ export PATH={}:$PATH", shell::target().join("debug").display());
        let mut stage =
            Self { home, daemons: Vec::new(), image: source.folder.clone(), here: SERVER };
        if let Err(error) = stage.start(SERVER) {
            for (_, daemon) in &mut stage.daemons {
                let _ = daemon.kill();
            }
            return Err(error);
        }
        Ok(stage)
    }

    /// Starts a daemon on a folder of its own; what follows is typed on its machine.
    fn start(&mut self, folder: &'static str) -> Result<()> {
        self.go_to(folder);
        println!("$ lxd-imaged &");
        let log_path = self.home.path().join(format!("{folder}.log"));
        let log = std::fs::File::create(&log_path)?;
        let daemon = Command::new(program("lxd-imaged"))
            .env("LXD_DIR", self.home.path().join(folder))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start lxd-imaged")?;
        self.daemons.push((folder, daemon));
        if let Err(error) = self.say("lxd-imaged", &["waitready", "--timeout", "30"]) {
            let log = std::fs::read_to_string(log_path).unwrap_or_default();
            return Err(error.context(log));
        }
        Ok(())
    }

    /// What follows is typed on the machine of `folder`.
    fn go_to(&mut self, folder: &'static str) {
        self.here = folder;
        let home = self.home.path();
        println!("$ export LXD_DIR={}", home.join(folder).display());
        println!("$ export LXD_CONF={}", home.join(format!("{folder}.conf")).display());
    }

    /// The main job, from import to delete.
    fn play(&mut self) -> Result<()> {
        let image = self.image.clone();
        let file = |name: &str| image.join(name).to_string_lossy().into_owned();

        title("Import both forms");
        self.cli(&["image", "import", &file("debian.tar.gz"), "--alias", "debian"])?;
        self.cli(&[
            "image",
            "import",
            &file("metadata.tar.xz"),
            &file("rootfs.squashfs"),
            "--alias",
            "debian-split",
            "built=today",
        ])?;
        self.cli(&["image", "list"])?;
        self.cli(&["image", "info", "debian"])?;

        title("Edit");
        let shown = self.cli(&["image", "show", "debian"])?;
        let edited = shown.replace("public: false", "public: true");
        self.feed(&["image", "edit", "debian"], &edited)?;
        self.cli(&["image", "set-property", "debian", "flavour", "vanilla"])?;
        self.cli(&["image", "get-property", "debian", "flavour"])?;
        self.cli(&["image", "alias", "create", "debian/stable", "debian"])?;
        self.cli(&["image", "alias", "list"])?;
        self.cli(&["image", "list", "flavour=vanilla", "-c", "lfpd"])?;

        title("Export, and compare byte for byte");
        self.cli(&["image", "export", "debian/stable", "unified"])?;
        self.cli(&["image", "export", "debian-split", "."])?;
        self.compare()?;

        title("Import the same file again: nothing to upload");
        self.cli(&["image", "import", &file("debian.tar.gz")])?;

        self.serve()?;
        self.run_containers()?;

        title("Delete");
        self.go_to(SERVER);
        self.cli(&["image", "delete", "debian", "debian-split", "first-debian"])?;
        self.cli(&["image", "list", "-f", "csv"])?;
        Ok(())
    }

    /// The network: a second daemon copies from the first, and follows it.
    fn serve(&mut self) -> Result<()> {
        title("Open the port");
        let address = format!("127.0.0.1:{}", free_port()?);
        self.cli(&["config", "set", "core.https_address", &address])?;

        title("A second daemon, as on another machine, copies from the first");
        self.start(GUEST)?;
        self.cli(&["remote", "add", "team", &address, "--public", "--accept-certificate"])?;
        self.cli(&["image", "list", "team:"])?;
        let copy = ["image", "copy", "team:debian", "local:", "--alias", "debian", "--auto-update"];
        self.cli(&copy)?;
        self.cli(&["image", "info", "debian"])?;

        title("The first gets a new version");
        self.go_to(SERVER);
        self.cli(&["image", "alias", "rename", "debian", "first-debian"])?;
        let unified = self.image.join("debian-new.tar.gz");
        let unified = unified.to_string_lossy().into_owned();
        self.cli(&["image", "import", &unified, "--alias", "debian", "--public"])?;

        title("The second follows, and can go back");
        self.go_to(GUEST);
        self.cli(&["image", "refresh", "debian"])?;
        self.cli(&["image", "list"])?;
        self.cli(&["image", "history", "debian"])?;
        self.cli(&["image", "rollback", "debian"])?;
        self.cli(&["image", "list"])?;
        Ok(())
    }

    /// A container from an image, an image from the container, and a container from that.
    fn run_containers(&mut self) -> Result<()> {
        title("Launch a container, and change something in it");
        self.cli(&["launch", "debian", "first"])?;
        self.cli(&["exec", "first", "--", "cat", "/etc/os-release"])?;
        let change = "echo made by the demo > /etc/motd";
        self.cli(&["exec", "first", "--", "sh", "-c", change])?;
        self.cli(&["snapshot", "first", "changed"])?;

        title("Publish it as an image, and launch that");
        self.cli(&["publish", "first", "--force", "--alias", "mine", "--compression", "zstd"])?;
        self.cli(&["launch", "mine", "second"])?;
        self.cli(&["exec", "second", "--", "cat", "/etc/motd"])?;
        self.cli(&["list"])?;
        self.cli(&["image", "list"])?;
        self.cli(&["delete", "--force", "first", "second"])?;
        Ok(())
    }

    /// `cmp` of each exported file with the one that went in.
    fn compare(&self) -> Result<()> {
        let out = self.home.path().join("out");
        let exported = |wanted: &dyn Fn(&str) -> bool| -> Result<String> {
            let mut names = out
                .read_dir()?
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.find(|name| wanted(name)).context("an exported file is missing")
        };
        let pairs = [
            ("debian.tar.gz", exported(&|name| name.starts_with("unified"))?),
            ("metadata.tar.xz", exported(&|name| name.starts_with("meta-"))?),
            (
                "rootfs.squashfs",
                exported(&|name| !name.starts_with("meta-") && name.ends_with(".squashfs"))?,
            ),
        ];
        for (original, copy) in pairs {
            let original = self.image.join(original);
            shell::run(Command::new("cmp").arg(&original).arg(&copy).current_dir(&out))?;
            println!("same bytes");
        }
        Ok(())
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.say("lxd-cli", arguments)
    }

    /// Runs a program as a user would, shows command and output, returns what it printed.
    fn say(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(name, arguments);
        println!("\n$ {}", shell::show(&command));
        let printed = shell::output(&mut command)?;
        print!("{printed}");
        Ok(printed)
    }

    /// The same with text on standard input.
    fn feed(&self, arguments: &[&str], text: &str) -> Result<()> {
        use std::io::Write;
        let mut command = self.command("lxd-cli", arguments);
        println!(
            "\n$ lxd-cli image show {} | sed 's/public: false/public: true/' | {}",
            arguments.last().unwrap_or(&""),
            shell::show(&command)
        );
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        child.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
        let status = child.wait()?;
        if !status.success() {
            bail!("{}: {status}", shell::show(&command));
        }
        Ok(())
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new(program(name));
        command.args(arguments).current_dir(home.join("out")).stdin(Stdio::null());
        command.env("LXD_DIR", home.join(self.here));
        command.env("LXD_CONF", home.join(format!("{}.conf", self.here)));
        command.env_remove("LXD_SOCKET");
        command
    }

    /// Ends the daemons; the temporary folder goes with `self`.
    fn clear(&mut self) -> Result<()> {
        title("Stop the daemons");
        let mut cleared = Ok(());
        for (folder, mut daemon) in std::mem::take(&mut self.daemons) {
            self.go_to(folder);
            let told = self.say("lxd-imaged", &["shutdown"]);
            let deadline = Instant::now() + Duration::from_secs(10);
            while daemon.try_wait()?.is_none() {
                if told.is_err() || Instant::now() > deadline {
                    daemon.kill()?;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            cleared = cleared.and(told.map(drop));
        }
        cleared
    }
}

/// A port of this machine that nobody listens on now.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn program(name: &str) -> PathBuf {
    shell::target().join("debug").join(name)
}
