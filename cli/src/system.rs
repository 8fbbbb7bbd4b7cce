//! What differs between operating systems: standard input and output as files, and core dumps.

use std::fs::{File, Metadata};
use std::io;
#[cfg(unix)]
use std::os::fd::AsFd as Stream;
#[cfg(windows)]
use std::os::windows::io::AsHandle as Stream;

/// Returns the file that a standard stream is.
fn as_file(stream: &impl Stream) -> io::Result<File> {
    #[cfg(unix)]
    let own = stream.as_fd().try_clone_to_owned();
    #[cfg(windows)]
    let own = stream.as_handle().try_clone_to_owned();
    own.map(File::from)
}

/// Returns the length of standard input if that is a file.
pub(crate) fn input_len() -> Option<u64> {
    let metadata = as_file(&io::stdin()).and_then(|file| file.metadata()).ok();
    metadata.filter(Metadata::is_file).map(|metadata| metadata.len())
}

/// Returns whether what is printed is lost: standard output is closed or, on Unix, `/dev/null`.
///
/// If standard output was closed when the program started, Rust's runtime has opened `/dev/null` as
/// standard output on Unix.
pub(crate) fn is_output_discarded() -> bool {
    let output = as_file(&io::stdout());
    #[cfg(unix)]
    {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let rdev = |file: File| {
            file.metadata().map(|found| (found.file_type().is_char_device(), found.rdev()))
        };
        let null = File::open("/dev/null").and_then(rdev);
        matches!((output.and_then(rdev), null), (Ok(output), Ok(null)) if output == null)
    }
    #[cfg(windows)]
    output.is_err()
}

/// Excludes this process, which now holds a secret, from core dumps. Best effort: errors are
/// ignored. Windows writes none unless an administrator has arranged that.
pub(crate) fn disable_core_dumps() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = setrlimit(Resource::Core, none);
    }
}
