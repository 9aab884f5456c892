//! Where a follower's view goes: bars on a terminal, lines elsewhere.

use super::{
    text,
    watch::{Told, bars, headline},
};
use crate::crd::v1alpha1::VmMigration;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::tz::TimeZone;
use std::time::Duration;

/// A follower's view.
pub struct Screen {
    told: Told,
    zone: TimeZone,
    drawn: Option<Drawn>,
}

/// What is drawn at the bottom of a terminal.
struct Drawn {
    all: MultiProgress,
    head: ProgressBar,
    disks: Vec<ProgressBar>,
}

impl Screen {
    /// Bars, unless lines are wanted or this is no terminal.
    pub fn new(plain: bool) -> Self {
        let drawn = (!plain && text::is_terminal()).then(Drawn::new);
        Screen { told: Told::default(), zone: TimeZone::system(), drawn }
    }

    /// Shows how it stands.
    pub fn show(&mut self, object: &VmMigration) {
        // First what stays at the bottom: lines are drawn above it.
        if let Some(drawn) = &mut self.drawn {
            drawn.show(object);
        }
        for line in self.told.news(object, &self.zone) {
            self.line(&line);
        }
        if self.drawn.is_none() {
            let status = object.status.clone().unwrap_or_default();
            self.told.disks(&status).iter().for_each(|line| println!("{line}"));
        }
    }

    /// A line above the bars.
    pub fn line(&self, line: &str) {
        match &self.drawn {
            // The terminal is gone: there is nobody to tell.
            Some(drawn) => drop(drawn.all.println(line)),
            None => println!("{line}"),
        }
    }

    /// Takes the bars away.
    pub fn end(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            let _ = drawn.all.clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drawn {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let head = all.add(ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")));
        head.enable_steady_tick(Duration::from_millis(200));
        Drawn { all, head, disks: vec![] }
    }

    fn show(&mut self, object: &VmMigration) {
        self.head.set_message(headline(object));
        let wanted = bars(&object.status.clone().unwrap_or_default());
        while self.disks.len() < wanted.len() {
            self.disks.push(self.all.add(ProgressBar::new(1).with_style(bar_style())));
        }
        for (bar, disk) in self.disks.iter().zip(wanted) {
            bar.set_length(disk.total);
            bar.set_position(disk.done);
            bar.set_prefix(disk.label);
            bar.set_message(disk.text);
        }
    }
}

fn bar_style() -> ProgressStyle {
    let bar = if console::colors_enabled() { "{bar:24.green/dim}" } else { "{bar:24}" };
    style(&format!("  {{prefix:<16}} [{bar}] {{percent:>3}}%  {{wide_msg}}")).progress_chars("=> ")
}

/// A template that does not parse would be a mistake of ours: the tests look at each.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_parse() {
        for template in
            ["{spinner} {wide_msg}", "  {prefix:<16} [{bar:24.green/dim}] {percent:>3}%  {wide_msg}"]
        {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
