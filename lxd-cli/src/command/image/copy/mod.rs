//! `image copy`: one image, or all of a server, to another server.

mod all;
pub(crate) mod parties;
mod pull;
mod push;
mod relay;
mod transfer;

use clap::{Args, ValueEnum};
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use lxd_proto::remote::{Error, resolve};
use serde::Serialize;

use crate::command::flags::{ResultFormat, VmFlag};
use crate::command::image::alias::moved;
use crate::command::image::claims::{self, Claim};
use crate::context::Context;
use crate::failure::{Cause, Failure, Outcome};
use crate::output::{emit, note};

use parties::{Source, Target};
use transfer::{Job, Wish};

/// Copy an image from one server to another.
#[derive(Debug, Args)]
#[command(
    override_usage = "lxd-cli image copy [OPTIONS] [REMOTE:]IMAGE REMOTE:\n       \
                      lxd-cli image copy [OPTIONS] --all REMOTE: REMOTE:",
    after_help = "\
How the bytes travel: \"pull\" lets the target download from the source, \"push\" lets the source
upload to the target, \"relay\" sends them through this client. \"auto\" takes the first of these that
can work: each needs another connection. Only a pulled copy can follow its source (--auto-update),
and only when it was named by an alias.

--all copies every image that may be seen, with its aliases. What is there already is skipped, so
that a copy that was interrupted goes on where it was.

Examples:
  lxd-cli image copy images:debian/12 local: --alias debian --auto-update
  lxd-cli image copy backup:debian/12 local: --copy-aliases --public
  lxd-cli image copy local:debian/12 backup: --mode push
  lxd-cli image copy --all old-server: local:"
)]
pub(crate) struct Copy {
    /// The image (with --all just its server), and the server it goes to
    #[arg(value_name = "IMAGE | REMOTE:", num_args = 2, required = true)]
    words: Vec<String>,
    /// A name for the copy; may be repeated
    #[arg(long = "alias", value_name = "NAME", conflicts_with = "all")]
    aliases: Vec<String>,
    /// Give the copy the names that the image has at its source
    #[arg(long)]
    copy_aliases: bool,
    /// Keep the copy current
    #[arg(long)]
    auto_update: bool,
    /// Show the copy to strangers
    #[arg(long)]
    public: bool,
    /// Take the names from other images if they have them
    #[arg(long)]
    reuse: bool,
    /// How the bytes travel
    #[arg(long, value_enum, default_value_t)]
    mode: Mode,
    /// A profile for instances made from the copy; may be repeated
    #[arg(short, long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// The project at the target
    #[arg(long, value_name = "NAME")]
    target_project: Option<String>,
    /// Copy every image of the source
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    vm: VmFlag,
    #[command(flatten)]
    format: ResultFormat,
}

/// How the bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// The first that can work.
    #[default]
    Auto,
    /// The target downloads from the source.
    Pull,
    /// The source uploads to the target.
    Push,
    /// Through this client.
    Relay,
}

impl Mode {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Relay => "relay",
        }
    }
}

/// What came of one image.
#[derive(Debug, Serialize)]
struct Report {
    fingerprint: Fingerprint,
    /// `copied` or `present`.
    status: &'static str,
    /// How; absent when nothing had to travel.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    aliases: Vec<Claim>,
}

/// Brings an image through this client to a server that cannot fetch it by itself; one that is
/// there already stays as it is.
pub(crate) async fn bring(
    context: &Context,
    source: &Source,
    target: &Target,
    image: Image,
) -> Outcome {
    if target.has(&image.fingerprint).await? {
        return Ok(());
    }
    let job = Job { context, source, image, alias: None, wish: Wish::default() };
    relay::relay(&job, target).await.map(|_| ())
}

impl Copy {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let [from, to] = self.words.as_slice() else {
            return Err(Failure::usage("an image and a server are needed"));
        };
        let target = self.target(context, to).await?;
        if self.auto_update && !matches!(self.mode, Mode::Auto | Mode::Pull) {
            return Err(Failure::usage("Auto update is only available in pull mode"));
        }
        if self.all {
            let source = match context.remotes.parse_bare(from) {
                Some(name) => Source::open(context, &name?).await?,
                None => {
                    return Err(Failure::usage(format!("\"{from}\" is no remote"))
                        .hint("With --all the source is just a server, such as \"old:\"."));
                }
            };
            target.refuse_same(&source)?;
            return self.run_all(context, &source, &target).await;
        }
        let reference = context.remotes.parse(from)?;
        let source = Source::open(context, &reference.remote).await?;
        target.refuse_same(&source)?;
        let report = match self.find(context, &source, &reference.name).await? {
            Some(job) => self.one(&job, &target).await?,
            None => self.unresolved(context, &source, &target, &reference.name).await?,
        };
        self.tell(context, &report)
    }

    async fn target(&self, context: &Context, word: &str) -> Outcome<Target> {
        let Some(name) = context.remotes.parse_bare(word) else {
            let failure = context.remotes.lacks_colon(word).unwrap_or_else(|| {
                Failure::usage("Can't provide a name for the target image")
                    .hint("Write just the server, as in \"local:\"; --alias names the copy.")
            });
            return Err(failure);
        };
        Target::open(context, &name?, self.target_project.as_deref()).await
    }

    /// The image, as the source describes it. `None` when this client cannot ask the source, but
    /// the target may.
    async fn find<'a>(
        &'a self,
        context: &'a Context,
        source: &'a Source,
        name: &str,
    ) -> Outcome<Option<Job<'a>>> {
        let found = resolve(&*source.remote, name, &self.vm.want(), None).await;
        match found {
            Err(Error::Connect { .. } | Error::Silent { .. }) if self.may_stay_unresolved(name) => {
                Ok(None)
            }
            Ok(resolved) => Ok(Some(Job {
                context,
                source,
                wish: self.wish(resolved.image.profiles.clone()),
                image: resolved.image,
                alias: resolved.alias,
            })),
            Err(Error::NotFound { .. }) => {
                // With the names that are close.
                let reference = crate::remotes::Reference {
                    remote: source.name.clone(),
                    name: name.to_owned(),
                };
                let want = self.vm.want();
                context.remotes.image(&*source.remote, &reference, &want).await.map(|_| None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a name can be sent to the target as it is.
    fn may_stay_unresolved(&self, name: &str) -> bool {
        !name.is_empty() && !self.copy_aliases && matches!(self.mode, Mode::Auto | Mode::Pull)
    }

    fn wish(&self, own_profiles: Vec<String>) -> Wish {
        let profiles = if self.profiles.is_empty() { own_profiles } else { self.profiles.clone() };
        Wish {
            public: self.public,
            auto_update: self.auto_update,
            profiles: Some(profiles).filter(|profiles| !profiles.is_empty()),
            vm: self.vm.vm,
        }
    }

    /// Copies one image and gives it its names.
    async fn one(&self, job: &Job<'_>, target: &Target) -> Outcome<Report> {
        let mut names = claims::typed(&self.aliases)?;
        if self.copy_aliases {
            names.extend(job.image.aliases.iter().cloned());
        }
        let claims = claims::look_up(&target.server, &names).await?;
        let expected = job.image.fingerprint;
        if !self.reuse {
            claims::refuse_taken(&claims, Some(expected))?;
        }
        let follows = self.auto_update && Self::can_follow(job);
        // A copy that is to follow its source must be made known to the server as one.
        if !follows && target.has(&expected).await? {
            job.apply(target).await?;
            claims::set(&target.server, &claims, expected, self.reuse).await?;
            return Ok(Report {
                fingerprint: expected,
                status: "present",
                mode: None,
                aliases: claims,
            });
        }
        let (mode, fingerprint) = self.travel(job, target, self.mode).await?;
        claims::set(&target.server, &claims, fingerprint, self.reuse).await?;
        Ok(Report { fingerprint, status: "copied", mode: Some(mode), aliases: claims })
    }

    /// Whether there will be something to follow; says so if not.
    fn can_follow(job: &Job<'_>) -> bool {
        let name = &job.source.name;
        if job.alias.is_none() {
            note(&format!(
                "Warning: the image was named by its fingerprint, so there is no alias on {name}: \
                 to follow; the copy will not be updated."
            ));
        } else if job.is_private() {
            note(&format!(
                "Warning: the image is private on {name}:, so it can be fetched only this once; \
                 the copy will not be updated."
            ));
        }
        job.alias.is_some() && !job.is_private()
    }

    /// Copies an image about which only the target can ask.
    async fn unresolved(
        &self,
        context: &Context,
        source: &Source,
        target: &Target,
        name: &str,
    ) -> Outcome<Report> {
        target.must_check(source)?;
        note(&format!(
            "{}: cannot be reached from here; {}: is asked to fetch \"{name}\" from it.",
            source.name, target.name
        ));
        let names = claims::typed(&self.aliases)?;
        let claims = claims::look_up(&target.server, &names).await?;
        if !self.reuse {
            claims::refuse_taken(&claims, None)?;
        }
        let wish = self.wish(Vec::new());
        let fingerprint = pull::by_name(context, source, target, &wish, name).await?;
        claims::set(&target.server, &claims, fingerprint, self.reuse).await?;
        Ok(Report { fingerprint, status: "copied", mode: Some(Mode::Pull), aliases: claims })
    }

    /// Moves the bytes, in the first way that works.
    async fn travel(
        &self,
        job: &Job<'_>,
        target: &Target,
        mode: Mode,
    ) -> Outcome<(Mode, Fingerprint)> {
        let possible = job.modes(mode, target);
        if possible == [Mode::Pull] {
            target.must_check(job.source).map_err(|failure| {
                failure.hint(if self.auto_update {
                    "Without --auto-update this client checks them, and relays the image."
                } else {
                    "--mode relay copies through this client, which checks them."
                })
            })?;
        }
        let mut refused: Option<Failure> = None;
        for mode in possible {
            if self.mode == Mode::Auto && !job.context.quiet {
                note(&job.way(target, mode));
            }
            let done = match mode {
                Mode::Pull | Mode::Auto => pull::pull(job, target).await,
                Mode::Push => push::push(job, target).await,
                Mode::Relay => relay::relay(job, target).await,
            };
            match done {
                Ok(fingerprint) => return Ok((mode, fingerprint)),
                Err(failure) if failure.cause == Cause::Unreachable => {
                    if self.mode == Mode::Auto && !job.context.quiet {
                        note(&format!("That does not work: {}", failure.error));
                    }
                    refused.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        let failure = refused.unwrap_or_else(|| Failure::new("there is no way to copy this image"));
        Err(match self.mode {
            Mode::Auto => failure,
            mode => failure.hint(format!(
                "--mode {} needs that connection; --mode relay copies through this client.",
                mode.as_str()
            )),
        })
    }

    fn tell(&self, context: &Context, report: &Report) -> Outcome {
        let fingerprint = report.fingerprint;
        if context.quiet && self.format.is_text() {
            return emit(&format!("{fingerprint}\n"));
        }
        let mut text = match report.mode {
            None => format!("Image already present with fingerprint: {fingerprint}\n"),
            Some(mode) => {
                format!("Image copied with fingerprint: {fingerprint} ({})\n", mode.as_str())
            }
        };
        for claim in &report.aliases {
            if let Some(old) = claim.was.filter(|old| *old != fingerprint) {
                text.push_str(&moved(&claim.name, old, fingerprint));
            }
        }
        self.format.print(report, &text)
    }
}
