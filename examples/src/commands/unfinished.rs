//! Operations that have not ended, in a directory of journals: which there are, how each is gone on with, and what was left
//! of certificates.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kwdb_scale_core::execute::{Cancel, End, ExecuteError, Ledger, Remains, StopReason, clean_certificates};
use kwdb_scale_core::ports::{Clock, Journal, OperationLock};
use kwdb_scale_core::topology::ClusterId;
use kwdb_scale_local::{FileJournal, SystemClock};

use super::apply::{execute_failure, quote};
use crate::cli::Global;
use crate::connect::{Cluster, port_failure};
use crate::failure::Failure;
use crate::ui::Ui;

const WITHOUT_IT: &str =
    "moved elsewhere it bars nothing, but its operation cannot be gone on with or undone then";

/// An operation by its journal.
#[derive(Clone)]
pub(crate) struct Told {
    /// The journal.
    pub(crate) path: PathBuf,
    /// What its records come to.
    pub(crate) ledger: Ledger,
    begun: Timestamp,
}

enum Found {
    Operation(Box<Told>),
    /// Why it cannot be read, with its path.
    Damaged(String),
}

/// The journals of one cluster in a directory, the newest first. Clusters whose files lie in one directory may share a
/// directory of journals.
pub(crate) struct Survey {
    dir: PathBuf,
    cluster: ClusterId,
    found: Vec<Found>,
}

impl Told {
    /// The operation of a journal. `None` when nothing was recorded, so nothing was done.
    ///
    /// # Errors
    /// Exit code 2: it cannot be read; the path is named.
    pub(crate) async fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let damaged = |why: String| match why.contains(&path.display().to_string()) {
            true => Failure::usage(format!("{why}; {WITHOUT_IT}")),
            false => Failure::usage(format!("journal {}: {why}; {WITHOUT_IT}", path.display())),
        };
        let journal = FileJournal::open(path).await.map_err(|e| damaged(e.chain()))?;
        let records = journal.records().await.map_err(|e| damaged(e.chain()))?;
        let Some(begun) = records.first().map(|r| r.at) else { return Ok(None) };
        let ledger = Ledger::replay(records.iter().map(|r| &r.record)).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Self { path: path.to_owned(), ledger, begun }))
    }

    /// To go on with it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) async fn journal(&self) -> Result<FileJournal, Failure> {
        FileJournal::open(&self.path).await.map_err(|e| port_failure("the journal", &e))
    }

    /// Whether it has ended for good; `None` when it was refused, so that nothing was done.
    fn is_over(&self) -> Option<bool> {
        match &self.ledger.ended {
            Some(End::Done(_) | End::Undone(_)) => Some(true),
            Some(End::Stopped(stopped)) if stopped.reason == StopReason::Refused => None,
            _ => Some(false),
        }
    }

    /// What it was, how far it came, and where its journal is: one line.
    pub(crate) fn describe(&self) -> String {
        let plan = &self.ledger.plan;
        let done = self.ledger.cursor.min(plan.steps.len());
        let stands = match &self.ledger.ended {
            Some(End::Stopped(stopped)) => format!("stopped: {}", stopped.message),
            _ if self.ledger.cancel == Some(Cancel::Undo) => "it was being undone".to_owned(),
            _ if done < plan.steps.len() => format!("at hand: {}", plan.describe(done)),
            _ => "all but its end".to_owned(),
        };
        format!(
            "{} of plan {}, begun {}, has not ended: {done} of {} steps done, {stands}; its journal is {}",
            plan.kind(),
            plan.id,
            self.begun.strftime("%Y-%m-%d %H:%M:%SZ"),
            plan.steps.len(),
            self.path.display()
        )
    }
}

impl Survey {
    /// Reads the journals.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) async fn of(dir: &Path, cluster: &ClusterId) -> Result<Self, Failure> {
        let journals = FileJournal::list(dir).await.map_err(|e| port_failure("journals", &e))?;
        let mut found = Vec::new();
        for path in journals.iter().rev() {
            match Told::read(path).await {
                Ok(Some(told)) if told.ledger.plan.cluster_id == *cluster => {
                    found.push(Found::Operation(Box::new(told)));
                }
                // Another cluster's, or killed before anything was recorded, so before anything was done.
                Ok(_) => {}
                Err(e) => found.push(Found::Damaged(e.to_string())),
            }
        }
        Ok(Self { dir: dir.to_owned(), cluster: cluster.clone(), found })
    }

    /// The newest operation, unless it has ended for good: what `resume` takes. Those that were refused do not count.
    ///
    /// # Errors
    /// Exit code 2: a journal that may be the one is damaged.
    pub(crate) fn newest(&self) -> Result<Option<&Told>, Failure> {
        for found in &self.found {
            match found {
                Found::Damaged(why) => return Err(Failure::usage(why.clone())),
                Found::Operation(told) => match told.is_over() {
                    // What was begun before it and left is overtaken.
                    Some(true) => return Ok(None),
                    None => {}
                    Some(false) => return Ok(Some(told)),
                },
            }
        }
        Ok(None)
    }

    /// All that have not ended, the newest first. One that is overtaken and had changed nothing is not among them.
    pub(crate) fn unfinished(&self) -> Vec<&Told> {
        let mut overtaken = false;
        let mut list = Vec::new();
        for found in &self.found {
            let Found::Operation(told) = found else { continue };
            match told.is_over() {
                Some(true) => overtaken = true,
                Some(false) if !overtaken || told.ledger.admitted => list.push(&**told),
                _ => {}
            }
        }
        list
    }

    /// Why an operation must not be undone: newer ones have changed what it would take back, or what they did is not
    /// known; with the commands that take the newer ones back first, where they can be.
    pub(crate) fn bars_undo(&self, global: &Global, of: &Told) -> Option<String> {
        let newer = self.found.iter().take_while(
            |found| !matches!(found, Found::Operation(told) if told.path.file_name() == of.path.file_name()),
        );
        let (mut reasons, mut cures) = (Vec::new(), Vec::new());
        for found in newer {
            let told = match found {
                Found::Damaged(why) => {
                    return Some(format!("what a newer one has changed is not known: {why}"));
                }
                Found::Operation(told) => told,
            };
            let both: Vec<String> =
                of.ledger.undo_overlap(&told.ledger).iter().map(ToString::to_string).collect();
            if both.is_empty() {
                continue;
            }
            reasons.push(format!(
                "{} of plan {} has changed {} since, and an undo would take that back ({})",
                told.ledger.plan.kind(),
                told.ledger.plan.id,
                both.join(", "),
                told.path.display()
            ));
            // What has ended well is not taken back.
            cures.push((told.is_over() != Some(true)).then(|| format!("{} --undo", resume(global, told))));
        }
        let why = (!reasons.is_empty()).then(|| reasons.join("; "))?;
        // The newest first, as they were found.
        Some(match cures.into_iter().collect::<Option<Vec<String>>>() {
            Some(cures) => format!("{why}; take the newer back first, by {}", cures.join(" and then ")),
            None => why,
        })
    }

    /// How an operation is gone on with.
    fn ways(&self, global: &Global, of: &Told) -> String {
        let resume = resume(global, of);
        match self.bars_undo(global, of) {
            None => format!("go on with it by {resume}, or take it back by the same with --undo"),
            Some(why) => format!("go on with it by {resume}; it cannot be taken back as it stands: {why}"),
        }
    }

    /// Each that has not ended, with how it is gone on with.
    pub(crate) fn lines(&self, global: &Global) -> Vec<String> {
        let line = |told: &&Told| format!("{}; {}", told.describe(), self.ways(global, told));
        self.unfinished().iter().map(line).collect()
    }

    /// Says what has not ended, before another operation begins.
    pub(crate) fn warn(&self, ui: &Ui, global: &Global) {
        for found in &self.found {
            // One that may be the newest is an error, and told as that.
            if let (Found::Damaged(why), Ok(_)) = (found, self.newest()) {
                ui.say(format_args!("warning: {why}"));
            }
        }
        for line in self.lines(global) {
            ui.say(format_args!("warning: {line}; moved elsewhere, its journal is not told of any more"));
        }
    }
}

/// The command that goes on with an operation.
fn resume(global: &Global, of: &Told) -> String {
    format!("kwscale resume --cluster {} --journal {}", quote(&global.cluster), quote(&of.path))
}

/// Removes what older operations have left of certificates, as far as their hosts can be reached, before another one
/// begins or when one has ended; private keys are in it. What is left is told, with how it is got rid of.
///
/// # Errors
/// Exit code 3: an operation still runs.
pub(crate) async fn clean(
    ui: &Ui,
    global: &Global,
    cluster: &Cluster,
    survey: &Survey,
) -> Result<(), Failure> {
    if survey.unfinished().iter().all(|told| told.ledger.certified.is_empty()) {
        return Ok(());
    }
    let lock = cluster.lock();
    let held = lock.acquire("what older operations have left").await;
    let _held = held.map_err(|e| execute_failure(&ExecuteError::Lock(e)))?;
    // Once more under the lock: until now another process may have been at it.
    let survey = Survey::of(&survey.dir, &survey.cluster).await?;
    for told in survey.unfinished() {
        let now = SystemClock::new().now();
        for (host, remains) in clean_certificates(&told.ledger, cluster.commands.as_ref(), now).await {
            let plan = &told.ledger.plan.id;
            match remains {
                Remains::Removed(what) => ui.say(format_args!(
                    "removed what plan {plan} had left for the certificates of host {host}: {}",
                    what.join(", ")
                )),
                Remains::Left { what, why } => ui.say(format_args!(
                    "warning: of the certificates that plan {plan} made for host {host}, {} is left, with private keys: {why}; {}",
                    if what.is_empty() { "it is not known what".to_owned() } else { what.join(", ") },
                    survey.ways(global, told)
                )),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The newest operation of the cluster, unless it has ended for good, with its journal.
///
/// # Errors
/// As [`Survey::of`] and [`Survey::newest`].
pub(crate) async fn newest(
    dir: &Path,
    cluster: &ClusterId,
) -> Result<Option<(FileJournal, Ledger)>, Failure> {
    let survey = Survey::of(dir, cluster).await?;
    match survey.newest()? {
        Some(told) => Ok(Some((told.journal().await?, told.ledger.clone()))),
        None => Ok(None),
    }
}
