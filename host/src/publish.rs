//! Creates a table's file atomically: it appears at its path complete or not at all, and never
//! replaces another file.
//!
//! 1. Opens a file without a name in the target's folder (`O_TMPFILE`), mode 0600. If the process
//!    is killed after this, it leaves nothing: the kernel frees a file without a name.
//! 2. Reserves its disk space and maps it, and the core creates the table in it.
//! 3. Flushes it and gives it its name (`linkat`), which fails if the name is taken. Then flushes
//!    the folder.
//!
//! If the file system does not support files without a name, the file has a temporary name that
//! begins with a dot, and is renamed without replacing.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use keytally_core::{CACHE_LINE_LEN, CreateError};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, MemfdFlags, Mode, OFlags, RenameFlags, SealFlags, fallocate,
    fchmod, fcntl_add_seals, linkat, memfd_create, open, renameat_with, unlink,
};
use rustix::io::{Errno, retry_on_intr};

use crate::entropy;
use crate::error::Error;
use crate::file::TableFile;
use crate::map::Mapping;
use crate::stop::{FileStop, stop};

/// The mode of new files: only the owner has access.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The number of zeros in one write, where disk space can only be reserved by writing.
const ZEROS_LEN: usize = 1 << 16;

/// Creates the file at `path` with `lines` lines, in which `make` creates the table.
pub(crate) fn create_table<T>(
    path: &Path,
    lines: usize,
    make: impl FnOnce(Mapping) -> Result<T, CreateError>,
) -> Result<(TableFile, T), Error> {
    // An early check, to fail before any work. The kernel checks again when the file gets its name.
    if path.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: path.into() });
    }
    match Unpublished::unnamed(path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(path)?,
    }
    .publish(path, lines, make)
}

/// Creates a table in memory, which forked children share.
pub(crate) fn create_in_memory<T>(
    lines: usize,
    make: impl FnOnce(Mapping) -> Result<T, CreateError>,
) -> Result<(TableFile, T), Error> {
    let io_error = |error| Error::io("create a table in", Path::new("memory"), error);
    let mapped = || -> io::Result<(TableFile, Mapping)> {
        let file = sealed_memory(byte_len(lines)?)?;
        let mapping = Mapping::new(&file, lines)?;
        Ok((TableFile::in_memory(file)?, mapping))
    };
    let (file, mapping) = mapped().map_err(io_error)?;
    let table = make(mapping).map_err(|source| Error::Create { path: None, source })?;
    Ok((file, table))
}

/// Returns a file in memory of `len` zero bytes, whose length no process can change.
fn sealed_memory(len: u64) -> io::Result<File> {
    let file =
        File::from(memfd_create("keytally", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.set_len(len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// A file that is being created, and that is not at its path yet.
struct Unpublished {
    file: File,
    /// Its temporary name, if it has one. Removed if the file is not published.
    temporary_name: Option<PathBuf>,
}

impl Unpublished {
    /// Creates a file without a name in the folder of `path`. `None` if the file system does not
    /// support that.
    fn unnamed(path: &Path) -> Option<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(retry_on_intr(|| open(parent_folder(path), flags, MODE)).ok()?);
        // The file gets its name through this link. Nothing else needs /proc.
        descriptor_link(&file).exists().then_some(Self { file, temporary_name: None })
    }

    /// Creates a file with a random name in the folder of `path`.
    fn named(path: &Path) -> Result<Self, Error> {
        let name =
            path.file_name().ok_or_else(|| Error::io("create", path, ErrorKind::InvalidInput))?;
        let number = u64::from_le_bytes(*entropy::random()?);
        let temporary_name =
            parent_folder(path).join(format!(".{}.{number:016x}.new", name.display()));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = retry_on_intr(|| open(&temporary_name, flags, MODE))
            .map_err(|error| Error::io("create", path, error))?;
        Ok(Self { file: file.into(), temporary_name: Some(temporary_name) })
    }

    /// Reserves the disk space of `lines` lines, lets `make` create the table in them, flushes the
    /// file, and gives it its name.
    fn publish<T>(
        mut self,
        path: &Path,
        lines: usize,
        make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    ) -> Result<(TableFile, T), Error> {
        let io_error = |doing| move |error: io::Error| Error::io(doing, path, error);
        // The umask has removed bits from the mode that the file was opened with.
        fchmod(&self.file, MODE).map_err(|error| Error::io("set the mode of", path, error))?;
        stop(FileStop::FileMade);
        let len = byte_len(lines).map_err(io_error("create"))?;
        reserve(&self.file, len).map_err(io_error("reserve disk space for"))?;
        stop(FileStop::FileRoomTaken);
        let mapping = Mapping::new(&self.file, lines).map_err(io_error("map"))?;
        let table =
            make(mapping).map_err(|source| Error::Create { path: Some(path.into()), source })?;
        stop(FileStop::FileWritten);
        self.file.sync_all().map_err(io_error("write"))?;
        let file = self
            .file
            .try_clone()
            .and_then(|file| TableFile::new(path, file))
            .map_err(io_error("open"))?;
        stop(FileStop::FileSynced);
        match self.give_name(path) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::Exists { path: path.into() }),
            Err(error) => return Err(Error::io("create", path, error)),
        }
        self.temporary_name = None;
        stop(FileStop::FileNamed);
        sync_folder(path).map_err(io_error("flush the folder of"))?;
        Ok((file, table))
    }

    /// Gives the file its name. Fails if the name is taken.
    fn give_name(&self, path: &Path) -> rustix::io::Result<()> {
        let Some(temporary_name) = &self.temporary_name else {
            return linkat(CWD, descriptor_link(&self.file), CWD, path, AtFlags::SYMLINK_FOLLOW);
        };
        match renameat_with(CWD, temporary_name, CWD, path, RenameFlags::NOREPLACE) {
            // A file system that cannot rename without replacing may support links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                linkat(CWD, temporary_name, CWD, path, AtFlags::empty())?;
                let _ = unlink(temporary_name);
                Ok(())
            }
            other => other,
        }
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary_name {
            let _ = unlink(name);
        }
    }
}

/// Returns the link through which an open file can be given a name.
fn descriptor_link(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Returns the folder of `path`, for opening it.
fn parent_folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Returns the length of `lines` lines in bytes.
fn byte_len(lines: usize) -> io::Result<u64> {
    let len = lines.checked_mul(CACHE_LINE_LEN).and_then(|len| u64::try_from(len).ok());
    len.ok_or_else(|| ErrorKind::FileTooLarge.into())
}

/// Reserves disk space for an empty file and fills it with zeros.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, len),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = [0; ZEROS_LEN];
    let mut offset = 0;
    while offset < len {
        let count = usize::try_from(len - offset).unwrap_or(ZEROS_LEN).min(ZEROS_LEN);
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Flushes the folder of `path`, so that the new name survives a power failure. Ignores a folder
/// that may be written but not read, and file systems that cannot flush folders.
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(parent_folder(path)).and_then(|folder| folder.sync_all()) {
        Err(error)
            if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use keytally_core::{Limiter, Policy};

    use super::*;

    /// The header, and a limiter of one bucket: two lines of slots and one of lock words.
    const LINES: usize = 64 + 3;

    fn make(memory: Mapping) -> Result<Limiter<Mapping>, CreateError> {
        let policy: Policy = "1/second".parse().unwrap();
        Limiter::init_after(memory, LINES - 3, &policy, 4, [7; 16])
    }

    /// Returns the sorted names of the files in a folder.
    fn names(folder: &Path) -> Vec<String> {
        let names = folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Returns a new file without a name and one with a temporary name. Some file systems support
    /// only the second.
    fn unnamed_and_named(path: &Path) -> [Unpublished; 2] {
        [Unpublished::unnamed(path).unwrap(), Unpublished::named(path).unwrap()]
    }

    #[test]
    fn creation_leaves_only_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("one"), folder.path().join("two")];
        for (path, unpublished) in paths.iter().zip(unnamed_and_named(&paths[0])) {
            unpublished.publish(path, LINES, make).unwrap();
            let metadata = path.metadata().unwrap();
            assert_eq!((metadata.len(), metadata.mode() & 0o7777), (64 * LINES as u64, 0o600));
            assert!(metadata.blocks() * 512 >= metadata.len());
        }
        assert_eq!(names(folder.path()), ["one", "two"]);
    }

    #[test]
    fn creation_of_an_impossible_table_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for unpublished in unnamed_and_named(&path) {
            let make_fails = |_| -> Result<(), _> { Err(CreateError::PlanName) };
            assert!(matches!(
                unpublished.publish(&path, LINES, make_fails),
                Err(Error::Create { .. })
            ));
        }
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn creation_refuses_a_name_that_was_taken_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for unpublished in unnamed_and_named(&path) {
            fs::write(&path, "precious").unwrap();
            assert!(matches!(unpublished.publish(&path, LINES, make), Err(Error::Exists { .. })));
            assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        }
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn written_zeros_reserve_disk_space() {
        for len in [1, ZEROS_LEN as u64, ZEROS_LEN as u64 + 1, 3 * ZEROS_LEN as u64 - 1] {
            let file = tempfile::tempfile().unwrap();
            write_zeros(&file, len).unwrap();
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), len);
            assert!(metadata.blocks() * 512 >= len);
        }
    }

    #[test]
    fn table_memory_cannot_be_resized() {
        let len = 64 * LINES as u64;
        let file = sealed_memory(len).unwrap();
        for other in [0, len + 64] {
            assert!(file.set_len(other).is_err(), "{other}");
        }
        assert!(create_in_memory(LINES, make).is_ok());
    }
}
