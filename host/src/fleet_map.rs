//! The fleet file of a gate in memory: a page about the machine, and a cache line of credits for
//! each tally. The crate `keytally-fleet-plan` has its layout.
//!
//! The file is created with zeros, and gets its identity when it is opened for the first time: the
//! number of the gate, the boot, and its inode. All processes that do this at once write the same.

use core::time::Duration;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use keytally_core::sync::{AtomicU64, Ordering};
use keytally_core::{CACHE_LINE_LEN, CacheLine};
use keytally_fleet_plan::layout::{
    CLAIM_WORD, FileLayout, Identity, MAGIC, OWNER_WORD, PAGE_TEXT_WORDS, PAGE_TEXTS, PageError,
    PageState, PageWord, UNRESERVED_WORD, WantedBits,
};
use keytally_fleet_plan::words::TallyWords;

use crate::error::{Error, FleetError};
use crate::file::{TableFile, open_regular};
use crate::map::Mapping;
use crate::publish::create_zeros;
use crate::system;

const WORD_LEN: usize = size_of::<u64>();

/// Words of a tally.
const TALLY_WORDS: usize = CACHE_LINE_LEN / WORD_LEN;

/// A fleet file that is mapped.
#[derive(Debug)]
pub(crate) struct FleetMap {
    mapping: Mapping,
    layout: FileLayout,
    /// The position of the first tally's words.
    tallies_at: usize,
    file: TableFile,
    identity: Identity,
}

/// The words of one tally.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FleetTally<'m> {
    pub(crate) words: TallyWords<'m>,
    pub(crate) owner: &'m AtomicU64,
}

impl FleetMap {
    /// Creates the file if there is none. Replaces one whose credits are void, and opens it.
    pub(crate) fn create(path: &Path, layout: FileLayout, gate: u64) -> Result<Self, Error> {
        let is_void = |error: &FleetError| *error == FleetError::Page(PageError::Stale);
        Self::create_over(path, layout, gate, is_void)
    }

    /// Creates the file as [`create`](Self::create) does, and also replaces one of another gate, of
    /// another version or of another length, unless an agent has its lock.
    pub(crate) fn replace(path: &Path, layout: FileLayout, gate: u64) -> Result<Self, Error> {
        let is_fleet = |error: &FleetError| {
            !matches!(error, FleetError::Page(PageError::NotAFleet | PageError::Empty))
        };
        Self::create_over(path, layout, gate, is_fleet)
    }

    fn create_over(
        path: &Path,
        layout: FileLayout,
        gate: u64,
        is_replaced: impl Fn(&FleetError) -> bool,
    ) -> Result<Self, Error> {
        // Without it, the file cannot be opened, so none is made.
        system::boot()?;
        // Each turn makes way for the next one, unless other processes do the same meanwhile.
        for _ in 0..8 {
            match Self::open(path, layout, gate) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    match create_zeros(path, layout.len() / CACHE_LINE_LEN) {
                        Ok(()) | Err(Error::Exists { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(Error::Fleet { source, .. }) if is_replaced(&source) => remove_void(path)?,
                other => return other,
            }
        }
        Self::open(path, layout, gate)
    }

    /// Opens the file of the gate with this number.
    pub(crate) fn open(path: &Path, layout: FileLayout, gate: u64) -> Result<Self, Error> {
        let refused = |source| Error::Fleet { path: path.into(), source };
        let file = open_regular(path)?;
        let metadata = file.metadata().map_err(|error| Error::io("examine", path, error))?;
        let found = begin_of(path, &file)?;
        if ![0, MAGIC].contains(&found[0]) {
            return Err(refused(PageError::NotAFleet.into()));
        }
        system::check_table(path, &file, &metadata)?;
        let number =
            system::Identity::new(&file).map_err(|error| Error::io("examine", path, error))?;
        let identity = Identity {
            tallies: layout.tallies(),
            gate,
            boot: system::boot()?,
            inode: number.number(),
        };
        if metadata.len() != layout.len() as u64 {
            // A file of another gate has another length.
            let load = |word: PageWord| found.get(word as usize).copied().unwrap_or(0);
            identity.verify(load).map_err(|error| refused(error.into()))?;
            let (found, expected) = (metadata.len(), layout.len() as u64);
            return Err(refused(FleetError::Length { found, expected }));
        }
        if system::has_holes(&metadata) {
            system::fill_holes(&file, metadata.len())
                .map_err(|error| Error::io("reserve disk space for", path, error))?;
        }
        let mapping = Mapping::new(&file, layout.len() / CACHE_LINE_LEN)
            .map_err(|error| Error::io("map", path, error))?;
        let file = TableFile::new(path, file).map_err(|error| Error::io("examine", path, error))?;
        let tallies_at = layout.tally_at(0).unwrap_or(0) / WORD_LEN;
        let map = Self { mapping, layout, tallies_at, file, identity };
        let load = |word| map.page(word).load(Ordering::Acquire);
        if load(PageWord::Magic) == 0 {
            map.identify();
        }
        identity.verify(load).map_err(|error| refused(error.into()))?;
        Ok(map)
    }

    /// Writes what identifies the file.
    pub(crate) fn identify(&self) {
        for (word, value) in self.identity.words() {
            self.page(word).store(value, Ordering::Release);
        }
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &TableFile {
        &self.file
    }

    /// Returns the number of tallies.
    pub(crate) fn tallies(&self) -> u32 {
        self.layout.tallies()
    }

    /// Returns a word of the page.
    #[inline]
    pub(crate) fn page(&self, word: PageWord) -> &AtomicU64 {
        &self.mapping.words()[word as usize]
    }

    /// Returns the words of the texts that begin at a word of the page.
    pub(crate) fn page_texts(&self, first: PageWord) -> &[AtomicU64] {
        let begin = first as usize;
        &self.mapping.words()[begin..begin + PAGE_TEXTS * PAGE_TEXT_WORDS]
    }

    /// Returns what the agent says of the store.
    pub(crate) fn state(&self) -> PageState {
        PageState::from_bits(self.page(PageWord::State).load(Ordering::Acquire))
    }

    /// Returns how many milliseconds the fleet's clock is ahead of this machine's.
    #[inline]
    pub(crate) fn offset_ms(&self) -> i64 {
        self.page(PageWord::Offset).load(Ordering::Acquire).cast_signed()
    }

    /// Returns the words of a tally; `None` if there is no such tally.
    #[inline]
    pub(crate) fn tally(&self, tally: u32) -> Option<FleetTally<'_>> {
        if tally >= self.layout.tallies() {
            return None;
        }
        let at = self.tallies_at + tally as usize * TALLY_WORDS;
        let words: &[AtomicU64; TALLY_WORDS] = self.mapping.words().get(at..)?.first_chunk()?;
        let [credits, holding, left, meta, ..] = words;
        let unreserved = &words[UNRESERVED_WORD];
        let words_of_it = TallyWords { credits, holding, left, meta, unreserved };
        Some(FleetTally { words: words_of_it, owner: &words[OWNER_WORD] })
    }

    /// Returns the word of a tally that names the subject of a limiter that last waited for credits
    /// there.
    pub(crate) fn claim(&self, tally: u32) -> Option<&AtomicU64> {
        let at = self.tallies_at + tally as usize * TALLY_WORDS + CLAIM_WORD;
        self.mapping.words().get(at).filter(|_| tally < self.layout.tallies())
    }

    /// Returns the tallies that want credits.
    pub(crate) fn wanted(&self) -> WantedBits<'_> {
        let words = self.mapping.words();
        let part = |at: usize, count: usize| {
            let at = at / WORD_LEN;
            words.get(at..at + count).unwrap_or_default()
        };
        WantedBits::new(
            part(self.layout.summary_at(), self.layout.summary_words()),
            part(self.layout.bits_at(), self.layout.bit_words()),
        )
    }

    /// Ends the agent's sleep.
    pub(crate) fn ring(&self) {
        let bell = self.page(PageWord::Doorbell);
        bell.fetch_add(1, Ordering::SeqCst);
        if self.page(PageWord::Sleeper).load(Ordering::SeqCst) != 0 {
            system::wake_all(bell);
        }
    }

    /// Sleeps until a request rings, at most this long. Returns at once if a tally wants credits.
    ///
    /// A request sets its bit, then changes the doorbell, then looks for a sleeper. So either the
    /// bit is seen here, or the kernel finds another doorbell, or the request wakes the sleeper.
    pub(crate) fn sleep(&self, at_most: Duration) {
        let (bell, sleeper) = (self.page(PageWord::Doorbell), self.page(PageWord::Sleeper));
        let before = bell.load(Ordering::SeqCst);
        sleeper.store(1, Ordering::SeqCst);
        if self.wanted().is_empty() {
            system::sleep_on(bell, before, at_most);
        }
        sleeper.store(0, Ordering::SeqCst);
    }

    /// Returns the number of grants so far, for [`wait`](Self::wait).
    pub(crate) fn grants(&self) -> u64 {
        self.page(PageWord::Grants).load(Ordering::SeqCst)
    }

    /// Wakes the requests that wait for grants.
    pub(crate) fn wake(&self) {
        let grants = self.page(PageWord::Grants);
        grants.fetch_add(1, Ordering::SeqCst);
        system::wake_all(grants);
    }

    /// Waits until there is another grant than before, at most this long.
    pub(crate) fn wait(&self, before: u64, at_most: Duration) {
        system::sleep_on(self.page(PageWord::Grants), before, at_most);
    }

    /// Tries to take the file's lock, which one agent at a time holds. Returns whether this process
    /// holds it.
    pub(crate) fn try_lock(&self) -> std::io::Result<bool> {
        self.file.open_file().map_or(Ok(false), system::try_lock)
    }
}

/// Returns the first words of a file. Words after its end are 0.
fn begin_of(path: &Path, mut file: &File) -> Result<[u64; 8], Error> {
    let mut bytes = Vec::new();
    let read = (&mut file).take(64).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", path, error))?;
    bytes.resize(64, 0);
    let (chunks, _) = bytes.as_chunks::<WORD_LEN>();
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(chunks) {
        *word = u64::from_le_bytes(*chunk);
    }
    Ok(words)
}

/// Removes a file whose credits are void. Its lock keeps two processes from removing each other's
/// new file.
fn remove_void(path: &Path) -> Result<(), Error> {
    let file = open_regular(path)?;
    let io_error = |doing| move |error| Error::io(doing, path, error);
    let is_locked = system::try_lock(&file).map_err(io_error("lock"))?;
    let opened = system::Identity::new(&file).map_err(io_error("examine"))?;
    let is_same = system::Identity::at(path).is_ok_and(|present| present == opened);
    if is_locked && is_same {
        fs::remove_file(path).map_err(io_error("remove"))?;
    }
    Ok(())
}

// The words of a tally are those of one line.
const _: () = assert!(size_of::<CacheLine>() == TALLY_WORDS * WORD_LEN);
