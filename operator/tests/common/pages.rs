//! Every command that the pages of the documentation show. Used by `docs_commands` and by the end-to-end test `docs`,
//! which runs them.

use std::{collections::BTreeSet, path::Path};

/// Pages whose commands are run by a test.
pub const PAGES: [&str; 5] =
    ["README.md", "docs/checks.md", "docs/client.md", "docs/hooks.md", "docs/operations.md"];

/// What a command begins with.
pub const PROGRAMS: [&str; 5] = ["cargo ", "install ", "kubectl ", "make ", "openstack "];

/// All commands of [`PAGES`] below `root`, as they are written there, without comments.
pub fn commands(root: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for page in PAGES {
        all.extend(commands_of(&std::fs::read_to_string(root.join(page))?));
    }
    Ok(all)
}

/// The commands of one page: lines of blocks of `sh`, and code within a sentence that is more than a command's name.
pub fn commands_of(page: &str) -> Vec<String> {
    let mut found = vec![];
    for (n, part) in page.split("```").enumerate() {
        if n % 2 == 0 {
            // Code may be broken over two lines of a paragraph.
            let spans = part.split('`').skip(1).step_by(2);
            let spans = spans.map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "));
            found.extend(spans.filter(|s| is_command(s) && s.split(' ').count() > 2));
        } else if let Some(block) = part.strip_prefix("sh\n") {
            let lines = block.replace("\\\n", " ");
            let lines = lines.lines().map(|l| l.split("  #").next().unwrap_or(l).trim());
            found.extend(lines.filter(|l| !l.is_empty()).map(str::to_string));
        }
    }
    found
}

/// Does it begin as a command does?
pub fn is_command(text: &str) -> bool {
    PROGRAMS.iter().any(|p| text.starts_with(p))
}
