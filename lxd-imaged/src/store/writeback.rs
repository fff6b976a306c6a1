//! Starts writing to disk early, so that the final flush of a large file is short.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Asks the kernel to begin writing out `[offset, offset + length)` of `file`; does not wait.
/// Only a hint: a failure changes nothing about durability.
#[expect(unsafe_code, reason = "no safe wrapper of sync_file_range exists")]
pub(super) fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: the descriptor is open for the duration of the call, and the call touches no
    // memory of ours.
    let _ = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
    };
}
