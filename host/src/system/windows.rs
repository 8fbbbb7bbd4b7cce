//! Windows: access control lists, files that get their names when they are closed, locks of byte
//! ranges, and processes. Contains the `unsafe` code that calls the system.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::null_mut;
use core::slice;
use core::time::Duration;
use std::ffi::OsString;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::windows::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsHandle as _, AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::path::Path;
use std::thread::sleep;

use memmap2::{MmapOptions, MmapRaw};
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, ERROR_IO_PENDING, ERROR_LOCK_VIOLATION,
    ERROR_SHARING_VIOLATION, FILETIME, GENERIC_READ, GENERIC_WRITE, HANDLE, INVALID_HANDLE_VALUE,
    LocalFree, WAIT_OBJECT_0,
};
use windows_sys::Win32::Security::Authorization::{
    ConvertSecurityDescriptorToStringSecurityDescriptorW, ConvertSidToStringSidW,
    ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo, SDDL_REVISION_1,
    SE_FILE_OBJECT,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetTokenInformation, OWNER_SECURITY_INFORMATION,
    PSECURITY_DESCRIPTOR, SECURITY_ATTRIBUTES, TOKEN_ELEVATION, TOKEN_INFORMATION_CLASS,
    TOKEN_QUERY, TOKEN_USER, TokenElevation, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    CREATE_NEW, CreateFileW, FILE_ATTRIBUTE_NORMAL, FILE_FLAG_BACKUP_SEMANTICS, FILE_ID_INFO,
    FILE_INFO_BY_HANDLE_CLASS, FILE_REMOTE_PROTOCOL_INFO, FILE_SHARE_DELETE, FILE_SHARE_READ,
    FILE_SHARE_WRITE, FileIdInfo, FileRemoteProtocolInfo, GetFileInformationByHandleEx,
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, MOVEFILE_WRITE_THROUGH,
    MoveFileExW, UnlockFileEx,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetProcessTimes, OpenProcess, OpenProcessToken, PROCESS_NAME_WIN32,
    PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_SYNCHRONIZE, QueryFullProcessImageNameW,
    WaitForSingleObject,
};

use super::access_list::{AccessList, Refusal, User, shown};
use crate::error::Error;
use crate::holder::{LockHolder, ThreadState};

/// How often an attempt is repeated that another program prevents: a scanner may hold a new file
/// open for a moment.
const TRIES: u32 = 50;

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// The longest program name that is read, in UTF-16 units.
const MAX_PATH_LEN: usize = 1024;

// Files.

/// Opens a file for reading and writing. Other processes may open, rename and remove it.
pub(crate) fn open_to_write(path: &Path) -> io::Result<File> {
    repeat(&[ERROR_SHARING_VIOLATION], || OpenOptions::new().read(true).write(true).open(path))
}

/// Opens a file for reading.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    repeat(&[ERROR_SHARING_VIOLATION], || File::open(path))
}

/// Returns standard input as a file.
pub(crate) fn standard_input() -> io::Result<File> {
    Ok(io::stdin().as_handle().try_clone_to_owned()?.into())
}

/// Creates a file to which only the user of this process, the system and the administrators have
/// access. Fails if the name is taken.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let (_, user) = this_user()?;
    let text = format!("O:{user}D:P(A;;FA;;;{user})(A;;FA;;;SY)(A;;FA;;;BA)");
    let descriptor = Descriptor::from_text(&text)?;
    let security = SECURITY_ATTRIBUTES {
        nLength: size_of::<SECURITY_ATTRIBUTES>() as u32,
        lpSecurityDescriptor: descriptor.0,
        bInheritHandle: 0,
    };
    let name = wide(path)?;
    // SAFETY: `name` ends with a NUL, and `security` and its descriptor live until the call
    // returns.
    let handle = unsafe {
        CreateFileW(
            name.as_ptr(),
            GENERIC_READ | GENERIC_WRITE,
            FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
            &raw const security,
            CREATE_NEW,
            FILE_ATTRIBUTE_NORMAL,
            null_mut(),
        )
    };
    if handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call succeeded, so the handle is open, and no other value owns it.
    Ok(unsafe { File::from_raw_handle(handle) })
}

/// Refuses a new file on a network drive. Its access control list was set when it was created.
pub(crate) fn restrict(file: &File) -> io::Result<()> {
    refuse_network_drive(file)
}

/// Does nothing: no file replaces one that is in use.
pub(crate) const fn copy_access(_: &File, _: &File) -> io::Result<()> {
    Ok(())
}

/// Returns `None`: Windows has no file without a name.
pub(crate) const fn create_unnamed(_: &Path) -> Option<File> {
    None
}

/// Fails: [`create_unnamed`] returns no file.
pub(crate) fn name_unnamed(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether an open and mapped file can be given another name.
pub(crate) const NAMES_OPEN_FILES: bool = false;

/// Gives a file its name instead of a temporary one, and waits until that is on the disk. Fails if
/// the name is taken.
pub(crate) fn rename_new(temporary: &Path, path: &Path) -> io::Result<()> {
    let names = [wide(temporary)?, wide(path)?];
    repeat(&[ERROR_SHARING_VIOLATION, ERROR_ACCESS_DENIED], || {
        // SAFETY: Both names end with a NUL.
        let moved =
            unsafe { MoveFileExW(names[0].as_ptr(), names[1].as_ptr(), MOVEFILE_WRITE_THROUGH) };
        check(moved)
    })
}

/// Does nothing: a folder cannot be flushed, and [`rename_new`] waits for the disk.
pub(crate) const fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Reserves disk space for an empty file. The file system fills it with zeros.
pub(crate) fn reserve(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)
}

/// Returns `false`. Only compressed and sparse files lack reserved space, and Windows cannot give
/// it to them.
pub(crate) const fn has_holes(_: &Metadata) -> bool {
    false
}

/// Does nothing: [`has_holes`] reports none.
pub(crate) const fn fill_holes(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

/// Writes the changed pages of a mapping to its file, which must be flushed afterwards.
pub(crate) fn flush_pages(map: &MmapRaw) -> io::Result<()> {
    map.flush_async()
}

/// Maps `len` zero bytes. No other process can share them.
pub(crate) fn map_memory(len: usize) -> io::Result<MmapRaw> {
    Ok(MmapOptions::new().len(len).map_anon()?.into())
}

/// Identifies a file independently of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    volume: u64,
    id: [u8; 16],
}

impl Identity {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        let mut info = FILE_ID_INFO::default();
        information(file, FileIdInfo, &mut info)?;
        Ok(Self { volume: info.VolumeSerialNumber, id: info.FileId.Identifier })
    }

    /// Returns a number that differs between files, also of different file systems; not 0.
    pub(crate) fn whole_number(&self) -> u64 {
        (self.number() ^ self.volume.rotate_left(32)).max(1)
    }

    /// Returns a number that differs between files of one volume. NTFS uses half of an id.
    pub(crate) fn number(&self) -> u64 {
        let (halves, _) = self.id.as_chunks::<8>();
        halves.iter().fold(0, |number, half| number ^ u64::from_le_bytes(*half))
    }

    /// Returns the identity of the file at a path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.access_mode(0).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
        Self::new(&options.open(path)?)
    }
}

/// A struct of the system that any bytes make a valid value of.
trait Plain: Default {}
impl Plain for FILE_ID_INFO {}
impl Plain for FILE_REMOTE_PROTOCOL_INFO {}
impl Plain for TOKEN_ELEVATION {}

/// Reads information of a class about an open file. `T` must be the struct of that class.
fn information<T: Plain>(
    file: &File,
    class: FILE_INFO_BY_HANDLE_CLASS,
    info: &mut T,
) -> io::Result<()> {
    let (target, len) = (core::ptr::from_mut(info).cast::<c_void>(), size_of::<T>() as u32);
    // SAFETY: The handle is open, and the target has `len` bytes, which may get any values.
    check(unsafe { GetFileInformationByHandleEx(file.as_raw_handle(), class, target, len) })
}

/// Refuses a file on a network drive, where other machines do not see the same counts.
fn refuse_network_drive(file: &File) -> io::Result<()> {
    // The system reports the protocol of a file on another machine only.
    match information(file, FileRemoteProtocolInfo, &mut FILE_REMOTE_PROTOCOL_INFO::default()) {
        Ok(()) => Err(io::Error::other("it is on a network drive; use a disk of this machine")),
        Err(_) => Ok(()),
    }
}

/// Returns `false`: a pipe counts as a file.
pub(crate) const fn is_pipe(_: FileType) -> bool {
    false
}

/// Returns what a file is that is not a regular one.
pub(crate) fn irregular(kind: FileType) -> &'static str {
    if kind.is_dir() { "a directory" } else { "a device" }
}

// Locks.

/// The byte that is locked. It is behind the end of every file, because Windows lets no other
/// handle read or write a locked byte.
const LOCKED_BYTE: u64 = 1 << 62;

fn locked_byte() -> OVERLAPPED {
    let mut range = OVERLAPPED::default();
    range.Anonymous.Anonymous.Offset = LOCKED_BYTE as u32;
    range.Anonymous.Anonymous.OffsetHigh = (LOCKED_BYTE >> 32) as u32;
    range
}

/// Tries to take the lock of a handle. Returns whether it holds it.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    let mut range = locked_byte();
    let flags = LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY;
    // SAFETY: The handle is open for calls that wait, so the call has ended when it returns, and
    // does not use `range` afterwards.
    let locked = unsafe { LockFileEx(file.as_raw_handle(), flags, 0, 1, 0, &raw mut range) };
    match check(locked) {
        Ok(()) => Ok(true),
        Err(error) if is_one_of(&error, &[ERROR_LOCK_VIOLATION, ERROR_IO_PENDING]) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Releases the lock of a handle.
pub(crate) fn unlock(file: &File) {
    let mut range = locked_byte();
    // SAFETY: As in `try_lock`.
    unsafe { UnlockFileEx(file.as_raw_handle(), 0, 1, 0, &raw mut range) };
}

// Access.

/// Refuses a table's file of another user, one to which all users have access, and one on a network
/// drive.
pub(crate) fn check_table(path: &Path, file: &File, _: &Metadata) -> Result<(), Error> {
    refuse_network_drive(file).map_err(|error| Error::io("open", path, error))?;
    check_access(path, file, true, AccessList::refuse_for_table)
}

/// Returns `None`: [`check_table`] refuses a file of another user.
pub(crate) fn foreign_owner(_: &Metadata, _: &[Metadata]) -> Option<u32> {
    None
}

/// Refuses a pepper file of another user, or one to which other users have access.
pub(crate) fn check_secret(
    path: &Path,
    file: &File,
    _: &Metadata,
    recognized: bool,
) -> Result<(), Error> {
    check_access(path, file, recognized, AccessList::refuse_for_secret)
}

fn check_access(
    path: &Path,
    file: &File,
    recognized: bool,
    rule: impl for<'l> Fn(&'l AccessList, &User) -> Result<(), Refusal<'l>>,
) -> Result<(), Error> {
    let io_error = |error| Error::io("examine", path, error);
    let list = access_list(&Descriptor::of_file(file).map_err(io_error)?).map_err(io_error)?;
    let (user, sid) = this_user().map_err(io_error)?;
    let (account, is_owner) = match rule(&list, &user) {
        Ok(()) => return Ok(()),
        Err(Refusal::Owner(account)) => (account, true),
        Err(Refusal::Access(account)) => (account, false),
    };
    let account = shown(account).to_owned();
    Err(Error::Account { path: path.into(), account, is_owner, user: sid, recognized })
}

/// Returns the owner and the access control list of a security descriptor.
fn access_list(descriptor: &Descriptor) -> io::Result<AccessList> {
    let text = descriptor.to_text()?;
    AccessList::parse(&text).ok_or_else(|| io::Error::other("its owner cannot be read"))
}

/// Returns the user that this process runs as, and its account's identifier (SID).
fn this_user() -> io::Result<(User, String)> {
    let mut token = null_mut();
    // SAFETY: This call takes no arguments.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: The handle of this process is valid, and `token` lives until the call returns.
    check(unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) })?;
    // SAFETY: The call succeeded, so the handle is open, and no other value owns it.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut elevation = TOKEN_ELEVATION::default();
    let target = core::ptr::from_mut(&mut elevation).cast();
    token_information(&token, TokenElevation, target, size_of::<TOKEN_ELEVATION>())?;
    // The system writes the struct and, behind it, the account, in at most 84 bytes. The array
    // has the alignment of the struct.
    let mut buffer = [0_u64; 16];
    let target = buffer.as_mut_ptr().cast::<c_void>();
    token_information(&token, TokenUser, target, size_of_val(&buffer))?;
    // SAFETY: The call succeeded, so the buffer begins with this struct, which is aligned.
    let user = unsafe { target.cast::<TOKEN_USER>().read() };
    let mut text = null_mut();
    // SAFETY: The account lies in `buffer`, and `text` lives until the call returns.
    check(unsafe { ConvertSidToStringSidW(user.User.Sid, &raw mut text) })?;
    // A file's owner is compared with this. The system abbreviates some accounts.
    let sid = Text(text).read();
    let owned_by_user = Descriptor::from_text(&format!("O:{sid}"))?;
    let account = access_list(&owned_by_user)?.owner().to_owned();
    Ok((User { account, is_administrator: elevation.TokenIsElevated != 0 }, sid))
}

fn token_information(
    token: &OwnedHandle,
    class: TOKEN_INFORMATION_CLASS,
    target: *mut c_void,
    len: usize,
) -> io::Result<()> {
    let mut used = 0;
    // SAFETY: The token is open. The callers pass memory of `len` bytes, which may get any values.
    check(unsafe {
        GetTokenInformation(token.as_raw_handle(), class, target, len as u32, &raw mut used)
    })
}

/// A security descriptor that the system allocated, freed when dropped.
struct Descriptor(PSECURITY_DESCRIPTOR);

/// Owner and access control list.
const EXAMINED: u32 = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;

impl Descriptor {
    fn of_file(file: &File) -> io::Result<Self> {
        let mut descriptor = null_mut();
        // SAFETY: The handle is open, and `descriptor` lives until the call returns. The other
        // outputs are not requested.
        let error = unsafe {
            GetSecurityInfo(
                file.as_raw_handle(),
                SE_FILE_OBJECT,
                EXAMINED,
                null_mut(),
                null_mut(),
                null_mut(),
                null_mut(),
                &raw mut descriptor,
            )
        };
        match error {
            0 => Ok(Self(descriptor)),
            error => Err(io::Error::from_raw_os_error(error.cast_signed())),
        }
    }

    fn from_text(text: &str) -> io::Result<Self> {
        let text: Vec<u16> = text.encode_utf16().chain([0]).collect();
        let (text, mut descriptor) = (text.as_ptr(), null_mut());
        // SAFETY: The text ends with a NUL, and `descriptor` lives until the call returns.
        check(unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text,
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        })?;
        Ok(Self(descriptor))
    }

    fn to_text(&self) -> io::Result<String> {
        let mut text = null_mut();
        // SAFETY: The descriptor is valid while `self` lives, and `text` until the call returns.
        check(unsafe {
            ConvertSecurityDescriptorToStringSecurityDescriptorW(
                self.0,
                SDDL_REVISION_1,
                EXAMINED,
                &raw mut text,
                null_mut(),
            )
        })?;
        Ok(Text(text).read())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: The system allocated it for this value, which is dropped once.
        unsafe { LocalFree(self.0) };
    }
}

/// A text with a NUL that the system allocated, freed when dropped.
struct Text(*mut u16);

impl Text {
    fn read(&self) -> String {
        let mut len = 0;
        // SAFETY: The text ends with a NUL, and no unit behind that is read.
        while unsafe { self.0.add(len).read() } != 0 {
            len += 1;
        }
        // SAFETY: These units were read above.
        String::from_utf16_lossy(unsafe { slice::from_raw_parts(self.0, len) })
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: The system allocated it for this value, which is dropped once.
        unsafe { LocalFree(self.0.cast()) };
    }
}

// Processes.

/// Bits of the number of a process.
pub(crate) const NUMBER_BITS: u32 = 32;

/// Bits of a scope.
pub(crate) const SCOPE_BITS: u32 = 15;

/// Returns when this process started.
pub(crate) fn start() -> u64 {
    // SAFETY: This call takes no arguments.
    started(unsafe { GetCurrentProcess() }).unwrap_or(0)
}

/// Examines the process with a number.
pub(crate) fn thread_state(number: u64) -> ThreadState {
    let process = match open_process(number) {
        Ok(process) => process,
        Err(error) if is_one_of(&error, &[ERROR_INVALID_PARAMETER]) => return ThreadState::Ended,
        // It runs as another user.
        Err(_) => return ThreadState::Hidden,
    };
    // SAFETY: The handle is open. The call does not wait.
    if unsafe { WaitForSingleObject(process.as_raw_handle(), 0) } == WAIT_OBJECT_0 {
        return ThreadState::Ended;
    }
    match started(process.as_raw_handle()) {
        Some(start) => ThreadState::Running { start },
        None => ThreadState::Hidden,
    }
}

/// Returns what this process can see of a process.
pub(crate) fn describe(number: u64) -> LockHolder {
    let program = open_process(number).ok().and_then(|process| program(&process));
    LockHolder { pid: u32::try_from(number).ok(), program, stopped: false }
}

fn open_process(number: u64) -> io::Result<OwnedHandle> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let access = PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_SYNCHRONIZE;
    // SAFETY: This call takes numbers only.
    let handle = unsafe { OpenProcess(access, 0, number) };
    if handle.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The call succeeded, so the handle is open, and no other value owns it.
    Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
}

/// Returns when a process started, in 100 ns.
fn started(process: HANDLE) -> Option<u64> {
    let mut times = [FILETIME::default(); 4];
    let [start, exit, kernel, user] = times.each_mut().map(core::ptr::from_mut);
    // SAFETY: The callers pass an open handle, and the four times live until the call returns.
    check(unsafe { GetProcessTimes(process, start, exit, kernel, user) }).ok()?;
    let FILETIME { dwLowDateTime, dwHighDateTime } = times[0];
    Some(u64::from(dwHighDateTime) << 32 | u64::from(dwLowDateTime))
}

/// Returns the name of a process's program, without its folder and extension.
fn program(process: &OwnedHandle) -> Option<String> {
    let mut name = [0; MAX_PATH_LEN];
    let (target, mut len) = (name.as_mut_ptr(), MAX_PATH_LEN as u32);
    let process = process.as_raw_handle();
    // SAFETY: The handle is open, and `target` has `len` units.
    let read =
        unsafe { QueryFullProcessImageNameW(process, PROCESS_NAME_WIN32, target, &raw mut len) };
    check(read).ok()?;
    let path = OsString::from_wide(name.get(..len as usize)?);
    Some(Path::new(&path).file_stem()?.to_string_lossy().into_owned())
}

// The clock.

/// Returns `None`: the coarse clock is too coarse for windows of a second.
#[inline]
pub(crate) const fn coarse_time() -> Option<Duration> {
    None
}

/// Returns the largest resolution, so that only the precise clock is read.
pub(crate) const fn coarse_resolution() -> Duration {
    Duration::MAX
}

// Helpers.

/// Returns the error of the last call if it returned 0.
fn check(result: windows_sys::core::BOOL) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_one_of(error: &io::Error, codes: &[u32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code.cast_unsigned()))
}

/// Repeats `attempt` while it fails with one of these errors, for at most a second.
fn repeat<T>(codes: &[u32], mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) if is_one_of(&error, codes) => sleep(PAUSE),
            other => return other,
        }
    }
    attempt()
}

/// Returns an absolute path with a NUL, in the form that may have any length.
fn wide(path: &Path) -> io::Result<Vec<u16>> {
    let absolute = std::path::absolute(path)?;
    let units: Vec<u16> = absolute.as_os_str().encode_wide().collect();
    if units.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let has_prefix = units.starts_with(&[u16::from(b'\\'); 2]);
    let prefix: &[u16] = if has_prefix { &[] } else { &[92, 92, 63, 92] };
    Ok([prefix, &units, &[0]].concat())
}
