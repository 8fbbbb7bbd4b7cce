//! The mapped memory of a table. All `unsafe` code of this crate is here.

use core::fmt;
use core::slice;
use std::fs::File;
use std::io;

use keytally_core::sync::AtomicU64;
use keytally_core::{CACHE_LINE_LEN, CacheLine};
use memmap2::{MmapOptions, MmapRaw};

use crate::header::HEADER_LEN;
use crate::system;

/// The memory of a table file as cache lines ([`CacheLine`]), mapped and shared with every process
/// that maps the same file. Unmapped when dropped.
///
/// Only this crate can create one. [`Gate::table`](crate::Gate::table) and
/// [`Limiter::table`](crate::Limiter::table) return the core's tables over it.
pub struct Mapping {
    map: MmapRaw,
    lines: usize,
}

impl Mapping {
    /// Maps the first `lines * CACHE_LINE_LEN` bytes of a file. The file must be open for reading
    /// and writing, and be at least that long.
    pub(crate) fn new(file: &File, lines: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(byte_len(lines)?).map_raw(file)?;
        Ok(Self { map, lines })
    }

    /// Maps zeros in memory, which forked children share.
    pub(crate) fn in_memory(lines: usize) -> io::Result<Self> {
        let map = system::map_memory(byte_len(lines)?)?;
        Ok(Self { map, lines })
    }

    /// Writes the changed pages to the file, on systems on which flushing the file does not.
    pub(crate) fn flush(&self) -> io::Result<()> {
        system::flush_pages(&self.map)
    }

    /// Writes the header to the disk.
    pub(crate) fn flush_header(&self) -> io::Result<()> {
        self.map.flush_range(0, self.map.len().min(HEADER_LEN))
    }
}

impl Mapping {
    /// Returns the memory as words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: As in `as_ref`: this is the same memory. A `CacheLine` is `repr(C)` and consists
        // of `CACHE_LINE_LEN / 8` words of this type, so the mapping has at least as many words.
        unsafe {
            slice::from_raw_parts(
                self.map.as_ptr().cast::<AtomicU64>(),
                self.lines * (CACHE_LINE_LEN / size_of::<AtomicU64>()),
            )
        }
    }
}

/// Returns the length of `lines` lines in bytes.
fn byte_len(lines: usize) -> io::Result<usize> {
    let len = lines.checked_mul(CACHE_LINE_LEN).filter(|&len| len > 0);
    len.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl AsRef<[CacheLine]> for Mapping {
    #[inline]
    fn as_ref(&self) -> &[CacheLine] {
        // SAFETY:
        // - `MmapRaw` guarantees that the pointer is that of a mapping of `lines * CACHE_LINE_LEN`
        //   bytes, readable and writable (`map_raw` fails otherwise), which lives as long as
        //   `self`. `new` requested that length. The kernel aligns mappings to pages, so the
        //   pointer is aligned for lines.
        // - `CacheLine` is `repr(C)` and consists of 64-bit atomics, for which every bit pattern is
        //   valid. Other threads and processes access this memory through their own `CacheLine`s.
        //   All these accesses are atomic, as is every access through this slice, so there is no
        //   data race. A process that writes the file by other means also changes words while they
        //   are in use. An atomic load then reads an arbitrary value. Only the core uses the value,
        //   and the core forbids unsafe code, so memory safety does not depend on it.
        // - No code creates a `&mut` to this memory: `map` is private, and only this function and
        //   `words` take a pointer from it.
        // - The file must not be shortened while it is mapped. For a file, this relies on every
        //   program that may write it. For a table without a file, which is a memfd, the seal
        //   `F_SEAL_SHRINK` enforces it. If the file is shortened, an access to a page past its end
        //   raises SIGBUS, which kills the process (or runs its handler). The access reaches no
        //   other memory. No library can remove one doubt: the compiler assumes that the memory of
        //   a slice stays mapped. On other systems than Linux, no other process has a name for the
        //   memory of a table without a file. Windows lets no program shorten a mapped file.
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast::<CacheLine>(), self.lines) }
    }
}

impl fmt::Debug for Mapping {
    /// Shows the size only: the mapped memory contains MACs, and is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.map.len())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn mapping_holds_the_file_and_debug_shows_only_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(4096).unwrap();
        let mapping = Mapping::new(&file, 64).unwrap();
        assert_eq!(mapping.as_ref().len(), 64);
        assert_eq!(mapping.as_ref().as_ptr().addr() % 64, 0);
        assert_eq!(format!("{mapping:?}"), "Mapping(4096 bytes)");
        // A table that is created in the mapping is in the file. After the header, a limiter of
        // capacity 1 has three lines: two of one bucket, and one of its lock word and its
        // overflow tally.
        let policy = "1/second".parse().unwrap();
        keytally_core::Limiter::init_after(mapping, 64 - 3, &policy, 1, [0; 16]).unwrap();
        let mut magic = [0; 8];
        file.rewind().unwrap();
        file.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"keytally");
    }

    #[test]
    fn mapping_of_zero_or_too_many_lines_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(Mapping::new(&file, 0).is_err());
        assert!(Mapping::new(&file, usize::MAX).is_err());
        assert!(Mapping::new(&file, usize::MAX / CACHE_LINE_LEN).is_err());
    }
}
