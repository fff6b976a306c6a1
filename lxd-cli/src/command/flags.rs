//! Words and flags that many commands share.

use std::sync::Arc;

use clap::Args;
use lxd_proto::client::LxdClient;
use lxd_proto::image::InstanceType;
use lxd_proto::remote::{Remote, Resolved, Want};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::{Format, Shape, print_result};

/// `--format` of a list.
#[derive(Debug, Args)]
pub(crate) struct ListFormat {
    /// table, csv, json, yaml or compact; with ",header" or ",noheader" appended if wanted
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// `--format` of a single result.
#[derive(Debug, Args)]
pub(crate) struct ResultFormat {
    /// text, json or yaml
    #[arg(
        short,
        long,
        default_value = "text",
        value_name = "FORMAT",
        value_parser = Format::of_result
    )]
    pub(crate) format: Format,
}

impl ResultFormat {
    /// Whether people read it, rather than programs.
    pub(crate) fn is_text(&self) -> bool {
        !matches!(self.format.shape, Shape::Json | Shape::Yaml)
    }

    /// Prints `text` for people, the object for programs.
    pub(crate) fn print(&self, object: &impl Serialize, text: &str) -> Outcome {
        print_result(self.format, object, text)
    }

    /// Silent for people, as lxc is; the object for programs.
    pub(crate) fn done(&self, object: &impl Serialize) -> Outcome {
        if self.is_text() { Ok(()) } else { print_result(self.format, object, "") }
    }
}

/// `--format` of a single result, where `-f` means something else.
#[derive(Debug, Args)]
pub(crate) struct LongFormat {
    /// text, json or yaml
    #[arg(long, default_value = "text", value_name = "FORMAT", value_parser = Format::of_result)]
    format: Format,
}

impl LongFormat {
    /// The same, as others have it.
    pub(crate) fn result(&self) -> ResultFormat {
        ResultFormat { format: self.format }
    }
}

/// `--vm`.
#[derive(Debug, Args)]
pub(crate) struct VmFlag {
    /// Let an alias mean a virtual-machine image
    #[arg(long)]
    pub(crate) vm: bool,
}

impl VmFlag {
    /// What an alias should lead to.
    pub(crate) fn want(&self) -> Want {
        let kind = self.vm.then_some(InstanceType::VirtualMachine);
        Want { kind, ..Want::default() }
    }
}

/// An image on any server.
#[derive(Debug, Args)]
pub(crate) struct ImageArg {
    /// Alias, fingerprint or its beginning
    #[arg(value_name = "[REMOTE:]IMAGE")]
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) vm: VmFlag,
}

/// An image that was found, and on what.
#[derive(Debug)]
pub(crate) struct Found<R> {
    /// The name of the remote.
    pub(crate) remote: String,
    /// The remote itself.
    pub(crate) server: R,
    /// The image.
    pub(crate) resolved: Resolved,
}

impl ImageArg {
    /// Finds the image on whatever server it is on.
    pub(crate) async fn read(&self, context: &Context) -> Outcome<Found<Arc<dyn Remote>>> {
        let reference = context.remotes.parse(&self.image)?;
        let server = context.remotes.reader(&reference.remote)?;
        let resolved = context.remotes.image(&*server, &reference, &self.vm.want()).await?;
        Ok(Found { remote: reference.remote, server, resolved })
    }

    /// Finds the image on an LXD server, to do something with it.
    pub(crate) async fn open(&self, context: &Context) -> Outcome<Found<LxdClient>> {
        open(context, &self.image, &self.vm.want()).await
    }
}

/// The image that a word names on an LXD server.
pub(crate) async fn open(context: &Context, word: &str, want: &Want) -> Outcome<Found<LxdClient>> {
    let reference = context.remotes.parse(word)?;
    if reference.name.is_empty() {
        return Err(Failure::usage(format!("Image identifier missing: {word}")));
    }
    let server = context.remotes.server(&reference.remote)?;
    let resolved = context.remotes.image(&server, &reference, want).await?;
    Ok(Found { remote: reference.remote, server, resolved })
}

/// A server, by the name of its remote.
#[derive(Debug, Args)]
pub(crate) struct ServerArg {
    /// Which server; the default remote if not given
    #[arg(value_name = "REMOTE:")]
    pub(crate) remote: Option<String>,
}

impl ServerArg {
    /// The name of the remote.
    pub(crate) fn name(&self, context: &Context) -> Outcome<String> {
        let Some(word) = &self.remote else {
            return Ok(context.remotes.config.default_remote.clone());
        };
        let known = |name: &str| context.remotes.config.remotes.contains_key(name);
        match context.remotes.parse_bare(word) {
            Some(name) => name,
            // A remote alone is clear enough without its colon.
            None if known(word) => Ok(word.clone()),
            None => Err(Failure::usage(format!("\"{word}\" is no remote"))
                .hint("A remote ends with a colon, as in \"local:\".")),
        }
    }

    /// The server itself.
    pub(crate) fn open(&self, context: &Context) -> Outcome<LxdClient> {
        context.remotes.server(&self.name(context)?)
    }
}
