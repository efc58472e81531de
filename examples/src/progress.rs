//! What a running operation tells: bars on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::SignedDuration;
use kwdb_scale_core::execute::{Act, EventStream, Progress};

use crate::report::ids;
use crate::ui::Ui;

/// Plain lines of one wait are no closer than this.
const QUIET: Duration = Duration::from_secs(5);
/// The very same line comes again only after so long.
const SAME: Duration = Duration::from_secs(60);

/// Shows events until the stream ends.
pub async fn follow(ui: Ui, mut events: EventStream) {
    let mut show = Show::new(ui);
    while let Some(event) = events.next().await {
        show.event(&event);
    }
    show.bar.finish_and_clear();
}

struct Show {
    ui: Ui,
    bar: ProgressBar,
    head: String,
    last: BTreeMap<String, (String, Instant)>,
}

impl Show {
    fn new(ui: Ui) -> Self {
        let bar = if ui.terminal {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        Self { ui, bar, head: String::new(), last: BTreeMap::new() }
    }

    fn line(&self, text: &str) {
        if self.ui.terminal {
            self.bar.suspend(|| self.ui.say(text));
        } else {
            self.ui.say(text);
        }
    }

    fn spinner(&self, message: String) {
        let template = if self.ui.colour() { "{spinner:.cyan} {wide_msg}" } else { "{spinner} {wide_msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(message);
    }

    /// A line that repeats with other figures: rewritten on a terminal, rare otherwise, but for one that is awaited.
    fn passing(&mut self, text: &str, awaited: bool) {
        if self.ui.terminal {
            return;
        }
        let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).take(24).collect();
        let due = self.last.get(&kind).is_none_or(|(said, at)| {
            at.elapsed() >= if said == text { SAME } else { QUIET } || awaited && said != text
        });
        if due {
            self.ui.say(format_args!("      {text}"));
            self.last.insert(kind, (text.to_owned(), Instant::now()));
        }
    }

    fn event(&mut self, event: &Progress) {
        match event {
            Progress::StepStarted { step, of, what } => {
                self.head = format!("[{step}/{of}]");
                self.last.clear();
                self.line(&format!("{} {what}", self.head));
                self.spinner(format!("{} {what}", self.head));
                // Not before: a question may be asked first.
                self.bar.enable_steady_tick(Duration::from_millis(120));
            }
            Progress::Acting { act } => self.line(&format!("      {}", act_text(act))),
            Progress::Replicas { left, of, per_minute, eta } => {
                let text = replicas_text(*left, *of, *per_minute, *eta);
                let template = if self.ui.colour() {
                    "{msg} {bar:30.cyan} {pos}/{len}"
                } else {
                    "{msg} {bar:30} {pos}/{len}"
                };
                if let Ok(style) = ProgressStyle::with_template(template) {
                    self.bar.set_style(style);
                }
                self.bar.set_length(*of);
                self.bar.set_position(of.saturating_sub(*left));
                self.bar.set_message(format!("{} {text}", self.head));
                self.passing(&text, *left == 0);
            }
            Progress::Waiting { waiting_for, .. } => {
                self.spinner(format!("{} waiting: {waiting_for}", self.head));
                if !waiting_for.ends_with("replicas to move") {
                    self.passing(&format!("waiting: {waiting_for}"), false);
                }
            }
            Progress::Note { text } => self.line(&format!("      {text}")),
            Progress::StepDone { note, .. } => self.line(&format!("      done: {note}")),
            Progress::Ended { .. } => self.bar.finish_and_clear(),
            other => self.line(&format!("      {other:?}")),
        }
    }
}

fn act_text(act: &Act) -> String {
    match act {
        Act::SetSetting { name, value, .. } => format!("set {name} = {value}"),
        Act::RestoreSetting { name, value } => format!("restore {name} = {value}"),
        Act::ClearData { host, directories } => {
            let all: Vec<String> = directories
                .iter()
                .map(|dir| match &dir.aside {
                    Some(aside) => format!("move {} to {aside}", dir.path),
                    None => format!("delete what {} holds", dir.path),
                })
                .collect();
            format!("on host {host} {}", all.join(", "))
        }
        Act::Certify { job } => format!("make certificates for host {} ({})", job.host, job.method),
        Act::RestoreCertificates { job } => format!("put back the certificates of host {}", job.host),
        Act::CleanCertificates { job } => format!("remove temporary files of {}'s certificates", job.host),
        Act::Start { host, .. } => format!("start a node on {host}"),
        Act::Mark { nodes } => format!("mark {}", ids(nodes)),
        Act::Confirm { nodes } => format!("have the server count the replicas on {}", ids(nodes)),
        Act::Recommission { nodes } => format!("recommission {}", ids(nodes)),
        Act::Drain { node } => format!("drain node {}", node.0),
        Act::Stop { node } => format!("stop node {}", node.0),
        other => format!("{other:?}"),
    }
}

fn replicas_text(left: u64, of: u64, per_minute: f64, eta: Option<SignedDuration>) -> String {
    if of == 0 {
        // Taken up again after the last had moved.
        return "0 replicas left".to_owned();
    }
    let mut text = format!("{left} of {of} replicas left");
    if per_minute > 0.0 {
        text.push_str(&format!(", {per_minute:.0} a minute"));
    }
    if let Some(eta) = eta {
        text.push_str(&format!(", about {} s to go", eta.as_secs()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cleared_is_told() {
        let of = |path: &str, aside: Option<&str>| kwdb_scale_core::plan::OldDirectory {
            path: path.to_owned(),
            aside: aside.map(str::to_owned),
            entries: Vec::new(),
        };
        let directories = vec![of("/d/a", Some("/d/a.node-5")), of("/d/b", None)];
        let act = Act::ClearData { host: kwdb_scale_core::topology::HostName::new("n5"), directories };
        assert_eq!(act_text(&act), "on host n5 move /d/a to /d/a.node-5, delete what /d/b holds");
    }

    #[test]
    fn an_estimate_is_shown_only_when_there_is_one() {
        assert_eq!(replicas_text(5, 9, 0.0, None), "5 of 9 replicas left");
        assert_eq!(
            replicas_text(5, 9, 12.4, Some(SignedDuration::from_secs(25))),
            "5 of 9 replicas left, 12 a minute, about 25 s to go"
        );
    }
}
