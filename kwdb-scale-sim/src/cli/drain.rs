//! `node drain` and `quit`.

use std::time::Duration;

use jiff::Timestamp;

use super::args::Args;
use super::connect::{Client, LATENCY, rpc_text};
use super::{Output, Step};
use crate::model::{Cluster, RpcError};

/// What one `Drain` call takes.
const CALL: Duration = Duration::from_millis(1_005);

#[derive(Debug)]
pub(crate) struct Drain {
    client: Client,
    quit: bool,
    /// After so long without success `drain` fails and `quit` ends the node hard; `None` waits for ever.
    limit: Option<Duration>,
    began: Option<Timestamp>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// A call is made then.
    Begin(Timestamp),
    /// The call comes back then.
    Call(Timestamp),
    /// The shutdown call comes back then.
    Shutdown(Timestamp),
}

impl Drain {
    pub(crate) fn new(args: &Args, client: Client, quit: bool) -> Self {
        let wait = args.get("drain-wait").and_then(crate::model::parse_duration);
        let limit = wait.unwrap_or(Duration::from_secs(600));
        let limit = (!limit.is_zero()).then_some(limit);
        Self { client, quit, limit, began: None, stage: Stage::Begin(Timestamp::MIN) }
    }

    pub(crate) fn name(&self) -> &'static str {
        if self.quit { "quit" } else { "node drain" }
    }

    pub(crate) fn step(&mut self, cluster: &mut Cluster, out: &mut Output) -> Step {
        let now = cluster.now();
        let began = match self.began {
            Some(began) => began,
            None => {
                self.began = Some(now);
                self.stage = Stage::Begin(now + LATENCY);
                now
            }
        };
        match self.stage {
            Stage::Begin(at) | Stage::Call(at) | Stage::Shutdown(at) if now < at => Step::At(at),
            Stage::Begin(_) => self.call(cluster, began, out, true),
            Stage::Call(_) => self.call(cluster, began, out, false),
            Stage::Shutdown(_) => {
                if self.client.rpc(cluster).is_ok() {
                    // The process is still there: it goes within a fraction of a second.
                    let soon = now + Duration::from_millis(20);
                    self.stage = Stage::Shutdown(soon);
                    return Step::At(soon);
                }
                // Harmless, and not always there.
                if now.subsec_millisecond() % 2 == 0 {
                    out.stderr += &format!(
                        "E{} 26 rpc/context.go:1029  removing connection to {} due to error: cannot reuse client connection\n",
                        now.strftime("%y%m%d %H:%M:%S.%6f"),
                        self.client.address
                    );
                }
                out.stdout += "ok\n";
                Step::Done
            }
        }
    }

    /// The beginning of a call, or its end.
    fn call(&mut self, cluster: &mut Cluster, began: Timestamp, out: &mut Output, first: bool) -> Step {
        let now = cluster.now();
        let address = match self.client.rpc(cluster) {
            Ok(address) => address,
            Err(text) => return Step::Fail(text),
        };
        let result = if first {
            cluster.refuse_clients(&address).map(|()| None)
        } else {
            cluster.drain(&address).map(Some)
        };
        match result {
            Ok(None) => {
                // It comes back a second after clients are done, which takes ten more at most.
                let clients = cluster.drain_waits_until(&address).unwrap_or(now);
                self.stage = Stage::Call(clients + CALL);
                self.step(cluster, out)
            }
            Ok(Some(left)) => self.show(cluster, left, out),
            Err(RpcError::WaitingForInit) => {
                Step::Fail("node cannot be drained before it has been initialized".to_owned())
            }
            Err(RpcError::Hang) => {
                let over = self.limit.is_some_and(|l| now >= began + l);
                if !over {
                    return Step::Hang;
                }
                if !self.quit {
                    return Step::Fail("drain timeout".to_owned());
                }
                out.stderr +=
                    "warning: drain did not complete successfully; hard shutdown may cause disruption\n";
                cluster.kill_node(&address);
                out.stdout += "ok\n";
                Step::Done
            }
            Err(error) => Step::Fail(rpc_text(&error, "Drain")),
        }
    }

    fn show(&mut self, cluster: &mut Cluster, left: u64, out: &mut Output) -> Step {
        let now = cluster.now();
        let end = if left == 0 { " (complete)" } else { "" };
        out.stderr += &format!("node is draining... remaining: {left}{end}\n");
        if left > 0 {
            self.stage = Stage::Begin(now);
            return Step::At(now);
        }
        if !self.quit {
            out.stdout += "ok\n";
            return Step::Done;
        }
        match self.client.rpc(cluster).map(|address| cluster.shutdown(&address)) {
            Ok(_) => {
                let at = now + Duration::from_millis(120);
                self.stage = Stage::Shutdown(at);
                Step::At(at)
            }
            Err(text) => Step::Fail(text),
        }
    }
}
