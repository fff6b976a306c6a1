//! The console log of an instance: what its first process has written, limited in size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::spec::Name;
use super::{Error, Runtime, failed};

/// The most that is read of a log.
const LONGEST: u64 = 2 << 20;

/// The log that liblxc writes.
pub(super) fn file(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

impl Runtime {
    /// The console log, whose beginning may have been dropped; empty if nothing was logged. Blocks.
    pub fn console_log(&self, name: &Name) -> Result<Vec<u8>, Error> {
        let file = file(&self.directory(name));
        match tail(&file) {
            Ok(log) => Ok(log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("read the console log", &file)(error)),
        }
    }

    /// Empties the console log. Blocks.
    pub fn clear_console_log(&self, name: &Name) -> Result<(), Error> {
        let file = file(&self.directory(name));
        match File::options().write(true).open(&file).and_then(|log| log.set_len(0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("clear the console log", &file)(error))
            }
            _ => Ok(()),
        }
    }

    /// What liblxc logged since the last start; empty if nothing. Blocks.
    pub fn lxc_log(&self, name: &Name) -> Result<Vec<u8>, Error> {
        let file = self.directory(name).join("lxc.log");
        match tail(&file) {
            Ok(log) => Ok(log),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("read the log", &file)(error)),
        }
    }
}

fn tail(file: &Path) -> io::Result<Vec<u8>> {
    let mut log = File::open(file)?;
    let length = log.metadata()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut bytes = Vec::new();
    log.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
