//! Generates the traffic: the subjects, and the order and time of their requests.

use core::hash::Hash;

use keytally_core::Timestamp;

/// The policy of most benchmarks. Its limits are so high that the traffic does not reach them, so
/// every request is admitted unless a table says otherwise. Its counts fit a tally.
pub(crate) const ROOMY: &str = "100000/minute, 1000000/hour";

/// The limit of [`ROOMY`] per minute.
pub(crate) const MINUTE_LIMIT: u32 = 100_000;

/// The limit of [`ROOMY`] per hour.
pub(crate) const HOUR_LIMIT: u32 = 1_000_000;

/// The time of the first request, the start of an hour.
pub(crate) const START: Timestamp = Timestamp::from_unix_s(1_700_049_600);

/// The least number of requests that are drawn and then repeated. It is so large that no branch
/// predictor learns the order, even if there are few subjects.
const SHORTEST_WALK: usize = 1 << 16;

/// The distribution of the requests over the subjects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// All subjects make equally many requests.
    Uniform,
    /// The second subject makes half as many requests as the first, the third a third as many, and
    /// so on (Zipf's law with exponent 1).
    Zipf,
}

/// A sequence of requests, which is repeated.
pub(crate) struct Walk {
    /// The number of the subject that makes each request.
    pub(crate) numbers: Vec<u32>,
    /// The share of all requests that the busiest subject makes.
    pub(crate) busiest: f64,
}

impl Walk {
    /// Draws requests of `subjects` subjects.
    pub(crate) fn new(subjects: u32, order: Order) -> Self {
        if subjects == 1 {
            return Self { numbers: vec![0], busiest: 1.0 };
        }
        let mut random = Random(u64::from(subjects));
        let length = Self::length(subjects);
        match order {
            Order::Uniform => Self {
                numbers: (0..length).map(|_| random.below(subjects)).collect(),
                busiest: 1.0 / f64::from(subjects),
            },
            Order::Zipf => {
                let mut sum = 0.0;
                let sums: Vec<f64> = (1..=subjects)
                    .map(|rank| {
                        sum += 1.0 / f64::from(rank);
                        sum
                    })
                    .collect();
                let rank =
                    |fraction: f64| sums.partition_point(|&reached| reached < fraction * sum);
                // The rank of a subject must not correlate with its position in memory.
                let mut names: Vec<u32> = (0..subjects).collect();
                random.shuffle(&mut names);
                let draw = |_| names[rank(random.fraction()).min(names.len() - 1)];
                Self { numbers: (0..length).map(draw).collect(), busiest: 1.0 / sum }
            }
        }
    }

    /// Returns the number of requests that are drawn for a number of subjects above 1.
    pub(crate) fn length(subjects: u32) -> usize {
        SHORTEST_WALK.max(index(subjects).next_power_of_two())
    }

    /// Returns a clock for this walk. By this clock, the busiest subject makes 7,500 requests a
    /// minute. Two threads together make at most 900,000 requests an hour for it, so that no limit
    /// of [`ROOMY`] is reached.
    pub(crate) fn clock(&self) -> Clock {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few milliseconds at most"
        )]
        let step = (8.0 * self.busiest * (1_u64 << Clock::FRACTION) as f64) as u64;
        Clock { time: START.unix_ms() << Clock::FRACTION, step }
    }
}

/// An endless iterator over the items of a walk. They are in memory in the order of the requests,
/// so that reading them costs little. (In a server, the text was just read from the network.)
pub(crate) struct Cycle<'a, T> {
    items: &'a [T],
    index: usize,
}

impl<'a, T> Cycle<'a, T> {
    pub(crate) fn new(items: &'a [T]) -> Self {
        Self { items, index: 0 }
    }

    /// Returns this iterator as it is after a number of items.
    pub(crate) fn after(items: &'a [T], count: u64) -> Self {
        let index = usize::try_from(count % items.len() as u64).expect("below a length");
        Self { items, index }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> &'a T {
        let item = &self.items[self.index];
        self.index += 1;
        if self.index == self.items.len() {
            self.index = 0;
        }
        item
    }
}

/// A clock that advances by a fixed step with each request. Reading it costs an addition and a
/// shift.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// Unix time in 2^-20 milliseconds.
    time: u64,
    /// The step in 2^-20 milliseconds.
    step: u64,
}

impl Clock {
    /// Returns a clock with a step that is `times` as long, for threads that check one subject at
    /// the same time, each with its own clock. Requests of a slower thread count in the minute of
    /// the faster one. With longer steps, fewer of them do, so that the limit is not reached.
    pub(crate) fn faster(self, times: u64) -> Self {
        Self { step: self.step * times, ..self }
    }

    /// Returns this clock as it is after a number of requests.
    pub(crate) fn after(self, requests: u64) -> Self {
        Self { time: self.time + self.step * requests, ..self }
    }

    /// The number of bits for the fraction of a millisecond.
    const FRACTION: u32 = 20;

    #[inline]
    pub(crate) fn next(&mut self) -> Timestamp {
        self.time += self.step;
        Timestamp::from_unix_ms(self.time >> Self::FRACTION)
    }
}

/// A subject as the map of an alternative stores it.
pub(crate) trait Name: Hash + Eq + Clone + Send + Sync {
    /// Passes the subject to `with` as bytes, which Keytally takes.
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R;
}

impl Name for String {
    #[inline]
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(self.as_bytes())
    }
}

impl Name for u64 {
    #[inline]
    fn bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(&self.to_le_bytes())
    }
}

/// Returns a subject as a text of 40 bytes.
pub(crate) fn text(number: u32) -> String {
    format!("customer-{number:010}-0123456789abcdef0123")
}

/// Returns a subject as a number of 64 random bits, as an application may have it.
pub(crate) fn number(number: u32) -> u64 {
    Random(u64::from(number)).next()
}

/// The generator SplitMix64 (Steele, Lea, Flood 2014). The same seed gives the same numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        u32::try_from((u128::from(self.next()) * u128::from(limit)) >> 64).expect("below a u32")
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = index(self.below(u32::try_from(last + 1).expect("fits")));
            items.swap(last, other);
        }
    }

    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Converts a subject's number to an index.
pub(crate) fn index(number: u32) -> usize {
    usize::try_from(number).expect("a usize has 32 bits at least")
}

/// Formats a number with commas between groups of three digits.
pub(crate) fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
