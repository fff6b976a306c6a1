//! The tree of commands. What a command takes stands in its own file.

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::command::{self, config, image, instance, mirror, operation, remote, streams};
use crate::progress::Style;

const ABOUT: &str = "Client for lxd-imaged and other LXD image servers";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "lxd-cli",
    about = ABOUT,
    version,
    disable_help_subcommand = false,
    infer_subcommands = false,
    // The last one wins, as with lxc: an alias can have defaults.
    args_override_self = true,
    max_term_width = 100,
    after_help = "\
Images are named by alias, by fingerprint, or by the beginning of one; on another server as
REMOTE:NAME. The daemon is looked for at $LXD_SOCKET, then in $LXD_DIR; without these, in
/var/lib/lxd-imaged, or in /var/lib/lxd when only a real LXD has its socket there. Remotes and
command aliases are in $LXD_CONF/config.yml (~/.config/lxc).

Examples:
  lxd-cli image import rootfs-image.tar.xz --alias debian/12
  lxd-cli image list os=debian -f json
  lxd-cli image export debian/12 ./backup/
  lxd-cli launch debian/12 web"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Show what the layers below said when something fails
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Accepted for lxc's sake; results are always printed
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Only the result, in its barest form, and no progress
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// How transfers are shown on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "STYLE")]
    pub(crate) progress: Style,
    /// Use another project of the server
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Ignore config.yml: only the built-in remotes
    #[arg(long, global = true)]
    pub(crate) force_local: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an instance from an image and start it
    Launch(instance::create::Launch),
    /// Make an instance from an image
    #[command(visible_alias = "create")]
    Init(instance::create::Init),
    /// List instances
    #[command(visible_alias = "ls")]
    List(instance::list::List),
    /// Start instances
    Start(instance::state::Start),
    /// Stop instances
    Stop(instance::state::Stop),
    /// Stop and start instances
    Restart(instance::state::Restart),
    /// Freeze the processes of instances
    Pause(instance::state::Pause),
    /// Run a command in an instance
    Exec(instance::exec::Exec),
    /// Send, fetch and delete files of an instance
    #[command(subcommand, arg_required_else_help = true)]
    File(instance::file::Command),
    /// Show what an instance has written to its console
    Console(instance::console::Console),
    /// Keep the state of an instance
    Snapshot(instance::snapshot::Take),
    /// Bring an instance back to a snapshot
    Restore(instance::snapshot::Restore),
    /// Copy an instance
    #[command(visible_alias = "cp")]
    Copy(instance::copy::Copy),
    /// Give an instance or a snapshot another name
    #[command(visible_aliases = ["move", "mv"])]
    Rename(instance::rename::Rename),
    /// Make an image from an instance or a snapshot
    Publish(instance::publish::Publish),
    /// Delete instances and snapshots
    #[command(visible_alias = "rm")]
    Delete(instance::delete::Delete),
    /// Manage images
    #[command(subcommand, arg_required_else_help = true)]
    Image(image::Command),
    /// Keep a selection of another server's images
    #[command(subcommand, arg_required_else_help = true)]
    Mirror(mirror::Command),
    /// Manage the configuration of the server and of instances
    #[command(subcommand, arg_required_else_help = true)]
    Config(config::Command),
    /// List, watch and cancel background operations
    #[command(subcommand, arg_required_else_help = true)]
    Operation(operation::Command),
    /// Manage the servers that have a name
    #[command(subcommand, arg_required_else_help = true)]
    Remote(remote::Command),
    /// Publish images as a simplestreams tree
    #[command(subcommand, arg_required_else_help = true)]
    Streams(streams::Command),
    /// Manage command aliases
    #[command(subcommand, arg_required_else_help = true)]
    Alias(command::alias::Command),
    /// Show an instance, or what the server says about itself
    Info(command::info::Info),
    /// Show the versions of client and server
    Version(command::version::Version),
    /// Watch what happens on the server
    Monitor(command::monitor::Monitor),
    /// Find out why a server cannot be used
    Doctor(command::doctor::Doctor),
    /// Send a request to the server's API
    Query(command::query::Query),
    /// Print a completion script for a shell
    Completion(command::completion::Completion),
}

/// The tree, ready to parse.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_stand_anywhere() {
        for line in [
            "lxd-cli image list -fcsv local: os=debian -c lf",
            "lxd-cli image --quiet list local: --format=csv -clf os=debian",
            "lxd-cli -q image list -c lf -- local: os=debian",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Image(image::Command::List(list)) = cli.command else { panic!("{line}") };
            assert_eq!(list.filters, ["local:", "os=debian"], "{line}");
            assert_eq!(list.columns, "lf");
        }
    }

    #[test]
    fn of_a_flag_given_twice_the_last_wins() {
        let line = "lxd-cli image list -f csv -c l -q -q --format json -c F";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Image(image::Command::List(list)) = cli.command else { panic!("{line}") };
        assert_eq!(list.columns, "F");
        assert_eq!(list.format.format.shape, crate::output::Shape::Json);
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            let leaf = !command.has_subcommands();
            if leaf && command.get_name() != "help" {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("lxd-cli"), "{path} has no example");
            }
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&command(), "");
    }
}
