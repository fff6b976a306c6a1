//! `publish`: an image from an instance or a snapshot.

use clap::Args;
use jiff::Timestamp;
use lxd_proto::image::{ImageSource, ImagesPost, Properties};
use lxd_proto::instance::{Action, InstancePut, StatePut};
use serde_json::json;

use super::settings::pair;
use super::{Named, wait, wait_shown};
use crate::command::flags::LongFormat;
use crate::command::image::alias::moved;
use crate::command::image::claims::{self, Claim};
use crate::command::image::edit::parse_time;
use crate::command::image::fetching::{request, result};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::output::emit;

/// Make an image from an instance or a snapshot.
#[derive(Debug, Args)]
#[command(after_help = "\
KEY=VALUE pairs become the properties of the image; without any it has those of the image that the
instance was made from.

Examples:
  lxd-cli publish web --alias web/1 description='Web server'
  lxd-cli publish web/before-update --alias web/0 --compression zstd
  lxd-cli publish web --force --alias web/current --reuse")]
pub(crate) struct Publish {
    /// The instance or snapshot
    #[arg(value_name = "[REMOTE:]NAME[/SNAPSHOT]")]
    from: String,
    /// The server of the image, which is that of the instance, and properties
    #[arg(value_name = "REMOTE: | KEY=VALUE")]
    words: Vec<String>,
    /// A name for the image; may be repeated
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,
    /// Show the image to strangers
    #[arg(long)]
    public: bool,
    /// Stop the instance if it runs, and start it again afterwards
    #[arg(short, long)]
    force: bool,
    /// How to compress: gzip, zstd, xz, bzip2, lz4 or none
    #[arg(long, value_name = "ALGORITHM")]
    compression: Option<String>,
    /// When the image may go, such as 2030-01-31
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expire: Option<Timestamp>,
    /// Take the names from other images if they have them
    #[arg(long)]
    reuse: bool,
    #[command(flatten)]
    format: LongFormat,
}

impl Publish {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let from = Named::parse(context, &self.from)?;
        let post = self.request(context, &from)?;
        let names = claims::typed(&self.aliases)?;
        let claims = claims::look_up(&from.server, &names).await?;
        if !self.reuse {
            claims::refuse_taken(&claims, None)?;
        }
        let stopped = self.stop(context, &from).await?;
        let published = publish(context, &from, &post).await;
        // Also after a failure the instance is as it was.
        if let Some(stopped) = stopped {
            stopped.start_again(context, &from).await?;
        }
        let operation = published?;
        let fingerprint = result(&operation, None)?;
        claims::set(&from.server, &claims, fingerprint, self.reuse).await?;
        self.tell(context, fingerprint, &claims)
    }

    fn request(&self, context: &Context, from: &Named) -> Outcome<ImagesPost> {
        let mut words = self.words.as_slice();
        if let Some((first, rest)) = words.split_first()
            && !first.contains('=')
        {
            let to = context.remotes.parse_bare(first).unwrap_or_else(|| {
                Err(Failure::usage("There is no \"image name\".  Did you want an alias?")
                    .hint(format!("--alias {first} names the image.")))
            })?;
            if to != from.remote {
                return Err(Failure::usage(format!(
                    "an instance on {}: cannot be published to {to}:",
                    from.remote
                ))
                .hint(format!(
                    "Publish it on {}:, then `lxd-cli image copy {}:IMAGE {to}:`.",
                    from.remote, from.remote
                )));
            }
            words = rest;
        }
        let properties: Properties = words.iter().map(|word| pair(word)).collect::<Outcome<_>>()?;
        let (kind, name) = match &from.snapshot {
            None => ("instance", from.name.clone()),
            Some(_) => ("snapshot", from.shown()),
        };
        let source = ImageSource { kind: kind.into(), name, ..ImageSource::default() };
        let mut post = request();
        post.public = self.public;
        post.properties = Some(properties).filter(|given| !given.is_empty());
        post.source = Some(source);
        post.compression_algorithm = self.compression.clone().unwrap_or_default();
        post.expires_at = self.expire.unwrap_or(post.expires_at);
        Ok(post)
    }

    /// Stops the instance if it runs and may be stopped; `None` when it did not run.
    async fn stop(&self, context: &Context, from: &Named) -> Outcome<Option<Stopped>> {
        if from.snapshot.is_some() {
            return Ok(None);
        }
        let read = from.server.get_instance(&from.name).await;
        let instance = from.ok(read).await?.value;
        if !instance.status.is_up() {
            return Ok(None);
        }
        if !self.force {
            return Err(Failure::new(
                "The instance is currently running. Use --force to have it stopped and restarted",
            ));
        }
        let put = InstancePut::from(&instance);
        if put.ephemeral {
            // It would be gone once it stops.
            let kept = InstancePut { ephemeral: false, ..put.clone() };
            let operation = from.server.put_instance(&from.name, &kept, None).await?;
            wait(context, &from.server, operation, "the publishing").await?;
        }
        let put_state = StatePut { force: true, ..StatePut::new(Action::Stop) };
        let operation = from.server.put_instance_state(&from.name, &put_state).await?;
        wait(context, &from.server, operation, "the publishing").await?;
        Ok(Some(Stopped { ephemeral: put.ephemeral }))
    }

    fn tell(
        &self,
        context: &Context,
        fingerprint: lxd_proto::fingerprint::Fingerprint,
        claims: &[Claim],
    ) -> Outcome {
        if context.quiet && self.format.result().is_text() {
            return emit(&format!("{fingerprint}\n"));
        }
        let mut text = format!("Instance published with fingerprint: {fingerprint}\n");
        for claim in claims {
            if let Some(old) = claim.was.filter(|old| *old != fingerprint) {
                text.push_str(&moved(&claim.name, old, fingerprint));
            }
        }
        self.format.result().print(&json!({ "fingerprint": fingerprint, "aliases": claims }), &text)
    }
}

async fn publish(
    context: &Context,
    from: &Named,
    post: &ImagesPost,
) -> Outcome<lxd_proto::operation::Operation> {
    let begun = from.server.create_image_from(post).await;
    let operation = from.ok(begun).await?;
    wait_shown(context, &from.server, operation, ("Publishing instance", "the publishing")).await
}

/// An instance that was stopped for its image.
struct Stopped {
    ephemeral: bool,
}

impl Stopped {
    async fn start_again(&self, context: &Context, from: &Named) -> Outcome {
        let (server, name) = (&from.server, &from.name);
        if self.ephemeral {
            let read = server.get_instance(name).await?.value;
            let put = InstancePut { ephemeral: true, ..InstancePut::from(&read) };
            let operation = server.put_instance(name, &put, None).await?;
            wait(context, server, operation, "the publishing").await?;
        }
        let operation = server.put_instance_state(name, &StatePut::new(Action::Start)).await?;
        wait(context, server, operation, "the start").await.map(drop)
    }
}
