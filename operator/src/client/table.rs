//! Tables without lines, as kubectl has them.

use comfy_table::{Table, presets::NOTHING};

/// A table.
pub fn table<H: AsRef<str>, R: AsRef<[String]>>(header: &[H], rows: impl IntoIterator<Item = R>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.iter().map(AsRef::as_ref));
    for row in rows {
        table.add_row(row.as_ref().iter().map(|cell| cell.replace('\n', " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let text =
            table(&["NAME", "MESSAGE"], [["a".into(), "x\ny".into()], ["longer".into(), String::new()]]);
        assert_eq!(text, "NAME    MESSAGE\na       x y\nlonger\n");
    }
}
