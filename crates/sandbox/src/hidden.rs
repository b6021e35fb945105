//! Values that are secrets, taken out of text that is kept.

/// The shortest value that is looked for: shorter ones are no secrets, and occur everywhere.
const SHORTEST: usize = 4;
/// What stands in the place of a value.
pub(crate) const IN_PLACE: &str = "[hidden]";

/// The same text without these values.
pub(crate) fn without(mut values: Vec<&str>, mut text: String) -> String {
    // One may be part of another.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    for value in values {
        // A line holds no more than a line of it.
        for line in value.lines().map(str::trim) {
            if line.len() >= SHORTEST {
                text = text.replace(line, IN_PLACE);
            }
        }
    }
    text
}
