//! Setting a cluster setting and putting it back.

use jiff::Timestamp;

use super::super::event::Look;
use super::super::machine::{Ctx, State, Verdict};
use super::super::record::{Act, ActResult, StopReason};
use super::view::{ask, seen};
use crate::rows::Query;

pub(super) fn look(state: &State, at: Timestamp, name: &str) -> Look {
    ask(state, at, &[Query::Settings(vec![name.to_owned()])], &[])
}

/// The value in force; the outer `None` means that nobody answered.
fn current(ctx: &Ctx<'_>, name: &str) -> Option<Option<String>> {
    seen(ctx.looked).iter().find_map(|s| s.setting(name)).map(|row| row.map(|r| r.value.clone()))
}

pub(super) fn judge_set(ctx: &mut Ctx<'_>, name: &str, value: &str) -> Verdict {
    let Some(now) = current(ctx, name) else {
        return Verdict::Wait(format!("the value of {name}"));
    };
    match now {
        None => Verdict::stop(StopReason::ActFailed, format!("the server does not know the setting {name}")),
        Some(now) if now == value => Verdict::Done(format!("{name} is {value}")),
        Some(_) if matches!(ctx.state.ledger.last, Some((Act::SetSetting { .. }, ActResult::Done(_)))) => {
            Verdict::Wait(format!("{name} to be {value}"))
        }
        Some(now) => {
            let act = Act::SetSetting { name: name.to_owned(), value: value.to_owned(), old: Some(now) };
            super::attempt(ctx, act, &format!("setting {name}"))
        }
    }
}

pub(super) fn judge_restore(ctx: &mut Ctx<'_>, name: &str) -> Verdict {
    let Some(saved) = ctx.state.ledger.saved.get(name).cloned() else {
        return Verdict::Done(format!("{name} was not changed"));
    };
    let Some(old) = saved.old else {
        return Verdict::Done(format!("{name} had no value before; left at {}", saved.ours));
    };
    let Some(Some(now)) = current(ctx, name) else {
        return Verdict::Wait(format!("the value of {name}"));
    };
    if now == old {
        return Verdict::Done(format!("{name} is {old} again"));
    }
    if now != saved.ours {
        return Verdict::Done(format!("{name} left at {now}: someone else changed it"));
    }
    if matches!(ctx.state.ledger.last, Some((Act::RestoreSetting { .. }, ActResult::Done(_)))) {
        return Verdict::Wait(format!("{name} to be {old}"));
    }
    let act = Act::RestoreSetting { name: name.to_owned(), value: old };
    super::attempt(ctx, act, &format!("restoring {name}"))
}
