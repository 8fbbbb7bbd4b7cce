//! Pictures of usage: SVG with one path for each series, drawn by the server.

use core::fmt::Write as _;

use super::usage_of::Point;
use super::words::{grouped, plural};

/// The height of the bars, in units of the picture.
const SMALL: (i64, i64) = (96, 24);
const LARGE: (i64, i64) = (720, 160);

/// A picture of the admitted and the denied requests in buckets. The last bucket is not full, and
/// is drawn open.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) width: i64,
    pub(super) height: i64,
    /// The width of a bar in tenths.
    pub(super) bar: String,
    /// The path of the admitted requests.
    pub(super) admitted: String,
    /// The path of the denied requests, above those admitted.
    pub(super) denied: String,
    /// The outline of the last bucket: x, y, width, height; empty without counts.
    pub(super) open: Option<(String, String, String, String)>,
    /// The most requests of a bucket.
    pub(super) most: String,
    /// The picture in words.
    pub(super) label: String,
    pub(super) is_empty: bool,
}

impl Picture {
    /// Returns a picture for a line of a list.
    pub(super) fn small(points: &[Point]) -> Self {
        Self::new(points, SMALL)
    }

    /// Returns a picture for a page.
    pub(super) fn large(points: &[Point]) -> Self {
        Self::new(points, LARGE)
    }

    fn new(points: &[Point], (width, height): (i64, i64)) -> Self {
        let most = points.iter().map(total).max().unwrap_or(0);
        let count = i64::try_from(points.len()).unwrap_or(1).max(1);
        let (mut admitted, mut denied, mut open) = (String::new(), String::new(), None);
        let pitch = width * 10 / count;
        let bar = pitch * 7 / 10;
        // Heights in tenths. A count that is not zero is at least one unit high.
        let tall = |part: i64| match part {
            0 => 0,
            _ => (part.saturating_mul((height - 2) * 10) / most.max(1)).max(10),
        };
        let base = height * 10;
        for (index, point) in (0..).zip(points) {
            let x = index * pitch + pitch / 2;
            let refused = point.denied + point.forbidden;
            let (low, high) = (tall(point.admitted), tall(refused));
            if index == count - 1 {
                if low + high > 0 {
                    let (x, y) = (x - bar / 2, base - low - high);
                    open = Some((tenths(x), tenths(y), tenths(bar), tenths(low + high)));
                }
                continue;
            }
            if low > 0 {
                let _ = write!(admitted, "M{} {}v-{}", tenths(x), tenths(base), tenths(low));
            }
            if high > 0 {
                let _ = write!(denied, "M{} {}v-{}", tenths(x), tenths(base - low), tenths(high));
            }
        }
        let sum = |part: fn(&Point) -> i64| points.iter().map(part).sum::<i64>();
        let (all, refused) =
            (sum(|point| point.admitted), sum(|point| point.denied + point.forbidden));
        let label = format!("{} admitted, {} denied", plural(all, "request"), grouped(refused));
        let is_empty = most == 0;
        let (bar, most) = (tenths(bar), grouped(most));
        Self { width, height, bar, admitted, denied, open, most, label, is_empty }
    }
}

/// Returns the requests that a bar shows.
fn total(point: &Point) -> i64 {
    point.admitted + point.denied + point.forbidden
}

/// Returns a number of tenths as a decimal number.
fn tenths(number: i64) -> String {
    if number % 10 == 0 {
        (number / 10).to_string()
    } else {
        format!("{}.{}", number / 10, number % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(admitted: i64, denied: i64) -> Point {
        Point { admitted, denied, ..Point::default() }
    }

    #[test]
    fn last_bucket_is_drawn_open() {
        let picture = Picture::small(&[point(10, 0), point(5, 5), point(4, 0)]);
        assert_eq!(picture.admitted, "M16 24v-22M48 24v-11");
        assert_eq!(picture.denied, "M48 13v-11");
        let open = picture.open.unwrap();
        assert_eq!((open.1.as_str(), open.3.as_str()), ("15.2", "8.8"));
        assert_eq!(picture.label, "19 requests admitted, 5 denied");
    }

    #[test]
    fn small_count_next_to_a_large_one_is_visible() {
        let picture = Picture::small(&[point(1, 0), point(1_000_000, 0), point(0, 0)]);
        assert!(picture.admitted.starts_with("M16 24v-1M"), "{}", picture.admitted);
        assert!(picture.open.is_none() && !picture.is_empty);
        assert!(Picture::small(&[]).is_empty);
    }
}
