//! Pointers from C as types that are checked before they are followed. Holds all unsafe code of
//! this crate.
//!
//! Each parameter of a C function has one of these types. They are plain pointers to C, and
//! `cargo xtask header` declares them so.
//!
//! | type | C | the caller guarantees (see the contract in `keytally.h`) |
//! |---|---|---|
//! | [`In<T>`](In) | `const T *` | readable during the call, and not written by another thread |
//! | [`Out<T>`](Out) | `T *` | writable during the call, and not used by another thread |
//! | [`Handle<T>`](Handle) | `T *` | a handle that is not closed during the call |
//! | [`Memory`] | `void *` | a table's memory, for as long as its handle is used |
//! | [`Number<E>`](Number) | `E` | nothing: the number may be none of the enumerators of `E` |
//!
//! Values of these types come only from C and from the unsafe [`from_raw`](In::from_raw). Safe code
//! may follow them, because their maker has given the guarantee. The functions here check what can
//! be checked: NULL, alignment, lengths, and whether a handle is one.
//!
//! Memory that C hands over for a result may be uninitialized. A struct is filled with zeros before
//! a reference to it exists. The one exception is the buffer for header fields
//! ([`Buffer::unwritten`]): it is written before it is read.

use core::ffi::{CStr, c_char, c_void};
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use keytally_core::{CACHE_LINE_LEN, CacheLine};

use crate::status::{FfiResult, kt_status};

/// A type for which every bit pattern is a valid value, so that C cannot hand over an invalid one.
///
/// # Safety
/// An implementor is an integer, a pointer of this module, or a `repr(C)` struct or an array of
/// such types.
pub unsafe trait Plain: Copy {}

macro_rules! plain_integers {
    ($($type:ty),*) => {
        $(
            // SAFETY: It is an integer.
            unsafe impl Plain for $type {}
        )*
    };
}

// `c_char` is one of the first two.
plain_integers! { i8, u8, u16, u32, u64, usize }

// SAFETY: It is an array of plain values.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}
// SAFETY: It is a pointer, which safe code follows only through the checks of this module.
unsafe impl<T> Plain for In<'_, T> {}
// SAFETY: It is a pointer to a handle, which is followed only as a `Handle`, after a check.
unsafe impl<H> Plain for *mut H {}
// SAFETY: It is a pointer, which safe code follows only through the checks of this module.
unsafe impl<H> Plain for Handle<'_, H> {}
// SAFETY: It is an integer.
unsafe impl<E: Numbered> Plain for Number<E> where E::Number: Plain {}

/// Declares structs of the C interface. The compiler checks that each field is [`Plain`], so the
/// struct is too.
///
/// It also checks that a struct has no implicit padding. Callers need not initialize padding, so a
/// later member there would read arbitrary bytes from callers with an older header.
macro_rules! plain {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty, )*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            $vis struct $name $(<$life>)? {
                $( $(#[$field_meta])* $field_vis $field: $type, )*
            }

            const _: () = {
                #[expect(dead_code, reason = "compiled to be checked")]
                fn every_field_is_plain $(<$life>)? (_: $name $(<$life>)?) {
                    const fn is_plain<T: $crate::pointers::Plain>() {}
                    $( is_plain::<$type>(); )*
                }
            };

            impl $(<$life>)? $name $(<$life>)? {
                const NO_PADDING: () = assert!(
                    size_of::<Self>() == 0 $( + size_of::<$type>() )*,
                    "a struct of the C interface has implicit padding"
                );
            }

            const _: () = $name::NO_PADDING;

            // SAFETY: The struct is `repr(C)`, and each of its fields is plain, as the function
            // above shows.
            unsafe impl $(<$life>)? $crate::pointers::Plain for $name $(<$life>)? {}
        )*
    };
}

pub(crate) use plain;

/// A struct that the caller fills in and that may get more members: its first member is its `size`,
/// a `u32`.
pub trait Growing: Plain {
    /// The size of the struct in the first version of the header, without its optional members.
    const MIN_SIZE: usize;
}

/// The maximum `size` of a [`Growing`] struct, in bytes.
const MAX_STRUCT_SIZE: usize = 4096;

/// `const T *`: an input.
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
    /// The null pointer.
    pub const NULL: Self = Self(ptr::null(), PhantomData);

    /// Wraps a pointer as C would hand it over.
    ///
    /// # Safety
    /// The pointer is NULL, misaligned, or refers to at least as many `T` as it is used for. Those
    /// are readable and do not change for `'c`.
    pub const unsafe fn from_raw(pointer: *const T) -> Self {
        Self(pointer, PhantomData)
    }

    /// Returns whether it is the null pointer.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl In<'static, c_char> {
    /// Points to a static text.
    pub(crate) const fn from_static(text: &'static CStr) -> Self {
        Self(text.as_ptr(), PhantomData)
    }
}

impl<'c, T> In<'c, T> {
    /// Points to a value that a C callback reads.
    pub(crate) fn from_ref(value: &'c T) -> Self {
        Self(value, PhantomData)
    }
}

impl<'c, T: Plain> In<'c, T> {
    /// Returns a copy of the value that it points to.
    #[inline]
    pub(crate) fn read(self) -> FfiResult<T> {
        self.get().copied()
    }

    /// Returns the value that it points to. If an output of the call may overlap the value, read
    /// what is needed of it before the output is written.
    #[inline]
    pub(crate) fn get(self) -> FfiResult<&'c T> {
        self.slice(1).map(|values| &values[0])
    }

    /// Returns the `len` values that it points to. If `len` is 0, the pointer may be NULL.
    #[inline]
    pub(crate) fn slice(self, len: usize) -> FfiResult<&'c [T]> {
        if len == 0 {
            return Ok(&[]);
        }
        check_range(self.0, len)?;
        // SAFETY: The pointer is not NULL and aligned, and the range fits the address space. The
        // maker of this `In` guarantees that it holds `len` values which do not change for `'c`. As
        // `T` is plain, any bytes are a value.
        Ok(unsafe { slice::from_raw_parts(self.0, len) })
    }

    /// Returns the `len` values that it points to, or `None` for NULL.
    #[inline]
    pub(crate) fn optional(self, len: usize) -> FfiResult<Option<&'c [T]>> {
        if self.0.is_null() { Ok(None) } else { self.slice(len).map(Some) }
    }
}

impl<T: Growing> In<'_, T> {
    /// Returns the struct that it points to, of any version of the header. Members that the
    /// caller's version does not have are zeros.
    ///
    /// # Errors
    /// `KT_STRUCT_SIZE` if the `size` is below the minimum or above 4096 bytes. `KT_UNKNOWN_MEMBER`
    /// if a member that this library does not know is not zero.
    pub(crate) fn read_growing(self) -> FfiResult<T> {
        check_range(self.0, 1)?;
        // SAFETY: The pointer is not NULL and aligned. The maker of this `In` guarantees a struct
        // whose first member, a `u32`, is readable.
        let size = unsafe { self.0.cast::<u32>().read() };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if !(T::MIN_SIZE..=MAX_STRUCT_SIZE).contains(&size) {
            return Err(kt_status::KT_STRUCT_SIZE);
        }
        let begin = self.0.cast::<u8>();
        check_range(begin, size)?;
        let known = size.min(size_of::<T>());
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: The maker of this `In` guarantees `size` readable bytes, at least `known`. The
        // target is a local of at least as many.
        unsafe { ptr::copy_nonoverlapping(begin, value.as_mut_ptr().cast(), known) };
        // SAFETY: As above: these are the bytes from `known` up to `size`.
        let unknown = unsafe { slice::from_raw_parts(begin.wrapping_add(known), size - known) };
        if unknown.iter().any(|&byte| byte != 0) {
            return Err(kt_status::KT_UNKNOWN_MEMBER);
        }
        // SAFETY: Each member is zeros or a copy of the caller's. As `T` is plain, any bytes are a
        // value.
        Ok(unsafe { value.assume_init() })
    }
}

impl<'c> In<'c, c_char> {
    /// Returns the pointer `len` bytes further on.
    pub(crate) fn after(self, len: usize) -> Self {
        Self(self.0.wrapping_add(len), PhantomData)
    }

    /// Returns a text of `len` bytes.
    pub(crate) fn text(self, len: usize) -> FfiResult<&'c [u8]> {
        In::<u8>(self.0.cast(), PhantomData).slice(len)
    }

    /// Returns a text that a NUL ends.
    #[cfg(feature = "host")]
    pub(crate) fn c_str(self) -> FfiResult<&'c CStr> {
        check_range(self.0, 1)?;
        // SAFETY: The pointer is not NULL. The maker of this `In` guarantees that a NUL ends the
        // text and that it does not change for `'c`.
        Ok(unsafe { CStr::from_ptr(self.0) })
    }
}

/// `T *`: where a result is written.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<'c, T>(*mut T, PhantomData<&'c mut T>);

impl<'c, T> Out<'c, T> {
    /// Wraps a pointer as C would hand it over.
    ///
    /// # Safety
    /// The pointer is NULL, misaligned, or refers to at least as many `T` as it is used for. Those
    /// are writable, and nothing else uses them for `'c`.
    pub const unsafe fn from_raw(pointer: *mut T) -> Self {
        Self(pointer, PhantomData)
    }

    /// Checks the pointer. Functions call it before they change anything, so that each change is
    /// reported.
    #[inline]
    pub(crate) fn target(self) -> FfiResult<Target<'c, T>> {
        check_range(self.0, 1)?;
        Ok(Target(self))
    }

    /// Checks a pointer that may be NULL.
    pub(crate) fn optional_target(self) -> FfiResult<Option<Target<'c, T>>> {
        if self.0.is_null() { Ok(None) } else { self.target().map(Some) }
    }

    /// Checks a pointer to `len` values.
    pub(crate) fn targets(self, len: usize) -> FfiResult<Targets<'c, T>> {
        if len > 0 {
            check_range(self.0, len)?;
        }
        Ok(Targets { begin: self, len })
    }
}

impl<'c> Out<'c, c_char> {
    /// Checks a buffer of `len` bytes. Its content is not read.
    pub(crate) fn buffer(self, len: usize) -> FfiResult<Buffer<'c>> {
        if len > 0 {
            check_range(self.0, len)?;
        }
        Ok(Buffer { begin: self, len })
    }
}

/// A checked pointer to where a result is written.
#[derive(Debug)]
pub(crate) struct Target<'c, T>(Out<'c, T>);

impl<T> Target<'_, T> {
    /// Writes the result.
    #[inline(always)]
    pub(crate) fn write(self, value: T) {
        // SAFETY: `Out::target` found the pointer not NULL and aligned. The maker of the `Out`
        // guarantees that it may be written.
        unsafe { self.0.0.write(value) }
    }
}

impl<'c, T: Plain> Target<'c, T> {
    /// Fills the struct with zeros, and returns it to be filled in member by member.
    #[inline(always)]
    pub(crate) fn zeroed(self) -> &'c mut T {
        // SAFETY: As in `write`.
        unsafe { self.0.0.write_bytes(0, 1) };
        // SAFETY: As in `write`; the maker of the `Out` also guarantees that nothing else uses the
        // struct for `'c`. It is zeros, which are a value of each plain type.
        unsafe { &mut *self.0.0 }
    }

    /// Overwrites the struct with zeros in a way that the compiler cannot leave out.
    pub(crate) fn wipe(self) {
        // SAFETY: Zeros are a value of each plain type.
        let zeros: T = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: As in `write`.
        unsafe { self.0.0.write_volatile(zeros) };
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// A checked pointer to an array where results are written.
#[derive(Debug)]
pub(crate) struct Targets<'c, T> {
    begin: Out<'c, T>,
    len: usize,
}

impl<T> Targets<'_, T> {
    /// Returns the number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the element at `index`. Does nothing if there are fewer.
    pub(crate) fn write(&mut self, index: usize, value: T) {
        if index < self.len {
            // SAFETY: `Out::targets` found `len` elements, of which this is one. The maker of the
            // `Out` guarantees that they may be written.
            unsafe { self.begin.0.wrapping_add(index).write(value) }
        }
    }
}

/// A checked buffer for text.
#[derive(Debug)]
pub(crate) struct Buffer<'c> {
    begin: Out<'c, c_char>,
    len: usize,
}

impl<'c> Buffer<'c> {
    /// Returns a pointer to its first byte, by which C reads what this library writes.
    pub(crate) fn begin(&self) -> In<'c, c_char> {
        In(self.begin.0, PhantomData)
    }

    /// Returns its first `N` bytes, to be written before they are read. Returns `None` if it has
    /// fewer.
    ///
    /// C may not have initialized them. Filling them with zeros first would take longer than
    /// writing the header fields.
    #[inline]
    pub(crate) fn unwritten<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        if self.len < N {
            return None;
        }
        // SAFETY: The buffer has at least `N` bytes. The maker of the `Out` guarantees that they
        // may be written and that nothing else uses them. They come from C, whose compiler does not
        // see this code: to this compiler their values are unknown, and any byte is a value.
        Some(unsafe { &mut *self.begin.0.cast::<[u8; N]>() })
    }

    /// Copies bytes into it.
    ///
    /// # Errors
    /// `KT_BUFFER_TOO_SMALL` if the buffer is shorter; then nothing is written.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> FfiResult {
        if bytes.len() > self.len {
            return Err(kt_status::KT_BUFFER_TOO_SMALL);
        }
        // SAFETY: The buffer has `len` bytes, at least as many, and the maker of the `Out`
        // guarantees that they may be written. The source is memory of this library, so the two do
        // not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.begin.0.cast(), bytes.len()) };
        Ok(())
    }

    /// Copies a text into it and ends it with a NUL.
    ///
    /// # Errors
    /// `KT_BUFFER_TOO_SMALL` if the buffer is not longer than the text; then nothing is written.
    pub(crate) fn put(&mut self, text: &[u8]) -> FfiResult {
        if text.len() >= self.len {
            return Err(kt_status::KT_BUFFER_TOO_SMALL);
        }
        self.copy(text)?;
        // SAFETY: The buffer is longer than the text, so this is a byte of it. The maker of the
        // `Out` guarantees that it may be written.
        unsafe { self.begin.0.wrapping_add(text.len()).write(0) };
        Ok(())
    }
}

/// Checks what can be checked of a pointer to `len` values, at least one.
#[inline]
fn check_range<T>(pointer: *const T, len: usize) -> FfiResult {
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
pub struct Memory<'c>(*mut c_void, PhantomData<&'c [CacheLine]>);

impl Memory<'_> {
    /// Wraps a pointer as C would hand it over.
    ///
    /// # Safety
    /// The pointer is NULL, misaligned, or refers to at least as many bytes as it is used for.
    /// Those are used only as tables, for as long as handles of tables in them are used.
    pub const unsafe fn from_raw(pointer: *mut c_void) -> Self {
        Self(pointer, PhantomData)
    }

    /// Returns the whole cache lines in `len` bytes. The bytes must not overlap the handle.
    pub(crate) fn lines<H>(self, len: usize, handle: &Out<'_, H>) -> FfiResult<Lines> {
        let begin = self.0.cast::<CacheLine>();
        let lines = len / CACHE_LINE_LEN;
        check_range(begin, lines)?;
        let (first, handle_first) = (begin.addr(), handle.0.addr());
        let (end, handle_end) =
            (first + lines * CACHE_LINE_LEN, handle_first.saturating_add(size_of::<H>()));
        if first < handle_end && handle_first < end {
            return Err(kt_status::KT_OVERLAP);
        }
        NonNull::new(begin).map(|begin| Lines { begin, lines }).ok_or(kt_status::KT_NULL_POINTER)
    }
}

/// The cache lines of a table. C guarantees them for as long as the handle is used, or a mapping
/// that the handle owns holds them.
#[derive(Clone, Debug)]
pub struct Lines {
    begin: NonNull<CacheLine>,
    lines: usize,
}

// SAFETY: Lines are atomics, which any thread may use. C guarantees the memory to all threads that
// use the handle.
unsafe impl Send for Lines {}
// SAFETY: As above.
unsafe impl Sync for Lines {}

impl Lines {
    /// Returns the lines of a mapping. The caller keeps the mapping for as long as these.
    #[cfg(feature = "host")]
    pub(crate) fn from_mapping(mapping: &keytally::Mapping) -> Self {
        let lines = mapping.as_ref();
        Self { begin: NonNull::from(lines).cast(), lines: lines.len() }
    }

    /// Returns the first `lines` of them, or all if there are fewer.
    pub(crate) fn first(self, lines: usize) -> Self {
        Self { begin: self.begin, lines: lines.min(self.lines) }
    }
}

impl AsRef<[CacheLine]> for Lines {
    #[inline]
    fn as_ref(&self) -> &[CacheLine] {
        // SAFETY: The pointer is not NULL and aligned, and the range fits the address space:
        // `Memory::lines` checked it, and it holds for a slice. `CacheLine` consists of atomics,
        // for which every bit pattern is valid and which others may write at any time. The maker of
        // the `Memory` guarantees that the memory exists and is used only as a table, and the
        // contract in the header demands it for as long as the handle is used. A mapping is owned
        // by the handle.
        unsafe { slice::from_raw_parts(self.begin.as_ptr(), self.lines) }
    }
}

/// A struct that C declares and that holds a table of this process: a gate or a limiter.
pub trait Held: Sized {
    /// What the handle holds.
    type State;
    /// What the magic word of each such handle derives from.
    const MAGIC: u64;
}

/// The content of a handle.
#[repr(C)]
struct Inside<S> {
    /// The kind, how the handle is stored, and its own address. In a struct that was never made a
    /// handle, was closed, moved or copied, this word differs.
    magic: u64,
    state: S,
}

/// The last bit of a magic word: the handle is on this library's heap.
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
    /// Wraps a pointer as C would hand it over.
    ///
    /// # Safety
    /// The pointer is NULL, misaligned, or refers to an `H` that is readable and is neither closed
    /// nor moved while it is used.
    pub const unsafe fn from_raw(pointer: *mut H) -> Self {
        Self(pointer, PhantomData)
    }
}

impl<'c, H: Held> Handle<'c, H> {
    /// Returns whether it is the null pointer.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Returns what the handle holds.
    #[inline]
    pub(crate) fn state(self) -> FfiResult<&'c H::State> {
        self.is_on_heap()?;
        // SAFETY: The pointer is not NULL and aligned. The magic word of its own address proves
        // that `put` or `on_heap` wrote an `Inside` there that was not closed since. It is not
        // written until it is closed, which the maker of the `Handle` guarantees to be after `'c`.
        let inside = unsafe { &*self.0.cast::<Inside<H::State>>() };
        Ok(&inside.state)
    }

    /// Checks that this is a handle. Returns whether it is on the heap.
    #[inline]
    fn is_on_heap(self) -> FfiResult<bool> {
        check_range(self.0, 1)?;
        // SAFETY: The pointer is not NULL and aligned for an `H`, whose first eight bytes this
        // reads. C guarantees that there is an `H`, with any content.
        let magic = unsafe { self.0.cast::<u64>().read() };
        match magic ^ magic_at::<H>(self.0) {
            0 => Ok(false),
            ON_HEAP if cfg!(feature = "host") => Ok(true),
            _ => Err(kt_status::KT_NOT_A_HANDLE),
        }
    }

    /// Closes the handle and wipes what it held. Leaves anything that is not a handle alone.
    pub(crate) fn close(self) {
        let Ok(on_heap) = self.is_on_heap() else { return };
        let inside = self.0.cast::<Inside<H::State>>();
        // SAFETY: As in `state`; and nothing else uses the handle any more, as the contract of
        // closing demands.
        unsafe { (*inside).magic = 0 };
        #[cfg(feature = "host")]
        if on_heap {
            // SAFETY: The magic word proves that `on_heap` made it from a box of this type, and
            // that it was not closed.
            drop(unsafe { Box::from_raw(inside) });
            return;
        }
        let _ = on_heap;
        // SAFETY: The state is there, as the magic word proved; no reference to it is made.
        let state = unsafe { &raw mut (*inside).state };
        // SAFETY: As above. Nothing uses the state again, because the magic word is gone.
        unsafe { ptr::drop_in_place(state) };
    }
}

/// Returns the magic word of a handle at this address.
#[inline]
fn magic_at<H: Held>(pointer: *const H) -> u64 {
    H::MAGIC ^ pointer.addr() as u64
}

impl<H: Held> Target<'_, H> {
    /// Makes the struct a handle.
    pub(crate) fn put(self, state: H::State) {
        const {
            assert!(size_of::<Inside<H::State>>() <= size_of::<H>(), "the state fits its handle");
            assert!(align_of::<Inside<H::State>>() <= align_of::<H>(), "and is aligned in it");
        }
        let handle = self.0.0;
        let inside = Inside { magic: magic_at(handle), state };
        // SAFETY: `Out::target` found an `H` there, which is large enough and aligned for this, as
        // asserted above.
        unsafe { handle.cast::<Inside<H::State>>().write(inside) };
    }
}

/// Makes a handle on the heap.
#[cfg(feature = "host")]
pub(crate) fn on_heap<H: Held>(state: H::State) -> *mut H {
    let mut inside = Box::new(Inside { magic: 0, state });
    let handle = (&raw mut *inside).cast::<H>();
    inside.magic = magic_at(handle) ^ ON_HEAP;
    Box::into_raw(inside).cast()
}

/// An enumeration of the C interface. A parameter or member of its type may hold a number that is
/// none of its enumerators.
pub trait Numbered {
    /// Its integer type.
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

#[cfg(all(test, feature = "host"))]
mod tests {
    use super::*;

    plain! {
        /// A struct of two versions.
        #[derive(Debug)]
        struct Version1 {
            size: u32,
            first: u32,
        }

        /// The second version.
        #[derive(Debug)]
        struct Version2 {
            size: u32,
            first: u32,
            second: u64,
        }
    }

    impl Growing for Version1 {
        const MIN_SIZE: usize = 8;
    }

    impl Growing for Version2 {
        const MIN_SIZE: usize = 8;
    }

    fn read<T: Growing>(caller: &Version2) -> FfiResult<T> {
        // SAFETY: The struct is readable and lives during the call.
        unsafe { In::<T>::from_raw((&raw const *caller).cast()) }.read_growing()
    }

    #[test]
    fn struct_of_an_older_caller_has_zeros_for_new_members() {
        let older = Version2 { size: 8, first: 7, second: u64::MAX };
        let found: Version2 = read(&older).unwrap();
        assert_eq!((found.size, found.first, found.second), (8, 7, 0));
    }

    #[test]
    fn struct_of_a_newer_caller_may_only_have_zeros_more() {
        let mut newer = Version2 { size: 16, first: 7, second: 0 };
        assert_eq!(read::<Version1>(&newer).unwrap().first, 7);
        newer.second = 1 << 63;
        assert_eq!(read::<Version1>(&newer).unwrap_err(), kt_status::KT_UNKNOWN_MEMBER);
    }

    #[test]
    fn struct_size_out_of_range_is_a_status() {
        for size in [0, 7, 4097, u32::MAX] {
            let wrong = Version2 { size, first: 7, second: 0 };
            assert_eq!(read::<Version2>(&wrong).unwrap_err(), kt_status::KT_STRUCT_SIZE);
        }
    }
}
