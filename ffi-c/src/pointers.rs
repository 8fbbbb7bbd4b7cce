//! Pointers from C as types that are checked before they are followed. All unsafe code of this crate is here.
//!
//! A parameter of a C function has one of these types, which are plain pointers to C (`cargo xtask header` writes them so):
//!
//! | type | C | what the caller guarantees, see the header's contract |
//! |---|---|---|
//! | [`In<T>`](In) | `const T *` | readable for the call, and written by nobody meanwhile |
//! | [`Out<T>`](Out) | `T *` | writable for the call, and used by nobody else meanwhile |
//! | [`Handle<T>`](Handle) | `T *` | a handle that isn't closed during the call |
//! | [`Memory`] | `void *` | a table's memory, for as long as its handle is used |
//! | [`Number<E>`](Number) | `E` | nothing: it may be a number that `E` hasn't |
//!
//! Only C makes them, and [`from_raw`](In::from_raw), which is unsafe. So safe code may follow them: whoever made
//! one has given the guarantee. What can be told is checked here: NULL, alignment, lengths, and whether a handle is one.

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::slice;

use keytally_core::{LINE_LEN, Line};

use crate::guard::Outcome;
use crate::status::kt_status;

/// A type for which every bit pattern is a value, so that C can't hand over one that isn't.
///
/// # Safety
/// Implementors are integers, or `repr(C)` structs and arrays of such types.
pub unsafe trait Plain: Copy {}

/// Implements [`Plain`], for this crate's structs too: here, so that the promise is made in one place.
macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: It is an integer, or a `repr(C)` struct all of whose fields are plain: integers, arrays of
            // them, pointers and numbers as this file defines them.
            unsafe impl Plain for $type {}
        )*
    };
}

// `c_char` is one of the first two.
plain! {
    i8, u8, u32, u64, usize,
    crate::kt_charge, crate::kt_quota, crate::kt_verdict, crate::kt_key, crate::kt_key_parts, crate::kt_key_info,
    crate::kt_plan_info, crate::kt_flaw,
}

// SAFETY: The struct is `repr(C)`, and its fields are integers and pointers of this file.
unsafe impl Plain for crate::kt_bytes<'_> {}
// SAFETY: As above.
unsafe impl Plain for crate::kt_plan<'_> {}
// SAFETY: As above.
unsafe impl Plain for crate::kt_gate_config<'_> {}
// SAFETY: As above.
unsafe impl Plain for crate::kt_new_key<'_> {}
// SAFETY: As above.
unsafe impl Plain for crate::kt_field<'_> {}
// SAFETY: As above.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: A pointer to a handle is followed only as a `Handle`, which checks it.
unsafe impl<H> Plain for *mut H {}

/// `const T *`: something to read.
#[repr(transparent)]
#[derive(Debug)]
pub struct In<'c, T>(*const T, PhantomData<&'c T>);

impl<T> Clone for In<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<'_, T> {}

impl<T> In<'_, T> {
    /// NULL.
    pub const NULL: Self = Self(ptr::null(), PhantomData);

    /// A pointer as C would hand it over.
    ///
    /// # Safety
    /// It is NULL, misaligned, or points to as many `T` as it is used for, readable and unchanged for `'c`.
    pub const unsafe fn from_raw(pointer: *const T) -> Self {
        Self(pointer, PhantomData)
    }
}

impl In<'static, c_char> {
    /// A text that is always there.
    pub(crate) const fn of_static(text: &'static CStr) -> Self {
        Self(text.as_ptr(), PhantomData)
    }
}

impl<'c, T> In<'c, T> {
    /// A pointer for a function of C's.
    pub(crate) fn of(value: &'c T) -> Self {
        Self(value, PhantomData)
    }
}

impl<'c, T: Plain> In<'c, T> {
    /// What it points to.
    #[inline]
    pub(crate) fn read(self) -> Outcome<T> {
        self.slice(1).map(|values| values[0])
    }

    /// The `len` values that it points to; none need no pointer.
    #[inline]
    pub(crate) fn slice(self, len: usize) -> Outcome<&'c [T]> {
        if len == 0 {
            return Ok(&[]);
        }
        check_range(self.0, len)?;
        // SAFETY: The pointer was found to be there, aligned, and the range to fit memory. That it holds so many values which
        // nobody changes for `'c` is the guarantee of whoever made this `In`; as `T` is plain, whatever it holds is a value.
        Ok(unsafe { slice::from_raw_parts(self.0, len) })
    }

    /// The same where NULL says that there is nothing.
    #[inline]
    pub(crate) fn optional(self, len: usize) -> Outcome<Option<&'c [T]>> {
        if self.0.is_null() { Ok(None) } else { self.slice(len).map(Some) }
    }
}

impl<'c> In<'c, c_char> {
    /// What lies `len` bytes after it.
    pub(crate) fn after(self, len: usize) -> Self {
        Self(self.0.wrapping_add(len), PhantomData)
    }

    /// A text of `len` bytes.
    pub(crate) fn text(self, len: usize) -> Outcome<&'c [u8]> {
        In::<u8>(self.0.cast(), PhantomData).slice(len)
    }

    /// A text that ends with a NUL.
    #[cfg(feature = "host")]
    pub(crate) fn c_str(self) -> Outcome<&'c CStr> {
        check_range(self.0, 1)?;
        // SAFETY: The pointer is there. That a NUL ends what it points to, and that nobody changes it for `'c`, is the
        // guarantee of whoever made this `In`.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}

/// `T *`: where an answer goes.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<'c, T>(*mut T, PhantomData<&'c mut T>);

impl<'c, T> Out<'c, T> {
    /// A pointer as C would hand it over.
    ///
    /// # Safety
    /// It is NULL, misaligned, or points to as many `T` as it is used for, writable and used by nobody else for `'c`.
    pub const unsafe fn from_raw(pointer: *mut T) -> Self {
        Self(pointer, PhantomData)
    }

    /// A place that was found good: asked for before anything is done, so that what is done can be told.
    #[inline]
    pub(crate) fn place(self) -> Outcome<Place<'c, T>> {
        check_range(self.0, 1)?;
        Ok(Place(self))
    }
}

impl<'c> Out<'c, c_char> {
    /// A buffer of `len` bytes, found good. What is in it is not read.
    pub(crate) fn buffer(self, len: usize) -> Outcome<Buffer<'c>> {
        if len > 0 {
            check_range(self.0, len)?;
        }
        Ok(Buffer { at: self, len })
    }
}

/// Where an answer goes, found good.
#[derive(Debug)]
pub(crate) struct Place<'c, T>(Out<'c, T>);

impl<T> Place<'_, T> {
    /// Writes the answer.
    #[inline(always)]
    pub(crate) fn write(self, value: T) {
        // SAFETY: `place` found the pointer there and aligned; that it may be written is the guarantee of whoever made
        // the `Out`.
        unsafe { self.0.0.write(value) }
    }
}

impl<'c, T: Plain> Place<'c, T> {
    /// The place itself, to be filled field by field. What is in it says nothing.
    #[inline(always)]
    pub(crate) fn slot(self) -> &'c mut T {
        // SAFETY: `place` found the pointer there and aligned; that it may be written, and that nobody else uses it for `'c`,
        // is the guarantee of whoever made the `Out`. As `T` is plain, whatever is in it is a value.
        unsafe { &mut *self.0.0 }
    }
}

impl Place<'_, crate::kt_key> {
    /// Overwrites a key in a way that the compiler can't leave out.
    pub(crate) fn wipe(self) {
        let key = crate::kt_key { text: [0; crate::KT_KEY_SIZE] };
        // SAFETY: As in `write`.
        unsafe { self.0.0.write_volatile(key) };
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// A buffer for text, found good.
#[derive(Debug)]
pub(crate) struct Buffer<'c> {
    at: Out<'c, c_char>,
    len: usize,
}

impl<'c> Buffer<'c> {
    /// Where it begins, for C to read what will have been written.
    pub(crate) fn begin(&self) -> In<'c, c_char> {
        In(self.at.0, PhantomData)
    }

    /// The buffer itself, to be written in place. What is in it says nothing.
    #[inline]
    pub(crate) fn bytes(self) -> &'c mut [u8] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: The buffer was found to be `len` bytes; that they may be written, and that nobody else uses them for `'c`, is
        // the guarantee of whoever made the `Out`. Whatever is in them is a value.
        unsafe { slice::from_raw_parts_mut(self.at.0.cast(), self.len) }
    }

    /// Copies a text into it, which must be shorter than the buffer, and ends it with a NUL.
    pub(crate) fn put(&mut self, text: &[u8]) -> Outcome {
        if text.len() >= self.len {
            return Err(kt_status::KT_BUFFER_TOO_SMALL);
        }
        // SAFETY: The buffer was found to be `len` bytes, more than the text has, and may be written as whoever made the
        // `Out` guarantees; so it is not the text, which is memory of this library.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), self.at.0.cast(), text.len()) };
        // SAFETY: As above: this is a byte of the buffer.
        unsafe { self.at.0.wrapping_add(text.len()).write(0) };
        Ok(())
    }
}

/// Refuses what can be told of a pointer to `len` values, at least one.
#[inline]
fn check_range<T>(pointer: *const T, len: usize) -> Outcome {
    if pointer.is_null() {
        return Err(kt_status::KT_NULL_POINTER);
    }
    if !pointer.is_aligned() {
        return Err(kt_status::KT_MISALIGNED);
    }
    let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
    match bytes.and_then(|bytes| pointer.addr().checked_add(bytes)) {
        Some(_) => Ok(()),
        None => Err(kt_status::KT_BAD_LENGTH),
    }
}

/// `void *`: memory for a table.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Memory<'c>(*mut c_void, PhantomData<&'c [Line]>);

impl Memory<'_> {
    /// A pointer as C would hand it over.
    ///
    /// # Safety
    /// It is NULL, misaligned, or points to as many bytes as it is used for, which nobody uses but as tables, for as
    /// long as handles of tables in it are used.
    pub const unsafe fn from_raw(pointer: *mut c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// The whole lines in `len` bytes. None of them may lie in the handle's `handle_len` bytes.
    pub(crate) fn lines<H>(self, len: usize, handle: &Out<'_, H>) -> Outcome<Lines> {
        let at = self.0.cast::<Line>();
        let lines = len / LINE_LEN;
        check_range(at, lines)?;
        let (begin, handle_begin) = (at.addr(), handle.0.addr());
        let (end, handle_end) = (begin + lines * LINE_LEN, handle_begin.saturating_add(size_of::<H>()));
        if begin < handle_end && handle_begin < end {
            return Err(kt_status::KT_OVERLAP);
        }
        NonNull::new(at).map(|at| Lines { at, lines }).ok_or(kt_status::KT_NULL_POINTER)
    }
}

/// A table's memory: lines that C guarantees for as long as the handle is used, or that a mapping holds which the
/// handle owns.
#[derive(Debug)]
pub struct Lines {
    at: NonNull<Line>,
    lines: usize,
}

// SAFETY: Lines are atomics, which any thread may use; C guarantees the memory to all threads that use the handle.
unsafe impl Send for Lines {}
// SAFETY: As above.
unsafe impl Sync for Lines {}

impl Lines {
    /// The lines of a mapping. Whoever keeps these keeps the mapping for longer.
    #[cfg(feature = "host")]
    pub(crate) fn of_mapping(mapping: &keytally::Mapping) -> Self {
        let lines = mapping.as_ref();
        Self { at: NonNull::from(lines).cast(), lines: lines.len() }
    }

    /// The first `lines` of them, or all where there are fewer.
    pub(crate) fn first(self, lines: usize) -> Self {
        Self { at: self.at, lines: lines.min(self.lines) }
    }
}

impl AsRef<[Line]> for Lines {
    #[inline]
    fn as_ref(&self) -> &[Line] {
        // SAFETY: The pointer is there, aligned, and the range fits memory: `Memory::lines` found so, and a slice is so.
        // `Line` is atomics all through, for which every bit pattern is valid and which others may write at any time.
        // That the memory is there and used as a table only is the guarantee of whoever made the `Memory`, which the
        // header's contract asks for as long as the handle is used; a mapping is owned by the handle.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.lines) }
    }
}

/// A struct that C declares and that holds a table of this process: a gate or a limiter.
pub trait Held: Sized {
    /// What it holds.
    type State;
    /// What it begins with.
    const MAGIC: u64;
}

/// What lies in a handle.
#[repr(C)]
struct Inside<S> {
    /// The kind, how it is stored and its own address: a struct that was never made a handle, was closed, moved or
    /// copied has another.
    magic: u64,
    state: S,
}

/// The last bit of a magic word says that the handle is on this library's heap.
const ON_HEAP: u64 = 1;

/// `T *`: a handle.
#[repr(transparent)]
#[derive(Debug)]
pub struct Handle<'c, H>(*mut H, PhantomData<&'c H>);

impl<H> Clone for Handle<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for Handle<'_, H> {}

impl<H> Handle<'_, H> {
    /// A pointer as C would hand it over.
    ///
    /// # Safety
    /// It is NULL, misaligned, or points to an `H` that is readable, and not closed or moved while it is used.
    pub const unsafe fn from_raw(pointer: *mut H) -> Self {
        Self(pointer, PhantomData)
    }
}

impl<'c, H: Held> Handle<'c, H> {
    /// What the handle holds.
    #[inline]
    pub(crate) fn state(self) -> Outcome<&'c H::State> {
        self.magic()?;
        // SAFETY: The pointer is there and aligned, and the magic word of its own address says that `put` or `on_heap`
        // wrote an `Inside` there that was not closed since. Nobody writes it until it is closed, which whoever made the
        // `Handle` guarantees to be after `'c`.
        let inside = unsafe { &*self.0.cast::<Inside<H::State>>() };
        Ok(&inside.state)
    }

    /// Refuses what can be told to be no handle; else tells whether it is on the heap.
    #[inline]
    fn magic(self) -> Outcome<bool> {
        check_range(self.0, 1)?;
        // SAFETY: The pointer is there and aligned for an `H`, whose first eight bytes this reads; C guarantees that there
        // is one, whatever is in it.
        let magic = unsafe { self.0.cast::<u64>().read() };
        match magic ^ magic_at::<H>(self.0) {
            0 => Ok(false),
            ON_HEAP => Ok(true),
            _ => Err(kt_status::KT_NOT_A_HANDLE),
        }
    }

    /// Ends the handle and wipes what it held; what is none is left alone.
    pub(crate) fn close(self) {
        let Ok(on_heap) = self.magic() else { return };
        let inside = self.0.cast::<Inside<H::State>>();
        // SAFETY: As in `state`; and nobody else uses the handle any more, as the contract of closing says.
        unsafe { (*inside).magic = 0 };
        #[cfg(feature = "host")]
        if on_heap {
            // SAFETY: The magic word says that `on_heap` made it, from a box of this type, and that it was not closed.
            drop(unsafe { Box::from_raw(inside) });
            return;
        }
        let _ = on_heap;
        // SAFETY: The state is there, as the magic word said; no reference to it is made.
        let state = unsafe { &raw mut (*inside).state };
        // SAFETY: As above, and nothing will use it again, as the magic word is gone.
        unsafe { ptr::drop_in_place(state) };
    }
}

/// The magic word of a handle that lies at this address.
#[inline]
fn magic_at<H: Held>(pointer: *const H) -> u64 {
    H::MAGIC ^ pointer.addr() as u64
}

impl<'c, H: Held> Place<'c, H> {
    /// Makes a handle of it.
    pub(crate) fn put(self, state: H::State) {
        const {
            assert!(size_of::<Inside<H::State>>() <= size_of::<H>(), "the state fits its handle");
            assert!(align_of::<Inside<H::State>>() <= align_of::<H>(), "and is aligned in it");
        }
        let at = self.0.0;
        let inside = Inside { magic: magic_at(at), state };
        // SAFETY: `place` found an `H` there, which is large enough and aligned for this, as asserted above.
        unsafe { at.cast::<Inside<H::State>>().write(inside) };
    }
}

/// Makes a handle on the heap.
#[cfg(feature = "host")]
pub(crate) fn on_heap<H: Held>(state: H::State) -> *mut H {
    let mut inside = Box::new(Inside { magic: 0, state });
    let at = (&raw mut *inside).cast::<H>();
    inside.magic = magic_at(at) ^ ON_HEAP;
    Box::into_raw(inside).cast()
}

/// An enumeration of C, whose parameters and fields may hold numbers that it hasn't.
pub trait Numbered {
    /// Its integer.
    type Number: Copy + Eq + fmt::Debug;
}

/// A number that should be one of an enumeration.
#[repr(transparent)]
#[derive(Debug, PartialEq, Eq)]
pub struct Number<E: Numbered>(pub E::Number);

impl<E: Numbered> Clone for Number<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E: Numbered> Copy for Number<E> {}
