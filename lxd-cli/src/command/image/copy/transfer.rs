//! One image on its way: what is wanted, which ways there are, and what is told about them.

use lxd_proto::client::LxdClient;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::image::{Image, ImagesPost, InstanceType};
use lxd_proto::operation::Operation;
use lxd_proto::remote::Protocol;
use lxd_proto::time;

use super::Mode;
use super::parties::{Source, Target};
use crate::command::image::fetching::{self, request};
use crate::command::image::update::update;
use crate::context::Context;
use crate::failure::Outcome;

/// What is shown while the bytes travel.
pub(super) const LABEL: &str = "Copying the image";

/// What the copy shall be.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) public: bool,
    pub(super) auto_update: bool,
    pub(super) profiles: Option<Vec<String>>,
    pub(super) vm: bool,
}

impl Wish {
    /// The request for the copy, without its source.
    pub(super) fn request(&self) -> ImagesPost {
        ImagesPost {
            auto_update: self.auto_update,
            public: self.public,
            profiles: self.profiles.clone(),
            ..request()
        }
    }

    /// What an alias means, for the server that looks it up.
    pub(super) fn kind_word(&self) -> String {
        if self.vm { InstanceType::VirtualMachine.as_str().to_owned() } else { String::new() }
    }
}

/// One image to copy.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) context: &'a Context,
    pub(super) source: &'a Source,
    pub(super) image: Image,
    /// The alias it was found by.
    pub(super) alias: Option<String>,
    pub(super) wish: Wish,
}

impl Job<'_> {
    /// Whether strangers do not see it.
    pub(super) fn is_private(&self) -> bool {
        !self.image.public && self.source.spec().protocol == Protocol::Lxd
    }

    /// The ways that may work, best first.
    pub(super) fn modes(&self, wanted: Mode, target: &Target) -> Vec<Mode> {
        match wanted {
            Mode::Auto if self.wish.auto_update => vec![Mode::Pull],
            // What the target cannot check, this client does.
            Mode::Auto if !target.may_pull(self.source) => vec![Mode::Relay],
            Mode::Auto if self.source.server.is_some() => vec![Mode::Pull, Mode::Push, Mode::Relay],
            Mode::Auto => vec![Mode::Pull, Mode::Relay],
            one => vec![one],
        }
    }

    /// A way in words.
    pub(super) fn way(&self, target: &Target, mode: Mode) -> String {
        let (from, to) = (&self.source.name, &target.name);
        match mode {
            Mode::Auto | Mode::Pull => format!("Copying by pull: {to}: downloads from {from}:"),
            Mode::Push => format!("Copying by push: {from}: uploads to {to}:"),
            Mode::Relay => "Copying by relay: through this client".to_owned(),
        }
    }

    /// Gives an image that is there already what was asked for.
    pub(super) async fn apply(&self, target: &Target) -> Outcome<bool> {
        let wish = &self.wish;
        update(&target.server, self.image.fingerprint, |image| {
            image.public |= wish.public;
        })
        .await
    }

    /// Gives an image that was uploaded what an upload cannot carry.
    pub(super) async fn complete(
        &self,
        target: &Target,
        fingerprint: Fingerprint,
    ) -> Outcome<bool> {
        update(&target.server, fingerprint, |image| {
            if !time::is_unset(self.image.expires_at) {
                image.expires_at = self.image.expires_at;
            }
            if let Some(profiles) = &self.wish.profiles {
                image.profiles = Some(profiles.clone());
            }
        })
        .await
    }
}

/// Waits for a copy that a server makes; `size` when it is known.
pub(super) async fn wait(
    context: &Context,
    server: &LxdClient,
    operation: Operation,
    size: Option<u64>,
) -> Outcome<Operation> {
    let words = (LABEL, "the copy");
    fetching::wait(context, server, operation, size, words).await
}
