//! `image copy --all`: every image of a server, with what is there already skipped.

use std::collections::BTreeMap;

use lxd_proto::filter::Filter;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::Image;
use serde::Serialize;

use super::parties::{Source, Target};
use super::transfer::Job;
use super::{Copy, Mode};
use crate::command::image::alias::moved;
use crate::command::image::claims::{self, Claim, Known};
use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::output::{emit, note};

/// What came of one of many.
#[derive(Debug, Serialize)]
struct One {
    fingerprint: Fingerprint,
    /// `copied`, `present` or `failed`.
    status: &'static str,
    aliases: Vec<Claim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What came of all.
#[derive(Debug, Default, Serialize)]
struct Summary {
    copied: usize,
    present: usize,
    failed: usize,
    images: Vec<One>,
}

impl Copy {
    /// Copies all images. A failed one does not keep the others.
    pub(super) async fn run_all(
        &self,
        context: &Context,
        source: &Source,
        target: &Target,
    ) -> Outcome {
        let mut images = source.remote.images(&Filter::default()).await?;
        // The oldest first, so that the target's dates keep the order.
        images.sort_by_key(|image| (image.uploaded_at, image.created_at, image.fingerprint));
        let here = target.server.list_images(&lxd_proto::client::ListOptions::default()).await?;
        let mut move_all = MoveAll {
            copy: self,
            context,
            source,
            target,
            present: here.iter().map(|image| (image.fingerprint, image.public)).collect(),
            aliases: known(target).await?,
            mode: self.mode,
        };
        let mut summary = Summary::default();
        let total = images.len();
        for (index, image) in images.into_iter().enumerate() {
            let named = called(&image);
            let fingerprint = image.fingerprint;
            let (status, outcome) = move_all.one(image).await;
            let (aliases, error) = match outcome {
                Ok(aliases) => (aliases, None),
                Err(failure) if failure.code == INTERRUPTED => {
                    return Err(failure.hint(format!(
                        "{index} of {total} images were done; the same command goes on from there."
                    )));
                }
                Err(failure) => {
                    note(&format!("Error: {named}: {}", failure.error));
                    (Vec::new(), Some(failure.error))
                }
            };
            let status = if error.is_some() { "failed" } else { status };
            if self.format.is_text() {
                told(context, status, &named, fingerprint, &aliases)?;
            }
            summary.count(One { fingerprint, status, aliases, error });
        }
        self.conclude(context, &summary)
    }

    fn conclude(&self, context: &Context, summary: &Summary) -> Outcome {
        let Summary { copied, present, failed, images } = summary;
        let text = match images.len() {
            _ if context.quiet => String::new(),
            0 => "There is no image to copy\n".to_owned(),
            total => format!(
                "{total} images: {copied} copied, {present} already present, {failed} failed\n"
            ),
        };
        self.format.print(summary, &text)?;
        if *failed == 0 {
            return Ok(());
        }
        Err(Failure::new(format!("{failed} of {} images could not be copied", images.len()))
            .hint("The same command tries those again and skips the others."))
    }
}

impl Summary {
    fn count(&mut self, one: One) {
        match one.status {
            "copied" => self.copied += 1,
            "present" => self.present += 1,
            _ => self.failed += 1,
        }
        self.images.push(one);
    }
}

/// The names of the target, by one request instead of one a name.
async fn known(target: &Target) -> Outcome<Known> {
    let aliases = target.server.list_aliases().await?;
    Ok(aliases.into_iter().map(|alias| (alias.name.clone(), alias)).collect::<BTreeMap<_, _>>())
}

/// All images on their way.
struct MoveAll<'a> {
    copy: &'a Copy,
    context: &'a Context,
    source: &'a Source,
    target: &'a Target,
    /// What is there already, and whether strangers see it.
    present: BTreeMap<Fingerprint, bool>,
    aliases: Known,
    /// What has worked so far; the others are not tried again for each image.
    mode: Mode,
}

impl MoveAll<'_> {
    async fn one(&mut self, image: Image) -> (&'static str, Outcome<Vec<Claim>>) {
        let claims = claims::among(&self.aliases, &image.aliases);
        let fingerprint = image.fingerprint;
        let mut wish = self.copy.wish(image.profiles.clone());
        // Where everything is public, being so says nothing about the copy.
        wish.public |= image.public && self.source.server.is_some();
        let alias = image.aliases.iter().map(|alias| &alias.name).min_by_key(|name| name.len());
        let job = Job {
            context: self.context,
            source: self.source,
            alias: alias.filter(|_| self.copy.auto_update).cloned(),
            wish,
            image,
        };
        let public = self.present.get(&fingerprint).copied();
        let status = if public.is_some() { "present" } else { "copied" };
        let outcome = async {
            // Before the bytes, which would be in vain.
            if !self.copy.reuse {
                claims::refuse_taken(&claims, Some(fingerprint))?;
            }
            match public {
                None => self.mode = self.copy.travel(&job, self.target, self.mode).await?.0,
                Some(false) if job.wish.public => drop(job.apply(self.target).await?),
                Some(_) => {}
            }
            claims::set(&self.target.server, &claims, fingerprint, self.copy.reuse).await
        }
        .await;
        if outcome.is_ok() {
            self.present.insert(fingerprint, job.wish.public);
        }
        (status, outcome.map(|()| claims))
    }
}

/// How an image is called in messages: by its shortest name.
fn called(image: &Image) -> String {
    let short = image.fingerprint.short();
    match image.aliases.iter().map(|alias| &alias.name).min_by_key(|name| name.len()) {
        Some(alias) => format!("{short} ({alias})"),
        None => short,
    }
}

fn told(
    context: &Context,
    status: &str,
    named: &str,
    fingerprint: Fingerprint,
    aliases: &[Claim],
) -> Outcome {
    match status {
        "failed" => return Ok(()),
        _ if context.quiet => emit(&format!("{fingerprint}\n"))?,
        "present" => emit(&format!("Image already present: {named}\n"))?,
        _ => emit(&format!("Image copied: {named}\n"))?,
    }
    for claim in aliases {
        if let Some(old) = claim.was.filter(|old| *old != fingerprint) {
            emit(&moved(&claim.name, old, fingerprint))?;
        }
    }
    Ok(())
}
