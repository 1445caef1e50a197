//! Suggestions for mistyped words.

/// The known word most similar to `typed`: one that differs in at most two letters (one in short words), or that begins
/// with `typed`.
pub fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.trim_start_matches('-');
    let allowed = if typed.len() < 5 { 1 } else { 2 };
    let score = |word: &str| {
        let word = word.trim_start_matches('-');
        if typed.len() >= 2 && word.starts_with(typed) { 0 } else { distance(typed, word) }
    };
    known
        .into_iter()
        .map(|word| (score(word), word))
        .filter(|(d, _)| *d <= allowed)
        .min()
        .map(|(_, word)| word)
}

/// The edit distance (Levenshtein). Words of more than 64 letters are never similar.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
