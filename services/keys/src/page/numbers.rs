//! The numbers of a picture as the rows of a table and as a CSV file.

use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};

use super::usage_of::Point;
use super::words::{Moment, grouped};
use crate::usage::Width;

/// A row of the table: a bucket, or buckets without requests that follow each other.
pub(super) struct NumberLine {
    pub(super) start: Moment,
    /// When the last bucket without requests ends; `None` for a bucket with requests.
    pub(super) end: Option<Moment>,
    /// Whether the time of the bucket is not over.
    pub(super) is_open: bool,
    pub(super) admitted: String,
    pub(super) denied: String,
    pub(super) forbidden: String,
    pub(super) old_secret: String,
    pub(super) ended: String,
}

/// Returns the rows of buckets, the last bucket first. The last bucket always has a row.
pub(super) fn number_lines(points: &[Point], width: Width) -> Vec<NumberLine> {
    let mut lines: Vec<NumberLine> = Vec::new();
    for (index, point) in points.iter().enumerate().rev() {
        let is_open = index + 1 == points.len();
        let start = Moment(point.start_s);
        let is_empty = point.is_empty() && !is_open;
        match lines.last_mut().filter(|line| is_empty && line.end.is_some()) {
            Some(line) => line.start = start,
            None => lines.push(NumberLine {
                start,
                end: is_empty.then(|| Moment(point.start_s + width.len_s())),
                is_open,
                admitted: grouped(point.admitted),
                denied: grouped(point.denied),
                forbidden: grouped(point.forbidden),
                old_secret: grouped(point.old_secret),
                ended: grouped(point.ended),
            }),
        }
    }
    lines
}

/// The first line of a file.
const HEAD: &str =
    "from,admitted,denied by a limit,missing scope,old secret,expired revoked or suspended\r\n";

/// Returns a CSV file with all buckets, the first one first. `name` is a part of the file's name.
pub(super) fn csv(points: &[Point], name: &str) -> Response {
    let mut text = HEAD.to_owned();
    for point in points {
        let Point { start_s, admitted, denied, forbidden, old_secret, ended, .. } = point;
        let from = Moment(*start_s).rfc3339();
        text += &format!("{from},{admitted},{denied},{forbidden},{old_secret},{ended}\r\n");
    }
    let disposition = format!("attachment; filename=\"usage-{name}.csv\"");
    let fields =
        [(CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (CONTENT_DISPOSITION, disposition)];
    (fields, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_without_requests_are_one_row() {
        let point = |minute: i64, admitted: i64| Point {
            start_s: minute * 60,
            admitted,
            ..Point::default()
        };
        let rows = |counts: &[i64]| -> Vec<(i64, Option<i64>, String)> {
            let points: Vec<_> = (0..).zip(counts).map(|(at, &count)| point(at, count)).collect();
            let lines = number_lines(&points, Width::Minute);
            assert!(lines.iter().enumerate().all(|(index, line)| line.is_open == (index == 0)));
            let row = |line: NumberLine| {
                (line.start.0 / 60, line.end.map(|end| end.0 / 60), line.admitted)
            };
            lines.into_iter().map(row).collect()
        };
        let row = |start, end, count: &str| (start, end, count.to_owned());
        // The running bucket is a row of its own, with or without requests.
        assert_eq!(rows(&[0, 0, 0]), [row(2, None, "0"), row(0, Some(2), "0")]);
        assert_eq!(
            rows(&[0, 7, 0, 0, 1234, 9]),
            [
                row(5, None, "9"),
                row(4, None, "1,234"),
                row(2, Some(4), "0"),
                row(1, None, "7"),
                row(0, Some(1), "0"),
            ]
        );
        assert!(rows(&[]).is_empty());
        // A bucket with refused requests only is not empty.
        let points = [Point { ended: 1, ..point(0, 0) }, point(1, 0)];
        assert!(number_lines(&points, Width::Minute)[1].end.is_none());
    }
}
