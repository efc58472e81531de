//! Starting a command that outlives its caller and the connection.
//!
//! The command is what sshd started, in a session of its own, with all three descriptors redirected: sshd tells its
//! exact end for as long as the connection stays, and nothing reaches it when the connection goes.

use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::ports::{Detached, PortError, PortErrorKind, Spawned};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::SshHost;
use crate::connection::Connection;
use crate::error::config;
use crate::exchange::{Exchange, Order, Step};
use crate::pool::Pool;
use crate::run::{in_time, no_program};
use crate::script::{self, Said};

/// For the command to be started, apart from the wait for its end.
const START: Duration = Duration::from_secs(60);

pub(crate) async fn spawn(
    pool: &Arc<Pool>,
    host: &SshHost,
    detached: &Detached,
) -> Result<Spawned, PortError> {
    let argv = &detached.command.argv;
    let program = script::program(argv)?;
    let output_file = &detached.output_file;
    if !output_file.starts_with('/') {
        return Err(config(format!(
            "the output file '{output_file}' of '{program}' is not an absolute path"
        )));
    }
    let mark = script::mark();
    let line = script::spawn(&mark, &host.privilege, argv, &detached.command.env, output_file)?;
    let sudo = host.privilege.password().cloned();
    let order = Order { line, mark, stdin: None, held: false, sudo, terminal: None, cap: 0 };
    let until = Instant::now() + START;
    let (connection, session) = in_time(host, until, pool.session(host)).await?;
    let lost = |c: &Connection| c.lost(&format!("starting '{program}'"));
    // sshd counts a session until its process ends, whatever becomes of the channel. So that processes that stay do
    // not use the sessions of the connection up, another connection takes the next work. Armed before the start, for
    // a caller that goes away.
    let mut staying = Staying { connection: &connection, stays: true };
    let mut exchange = Exchange::start(session, order).await.map_err(|_| lost(&connection))?;

    let begun = timeout_at(until, async {
        while exchange.said.is_none() && !exchange.was_refused() && exchange.step().await == Step::More {}
    });
    if begun.await.is_err() {
        return Err(PortError::new(
            PortErrorKind::Deadline,
            format!("'{program}' had not been started on '{}' after {START:?}", host.shown()),
        ));
    }
    let shown = host.shown();
    let process = match exchange.said.clone() {
        Some(Said::Start(process)) => process,
        Some(said) => {
            staying.stays = false;
            return Err(match said {
                Said::NoProgram => no_program(&shown, program),
                Said::NoDirectory => PortError::new(
                    PortErrorKind::NotFound,
                    format!(
                        "'{program}' was not started on '{shown}': the directory of '{output_file}' does not exist"
                    ),
                ),
                Said::NoOutput => PortError::new(
                    PortErrorKind::Denied,
                    format!("'{program}' was not started on '{shown}': '{output_file}' cannot be written"),
                ),
                Said::Start(_) | Said::Nonsense => PortError::new(
                    PortErrorKind::Malformed,
                    format!("'{shown}' said nonsense at the start of '{program}'"),
                ),
            });
        }
        None if exchange.end.is_some() || exchange.was_refused() => {
            // The end that was told is that of the command, too.
            staying.stays = false;
            return Err(exchange.not_begun(&shown, program, &host.privilege));
        }
        None => return Err(lost(&connection)),
    };

    let waited = timeout(detached.wait, async {
        while exchange.end.is_none() && exchange.step().await == Step::More {}
    });
    let waited = waited.await.is_ok();
    match exchange.end {
        Some(end) => {
            staying.stays = false;
            tracing::debug!(host = shown, program, %end, "detached command ended");
            Ok(Spawned::Ended(end))
        }
        None if waited => Err(connection.lost(&format!("waiting for '{program}' (process {})", process.pid))),
        None => {
            tracing::debug!(host = shown, program, pid = process.pid, "detached command runs");
            Ok(Spawned::Running(process.pid))
        }
    }
}

/// Retires the connection unless the process is gone.
struct Staying<'a> {
    connection: &'a Connection,
    stays: bool,
}

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        if self.stays {
            self.connection.retire();
        }
    }
}
