//! Pictures of usage: SVG with one path for each series, drawn by the server.

use core::fmt::Write as _;

use super::usage_of::Point;
use super::words::{Moment, grouped, plural};
use crate::usage::Width;

/// The height of the bars, in units of the picture.
const SMALL: (i64, i64) = (96, 24);
const LARGE: (i64, i64) = (720, 160);

/// A part of the last bar, drawn as an outline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OpenPart {
    /// The class of its color.
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) y: String,
    pub(super) height: String,
}

/// The area of a bar, which shows its numbers to who points at it.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) title: String,
}

/// A picture of the admitted and the denied requests in buckets. The last bucket is not full, and
/// is drawn open.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) width: i64,
    pub(super) height: i64,
    /// The width of a bar in tenths.
    pub(super) bar: String,
    /// The path of the requests that were admitted with the present secret.
    pub(super) admitted: String,
    /// The path of those that were admitted with an old secret, above them.
    pub(super) old: String,
    /// The path of the denied requests, above those admitted.
    pub(super) denied: String,
    /// The outlines of the last bucket; none without counts.
    pub(super) open: Vec<OpenPart>,
    /// The areas of the bars; none in a picture of a list.
    pub(super) spots: Vec<Spot>,
    /// The beginnings of the first, the middle and the last bar; none in a picture of a list.
    pub(super) axis: Vec<Moment>,
    /// The length of a bucket in words; empty in a picture of a list.
    pub(super) each: &'static str,
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
    pub(super) fn large(points: &[Point], each: Width) -> Self {
        let (width, height) = LARGE;
        let pitch = pitch(points, width);
        let spot = |(index, point): (i64, &Point)| Spot {
            x: tenths(index * pitch),
            width: tenths(pitch),
            title: title(point),
        };
        let spots = (0..).zip(points).map(spot).collect();
        let bars = [0, points.len() / 2, points.len().saturating_sub(1)];
        let axis = bars.iter().filter_map(|&bar| points.get(bar));
        let axis = axis.map(|point| Moment(point.start_s)).collect();
        Self { spots, axis, each: each.as_str(), ..Self::new(points, (width, height)) }
    }

    fn new(points: &[Point], (width, height): (i64, i64)) -> Self {
        let most = points.iter().map(total).max().unwrap_or(0);
        let pitch = pitch(points, width);
        let bar = pitch * 7 / 10;
        // Heights in tenths. A count that is not zero is at least one unit high.
        let tall = |part: i64| match part {
            0 => 0,
            _ => (part.saturating_mul((height - 2) * 10) / most.max(1)).max(10),
        };
        let mut paths = [String::new(), String::new(), String::new()];
        let mut open = Vec::new();
        for (index, point) in (0..).zip(points) {
            let is_open = index + 1 == points.len();
            let x = i64::try_from(index).unwrap_or(0) * pitch + pitch / 2;
            let mut base = height * 10;
            for ((path, part), class) in paths.iter_mut().zip(parts(point)).zip(CLASSES) {
                let high = tall(part);
                if high > 0 && is_open {
                    let (x, y) = (tenths(x - bar / 2), tenths(base - high));
                    open.push(OpenPart { class, x, y, height: tenths(high) });
                } else if high > 0 {
                    let _ = write!(path, "M{} {}v-{}", tenths(x), tenths(base), tenths(high));
                }
                base -= high;
            }
        }
        let sum = |part: fn(&Point) -> i64| points.iter().map(part).sum::<i64>();
        let (all, refused) =
            (sum(|point| point.admitted), sum(|point| point.denied + point.forbidden));
        let label = format!("{} admitted, {} denied", plural(all, "request"), grouped(refused));
        let is_empty = most == 0;
        let (bar, most) = (tenths(bar), grouped(most));
        let [admitted, old, denied] = paths;
        let (spots, axis, each) = (Vec::new(), Vec::new(), "");
        Self {
            width,
            height,
            bar,
            admitted,
            old,
            denied,
            open,
            spots,
            axis,
            each,
            most,
            label,
            is_empty,
        }
    }
}

/// The classes of the parts of a bar.
const CLASSES: [&str; 3] = ["admitted", "old", "denied"];

/// Returns the parts of a bar, from its foot.
fn parts(point: &Point) -> [i64; 3] {
    let old = point.old_secret.clamp(0, point.admitted);
    [point.admitted - old, old, point.denied + point.forbidden]
}

/// Returns the distance of bars in tenths.
fn pitch(points: &[Point], width: i64) -> i64 {
    width * 10 / i64::try_from(points.len()).unwrap_or(1).max(1)
}

/// Returns the numbers of a bar and its beginning. A script shows the beginning in the reader's
/// zone.
fn title(point: &Point) -> String {
    let [_, old, refused] = parts(point);
    let mut title = format!("{} admitted", grouped(point.admitted));
    if old > 0 {
        let _ = write!(title, " ({} with an old secret)", grouped(old));
    }
    let _ = write!(title, ", {} denied, from {}", grouped(refused), Moment(point.start_s).utc());
    title
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
        let open = &picture.open[0];
        assert_eq!((open.y.as_str(), open.height.as_str()), ("15.2", "8.8"));
        assert_eq!(picture.open.len(), 1);
        assert_eq!(picture.label, "19 requests admitted, 5 denied");
    }

    #[test]
    fn parts_of_a_bar_are_above_each_other_also_in_the_last() {
        let both = Point { old_secret: 4, ..point(10, 5) };
        let picture = Picture::large(&[both, both], Width::Hour);
        assert_eq!(picture.admitted, "M180 160v-63.2");
        assert_eq!(picture.old, "M180 96.8v-42.1");
        assert_eq!(picture.denied, "M180 54.7v-52.6");
        let open: Vec<_> =
            picture.open.iter().map(|part| (part.class, &*part.y, &*part.height)).collect();
        let expected =
            [("admitted", "96.8", "63.2"), ("old", "54.7", "42.1"), ("denied", "2.1", "52.6")];
        assert_eq!(open, expected);
        let title = "10 admitted (4 with an old secret), 5 denied, from 1970-01-01 00:00 UTC";
        assert_eq!((picture.spots.len(), &*picture.spots[1].title), (2, title));
        assert_eq!((&*picture.spots[1].x, &*picture.spots[1].width), ("360", "360"));
        assert!(Picture::small(&[both]).spots.is_empty());
    }

    #[test]
    fn small_count_next_to_a_large_one_is_visible() {
        let picture = Picture::small(&[point(1, 0), point(1_000_000, 0), point(0, 0)]);
        assert!(picture.admitted.starts_with("M16 24v-1M"), "{}", picture.admitted);
        assert!(picture.open.is_empty() && !picture.is_empty);
        assert!(Picture::small(&[]).is_empty);
    }
}
