//! What the demo tells: lines on standard output, and on a terminal a bar for what is going on.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line.
pub(super) fn line(text: &str) {
    // Nobody listens any more: that is no reason to stop.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Something that takes a while. Hidden when standard error is no terminal.
pub(super) struct Doing(ProgressBar);

impl Doing {
    /// Of known length.
    pub(super) fn counted(what: &str, total: u64) -> Doing {
        let bar = ProgressBar::new(total);
        bar.set_style(style("{spinner} {msg} {wide_bar} {human_pos}/{human_len}"));
        Doing::begin(bar, what)
    }

    /// Of unknown length.
    pub(super) fn open(what: &str) -> Doing {
        let bar = ProgressBar::new_spinner();
        bar.set_style(style("{spinner} {msg} ({elapsed})"));
        Doing::begin(bar, what)
    }

    fn begin(bar: ProgressBar, what: &str) -> Doing {
        if bar.is_hidden() {
            line(&format!("{what} …"));
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Doing(bar)
    }

    pub(super) fn at(&self, position: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(position);
    }

    pub(super) fn now(&self, what: String) {
        self.0.set_message(what);
    }

    /// A line above the bar.
    pub(super) fn line(&self, text: &str) {
        self.0.suspend(|| line(text));
    }

    /// Clears the bar and says how it ended.
    pub(super) fn done(self, text: &str) {
        self.0.finish_and_clear();
        line(text);
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("our own templates are valid")
}
