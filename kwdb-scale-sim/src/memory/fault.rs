//! Calls that fail, come late, happen twice, or are answered falsely.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use kwdb_scale_core::fact::Fact;
use kwdb_scale_core::ports::{
    AuthorityFacts, BegunMark, BegunWork, CertificateControl, CertificateFacts, CertifyHost, ClearData,
    Command, CommandOutput, DecommissionControl, DecommissionStatus, Detached, FactSource, Gateway,
    HostFacts, HostTransport, Means, NodeLifecycle, PortError, PortErrorKind, PortState, ProcessState,
    SettingsControl, Spawned, StartNode, StartOutcome, StopNode,
};
use kwdb_scale_core::rows::{Answer, Query};
use kwdb_scale_core::topology::{Address, HostName, NodeId};

use super::World;

/// A method of a port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each is named after its method")]
pub enum Call {
    Fetch,
    GetSetting,
    SetSetting,
    Mark,
    Recommission,
    Status,
    MarkUnderWay,
    WorkUnderWay,
    Inspect,
    ClearData,
    Start,
    Drain,
    Stop,
    Process,
    Authority,
    LookAtCertificates,
    InstallCertificates,
    RestoreCertificates,
    CleanCertificates,
    Run,
    Spawn,
    Put,
    Get,
    Probe,
}

/// Which calls of a method are hit; the first is number 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// Only that one.
    Nth(u32),
    /// That one and all after it.
    From(u32),
    /// Every one.
    All,
}

/// Changes an answer before it is given.
pub type Edit = Arc<dyn Fn(&Query, &mut Answer) + Send + Sync>;

/// What happens to a call.
#[derive(Clone)]
pub enum Fault {
    /// It fails and nothing was done.
    Fail(PortErrorKind),
    /// It is done, and the answer is lost.
    LoseAnswer(PortErrorKind),
    /// It comes late.
    Delay(Duration),
    /// It is done twice; the second answer is given.
    Twice,
    /// The answer to a query is changed before it is given.
    Falsify(Edit),
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fail(kind) => write!(f, "Fail({kind:?})"),
            Self::LoseAnswer(kind) => write!(f, "LoseAnswer({kind:?})"),
            Self::Delay(d) => write!(f, "Delay({d:?})"),
            Self::Twice => f.write_str("Twice"),
            Self::Falsify(_) => f.write_str("Falsify"),
        }
    }
}

/// A port with faults before it. Clones share the count of calls.
#[derive(Debug)]
pub struct Faulty<T: ?Sized> {
    inner: Arc<T>,
    world: World,
    rules: Vec<(Call, Which, Fault)>,
    counts: Arc<Mutex<BTreeMap<Call, u32>>>,
}

impl<T: ?Sized> Faulty<T> {
    /// The port without faults.
    pub fn new(world: &World, inner: Arc<T>) -> Self {
        Self { inner, world: world.clone(), rules: Vec::new(), counts: Arc::default() }
    }

    /// The same with one more fault.
    #[must_use]
    pub fn with(mut self, call: Call, which: Which, fault: Fault) -> Self {
        self.rules.push((call, which, fault));
        self
    }

    /// How often a method was called.
    pub fn count(&self, call: Call) -> u32 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(&call).copied().unwrap_or(0)
    }

    /// Counts the call, lets delays go by, and says what else is to happen to it.
    fn enter(&self, call: Call) -> Result<Entered, PortError> {
        let n = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let n = counts.entry(call).or_default();
            *n += 1;
            *n
        };
        let mut entered = Entered { call, lose: None, twice: false, falsify: Vec::new() };
        for (rule, which, fault) in &self.rules {
            let hit = match which {
                Which::Nth(k) => n == *k,
                Which::From(k) => n >= *k,
                Which::All => true,
            };
            if *rule != call || !hit {
                continue;
            }
            match fault {
                Fault::Fail(kind) => return Err(error(call, *kind)),
                Fault::LoseAnswer(kind) => entered.lose = Some(*kind),
                Fault::Delay(d) => self.world.advance(*d),
                Fault::Twice => entered.twice = true,
                Fault::Falsify(edit) => entered.falsify.push(Arc::clone(edit)),
            }
        }
        Ok(entered)
    }
}

fn error(call: Call, kind: PortErrorKind) -> PortError {
    PortError::new(kind, format!("injected fault: {call:?} ended with {kind:?}"))
}

struct Entered {
    call: Call,
    lose: Option<PortErrorKind>,
    twice: bool,
    falsify: Vec<Edit>,
}

impl Entered {
    fn leave<R>(self, result: Result<R, PortError>) -> Result<R, PortError> {
        match self.lose {
            Some(kind) => Err(error(self.call, kind)),
            None => result,
        }
    }
}

/// Enters, does the call once or twice, leaves.
macro_rules! through {
    ($self:ident, $call:ident, $act:expr) => {{
        let entered = $self.enter(Call::$call)?;
        if entered.twice {
            let _ = $act;
        }
        let result = $act;
        entered.leave(result)
    }};
}

#[async_trait]
impl<T: FactSource + ?Sized> FactSource for Faulty<T> {
    fn seeds(&self) -> Vec<Address> {
        self.inner.seeds()
    }

    async fn fetch(&self, gateway: &Address, query: &Query) -> Result<Answer, PortError> {
        let entered = self.enter(Call::Fetch)?;
        let mut answer = self.inner.fetch(gateway, query).await;
        if let Ok(answer) = &mut answer {
            for edit in &entered.falsify {
                edit(query, answer);
            }
        }
        entered.leave(answer)
    }
}

#[async_trait]
impl<T: SettingsControl + ?Sized> SettingsControl for Faulty<T> {
    async fn get(&self, gateway: &Address, name: &str) -> Result<Option<String>, PortError> {
        through!(self, GetSetting, self.inner.get(gateway, name).await)
    }

    async fn set(&self, gateway: &Address, name: &str, value: &str) -> Result<(), PortError> {
        through!(self, SetSetting, self.inner.set(gateway, name, value).await)
    }
}

#[async_trait]
impl<T: DecommissionControl + ?Sized> DecommissionControl for Faulty<T> {
    fn means(&self) -> Option<Means> {
        self.inner.means()
    }

    async fn mark(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        through!(self, Mark, self.inner.mark(via, nodes, deadline).await)
    }

    async fn recommission(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Vec<DecommissionStatus>, PortError> {
        through!(self, Recommission, self.inner.recommission(via, nodes, deadline).await)
    }

    async fn status(
        &self,
        via: &Gateway,
        nodes: &[NodeId],
        deadline: Duration,
    ) -> Result<Option<Vec<DecommissionStatus>>, PortError> {
        through!(self, Status, self.inner.status(via, nodes, deadline).await)
    }

    async fn mark_under_way(&self, begun: &BegunMark) -> Result<Option<String>, PortError> {
        through!(self, MarkUnderWay, self.inner.mark_under_way(begun).await)
    }
}

#[async_trait]
impl<T: NodeLifecycle + ?Sized> NodeLifecycle for Faulty<T> {
    async fn inspect(&self, host: &HostName) -> Result<HostFacts, PortError> {
        through!(self, Inspect, self.inner.inspect(host).await)
    }

    async fn reach(
        &self,
        host: &HostName,
        to: &[Address],
        deadline: Duration,
    ) -> Result<Vec<Fact<PortState>>, PortError> {
        through!(self, Inspect, self.inner.reach(host, to, deadline).await)
    }

    async fn start(&self, node: &StartNode) -> Result<StartOutcome, PortError> {
        through!(self, Start, self.inner.start(node).await)
    }

    async fn clear_data(&self, job: &ClearData) -> Result<String, PortError> {
        through!(self, ClearData, self.inner.clear_data(job).await)
    }

    async fn drain(&self, node: &StopNode) -> Result<(), PortError> {
        through!(self, Drain, self.inner.drain(node).await)
    }

    async fn stop(&self, node: &StopNode) -> Result<(), PortError> {
        through!(self, Stop, self.inner.stop(node).await)
    }

    async fn process(&self, node: &StopNode) -> Result<ProcessState, PortError> {
        through!(self, Process, self.inner.process(node).await)
    }

    async fn work_under_way(&self, begun: &BegunWork) -> Result<Option<String>, PortError> {
        through!(self, WorkUnderWay, self.inner.work_under_way(begun).await)
    }
}

#[async_trait]
impl<T: CertificateControl + ?Sized> CertificateControl for Faulty<T> {
    fn issues(&self) -> bool {
        self.inner.issues()
    }

    async fn authority(&self, members: &[HostName]) -> Result<AuthorityFacts, PortError> {
        through!(self, Authority, self.inner.authority(members).await)
    }

    async fn look(&self, job: &CertifyHost) -> Result<CertificateFacts, PortError> {
        through!(self, LookAtCertificates, self.inner.look(job).await)
    }

    async fn install(&self, job: &CertifyHost) -> Result<(), PortError> {
        through!(self, InstallCertificates, self.inner.install(job).await)
    }

    async fn restore(&self, job: &CertifyHost) -> Result<(), PortError> {
        through!(self, RestoreCertificates, self.inner.restore(job).await)
    }

    async fn clean(&self, job: &CertifyHost) -> Result<(), PortError> {
        through!(self, CleanCertificates, self.inner.clean(job).await)
    }
}

#[async_trait]
impl<T: HostTransport + ?Sized> HostTransport for Faulty<T> {
    async fn run(&self, host: &HostName, command: &Command) -> Result<CommandOutput, PortError> {
        through!(self, Run, self.inner.run(host, command).await)
    }

    async fn spawn(&self, host: &HostName, detached: &Detached) -> Result<Spawned, PortError> {
        through!(self, Spawn, self.inner.spawn(host, detached).await)
    }

    async fn put(&self, host: &HostName, path: &str, content: &[u8], mode: u32) -> Result<(), PortError> {
        through!(self, Put, self.inner.put(host, path, content, mode).await)
    }

    async fn get(&self, host: &HostName, path: &str, max: usize) -> Result<Vec<u8>, PortError> {
        through!(self, Get, self.inner.get(host, path, max).await)
    }

    async fn probe(
        &self,
        host: &HostName,
        address: &Address,
        deadline: Duration,
    ) -> Result<PortState, PortError> {
        through!(self, Probe, self.inner.probe(host, address, deadline).await)
    }
}
