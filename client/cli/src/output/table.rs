//! Plain tables: columns apart by blanks, no lines.

use comfy_table::{CellAlignment, Table, presets};

/// Lays out `rows` under `header`; the columns in `numbers` are aligned to the right.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    numbers: &[usize],
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_header(header);
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        let last = index + 1 == N;
        column.set_padding((0, if last { 0 } else { 2 }));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_on_the_right_and_nothing_trails() {
        let rows = vec![["a".to_owned(), "1000".to_owned()], ["bcd".to_owned(), "7".to_owned()]];
        assert_eq!(table(["", "n"], rows, &[1]), "        n\na    1000\nbcd     7");
    }
}
