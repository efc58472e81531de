//! Running a command to its end: deadline, and the end of its whole process group.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::ports::{Command, CommandEnd, CommandOutput, PortError, PortErrorKind};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::config::{Answer, SshHost};
use crate::connection::Connection;
use crate::error::unreachable;
use crate::exchange::{Exchange, Order, Step};
use crate::pool::Pool;
use crate::script::{self, Backstop, Input, Process, Said};

/// For the outputs to reach their end once the command itself has ended.
const PIPE_GRACE: Duration = Duration::from_secs(2);
/// For a second session that ends the command: the polite signal, a second, the other signal, and the way there.
const END_GRACE: Duration = Duration::from_secs(10);
/// For the channel to close once the command was killed; only one stuck in the kernel takes longer.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// As good as never, and still a point in time.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a command left, as bytes.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) end: CommandEnd,
    pub(crate) outputs: Outputs,
}

#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) truncated: bool,
}

impl From<Finished> for CommandOutput {
    fn from(finished: Finished) -> Self {
        let text = |bytes| {
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
        };
        let Outputs { out, err, truncated } = finished.outputs;
        Self { end: finished.end, stdout: text(out), stderr: text(err), truncated }
    }
}

/// Runs a command; on a terminal if there are answers.
pub(crate) async fn run(
    pool: &Arc<Pool>,
    host: &SshHost,
    command: &Command,
    terminal: Option<Vec<Answer>>,
) -> Result<Finished, PortError> {
    run_with(pool, host, command, terminal, Backstop::Watcher(command.deadline)).await
}

async fn run_with(
    pool: &Arc<Pool>,
    host: &SshHost,
    command: &Command,
    terminal: Option<Vec<Answer>>,
    backstop: Backstop,
) -> Result<Finished, PortError> {
    let program = script::program(&command.argv)?.to_owned();
    let mark = script::mark();
    let input = match (&terminal, &command.stdin) {
        (Some(_), _) => Input::Terminal,
        (None, Some(_)) => Input::Given,
        (None, None) => Input::Empty,
    };
    let (line, held) = script::run(&mark, &host.privilege, &command.argv, &command.env, input, backstop)?;
    let order = Order {
        line,
        mark,
        stdin: command.stdin.clone(),
        held,
        sudo: host.privilege.password().cloned(),
        terminal,
        cap: command.output_cap,
    };
    let until = Instant::now() + command.deadline.min(NEVER);
    let (connection, session) = in_time(host, until, pool.session(host)).await?;
    // From here on a task of its own looks after the command, so that it is ended properly even when this future is
    // dropped: then `caller` is, too.
    let (caller, gone) = oneshot::channel();
    let this = Supervised { connection, host: host.clone(), program, deadline: command.deadline, until };
    let task = tokio::spawn(async move {
        let exchange = Exchange::start(session, order).await.map_err(|_| this.lost())?;
        this.supervise(exchange, gone).await
    });
    let result = task.await;
    drop(caller);
    result.unwrap_or_else(|e| {
        Err(PortError::new(PortErrorKind::Other, "the command was given up because the runtime shut down")
            .with_source(e))
    })
}

/// Waits for a session until a point in time; nothing was done before.
pub(crate) async fn in_time<T>(
    host: &SshHost,
    until: Instant,
    opening: impl Future<Output = Result<T, PortError>>,
) -> Result<T, PortError> {
    timeout_at(until, opening).await.unwrap_or_else(|_| {
        Err(unreachable(format!("no session on '{}' was to be had before the deadline", host.shown())))
    })
}

struct Supervised {
    connection: Arc<Connection>,
    host: SshHost,
    program: String,
    deadline: Duration,
    until: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Why {
    Closed,
    /// It ended; its outputs may not.
    Ended,
    Deadline,
    Dropped,
    SudoRefused,
}

impl Supervised {
    fn lost(&self) -> PortError {
        self.connection.lost(&format!("'{}'", self.program))
    }

    async fn supervise(
        &self,
        mut exchange: Exchange,
        mut gone: oneshot::Receiver<()>,
    ) -> Result<Finished, PortError> {
        let why = {
            let mut deadline = pin!(sleep_until(self.until));
            loop {
                tokio::select! {
                    step = exchange.step() => match step {
                        Step::Closed => break Why::Closed,
                        Step::More if exchange.sudo_refused => break Why::SudoRefused,
                        Step::More if exchange.end.is_some() => break Why::Ended,
                        Step::More => {}
                    },
                    () = &mut deadline => break Why::Deadline,
                    _ = &mut gone => break Why::Dropped,
                }
            }
        };
        match why {
            Why::Closed | Why::SudoRefused => {}
            // A descendant may hold the outputs open for ever. What the command wrote before it ended is on its way.
            Why::Ended => drop(timeout(PIPE_GRACE, read_on(&mut exchange)).await),
            Why::Deadline | Why::Dropped => {
                let ended = match exchange.process() {
                    Some(process) => {
                        // Reads on meanwhile: what is written after the polite signal must not fail.
                        let reading = async {
                            read_on(&mut exchange).await;
                            pending::<()>().await;
                        };
                        tokio::select! {
                            ended = self.end(process) => ended,
                            () = reading => false,
                        }
                    }
                    None => false,
                };
                if ended {
                    drop(timeout(KILL_GRACE, read_on(&mut exchange)).await);
                }
                exchange.close().await;
                return Err(self.ended_by_us(why, ended));
            }
        }
        let result = self.judge(&mut exchange);
        exchange.close().await;
        result
    }

    fn judge(&self, exchange: &mut Exchange) -> Result<Finished, PortError> {
        let host = self.host.shown();
        match (&exchange.said, exchange.end) {
            (Some(Said::NoProgram), _) => Err(no_program(&host, &self.program)),
            (Some(Said::Start(_)), Some(end)) => {
                tracing::debug!(host, program = self.program, %end, "command ended");
                if let Some(prompt) = exchange.unanswered() {
                    tracing::debug!(host, program = self.program, prompt, "the prompt never came");
                }
                let truncated = exchange.out.incomplete() || exchange.err.incomplete();
                let (out, err) = (exchange.out.bytes(), exchange.err.bytes());
                Ok(Finished { end, outputs: Outputs { out, err, truncated } })
            }
            (Some(Said::Start(_)), None) => Err(self.lost()),
            (Some(_), _) => Err(PortError::new(
                PortErrorKind::Malformed,
                format!("'{host}' said nonsense at the start of '{}'", self.program),
            )),
            (None, None) if !exchange.was_refused() => Err(self.lost()),
            (None, _) => Err(exchange.not_begun(&host, &self.program, &self.host.privilege)),
        }
    }

    fn ended_by_us(&self, why: Why, ended: bool) -> PortError {
        let (program, deadline) = (&self.program, self.deadline);
        if why == Why::Dropped {
            tracing::debug!(program, ended, "command ended because its caller went away");
            return PortError::new(PortErrorKind::Other, format!("the caller of '{program}' went away"));
        }
        tracing::debug!(program, ?deadline, ended, "command ended at its deadline");
        let how = match ended {
            true => "it was ended with the processes of its group",
            false => "it could not be ended from here; its watcher on the host ends it, if it began at all",
        };
        PortError::new(
            PortErrorKind::Deadline,
            format!("'{program}' had not come back after {deadline:?}; {how}"),
        )
    }

    /// Ends the process group through a second session. False: it cannot be told whether that worked.
    async fn end(&self, process: Process) -> bool {
        let mark = script::mark();
        let Ok(line) = script::end(&mark, &self.host.privilege, process) else { return false };
        let order = Order {
            line,
            mark,
            stdin: None,
            held: false,
            sudo: self.host.privilege.password().cloned(),
            terminal: None,
            cap: 0,
        };
        let ending = async {
            let session = self.connection.spare_session().await.ok()?;
            let mut exchange = Exchange::start(session, order).await.ok()?;
            read_on(&mut exchange).await;
            let ended = exchange.process().is_some() && exchange.end.is_some();
            exchange.close().await;
            Some(ended)
        };
        timeout(END_GRACE, ending).await.ok().flatten().unwrap_or(false)
    }
}

/// Reads until the channel is closed.
async fn read_on(exchange: &mut Exchange) {
    while exchange.step().await == Step::More {}
}

pub(crate) fn no_program(host: &str, program: &str) -> PortError {
    PortError::new(
        PortErrorKind::NotFound,
        format!("'{program}' could not be started on '{host}': there is no such executable file"),
    )
}

/// Copies a file: runs a script of ours that does nothing else, and gives what it left.
pub(crate) async fn copy(
    pool: &Arc<Pool>,
    host: &SshHost,
    text: &str,
    args: &[&str],
    stdin: Option<Vec<u8>>,
    cap: usize,
    deadline: Duration,
) -> Result<Finished, PortError> {
    let argv = ["sh", "-c", text, "sh"].into_iter().chain(args.iter().copied()).map(str::to_owned).collect();
    let command = Command { argv, env: BTreeMap::new(), stdin, deadline, output_cap: cap };
    run_with(pool, host, &command, None, Backstop::Itself).await
}
