//! When everything has been tried: names move, what is shown to whom is set, old versions go.

use std::collections::BTreeMap;

use lxd_proto::alias::AliasName;
use lxd_proto::fingerprint::Fingerprint;
use lxd_proto::mirror::{MirrorAction, MirrorConflict, MirrorReport};

use super::super::{Retired, retire};
use super::{Run, held};
use crate::acquire::{by_itself, follow};
use crate::db::{Change, MirrorChange};
use crate::error::{Error, Result};
use crate::mirror::plan::{Held, Owner, Plan};

impl Run {
    /// Aliases to the newest versions that are here; then what is not needed goes.
    pub(super) async fn finish(&self, plan: &Plan, report: &mut MirrorReport) -> Result<()> {
        let held_now = held(&self.app, &self.name)?;
        for (leader, aliases) in plan.leaders(&held_now) {
            self.point(leader, aliases, &held_now, report).await?;
        }
        self.unset(plan, &held_now).await?;
        super::super::show(&self.app, &self.name).await?;
        // What a person has done meanwhile counts.
        let held_now = held(&self.app, &self.name)?;
        for mut item in plan.retire(&self.config, &held_now) {
            if item.action == MirrorAction::Remove {
                match retire(&self.app, &by_itself(), &self.name, &item.fingerprint).await {
                    Ok(Retired::Removed | Retired::Left | Retired::Gone) => {}
                    // In the meantime somebody has come to need it.
                    Ok(Retired::Bound(reason)) => {
                        (item.action, item.reason) = (MirrorAction::Keep, reason);
                    }
                    Err(error @ Error::ShuttingDown) => return Err(error),
                    Err(error) => {
                        item.action = MirrorAction::Fail;
                        item.reason =
                            format!("cannot be removed: {}", follow::printable(&error.to_string()));
                    }
                }
            }
            report.add(item);
        }
        Ok(())
    }

    /// Points aliases at the image that should have them; those of others are told.
    async fn point(
        &self,
        leader: Fingerprint,
        aliases: &[AliasName],
        held: &BTreeMap<Fingerprint, Held>,
        report: &mut MirrorReport,
    ) -> Result<()> {
        let mut free = Vec::new();
        let mut refused = Vec::new();
        for alias in aliases {
            let target = self.app.catalog.target(alias.as_str());
            match self.owner(alias.as_str()) {
                Owner::Other(reason) => refused.push((alias.clone(), reason)),
                Owner::Mirror if target == Some(leader) => {}
                Owner::Mirror | Owner::Nobody => free.push((alias.clone(), leader)),
            }
        }
        if !free.is_empty() {
            let point = |aliases| Change::Mirror(MirrorChange::Point(self.name.clone(), aliases));
            match self.app.db.commit(point(free.clone())).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                // Somebody has taken one of them in this moment: the others come one by one.
                Err(Error::AliasExists(_)) => {
                    for one in free {
                        match self.app.db.commit(point(vec![one.clone()])).await {
                            Ok(()) | Err(Error::NotFound(_)) => {}
                            Err(Error::AliasExists(_)) => {
                                refused.push((one.0, "a person has just taken it".to_owned()));
                            }
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let product = held.get(&leader).map(|held| held.member.product.clone());
        let product = product.unwrap_or_default();
        for (alias, reason) in refused {
            report.conflict(MirrorConflict { alias, product: product.clone(), reason });
        }
        Ok(())
    }

    /// Takes aliases away that the mirror has set and the server does not have any more.
    async fn unset(&self, plan: &Plan, held: &BTreeMap<Fingerprint, Held>) -> Result<()> {
        let set = self.app.catalog.mirrors.get(&self.name)?.aliases.clone();
        let gone = |(alias, target): (String, Fingerprint)| {
            let product = &held.get(&target)?.member.product;
            let ours = self.app.catalog.target(&alias) == Some(target);
            let dropped = ours && plan.drops(&alias, product);
            dropped.then(|| AliasName::try_from(alias).ok().map(|alias| (alias, target)))?
        };
        let gone: Vec<_> = set.into_iter().filter_map(gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let change = MirrorChange::Unset(self.name.clone(), gone);
        self.app.db.commit(Change::Mirror(change)).await
    }
}
