//! The mapped memory of a table. All `unsafe` code of this crate is here.

use core::fmt;
use core::slice;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use keytally_core::{LINE_LEN, Line};
use memmap2::{MmapOptions, MmapRaw};

/// The lines of a file, mapped and shared with every process that maps the same file. Unmapped when
/// dropped.
///
/// It can't be made outside this crate; [`Gate::table`](crate::Gate::table) and
/// [`Limiter::table`](crate::Limiter::table) give the core's tables over it.
pub struct Mapping {
    map: MmapRaw,
    lines: usize,
}

impl Mapping {
    /// Maps the first `lines` lines of a file that is open for reading and writing, and is at least
    /// so long.
    pub(crate) fn new(file: impl AsFd, lines: usize) -> io::Result<Self> {
        let len = lines.checked_mul(LINE_LEN).filter(|&len| len > 0).ok_or(io::ErrorKind::InvalidInput)?;
        let map = MmapOptions::new().len(len).map_raw(file.as_fd().as_raw_fd())?;
        Ok(Self { map, lines })
    }
}

impl AsRef<[Line]> for Mapping {
    #[inline]
    fn as_ref(&self) -> &[Line] {
        // SAFETY:
        // - `MmapRaw` guarantees that the pointer is that of a mapping of `lines * LINE_LEN` bytes,
        //   readable and writable (`map_raw` fails otherwise), which lives as long as `self`; `new`
        //   requested that length. The kernel aligns mappings to pages, so it is aligned for lines.
        // - `Line` is `repr(C)` and made of 64-bit atomics, for which every bit pattern is valid.
        //   So what other threads and other processes do to this memory through their own `Line`s
        //   are atomic accesses, as every access through this slice is, and there is no data race.
        //   A process that writes the file by other means changes words under us just as well: an
        //   atomic load reads some value, and no code trusts it.
        // - Nobody makes a `&mut` of this memory: `map` is private and gives out pointers only
        //   here.
        // - That the file isn't shortened while it is mapped is a social guarantee, given by
        //   everybody who may write the file, and for tables in memory by a seal. If it is broken,
        //   touching a page that is gone raises SIGBUS, which kills the process (or runs its
        //   handler): nothing is read or written that isn't ours. A doubt is left that no library
        //   can lift: the compiler assumes that memory which is there stays there.
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast::<Line>(), self.lines) }
    }
}

impl fmt::Debug for Mapping {
    /// Shows the size. What is mapped holds MACs, and is long.
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
    fn a_mapping_is_lines_of_the_file_and_debug_shows_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(4096).unwrap();
        let mapping = Mapping::new(&file, 64).unwrap();
        assert_eq!(mapping.as_ref().len(), 64);
        assert_eq!(mapping.as_ref().as_ptr().addr() % 64, 0);
        assert_eq!(format!("{mapping:?}"), "Mapping(4096 bytes)");
        // A table made in the mapping is in the file.
        let policy = "1/second".parse().unwrap();
        keytally_core::Limiter::create_after(mapping, 62 - 1, &policy, 1, [0; 16]).unwrap();
        let mut magic = [0; 8];
        file.rewind().unwrap();
        file.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"keytally");
    }

    #[test]
    fn nothing_and_more_than_there_is_room_for_are_errors() {
        let file = tempfile::tempfile().unwrap();
        assert!(Mapping::new(&file, 0).is_err());
        assert!(Mapping::new(&file, usize::MAX).is_err());
        assert!(Mapping::new(&file, usize::MAX / LINE_LEN).is_err());
    }
}
