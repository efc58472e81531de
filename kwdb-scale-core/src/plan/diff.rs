//! What differs between two plans, for people who compare.

use super::Plan;

/// Lines that differ between the texts of two plans: `-` of the first, `+` of the second, in order; empty when the
/// plans say the same. Ids are left out.
pub fn diff(first: &Plan, second: &Plan) -> String {
    let lines =
        |plan: &Plan| -> Vec<String> { plan.to_string().lines().skip(1).map(str::to_owned).collect() };
    let (a, b) = (lines(first), lines(second));
    let common = longest_common(&a, &b);
    let (mut i, mut j, mut out) = (0, 0, String::new());
    let mut emit = |sign: char, line: &str| {
        out.push(sign);
        out.push(' ');
        out.push_str(line);
        out.push('\n');
    };
    for (ci, cj) in common.into_iter().chain([(a.len(), b.len())]) {
        a.iter().take(ci).skip(i).for_each(|line| emit('-', line));
        b.iter().take(cj).skip(j).for_each(|line| emit('+', line));
        (i, j) = (ci + 1, cj + 1);
    }
    out
}

/// Index pairs of a longest common subsequence. Plans are short, so the quadratic table is fine.
fn longest_common(a: &[String], b: &[String]) -> Vec<(usize, usize)> {
    let width = b.len() + 1;
    let mut table = vec![0_usize; (a.len() + 1) * width];
    let at = |table: &[usize], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let best = if x == y {
                at(&table, i + 1, j + 1) + 1
            } else {
                at(&table, i + 1, j).max(at(&table, i, j + 1))
            };
            if let Some(cell) = table.get_mut(i * width + j) {
                *cell = best;
            }
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x == y {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if at(&table, i + 1, j) >= at(&table, i, j + 1) {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
