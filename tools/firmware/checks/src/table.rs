//! Reads the table of vectors, whose format `tables/src/lib.rs` describes.

/// The unread rest of the table, and the texts that it refers to.
#[derive(Debug)]
pub(crate) struct Table<'t> {
    texts: &'t [u8],
    rest: &'t [u8],
}

impl<'t> Table<'t> {
    /// Returns the table with its texts skipped.
    pub(crate) fn new(bytes: &'t [u8]) -> Self {
        let mut table = Self { texts: bytes, rest: bytes };
        let count = table.number();
        table.texts = table.rest;
        for _ in 0..count {
            table.take_text();
        }
        table
    }

    /// Reads a number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let byte = self.take(1)[0];
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }

    /// Reads this many numbers and ignores them.
    pub(crate) fn pass(&mut self, numbers: u32) {
        for _ in 0..numbers {
            self.number();
        }
    }

    /// Reads a number that fits 32 bits.
    pub(crate) fn short(&mut self) -> u32 {
        u32::try_from(self.number()).expect("a number of 32 bits")
    }

    /// Reads the index of a text. Returns this text, which may be any bytes.
    pub(crate) fn bytes(&mut self) -> &'t [u8] {
        let mut texts = Self { texts: &[], rest: self.texts };
        for _ in 0..self.number() {
            texts.take_text();
        }
        texts.take_text()
    }

    /// Reads the index of a text in UTF-8. Returns this text.
    pub(crate) fn text(&mut self) -> &'t str {
        str::from_utf8(self.bytes()).expect("UTF-8")
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take_text(&mut self) -> &'t [u8] {
        let len = self.short() as usize;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> &'t [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}
