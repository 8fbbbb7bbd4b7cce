//! Linux: files without a name, sealed memory, threads in `/proc`, and the coarse clock.

use core::fmt;
use core::time::Duration;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, MemfdFlags, OFlags, SealFlags, fallocate, fcntl_add_seals,
    linkat, memfd_create, open,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, test_kill_process};

use super::unix::{OWNER_ONLY, write_zeros};
use crate::error::Error;
use crate::holder::{LockHolder, ThreadState};

/// Creates a file without a name in a folder. `None` if the file system does not support that.
pub(crate) fn create_unnamed(folder: &Path) -> Option<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = File::from(retry_on_intr(|| open(folder, flags, OWNER_ONLY)).ok()?);
    // The file gets its name through this link. Nothing else needs /proc.
    descriptor_link(&file).exists().then_some(file)
}

/// Gives a file without a name its name. Fails if the name is taken.
pub(crate) fn name_unnamed(file: &File, path: &Path) -> io::Result<()> {
    Ok(linkat(CWD, descriptor_link(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Returns the link through which an open file can be given a name.
fn descriptor_link(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Reserves disk space for an empty file and fills it with zeros.
pub(crate) fn reserve(file: &File, len: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, len),
        other => Ok(other?),
    }
}

/// Reserves disk space for the holes of a file that is in use. Where the file system cannot do
/// that, the holes remain.
pub(crate) fn fill_holes(file: &File, len: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Does nothing: flushing a file writes its mapped pages too.
pub(crate) const fn flush_pages(_: &MmapRaw) -> io::Result<()> {
    Ok(())
}

/// Maps `len` zero bytes that forked children share, and whose length no process can change.
pub(crate) fn map_memory(len: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(len).map_raw(&sealed_memory(len as u64)?)
}

fn sealed_memory(len: u64) -> io::Result<File> {
    let file =
        File::from(memfd_create("keytally", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Bits of the number of a thread, which is at most 2^22 (`PID_MAX_LIMIT`).
pub(crate) const NUMBER_BITS: u32 = 22;

/// Bits of a scope.
pub(crate) const SCOPE_BITS: u32 = 17;

/// Returns the number of the calling thread.
pub(crate) fn number() -> u64 {
    u64::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0)
}

/// Returns the number of this process's PID namespace, or 0 without `/proc`. Only the threads in it
/// can be examined.
pub(crate) fn scope() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |file| file.ino())
}

/// Returns whether the threads of a scope can be examined, given its low bits and those of the
/// scope of this process.
pub(crate) const fn is_visible(scope: u64, own: u64) -> bool {
    scope == own
}

/// Returns when the calling thread started.
pub(crate) fn start() -> u64 {
    ThreadStat::read("/proc/thread-self/stat").map_or(0, |stat| stat.start)
}

/// Examines the thread with a number.
pub(crate) fn thread_state(number: u64) -> ThreadState {
    let Some(pid) = i32::try_from(number).ok().and_then(Pid::from_raw) else {
        return ThreadState::Ended;
    };
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return ThreadState::Ended;
    }
    // The system may hide another user's processes.
    match ThreadStat::read(&format!("/proc/{number}/stat")) {
        None => ThreadState::Hidden,
        Some(stat) if stat.has_ended() => ThreadState::Ended,
        Some(stat) => ThreadState::Running { start: stat.start },
    }
}

/// Returns what this process can see of the process of a thread.
pub(crate) fn describe(number: u64) -> LockHolder {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
    // A process has the number of its first thread, the thread group id.
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    let pid = tgid.or(u32::try_from(number).ok());
    let program = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    let stopped =
        ThreadStat::read(&format!("/proc/{number}/stat")).is_some_and(|stat| stat.is_stopped());
    LockHolder { pid, program: program.map(|name| name.trim_end().to_owned()), stopped }
}

/// The needed fields of a `/proc/…/stat` (proc_pid_stat(5)).
#[derive(Debug)]
struct ThreadStat {
    state: u8,
    /// The start time, in clock ticks since the system started.
    start: u64,
}

impl ThreadStat {
    fn read(path: &str) -> Option<Self> {
        // The needed fields are in the first 512 bytes, which one call reads.
        let mut text = [0; 512];
        let len = File::open(path).ok()?.read(&mut text).ok()?;
        Self::parse(&String::from_utf8_lossy(&text[..len]))
    }

    /// Parses the line. The second field, the name, may contain any character; the third is the
    /// state, and the 22nd the start time.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        Some(Self { state, start: fields.nth(18)?.parse().ok()? })
    }

    /// Returns whether the thread is a zombie or dead: it no longer runs, and its parent has not
    /// yet waited for it.
    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn is_stopped(&self) -> bool {
        matches!(self.state, b'T' | b't')
    }
}

/// The file with the number of this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the number of this boot.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, as in a unit of systemd with `ProcSubset=pid`.
pub(crate) fn boot() -> Result<u128, Error> {
    boot_in(Path::new(BOOT))
}

fn boot_in(path: &Path) -> Result<u128, Error> {
    // The kind of the system's error would be that of a missing fleet file.
    let unreadable = |why: &dyn fmt::Display| {
        let sentence = format!(
            "{why}; a fleet file holds for one boot, whose number is in this file; a unit of \
             systemd needs ProcSubset=all"
        );
        Error::io("read", path, io::Error::other(sentence))
    };
    let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16);
    number.map_err(|_| unreadable(&"it has no number of a boot"))
}

/// Returns the time of the coarse clock since 1970, or 0 if it is earlier.
#[inline]
pub(crate) fn coarse_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Some(Duration::try_from(time).unwrap_or_default())
}

/// Returns the resolution of the coarse clock: the interval between two ticks of the kernel.
pub(crate) fn coarse_resolution() -> Duration {
    let resolution = rustix::time::clock_getres(rustix::time::ClockId::RealtimeCoarse);
    Duration::try_from(resolution).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_memory_cannot_be_resized() {
        let file = sealed_memory(4096).unwrap();
        for other in [0, 4096 + 64] {
            assert!(file.set_len(other).is_err(), "{other}");
        }
        assert_eq!(map_memory(4096).unwrap().len(), 4096);
    }

    #[test]
    fn unreadable_number_of_the_boot_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boot_id");
        let refused = |why: &str| {
            let error = boot_in(&path).unwrap_err().to_string();
            let begin = format!("cannot read {}: {why}", path.display());
            assert!(error.starts_with(&begin) && error.contains("ProcSubset=all"), "{error}");
        };
        refused("No such file or directory");
        fs::write(&path, "unknown\n").unwrap();
        refused("it has no number of a boot");
        fs::write(&path, "00000000-0000-0000-0000-0000000001ff\n").unwrap();
        assert_eq!(boot_in(&path).unwrap(), 0x1ff);
        assert_ne!(boot().unwrap(), 0);
    }

    #[test]
    fn stat_of_a_program_with_any_name_is_parsed() {
        let text = "77 (a) Z 1) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1234 20 21";
        let stat = ThreadStat::parse(text).unwrap();
        assert!(stat.is_stopped() && !stat.has_ended());
        assert_eq!(stat.start, 1234);
        assert!(ThreadStat::parse("").is_none() && ThreadStat::parse("1 (a) S").is_none());
    }
}
