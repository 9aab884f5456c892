//! A terminal's screen as SVG: one text for each run of cells that look the same, on a fixed grid.

use vt100::{Cell, Color, Screen};

const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
const BORDER: f64 = 14.0;
/// Height of the line with the command.
const TITLE: f64 = 30.0;
const BACKGROUND: &str = "#1d1f21";
const TEXT: &str = "#d4d4d4";
/// The eight colours of a terminal.
const COLOURS: [&str; 8] =
    ["#4b4f54", "#e06c75", "#7ec16e", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d4d4d4"];

/// How a cell looks.
#[derive(Clone, Copy, PartialEq)]
struct Look {
    colour: &'static str,
    bold: bool,
    dim: bool,
}

/// The picture of a screen, down to its last line with text.
pub fn draw(screen: &Screen, title: &str) -> String {
    let (rows, columns) = screen.size();
    let lines: Vec<String> = screen.rows(0, columns.get()).map(|l| l.trim_end().to_string()).collect();
    let used = lines.iter().rposition(|l| !l.is_empty()).map_or(1, |last| last + 1).min(rows.get().into());
    let wide = f64::from(columns.get()) * WIDTH + 2.0 * BORDER;
    let high = TITLE + used as f64 * HEIGHT + BORDER;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.1} {high:.1}\" \
         font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <text x=\"{BORDER}\" y=\"20\" fill=\"#8a8f98\">$ {}</text>\n",
        escaped(title)
    );
    for row in 0..u16::try_from(used).unwrap() {
        for (from, text, look) in runs(screen, row, columns.get()) {
            let x = BORDER + f64::from(from) * WIDTH;
            let y = TITLE + (f64::from(row) + 0.8) * HEIGHT;
            let length = text.chars().count() as f64 * WIDTH;
            let bold = if look.bold { " font-weight=\"bold\"" } else { "" };
            let dim = if look.dim { " opacity=\"0.5\"" } else { "" };
            svg.push_str(&format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" textLength=\"{length:.1}\" fill=\"{}\"{bold}{dim} \
                 xml:space=\"preserve\">{}</text>\n",
                look.colour,
                escaped(&text)
            ));
        }
    }
    svg + "</svg>\n"
}

/// Runs of one row: the first column, the text, the look. What is empty is left out.
fn runs(screen: &Screen, row: u16, columns: u16) -> Vec<(u16, String, Look)> {
    let mut runs: Vec<(u16, String, Look)> = vec![];
    for column in 0..columns {
        let Some(cell) = screen.cell(row, column) else { continue };
        let (text, look) = (still(cell.contents()), look(cell));
        match runs.last_mut() {
            Some((_, run, same)) if *same == look => run.push_str(text),
            _ => runs.push((column, text.into(), look)),
        }
    }
    for (_, text, _) in &mut runs {
        text.truncate(text.trim_end().len());
    }
    runs.retain(|(_, text, _)| !text.is_empty());
    runs
}

/// A picture does not move: of a spinner always the same step is taken.
fn still(text: &str) -> &str {
    match text.chars().next() {
        None => " ",
        Some('\u{2800}'..='\u{28ff}') => "\u{2819}",
        Some(_) => text,
    }
}

fn look(cell: &Cell) -> Look {
    let colour = match cell.fgcolor() {
        Color::Idx(n) => COLOURS[usize::from(n) % COLOURS.len()],
        _ => TEXT,
    };
    Look { colour, bold: cell.bold(), dim: cell.dim() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
