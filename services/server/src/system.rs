//! What differs between operating systems: signals, the limit of open files, options of sockets,
//! and the data folder. Unix sockets are in `service/unix_socket.rs`.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
