//! `init` and `launch`: new instances from images.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::image::InstanceType;
use lxd_proto::instance::{Action, InstancePut, InstanceSource, InstancesPost, StatePut};
use rustix::fs::{FileType, SeekFrom, fstat, seek};
use serde_json::json;

use super::settings::Settings;
use super::{created_name, source, state, wait_shown};
use crate::command::flags::ResultFormat;
use crate::context::Context;
use crate::editor::blocking;
use crate::failure::{Failure, Outcome};
use crate::output::{emit, note};

/// The largest YAML document that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// What a new instance is.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The image, and a name for the instance; without one the server makes one up
    #[arg(value_name = "[REMOTE:]IMAGE [REMOTE:][NAME]", num_args = 0..=2)]
    words: Vec<String>,
    #[command(flatten)]
    settings: Settings,
    /// YAML with config, devices, profiles and description; "-" is standard input, which is read
    /// by itself only when it is a file
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// An instance without files, and without an image
    #[arg(long)]
    empty: bool,
    /// A virtual machine
    #[arg(long)]
    vm: bool,
    #[command(flatten)]
    format: ResultFormat,
}

/// Make an instance from an image.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli init debian/12 web -c limits.memory=512MiB
  lxd-cli init images:debian/12 web --config-file web.yaml
  lxd-cli init --empty rescue")]
pub(crate) struct Init {
    #[command(flatten)]
    create: Create,
}

/// Make an instance from an image and start it.
#[derive(Debug, Args)]
#[command(after_help = "\
The image is named by alias, by fingerprint or by the beginning of one; one of another server is
fetched by the server of the instance, and kept there for the next time.

Examples:
  lxd-cli launch debian/12 web
  lxd-cli launch images:debian/12 web -c environment.TZ=UTC
  lxd-cli launch a65894de6c07
  lxd-cli launch backup:debian/12 far:web")]
pub(crate) struct Launch {
    #[command(flatten)]
    create: Create,
}

impl Init {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let made = self.create.make(context).await?;
        self.create.tell(context, &made, false)
    }
}

impl Launch {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let made = self.create.make(context).await?;
        if !context.quiet && self.create.format.is_text() {
            emit(&format!("Starting {}\n", made.name))?;
        }
        let operation =
            made.server.put_instance_state(&made.name, &StatePut::new(Action::Start)).await?;
        let what = format!("the start of {}", made.name);
        state::started(context, &made.server, &made.remote, &made.name, operation, &what).await?;
        self.create.tell(context, &made, true)
    }
}

/// A new instance.
struct Made {
    remote: String,
    server: LxdClient,
    name: String,
}

impl Create {
    async fn make(&self, context: &Context) -> Outcome<Made> {
        let (image, target) = self.target(context)?;
        let mut post = InstancesPost { put: self.document().await?, ..InstancesPost::default() };
        self.settings.apply(&mut post.put)?;
        post.name.clone_from(&target.name);
        let server = context.remotes.server(&target.remote)?;
        let Some(image) = image else {
            post.kind = kind(self.vm);
            post.source = InstanceSource { kind: "none".to_owned(), ..InstanceSource::default() };
            self.announce(context, &target.name)?;
            let operation = server.create_instance(&post).await?;
            let words = ("Creating", "the creation");
            let operation = wait_shown(context, &server, operation, words).await?;
            return self.made(context, target.remote, server, &target.name, &operation);
        };
        let found = source::find(context, &image, &target.remote, self.vm).await?;
        post.kind = found.kind.unwrap_or(kind(self.vm));
        if self.vm && post.kind != InstanceType::VirtualMachine {
            return Err(Failure::new(format!("Asked for a VM but image is of type {}", post.kind)));
        }
        self.announce(context, &target.name)?;
        let operation = found.create(context, &server, &post).await?;
        self.made(context, target.remote, server, &target.name, &operation)
    }

    /// The image, if there is to be one, and where the instance goes.
    fn target(
        &self,
        context: &Context,
    ) -> Outcome<(Option<crate::remotes::Reference>, crate::remotes::Reference)> {
        let parse = |word: &str| context.remotes.parse(word);
        match (self.empty, self.words.as_slice()) {
            (true, []) => Ok((None, parse("")?)),
            (true, [name]) => Ok((None, parse(name)?)),
            (true, _) => Err(Failure::usage("--empty cannot be combined with an image name")),
            (false, [image]) => Ok((Some(parse(image)?), parse("")?)),
            (false, [image, name]) => Ok((Some(parse(image)?), parse(name)?)),
            (false, _) => Err(Failure::usage("an image is needed")
                .hint("`lxd-cli image list` lists those that are here.")),
        }
    }

    /// The YAML that was given, as a request.
    async fn document(&self) -> Outcome<InstancePut> {
        let text = match &self.config_file {
            None if stdin_is_fresh_file() => read_stdin().await?,
            None => {
                if stdin_pipe_has_data() {
                    note("Note: standard input is not read; with --config-file - it would be.");
                }
                return Ok(InstancePut::default());
            }
            Some(path) if path.as_os_str() == "-" => read_stdin().await?,
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
        };
        if text.trim().is_empty() {
            return Ok(InstancePut::default());
        }
        super::config::parse_document(&text)
            .map_err(|error| Failure::new(format!("{error}; nothing was made")))
    }

    fn announce(&self, context: &Context, name: &str) -> Outcome {
        if context.quiet || !self.format.is_text() {
            return Ok(());
        }
        match name {
            "" => emit("Creating the instance\n"),
            name => emit(&format!("Creating {name}\n")),
        }
    }

    fn made(
        &self,
        context: &Context,
        remote: String,
        server: LxdClient,
        asked: &str,
        operation: &lxd_proto::operation::Operation,
    ) -> Outcome<Made> {
        let name = if asked.is_empty() { created_name(operation)? } else { asked.to_owned() };
        if asked.is_empty() && !context.quiet && self.format.is_text() {
            emit(&format!("Instance name is: {name}\n"))?;
        }
        Ok(Made { remote, server, name })
    }

    fn tell(&self, context: &Context, made: &Made, started: bool) -> Outcome {
        if context.quiet && self.format.is_text() {
            return emit(&format!("{}\n", made.name));
        }
        let object = json!({ "name": made.name, "remote": made.remote, "started": started });
        self.format.done(&object)
    }
}

const fn kind(vm: bool) -> InstanceType {
    if vm { InstanceType::VirtualMachine } else { InstanceType::Container }
}

/// Whether standard input is a file of which nothing was read: what a loop reads from is not for
/// us.
fn stdin_is_fresh_file() -> bool {
    let stdin = std::io::stdin();
    let fd = stdin.as_fd();
    let is_file = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    is_file && seek(fd, SeekFrom::Current(0)).is_ok_and(|at| at == 0)
}

fn stdin_pipe_has_data() -> bool {
    let stdin = std::io::stdin();
    let fd = stdin.as_fd();
    let is_pipe = fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo());
    is_pipe && rustix::io::ioctl_fionread(fd).is_ok_and(|bytes| bytes > 0)
}

async fn read_stdin() -> Outcome<String> {
    let text = blocking(|| {
        let mut text = String::new();
        std::io::stdin().lock().take(LARGEST).read_to_string(&mut text).map(|_| text)
    });
    text.await?.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))
}
