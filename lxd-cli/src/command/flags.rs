//! Flags that many commands share.

use clap::Args;
use lxd_proto::image::InstanceType;
use lxd_proto::remote::Want;

use crate::output::Format;

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
    #[arg(short, long, default_value = "text", value_name = "FORMAT")]
    pub(crate) format: Format,
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
        Want { kind, architecture: None }
    }
}
