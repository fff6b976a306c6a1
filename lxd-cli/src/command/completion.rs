//! `completion`: scripts for shells.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli;
use crate::failure::Outcome;
use crate::output::emit;

/// The name of the program.
const NAME: &str = "lxd-cli";

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
        generate(shell, &mut cli::command(), NAME, &mut script);
        let mut script = String::from_utf8_lossy(&script).into_owned();
        if shell == Shell::Bash {
            script = with_one_spelling(&script);
        }
        emit(&script)
    }
}

/// The generator spells the hyphen of the program's name in two ways, so that in bash no state
/// would ever be found.
fn with_one_spelling(script: &str) -> String {
    script.replace("lxd__subcmd__cli", "lxd__cli")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_the_bash_script_is_reached() {
        let mut script = Vec::new();
        generate(Shell::Bash, &mut cli::command(), NAME, &mut script);
        let script = with_one_spelling(&String::from_utf8(script).unwrap());
        let states: Vec<_> = script
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
            .filter(|state| !state.is_empty())
            .collect();
        assert!(states.len() > 40, "{}", states.len());
        for state in states {
            assert!(script.contains(&format!("\n        {state})\n")), "{state}");
        }
    }
}
