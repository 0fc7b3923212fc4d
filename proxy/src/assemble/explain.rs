//! A chain in words, for the operator.

use std::fmt::Write as _;

use adit_filters::Chain;

/// The chain as a table: one line for each filter in order, with the line that put it there.
#[must_use]
pub fn explain(chain: &Chain) -> String {
    let mut rows = vec![["#", "stage", "filter", "phases", "when", "from"].map(str::to_owned)];
    for (number, row) in (1..).zip(chain.rows()) {
        let mut name = row.name.to_string();
        for (marked, mark) in [
            (row.optional, " (optional)"),
            (row.observer, " (on-error pass)"),
            (row.dry_run, " (dry-run)"),
        ] {
            if marked {
                name.push_str(mark);
            }
        }
        let when = row.when.unwrap_or_else(|| "always".to_owned());
        let number: u32 = number;
        rows.push([
            number.to_string(),
            row.stage.to_string(),
            name,
            row.phases.join(" "),
            when,
            row.origin,
        ]);
    }
    if rows.len() == 1 {
        return "no filters: everything passes, no upgrade is granted\n".to_owned();
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}
