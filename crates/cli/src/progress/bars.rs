//! Bars on a terminal: the tiles, the phase after them, and what is at work.

use super::{
    Painter,
    tally::{Note, View},
    text,
};
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, Write},
    time::Duration,
};

/// Runs shorter than this show nothing: a flash helps nobody.
const PATIENCE: Duration = Duration::from_millis(300);

/// Columns that are left for the bar itself, where there are that many.
const BAR: usize = 16;

/// More often than bars are painted (a few times per [`super::LOOK`]), so that none of them falls behind the others.
const HZ: u8 = 60;

/// Draws the bars.
#[derive(Default)]
pub struct Bars {
    began: Option<Duration>,
    shown: Option<Shown>,
}

struct Shown {
    all: MultiProgress,
    /// The tiles, or the phase that can be measured.
    total: ProgressBar,
    /// Lines of text below.
    details: ProgressBar,
    /// Whether `total` is a spinner.
    spins: bool,
}

impl Painter for Bars {
    fn note(&mut self, note: &Note, v: &View) {
        match note {
            Note::Started { .. } | Note::Phase { .. } => self.began = self.began.or(Some(v.now)),
            Note::Remark(text) => match &self.shown {
                Some(s) => {
                    let _ = s.all.println(super::remark(text));
                }
                None => super::say(&super::remark(text)),
            },
            Note::End { .. } => {
                if let Some(s) = self.shown.take() {
                    // All at once: bars that are removed one by one can leave a line behind.
                    let _ = s.all.clear();
                    s.all.set_draw_target(ProgressDrawTarget::hidden());
                    s.details.finish_and_clear();
                    s.total.finish_and_clear();
                }
            }
            _ => {}
        }
    }

    fn look(&mut self, v: &View) {
        if self.began.is_some_and(|began| v.now >= began + PATIENCE) {
            self.shown.get_or_insert_with(Shown::new).paint(v, usize::from(Term::stderr().size().1));
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("templates are constants").progress_chars("━╸─")
}

impl Shown {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
        let total = all.add(ProgressBar::new(1).with_style(style("{wide_bar} {msg}")));
        let details = all.add(ProgressBar::new(1).with_style(style("{msg}")));
        Self { all, total, details, spins: false }
    }

    fn paint(&mut self, v: &View, width: usize) {
        // The last column stays free: some terminals wrap when it is written.
        let width = width.saturating_sub(1);
        let spins = v.total == 0;
        if self.spins != spins {
            self.spins = spins;
            self.total.set_style(style(if spins { "{spinner} {msg}" } else { "{wide_bar} {msg}" }));
        }
        if spins {
            let name = v.phase.as_deref().unwrap_or("at work");
            self.total.set_message(text::cut(name, width.saturating_sub(2)));
            self.total.tick();
        } else {
            self.total.set_length(v.total);
            self.total.set_position(v.done());
            self.total.set_message(text::fit(&text::totals(v), width.saturating_sub(BAR)));
        }
        self.details.set_message(details(v, width).join("\n"));
        // indicatif leaves the cursor behind the last column: the terminal's echo of Ctrl-C would go to a line of its
        // own, and the bars would be looked for one line too low. At the line's start it replaces the indent.
        let _ = io::stderr().lock().write_all(b"\r");
    }
}

/// Lines below the bar, none wider than `width`.
fn details(v: &View, width: usize) -> Vec<String> {
    let inner = width.saturating_sub(2);
    let mut lines = Vec::new();
    if let Some(phase) = v.phase.as_ref().filter(|_| v.total > 0) {
        lines.push(phase.clone());
    }
    if !v.tensors.is_empty() {
        lines.push(text::tensors(v, inner));
    }
    if v.phase.is_none() {
        let long = text::stages(v, true);
        lines.push(if long.chars().count() <= inner { long } else { text::stages(v, false) });
    }
    let mut last: Vec<String> = text::memory(v).into_iter().collect();
    if v.phase.is_none() {
        last.push(format!("tensors {} of {}", v.tensors_done, v.tensors_total));
    }
    if v.stopping {
        last.insert(0, "stopping; Ctrl-C again stops at once".to_owned());
    }
    lines.push(text::fit(&last, inner));
    lines.into_iter().map(|l| text::cut(&format!("  {l}"), width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::tally::Tally;
    use tensormill_core::Times;

    #[test]
    fn lines_fit_whatever_the_terminal() {
        let (tally, mut v) = (Tally::default(), View::new(1 << 30));
        v.take(&Note::Started { source: 10 << 20, output: 5 << 20, tensors: 3 });
        v.take(&Note::TensorStarted("blk.0.attn_q.weight".into()));
        let s = Duration::from_secs(1);
        tally.advanced(4 << 20, 2 << 20, Times { read: s, compute: s, measure: s, write: s, wait: s });
        v.update(Duration::from_secs(2), tally.counts(), Some(100 << 20));
        let wide = details(&v, 120);
        assert_eq!(wide.len(), 3);
        assert!(wide[1].contains("compute 4.00 MiB/s 20%"), "{wide:?}");
        assert_eq!(wide[2], "  memory 100 MiB of 1.00 GiB  tensors 0 of 3");
        assert!(details(&v, 60)[1].contains("compute 20%"), "{:?}", details(&v, 60));
        for width in 0..130 {
            assert!(details(&v, width).iter().all(|l| l.chars().count() <= width), "{width}");
        }
        v.take(&Note::Stopping);
        assert!(details(&v, 60)[2].contains("Ctrl-C again"));
        v.take(&Note::Phase { name: "checksums".into(), bytes: 7 });
        assert_eq!(details(&v, 80)[0], "  checksums");
    }
}
