//! Sorts a few items.

/// Sorts at most eight items by their keys. Items with equal keys stay in their order.
///
/// `sort_unstable` would take two kilobytes of code.
pub(crate) fn sort_by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    for end in (1..items.len()).rev() {
        for index in 0..end {
            if key(&items[index]) > key(&items[index + 1]) {
                items.swap(index, index + 1);
            }
        }
    }
}
