//! `completion`: scripts for shells.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli;
use crate::failure::Outcome;
use crate::output::emit;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lxd-cli completion bash > /usr/share/bash-completion/completions/lxd-cli
  lxd-cli completion zsh > \"${fpath[1]}/_lxd-cli\"
  lxd-cli completion fish > ~/.config/fish/completions/lxd-cli.fish")]
pub(crate) struct Completion {
    /// Which shell
    #[arg(value_enum)]
    shell: Known,
}

/// Shells that a script is made for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(crate) fn run(&self) -> Outcome {
        let shell = match self.shell {
            Known::Bash => Shell::Bash,
            Known::Zsh => Shell::Zsh,
            Known::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        generate(shell, &mut cli::command(), "lxd-cli", &mut script);
        emit(&String::from_utf8_lossy(&script))
    }
}
