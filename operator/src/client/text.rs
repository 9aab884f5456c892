//! Text on a terminal: colours where they are wanted, no control characters from elsewhere, times and lengths.

use crate::crd::stored::Unreadable;
use console::Style;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::io::IsTerminal;

/// Colours only on a terminal, and never with `NO_COLOR`.
pub fn set_colours() {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && is_terminal();
    console::set_colors_enabled(wanted);
    console::set_colors_enabled_stderr(wanted && std::io::stderr().is_terminal());
}

/// Is there a person in front of it, on a terminal that can move its cursor?
pub fn is_terminal() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// A line as it fits on the terminal; elsewhere as it is.
pub fn fitting(line: &str) -> String {
    let width = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    width.filter(|_| is_terminal()).map_or_else(|| line.to_string(), |w| wrapped(line, w))
}

/// A line that is broken between words, never within one: commands and digests are copied. What follows is indented.
fn wrapped(line: &str, width: usize) -> String {
    let own = line.len() - line.trim_start().len();
    let indent = " ".repeat(own + 2);
    let options = textwrap::Options::new(width)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(line, options)
}

/// Something good.
pub fn good(text: &str) -> String {
    Style::new().green().apply_to(text).to_string()
}

/// Something bad.
pub fn bad(text: &str) -> String {
    Style::new().red().bold().apply_to(text).to_string()
}

/// Something to look at.
pub fn notable(text: &str) -> String {
    Style::new().yellow().apply_to(text).to_string()
}

/// A title.
pub fn title(text: &str) -> String {
    Style::new().bold().apply_to(text).to_string()
}

/// Names in a cloud and output of scripts may hold anything: what could move a terminal's cursor is replaced.
pub fn clean(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    text.chars().map(harmless).collect()
}

/// What is said of an object that cannot be read.
pub fn unreadable(why: &Unreadable) -> String {
    let name = why.metadata.name.as_deref().unwrap_or_default();
    format!(
        "{name} cannot be read by this version: {why}. `kubectl get` shows it, `kubectl edit` corrects it."
    )
}

/// An object whose texts are all clean.
pub fn clean_object<K: Serialize + DeserializeOwned>(object: K) -> serde_json::Result<K> {
    let mut value = serde_json::to_value(object)?;
    walk(&mut value, &mut |text| *text = clean(text));
    serde_json::from_value(value)
}

/// Changes every text of a document.
pub fn walk(value: &mut Value, change: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(items) => items.iter_mut().for_each(|v| walk(v, change)),
        Value::Object(members) => members.values_mut().for_each(|v| walk(v, change)),
        _ => {}
    }
}

/// `02:41:07` on this machine's clock.
pub fn clock(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}

/// `2026-08-29 22:00:00 +02:00` on this machine's clock.
pub fn date(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `3m`, `5h`, `2d`, as kubectl writes ages.
pub fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s if s < 120 => format!("{s}s"),
        s if s < 7200 => format!("{}m", s / 60),
        s if s < 172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_moves_the_cursor() {
        assert_eq!(clean("a\x1b[2Jb\r\nc\t"), "a\u{fffd}[2Jb\u{fffd}\nc\t");
        let told = clean_object(serde_json::json!({"a": ["x\x07"], "b": 1})).unwrap();
        assert_eq!(told, serde_json::json!({"a": ["x\u{fffd}"], "b": 1}));
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("  ab  cd-ef gh", 100), "  ab  cd-ef gh");
        assert_eq!(wrapped("  ab  cd-ef gh", 9), "  ab\n    cd-ef\n    gh");
        assert_eq!(wrapped("abcdefghijkl mn", 5), "abcdefghijkl\n  mn");
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(-3), age(90), age(600), age(7300), age(200_000)], ["0s", "90s", "10m", "2h", "2d"]);
    }
}
