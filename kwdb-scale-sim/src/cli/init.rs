//! `init`.

use std::time::Duration;

use jiff::Timestamp;

use super::connect::{Client, LATENCY, rpc_text};
use super::{Output, Step};
use crate::model::{Cluster, Phase, RpcError};

#[derive(Debug)]
pub(crate) struct Init {
    client: Client,
    due: Option<Timestamp>,
}

impl Init {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, due: None }
    }

    pub(crate) fn step(&mut self, cluster: &mut Cluster, out: &mut Output) -> Step {
        let now = cluster.now();
        let due = *self.due.get_or_insert(now + LATENCY);
        if now < due {
            return Step::At(due);
        }
        let not_ready = match self.client.rpc(cluster) {
            Ok(address) => match cluster.process(&address).map(|p| p.phase) {
                Some(Phase::Booting) => "rpc error: code = Unavailable desc = not ready".to_owned(),
                _ => match cluster.init(&address) {
                    Ok(()) => {
                        out.stdout += "Cluster successfully initialized\n";
                        return Step::Done;
                    }
                    Err(RpcError::Hang) => return Step::Hang,
                    Err(error) => return already(now, &rpc_text(&error, "Init"), out),
                },
            },
            // Nobody listens yet: it tries again. Anything else will not get better.
            Err(text) if text.starts_with("cannot dial server") => {
                text.lines().last().unwrap_or_default().to_owned()
            }
            Err(text) => return Step::Fail(text),
        };
        out.stderr +=
            &format!("warning: node not ready to perform cluster initialization: {not_ready} (retrying)\n");
        let again = now + Duration::from_secs(1);
        self.due = Some(again);
        Step::At(again)
    }
}

/// The error is shown three times over, as observed.
fn already(now: Timestamp, error: &str, out: &mut Output) -> Step {
    const HINT: &str = "HINT: Please ensure all your start commands are using --join.";
    out.stderr += &format!(
        "*\n* ERROR: ERROR: {error}\n* {HINT}\n*\nE{} 1 cli/error.go:391  ERROR: {error}\n{HINT}\n",
        now.strftime("%y%m%d %H:%M:%S.%6f")
    );
    Step::Fail(format!("{error}\n{HINT}"))
}
