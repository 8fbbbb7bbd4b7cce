//! Creates a table's file atomically: it appears at its path complete or not at all, and never
//! replaces another file.
//!
//! 1. Creates a file without a name in the target's folder (`O_TMPFILE`), to which only its owner
//!    has access. If the process is killed after this, it leaves nothing: the kernel frees a file
//!    without a name.
//! 2. Reserves its disk space and maps it, and the core creates the table in it.
//! 3. Flushes it and gives it its name (`linkat`), which fails if the name is taken. Then flushes
//!    the folder.
//!
//! If the system or the file system does not support files without a name, the file has a temporary
//! name that begins with a dot, and is renamed without replacing. Windows cannot rename a file that
//! is mapped. There, the file is unmapped and closed before it is renamed, and then opened as any
//! table is.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use keytally_core::{AttachError, CACHE_LINE_LEN, CacheLine, CreateError};

use crate::entropy;
use crate::error::Error;
use crate::file::{TableFile, open_any_table, open_regular, open_table};
use crate::map::Mapping;
use crate::stop::{FileStop, stop};
use crate::system;

/// A table of the core in mapped memory.
pub(crate) trait Table {
    /// Returns the memory.
    fn memory(&self) -> &Mapping;
}

impl Table for keytally_core::Gate<Mapping> {
    fn memory(&self) -> &Mapping {
        self.memory()
    }
}

impl Table for keytally_core::Limiter<Mapping> {
    fn memory(&self) -> &Mapping {
        self.memory()
    }
}

impl Table for keytally_core::AddressLimiter<Mapping> {
    fn memory(&self) -> &Mapping {
        self.memory()
    }
}

/// Creates the file at `path` with `lines` lines, in which `make` creates the table. If the system
/// cannot name an open file, `attach` opens the table again.
pub(crate) fn create_table<T: Table>(
    path: &Path,
    lines: usize,
    make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    attach: impl FnOnce(Mapping) -> Result<T, AttachError>,
) -> Result<(TableFile, T), Error> {
    // An early check, to fail before any work. The kernel checks again when the file gets its name.
    if path.symlink_metadata().is_ok() {
        return Err(Error::Exists { path: path.into() });
    }
    let unpublished = match Unpublished::unnamed(path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(path)?,
    };
    if system::NAMES_OPEN_FILES {
        unpublished.publish(path, lines, make)
    } else {
        unpublished.publish_closed(path, lines, make)?;
        open_table(path, attach)
    }
}

/// Creates the file of a successor at `path`, with the owner and mode of the old file. `announce`
/// is called when the file is complete, before it gets its name.
pub(crate) fn create_successor<T: Table>(
    path: &Path,
    lines: usize,
    old: &TableFile,
    make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    announce: impl FnOnce(&T) -> Result<(), Error>,
) -> Result<(TableFile, T), Error> {
    let unpublished = match Unpublished::unnamed(path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(path)?,
    };
    let table = unpublished.write_table(path, lines, make)?;
    old.copy_access(&unpublished.file)
        .map_err(|error| Error::io("set the owner and mode of", path, error))?;
    announce(&table)?;
    Ok((unpublished.give_name(path)?, table))
}

/// What a copy may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replace {
    /// No file.
    Nothing,
    /// A gate, but not the one that is copied. Also a damaged file that is as long as the copy, and
    /// an empty file.
    Gate,
}

/// Creates the file of a copy at `path`, with the owner and mode of the file that it replaces. If
/// there is none, it has those of the file that is copied. `fill` gets `lines` lines of zeros, and
/// copies the table to them.
pub(crate) fn create_copy(
    path: &Path,
    replace: Replace,
    lines: usize,
    original: &TableFile,
    fill: impl FnOnce(&[CacheLine]) -> Result<(), Error>,
) -> Result<(), Error> {
    let exists = path.symlink_metadata().is_ok();
    if exists && replace == Replace::Nothing {
        return Err(Error::Exists { path: path.into() });
    }
    let replaced = if exists { Some(replaced_gate(path, lines, original)?) } else { None };
    // A symbolic link stays, and leads to the copy.
    let real_path = replaced.as_ref().map_or_else(|| path.into(), |(_, path)| path.clone());
    let unpublished = match Unpublished::unnamed(&real_path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(&real_path)?,
    };
    let mapping = unpublished.write(path, lines, |memory| {
        fill(memory.as_ref())?;
        Ok(Zeros(memory))
    })?;
    let Unpublished { mut temporary_name, file } = unpublished;
    let access = match &replaced {
        Some((replaced, _)) => system::copy_access(replaced, &file),
        None => original.copy_access(&file),
    };
    access.map_err(|error| Error::io("set the owner and mode of", path, error))?;
    drop(mapping);
    // Windows replaces no file that is open.
    drop(replaced);
    stop(FileStop::FileSynced);
    // Other systems close the file here.
    let open_file = system::NAMES_OPEN_FILES.then_some(file);
    if exists {
        temporary_name.replace(open_file.as_ref(), &real_path)
    } else {
        temporary_name.exchange(open_file.as_ref(), &real_path)
    }
}

/// Opens the file that a copy of `lines` lines may replace. Returns its path without symbolic links
/// too.
fn replaced_gate(
    path: &Path,
    lines: usize,
    original: &TableFile,
) -> Result<(File, PathBuf), Error> {
    let refused = |why| Error::Copy { path: path.into(), why };
    let file = match open_any_table(path) {
        Ok((file, true)) => file,
        Ok((_, false)) => {
            return Err(refused("only a gate is replaced, and this is another table"));
        }
        Err(error) => damaged_gate(path, lines).ok_or(error)?,
    };
    let io_error = |error| Error::io("examine", path, error);
    if original.is(&file).map_err(io_error)? {
        return Err(refused("it is the gate that is copied"));
    }
    let real_path = fs::canonicalize(path).map_err(io_error)?;
    Ok((file, real_path))
}

/// Opens a file that does not begin as a table does. `None` unless it is empty or has the length of
/// `lines` lines, as a damaged gate of that size has.
fn damaged_gate(path: &Path, lines: usize) -> Option<File> {
    let file = open_regular(path).ok()?;
    let len = file.metadata().ok()?.len();
    (len == 0 || byte_len(lines).is_ok_and(|copied| copied == len)).then_some(file)
}

/// Creates a file at `path` with these contents, to which only its owner has access.
pub(crate) fn create_file(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let unpublished = match Unpublished::unnamed(path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(path)?,
    };
    let Unpublished { mut temporary_name, mut file } = unpublished;
    let written = system::restrict(&file)
        .and_then(|()| file.write_all(contents))
        .and_then(|()| file.sync_all());
    written.map_err(|error| Error::io("write", path, error))?;
    if system::NAMES_OPEN_FILES {
        return temporary_name.exchange(Some(&file), path);
    }
    drop(file);
    temporary_name.exchange(None, path)
}

/// Memory that the core has not created a table in.
struct Zeros(Mapping);

impl Table for Zeros {
    fn memory(&self) -> &Mapping {
        &self.0
    }
}

/// Creates the file at `path` with `lines` lines of zeros, to which only its owner has access.
pub(crate) fn create_zeros(path: &Path, lines: usize) -> Result<(), Error> {
    let unpublished = match Unpublished::unnamed(path) {
        Some(unpublished) => unpublished,
        None => Unpublished::named(path)?,
    };
    let make = |memory| Ok(Zeros(memory));
    if system::NAMES_OPEN_FILES {
        unpublished.publish(path, lines, make).map(drop)
    } else {
        unpublished.publish_closed(path, lines, make)
    }
}

/// Creates a table in memory, which forked children share.
pub(crate) fn create_in_memory<T>(
    lines: usize,
    make: impl FnOnce(Mapping) -> Result<T, CreateError>,
) -> Result<(TableFile, T), Error> {
    let mapping = Mapping::in_memory(lines)
        .map_err(|error| Error::io("create a table in", Path::new("memory"), error))?;
    let table = make(mapping).map_err(|source| Error::Create { path: None, source })?;
    Ok((TableFile::in_memory(), table))
}

/// A file that is being created, and that is not at its path yet.
struct Unpublished {
    temporary_name: TemporaryName,
    file: File,
}

/// The temporary name of a file, if it has one. The file is removed if it still has it in the end.
struct TemporaryName(Option<PathBuf>);

impl Unpublished {
    /// Creates a file without a name in the folder of `path`. `None` if the file system does not
    /// support that.
    fn unnamed(path: &Path) -> Option<Self> {
        let file = system::create_unnamed(parent_folder(path))?;
        Some(Self { temporary_name: TemporaryName(None), file })
    }

    /// Creates a file with a random name in the folder of `path`.
    fn named(path: &Path) -> Result<Self, Error> {
        let temporary_name = temporary_name(path)?;
        let file = system::create_new(&temporary_name)
            .map_err(|error| Error::io("create", path, error))?;
        Ok(Self { temporary_name: TemporaryName(Some(temporary_name)), file })
    }

    /// Writes the table, and gives the file its name while it is open.
    fn publish<T: Table>(
        self,
        path: &Path,
        lines: usize,
        make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    ) -> Result<(TableFile, T), Error> {
        let table = self.write_table(path, lines, make)?;
        Ok((self.give_name(path)?, table))
    }

    /// Gives the file its name while it is open.
    fn give_name(self, path: &Path) -> Result<TableFile, Error> {
        let Self { mut temporary_name, file } = self;
        let named = file.try_clone().and_then(|file| TableFile::new(path, file));
        let table_file = named.map_err(|error| Error::io("open", path, error))?;
        stop(FileStop::FileSynced);
        temporary_name.exchange(Some(&file), path)?;
        Ok(table_file)
    }

    /// Writes the table, and gives the file its name after closing it.
    fn publish_closed<T: Table>(
        self,
        path: &Path,
        lines: usize,
        make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    ) -> Result<(), Error> {
        drop(self.write_table(path, lines, make)?);
        let Self { mut temporary_name, file } = self;
        drop(file);
        stop(FileStop::FileSynced);
        temporary_name.exchange(None, path)
    }

    /// Writes a table that `make` creates.
    fn write_table<T: Table>(
        &self,
        path: &Path,
        lines: usize,
        make: impl FnOnce(Mapping) -> Result<T, CreateError>,
    ) -> Result<T, Error> {
        let error = |source| Error::Create { path: Some(path.into()), source };
        self.write(path, lines, |memory| make(memory).map_err(error))
    }

    /// Reserves the disk space of `lines` lines, lets `make` write the table to them, and flushes
    /// the file.
    fn write<T: Table>(
        &self,
        path: &Path,
        lines: usize,
        make: impl FnOnce(Mapping) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let io_error = |doing| move |error: io::Error| Error::io(doing, path, error);
        system::restrict(&self.file).map_err(io_error("set the mode of"))?;
        stop(FileStop::FileMade);
        let len = byte_len(lines).map_err(io_error("create"))?;
        system::reserve(&self.file, len).map_err(io_error("reserve disk space for"))?;
        stop(FileStop::FileRoomTaken);
        let mapping = Mapping::new(&self.file, lines).map_err(io_error("map"))?;
        let table = make(mapping)?;
        stop(FileStop::FileWritten);
        let flushed = table.memory().flush().and_then(|()| self.file.sync_all());
        flushed.map_err(io_error("write"))?;
        Ok(table)
    }
}

impl TemporaryName {
    /// Gives the file its name, and flushes the folder. Fails if the name is taken. A file without
    /// a temporary name must be open.
    fn exchange(&mut self, file: Option<&File>, path: &Path) -> Result<(), Error> {
        let named = match (&self.0, file) {
            (Some(temporary_name), _) => system::rename_new(temporary_name, path),
            (None, Some(file)) => system::name_unnamed(file, path),
            (None, None) => Err(ErrorKind::Unsupported.into()),
        };
        named.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
            _ => Error::io("create", path, error),
        })?;
        self.0 = None;
        named_file(path)
    }

    /// Gives the file its name instead of the file that has it, and flushes the folder. A file
    /// without a temporary name must be open.
    fn replace(&mut self, file: Option<&File>, path: &Path) -> Result<(), Error> {
        let io_error = |error| Error::io("replace", path, error);
        if let (None, Some(file)) = (&self.0, file) {
            let name = temporary_name(path)?;
            system::name_unnamed(file, &name).map_err(io_error)?;
            self.0 = Some(name);
        }
        let Some(name) = &self.0 else { return Err(io_error(ErrorKind::Unsupported.into())) };
        fs::rename(name, path).map_err(io_error)?;
        self.0 = None;
        named_file(path)
    }
}

/// Flushes the folder of a file that has got its name.
fn named_file(path: &Path) -> Result<(), Error> {
    stop(FileStop::FileNamed);
    system::sync_folder(parent_folder(path))
        .map_err(|error| Error::io("flush the folder of", path, error))
}

/// Returns a random temporary name in the folder of `path`.
fn temporary_name(path: &Path) -> Result<PathBuf, Error> {
    let name =
        path.file_name().ok_or_else(|| Error::io("create", path, ErrorKind::InvalidInput))?;
    let number = u64::from_le_bytes(*entropy::random()?);
    Ok(parent_folder(path).join(format!(".{}.{number:016x}.new", name.display())))
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            let _ = fs::remove_file(name);
        }
    }
}

/// Returns the folder of `path`, for opening it.
pub(crate) fn parent_folder(path: &Path) -> &Path {
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

#[cfg(test)]
mod tests {
    use keytally_core::{Limiter, Policy};

    use super::*;

    /// The header, and a limiter of one bucket: two lines of slots, and one of the lock
    /// word and the overflow tally.
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

    /// Creates a table at `path` in each way: in a file without a name, and in one with a temporary
    /// name, which is open or closed when it is renamed. Some systems and file systems support only
    /// the last two or the last one. `prepare` is called before the file gets its name.
    fn create_in_each_way(
        path: &Path,
        prepare: impl Fn(),
        make: impl Fn(Mapping) -> Result<Limiter<Mapping>, CreateError>,
        mut check: impl FnMut(Result<(), Error>),
    ) {
        let make = |memory| {
            prepare();
            make(memory)
        };
        if system::NAMES_OPEN_FILES {
            if let Some(unpublished) = Unpublished::unnamed(path) {
                check(unpublished.publish(path, LINES, make).map(drop));
            }
            check(Unpublished::named(path).unwrap().publish(path, LINES, make).map(drop));
        }
        check(Unpublished::named(path).unwrap().publish_closed(path, LINES, make));
    }

    #[test]
    fn creation_leaves_only_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut ways = 0;
        create_in_each_way(
            &path,
            || (),
            make,
            |created| {
                created.unwrap();
                ways += 1;
                let metadata = path.metadata().unwrap();
                assert_eq!(metadata.len(), 64 * LINES as u64);
                assert!(!system::has_holes(&metadata));
                open_table(&path, Limiter::attach).unwrap();
                assert_eq!(names(folder.path()), ["x"]);
                fs::remove_file(&path).unwrap();
            },
        );
        assert!(ways == 3 || !cfg!(target_os = "linux"), "{ways}");
    }

    #[test]
    fn creation_of_an_impossible_table_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let make_fails = |_| Err(CreateError::PlanName { index: 1 });
        create_in_each_way(
            &path,
            || (),
            make_fails,
            |created| {
                assert!(matches!(created, Err(Error::Create { .. })));
            },
        );
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn creation_refuses_a_name_that_was_taken_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let take = || fs::write(&path, "precious").unwrap();
        create_in_each_way(&path, take, make, |created| {
            assert!(matches!(created, Err(Error::Exists { .. })));
            assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        });
        assert_eq!(names(folder.path()), ["x"]);
    }

    #[test]
    fn table_in_memory_has_no_path() {
        let (file, table) = create_in_memory(LINES, make).unwrap();
        assert_eq!((file.path(), table.capacity()), (None, 4));
    }
}
