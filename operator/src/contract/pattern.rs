//! Patterns of checks: the operator says whether they can be read, the mover looks for them.

use regex::{Regex, RegexBuilder};

/// More memory no pattern may take.
const MAX_PATTERN: usize = 1 << 20;

/// Reads a pattern as checks use it: `^` and `$` are the ends of a line, however it ends.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).multi_line(true).crlf(true).size_limit(MAX_PATTERN).build();
    built.map_err(|error| match &error {
        regex::Error::CompiledTooBig(_) => "it is too large".into(),
        // The last line says what; those before it show where.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_lines() {
        let log = "boot\r\n[ 1.2] App is ready\r\nlogin: ";
        for (text, yes) in [("ready$", true), ("^login:", true), ("(?-m)^login", false), ("Ready", false)] {
            assert_eq!(pattern(text).unwrap().is_match(log), yes, "{text}");
        }
        assert_eq!(pattern("a{1000}{1000}").unwrap_err(), "it is too large");
        assert_eq!(pattern("(").unwrap_err(), "unclosed group");
    }
}
