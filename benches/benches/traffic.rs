//! The traffic: which subjects make requests, in which order, and at what time.

use keytally_core::Timestamp;

/// Two windows as in `100/minute, 1000/hour`, with limits that the traffic of a benchmark does not
/// reach. So every request is admitted unless a table says otherwise. They use all bits of a tally.
pub(crate) const ROOMY: &str = "100000/minute, 1000000/hour";

/// The units that exhaust a minute of [`ROOMY`].
pub(crate) const MINUTES_UNITS: u32 = 100_000;

/// The start of an hour.
pub(crate) const START: Timestamp = Timestamp::from_unix_s(1_700_049_600);

/// The number of accesses, which are drawn once and then repeated. Even for small tables there are
/// enough that no branch predictor learns the order.
const SHORTEST_WALK: usize = 1 << 16;

/// The distribution of the requests over the subjects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// All subjects equally often.
    Uniform,
    /// The second subject half as often as the first, the third a third as often, and so on: Zipf's
    /// law with exponent 1.
    Zipf,
}

/// The numbers of the subjects in the order of their requests, and the share of the busiest.
pub(crate) struct Walk {
    pub(crate) numbers: Vec<u32>,
    /// The share of all requests that the busiest subject makes.
    pub(crate) busiest: f64,
}

impl Walk {
    /// Draws a walk through `size` subjects.
    pub(crate) fn new(subjects: u32, order: Order) -> Self {
        if subjects == 1 {
            return Self { numbers: vec![0], busiest: 1.0 };
        }
        let mut random = Random(u64::from(subjects));
        let length = SHORTEST_WALK.max(index(subjects).next_power_of_two());
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

    /// Returns a clock for this walk. The busiest subject makes 7,500 requests a minute, and at
    /// most 900,000 an hour even with two threads.
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

/// The items of a walk, laid out in its order, so that reading them costs as little as possible.
/// (In a server, the text was just read from the network.)
pub(crate) struct Cycle<'a, T> {
    items: &'a [T],
    at: usize,
}

impl<'a, T> Cycle<'a, T> {
    pub(crate) fn new(items: &'a [T]) -> Self {
        Self { items, at: 0 }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> &'a T {
        let item = &self.items[self.at];
        self.at += 1;
        if self.at == self.items.len() {
            self.at = 0;
        }
        item
    }
}

/// A clock that advances a little with every request. It costs one addition.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    time: u64,
    step: u64,
}

impl Clock {
    /// Returns a clock that is `times` as fast, for threads that check one subject at the same
    /// time. No thread may be so late that it spends the minute of the others.
    pub(crate) fn faster(self, times: u64) -> Self {
        Self { step: self.step * times, ..self }
    }

    /// Returns the clock after a number of requests.
    pub(crate) fn after(self, requests: u64) -> Self {
        Self { time: self.time + self.step * requests, ..self }
    }

    /// The bits of a fraction of a millisecond.
    const FRACTION: u32 = 20;

    #[inline]
    pub(crate) fn next(&mut self) -> Timestamp {
        self.time += self.step;
        Timestamp::from_unix_ms(self.time >> Self::FRACTION)
    }
}

/// Returns a subject's text: 40 bytes.
pub(crate) fn text(number: u32) -> String {
    format!("customer-{number:010}-0123456789abcdef0123")
}

/// Returns a subject's number as an application would have it: neither small nor consecutive.
pub(crate) fn number(number: u32) -> u64 {
    Random(u64::from(number)).next()
}

/// SplitMix64 (Steele, Lea, Flood 2014), which is reproducible and sufficient for drawing.
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

/// Formats a number for readers: 1,000.
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
