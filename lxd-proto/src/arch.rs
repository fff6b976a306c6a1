//! Architecture names: LXD's canonical ones and the aliases it accepts for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A processor architecture that LXD knows.
///
/// It parses from any alias (`amd64`), and displays and serialises as the canonical name (`x86_64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Architecture {
    I686,
    X86_64,
    Armv7l,
    Aarch64,
    Ppc,
    Ppc64,
    Ppc64le,
    S390x,
    Mips,
    Mips64,
    Riscv32,
    Riscv64,
    Armv6l,
    Armv8l,
    Loongarch64,
}

/// A name that no architecture has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Architecture isn't supported: {0}")]
pub struct UnknownArchitecture(pub String);

impl Architecture {
    /// Every architecture, in the order of LXD's numbering.
    pub const ALL: [Self; 15] = [
        Self::I686,
        Self::X86_64,
        Self::Armv7l,
        Self::Aarch64,
        Self::Ppc,
        Self::Ppc64,
        Self::Ppc64le,
        Self::S390x,
        Self::Mips,
        Self::Mips64,
        Self::Riscv32,
        Self::Riscv64,
        Self::Armv6l,
        Self::Armv8l,
        Self::Loongarch64,
    ];

    /// The canonical name, as `uname -m` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::I686 => "i686",
            Self::X86_64 => "x86_64",
            Self::Armv7l => "armv7l",
            Self::Aarch64 => "aarch64",
            Self::Ppc => "ppc",
            Self::Ppc64 => "ppc64",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::Mips => "mips",
            Self::Mips64 => "mips64",
            Self::Riscv32 => "riscv32",
            Self::Riscv64 => "riscv64",
            Self::Armv6l => "armv6l",
            Self::Armv8l => "armv8l",
            Self::Loongarch64 => "loongarch64",
        }
    }

    /// The other names that mean this architecture.
    pub const fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::I686 => &["i386", "i586", "386", "x86", "generic_32"],
            Self::X86_64 => &["amd64", "generic_64"],
            Self::Armv7l => &["armhf", "armhfp", "armv7a_hardfp", "armv7", "armv7a_vfpv3_hardfp"],
            Self::Aarch64 => &["arm64", "arm64_generic"],
            Self::Ppc => &["powerpc"],
            Self::Ppc64 => &["powerpc64"],
            Self::Ppc64le => &["ppc64el"],
            Self::Mips => &["mipsel"],
            Self::Mips64 => &["mips64el"],
            Self::Armv6l => &["armel", "arm"],
            Self::S390x | Self::Riscv32 | Self::Riscv64 | Self::Armv8l | Self::Loongarch64 => &[],
        }
    }

    /// The other architectures whose programs a machine of this one runs.
    pub const fn personalities(self) -> &'static [Self] {
        match self {
            Self::X86_64 => &[Self::I686],
            Self::Armv7l => &[Self::Armv6l],
            Self::Armv8l => &[Self::Armv6l, Self::Armv7l],
            Self::Aarch64 => &[Self::Armv6l, Self::Armv7l, Self::Armv8l],
            Self::Ppc64 => &[Self::Ppc],
            Self::Mips64 => &[Self::Mips],
            Self::I686
            | Self::Ppc
            | Self::Ppc64le
            | Self::S390x
            | Self::Mips
            | Self::Riscv32
            | Self::Riscv64
            | Self::Armv6l
            | Self::Loongarch64 => &[],
        }
    }

    /// The architecture this program was built for; `None` for one that LXD has no name for.
    pub fn host() -> Option<Self> {
        match std::env::consts::ARCH {
            // The compiler's "arm" covers all 32-bit ones; images are made for v7.
            "arm" => Some(Self::Armv7l),
            "powerpc64" if cfg!(target_endian = "little") => Some(Self::Ppc64le),
            arch => arch.parse().ok(),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|arch| arch.as_str() == name || arch.aliases().contains(&name))
            .ok_or_else(|| UnknownArchitecture(name.to_owned()))
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_alias_means_one_architecture() {
        let mut seen = std::collections::BTreeSet::new();
        for arch in Architecture::ALL {
            for name in std::iter::once(arch.as_str()).chain(arch.aliases().iter().copied()) {
                assert!(seen.insert(name), "{name} twice");
                assert_eq!(name.parse(), Ok(arch));
            }
        }
        for (alias, name) in [("amd64", "x86_64"), ("armhf", "armv7l"), ("arm", "armv6l")] {
            assert_eq!(alias.parse::<Architecture>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_words_of_lxd() {
        for name in ["", "AMD64", "vax", "x86_64 "] {
            let error = name.parse::<Architecture>().unwrap_err();
            assert_eq!(error.to_string(), format!("Architecture isn't supported: {name}"));
        }
    }

    #[test]
    fn json_is_the_canonical_name() {
        let arch: Architecture = serde_json::from_str("\"arm64\"").unwrap();
        assert_eq!(serde_json::to_string(&arch).unwrap(), "\"aarch64\"");
        assert!(serde_json::from_str::<Architecture>("\"vax\"").is_err());
    }

    #[test]
    fn the_host_is_known() {
        assert!(Architecture::host().is_some());
        assert_eq!(Architecture::X86_64.personalities(), [Architecture::I686]);
    }
}
