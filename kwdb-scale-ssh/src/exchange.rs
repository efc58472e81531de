//! One line run on one session: what is sent, what comes back, how it ends.

use kwdb_scale_core::ports::{CommandEnd, PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use std::time::Duration;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Pty, Sig};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::config::{Answer, Privilege};
use crate::connection::Session;
use crate::script::{Process, Said, ends_in_start, find, find_bare, prompt};

/// Looked through for the mark; login scripts that say more lose the start of it.
const NOISE: usize = 64 << 10;
/// Longer than any line with the mark.
const LINE: usize = 256;
/// How long a command may take before its watcher on the host begins to count.
const HOLD: Duration = Duration::from_secs(1);
/// So many characters are shown of what sudo or a login shell says.
const WORDS: usize = 200;
/// Of a terminal's output, looked through for a prompt.
const PROMPT_TAIL: usize = 4 << 10;

/// A running exchange. Whoever has one reads it to its end or closes it.
pub(crate) struct Exchange {
    read: ChannelReadHalf,
    /// `None` once closed.
    write: Option<ChannelWriteHalf<Msg>>,
    feed: mpsc::UnboundedSender<Feed>,
    /// Writes what is fed, so that reading never waits for writing.
    writer: tokio::task::JoinHandle<()>,
    pub(crate) out: Capture,
    pub(crate) err: Capture,
    mark: String,
    stdin: Option<Vec<u8>>,
    held: bool,
    /// Whether sudo may ask for a password.
    asks: bool,
    sudo: Option<Secret>,
    answers: std::vec::IntoIter<Answer>,
    next: Option<Answer>,
    tail: Vec<u8>,
    pub(crate) said: Option<Said>,
    pub(crate) end: Option<CommandEnd>,
    pub(crate) sudo_refused: bool,
    refused: bool,
    _permit: OwnedSemaphorePermit,
}

enum Feed {
    Bytes(Vec<u8>),
    /// The end of input, but not before [`HOLD`] is over or the next is fed.
    HeldEof,
    Eof,
}

/// What to run and what to say to it.
pub(crate) struct Order {
    pub(crate) line: String,
    pub(crate) mark: String,
    pub(crate) stdin: Option<Vec<u8>>,
    /// Whether a watcher waits for the end of input, and nobody else.
    pub(crate) held: bool,
    pub(crate) sudo: Option<Secret>,
    /// `Some`: on a terminal.
    pub(crate) terminal: Option<Vec<Answer>>,
    pub(crate) cap: usize,
}

/// Something happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// There is more to come.
    More,
    /// The channel is closed.
    Closed,
}

impl Exchange {
    /// Sends the line. An error means that the connection is gone; the line may have arrived.
    pub(crate) async fn start(session: Session, order: Order) -> Result<Self, russh::Error> {
        let Session { channel, permit } = session;
        let (read, write) = channel.split();
        let (feed, fed) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write_all(write.make_writer(), fed));
        let terminal = order.terminal.is_some();
        let mut answers = order.terminal.unwrap_or_default().into_iter();
        // Complete before the first message, so that a caller who goes away leaves no open channel.
        let this = Self {
            read,
            write: Some(write),
            feed,
            writer,
            out: Capture::new(order.cap),
            err: Capture::new(order.cap),
            mark: order.mark,
            // A terminal has no end of input: it stays open.
            stdin: if terminal { None } else { Some(order.stdin.unwrap_or_default()) },
            held: order.held,
            asks: order.sudo.is_some(),
            sudo: order.sudo,
            next: answers.next(),
            answers,
            tail: Vec::new(),
            said: None,
            end: None,
            sudo_refused: false,
            refused: false,
            _permit: permit,
        };
        if let Some(write) = &this.write {
            if terminal {
                // No echo of what is typed, no carriage returns in what comes back.
                let modes = [(Pty::ECHO, 0), (Pty::OPOST, 0), (Pty::ICRNL, 1)];
                write.request_pty(true, "dumb", 80, 24, 0, 0, &modes).await?;
            }
            write.exec(true, order.line).await?;
        }
        Ok(this)
    }

    /// The process, once it is known.
    pub(crate) fn process(&self) -> Option<Process> {
        match self.said {
            Some(Said::Start(process)) => Some(process),
            _ => None,
        }
    }

    /// Takes the next message in. May be dropped and called again.
    pub(crate) async fn step(&mut self) -> Step {
        match self.read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                let fresh = self.out.take(&data);
                self.look(fresh, data.len());
            }
            Some(ChannelMsg::ExtendedData { data, ext: 1 }) => {
                self.err.take(&data);
                self.look(Vec::new(), data.len());
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.ended(CommandEnd::Exit(i32::try_from(exit_status).unwrap_or(-1)));
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.ended(CommandEnd::Signal(number(&signal_name)));
            }
            Some(ChannelMsg::Failure) => self.refused = true,
            Some(ChannelMsg::Close) | None => {
                // No data comes after a channel's end.
                return Step::Closed;
            }
            Some(ChannelMsg::Eof) => {
                self.out.ended = true;
                self.err.ended = true;
            }
            Some(_) => {}
        }
        if self.refused { Step::Closed } else { Step::More }
    }

    fn ended(&mut self, end: CommandEnd) {
        self.end = Some(end);
        // OpenSSH ends the input by itself now; another server may not.
        if self.held {
            self.send(Feed::Eof);
        }
    }

    /// Looks at what came, so many bytes, for the mark and for prompts.
    fn look(&mut self, fresh: Vec<u8>, came: usize) {
        if self.said.is_none() {
            let (seen, tail) = self.out.tail(came);
            if let Some((said, at)) = find(tail, &self.mark) {
                let rest = self.out.begin(seen + at);
                self.said = Some(said);
                if let Some(bytes) = self.stdin.take() {
                    if !bytes.is_empty() {
                        self.send(Feed::Bytes(bytes));
                    }
                    self.send(if self.held { Feed::HeldEof } else { Feed::Eof });
                }
                self.expect(&rest);
            } else if self.asks {
                self.ask_sudo();
            }
        } else {
            self.expect(&fresh);
        }
        let (seen, tail) = self.err.tail(came);
        if self.err.waits
            && let Some(at) = find_bare(tail, &self.mark)
        {
            self.err.begin(seen + at);
        }
    }

    /// Answers sudo, which asks on standard error, or on the terminal if there is one.
    fn ask_sudo(&mut self) {
        let prompt = prompt(&self.mark);
        let asked = [&self.err.noise, &self.out.noise]
            .iter()
            .map(|noise| noise.windows(prompt.len()).filter(|w| *w == prompt.as_bytes()).count())
            .sum::<usize>();
        match (asked, self.sudo.take()) {
            (0, secret) => self.sudo = secret,
            (1, Some(secret)) => self.send(Feed::Bytes(format!("{}\n", secret.expose()).into_bytes())),
            // It was answered already, and asks again.
            (1, None) => {}
            _ => self.sudo_refused = true,
        }
    }

    /// Answers the next prompt when it stands in the output.
    fn expect(&mut self, fresh: &[u8]) {
        if self.next.is_none() {
            return;
        }
        self.tail.extend_from_slice(fresh);
        while let Some(answer) = &self.next {
            let prompt = answer.prompt.as_bytes();
            let at = match prompt.is_empty() {
                true => Some(0),
                false => self.tail.windows(prompt.len()).position(|w| w == prompt),
            };
            let Some(at) = at else { break };
            self.tail.drain(..at + prompt.len());
            let typed = format!("{}\n", answer.secret.expose()).into_bytes();
            self.next = self.answers.next();
            self.send(Feed::Bytes(typed));
        }
        let keep = PROMPT_TAIL.max(self.next.as_ref().map_or(0, |a| a.prompt.len()));
        self.tail.drain(..self.tail.len().saturating_sub(keep));
    }

    /// A prompt that never came.
    pub(crate) fn unanswered(&self) -> Option<&str> {
        self.next.as_ref().map(|answer| answer.prompt.as_str())
    }

    fn send(&self, feed: Feed) {
        // Fails only when the connection is gone, which reading tells.
        let _ = self.feed.send(feed);
    }

    /// Whether the server refused the request.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused || self.sudo_refused
    }

    /// The error of an end within what our line says when it begins: the command may have run, its output was cut.
    fn cut_short(&self, host: &str, program: &str) -> Option<PortError> {
        let began = !self.err.waits
            || [&self.out.noise, &self.err.noise].iter().any(|noise| ends_in_start(noise, &self.mark));
        if self.said.is_some() || self.was_refused() || !began {
            return None;
        }
        let end = self.end.map(|end| format!(" ({end})")).unwrap_or_default();
        Some(PortError::new(
            PortErrorKind::ConnectionLost,
            format!(
                "what '{host}' said was cut short at the start of '{program}'{end}: it may have run, and its output \
                 was lost on the way"
            ),
        ))
    }

    /// What to say when it ended without having told that it began.
    pub(crate) fn not_begun(&self, host: &str, program: &str, privilege: &Privilege) -> PortError {
        if let Some(error) = self.cut_short(host, program) {
            return error;
        }
        let end = self.end.map(|end| format!(" ({end})")).unwrap_or_default();
        // With a terminal there is one output.
        let said = [&self.err.noise, &self.out.noise]
            .into_iter()
            .find_map(|noise| words(noise, &prompt(&self.mark), privilege.password()));
        let (kind, why) = match (self.refused, self.sudo_refused, privilege.is_sudo()) {
            (true, ..) => (
                PortErrorKind::Denied,
                "the server refuses to run commands, or to give a terminal".to_owned(),
            ),
            (_, true, _) => {
                (PortErrorKind::Authentication, "sudo did not accept the password: correct it".to_owned())
            }
            (.., true) => {
                let why =
                    said.unwrap_or_else(|| "it may be missing, want a password, or not allow it".to_owned());
                (PortErrorKind::Denied, format!("sudo did not run it{end}: {why}"))
            }
            _ => {
                let said = said.map(|said| format!("; it said '{said}'")).unwrap_or_default();
                let why = "it may be restricted, or not a POSIX shell";
                (PortErrorKind::Denied, format!("the login shell did not run it{end}: {why}{said}"))
            }
        };
        PortError::new(kind, format!("no command can be run on '{host}': {why}"))
    }

    /// Closes the channel; what still runs on the host is left alone.
    pub(crate) async fn close(mut self) {
        if let Some(write) = self.write.take() {
            let _ = write.close().await;
        }
    }
}

impl Drop for Exchange {
    /// A channel that is neither read nor closed would, in the end, hold the whole connection up.
    fn drop(&mut self) {
        self.writer.abort();
        if let (Some(write), Ok(runtime)) = (self.write.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { write.close().await });
        }
    }
}

async fn write_all(writer: impl tokio::io::AsyncWrite + Send, mut fed: mpsc::UnboundedReceiver<Feed>) {
    use tokio::io::AsyncWriteExt;
    let mut writer = std::pin::pin!(writer);
    while let Some(feed) = fed.recv().await {
        let result = match feed {
            Feed::Bytes(bytes) => writer.write_all(&bytes).await,
            Feed::Eof => writer.shutdown().await,
            Feed::HeldEof => {
                let _ = tokio::time::timeout(HOLD, fed.recv()).await;
                writer.shutdown().await
            }
        };
        if let Err(e) = result {
            // A command that does not read its input to the end is no failure: its exit says what is.
            tracing::debug!(error = %e, "standard input was not taken to its end");
            return;
        }
    }
}

/// What is kept of one output.
#[derive(Debug)]
pub(crate) struct Capture {
    /// What came before the mark.
    noise: Vec<u8>,
    waits: bool,
    kept: Vec<u8>,
    cap: usize,
    cut: bool,
    ended: bool,
}

impl Capture {
    fn new(cap: usize) -> Self {
        Self { noise: Vec::new(), waits: true, kept: Vec::new(), cap, cut: false, ended: false }
    }

    /// Keeps the first bytes and drops the rest, so that the command is never blocked. Gives what it was given, if
    /// that is the command's.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.waits {
            self.noise.extend_from_slice(bytes);
            self.noise.drain(..self.noise.len().saturating_sub(NOISE + bytes.len()));
            return Vec::new();
        }
        let keep = bytes.len().min(self.cap.saturating_sub(self.kept.len()));
        self.kept.extend_from_slice(bytes.get(..keep).unwrap_or_default());
        self.cut |= keep < bytes.len();
        bytes.to_vec()
    }

    /// The noise in which a line of ours can end that did not end before the last `came` bytes, and where it begins.
    fn tail(&self, came: usize) -> (usize, &[u8]) {
        let seen = self.noise.len().saturating_sub(came + LINE);
        (seen, self.noise.get(seen..).unwrap_or_default())
    }

    /// The command's output begins at `at` of the noise. Gives it.
    fn begin(&mut self, at: usize) -> Vec<u8> {
        self.waits = false;
        let noise = std::mem::take(&mut self.noise);
        self.take(noise.get(at..).unwrap_or_default())
    }

    /// Whether something may be missing.
    pub(crate) fn incomplete(&self) -> bool {
        self.cut || !self.ended
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }
}

/// Why nothing was run, as sudo or the login shell says it: one line without control characters, and without anything
/// that was given to them. After `prompt`, sudo's, where there is one; a line of sudo's before one of a login script.
fn words(noise: &[u8], prompt: &str, password: Option<&Secret>) -> Option<String> {
    let text = String::from_utf8_lossy(noise);
    let text = text.rsplit(prompt).next().unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A warning that goes with every sudo on a host whose own name is unknown.
    let of_sudo = |line: &&&str| line.contains("sudo") && !line.contains("unable to resolve host");
    let line = lines.iter().find(of_sudo).or(lines.first())?;
    // sudo repeats the command that it does not allow, with the path of the shell.
    let line = match line.split_once("sh -c ") {
        Some((before, _)) => before.rsplit_once(' ').map_or("", |(before, _)| before),
        None => line,
    };
    let given = password.is_some_and(|password| line.contains(password.expose()));
    let said: String = line.chars().filter(|c| !c.is_control()).take(WORDS).collect();
    (!given && !said.trim().is_empty()).then(|| said.trim().to_owned())
}

/// The number that Linux gives a signal; 0 for one unknown.
fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::USR1 => 10,
        Sig::Custom(name) => match name.split('@').next().unwrap_or_default() {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "STKFLT" => 16,
            "XCPU" => 24,
            "XFSZ" => 25,
            "SYS" => 31,
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sudo_says_is_one_line_that_holds_nothing_given_to_it() {
        let words = |noise: &str| words(noise.as_bytes(), "mark-password:", Some(&Secret::new("hunter2")));
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(words("sudo: unknown user: nobody2\nsudo: error\n"), said("sudo: unknown user: nobody2"));
        assert_eq!(
            words("stty: no terminal\r\nsudo: a password is required\r\n"),
            said("sudo: a password is required")
        );
        let asked = "We trust you have received the lecture.\n\nmark-password:ops is not in the sudoers file.\nIt was told.\n";
        assert_eq!(words(asked), said("ops is not in the sudoers file."));
        let refused =
            "Sorry, user ops is not allowed to execute '/usr/bin/sh -c n=$1 secret' as root on db1.\n";
        assert_eq!(words(refused), said("Sorry, user ops is not allowed to execute"));
        let host = "sudo: unable to resolve host db1: Name or service not known\n";
        assert_eq!(words(&format!("{host}sudo: unknown user: x\n")), said("sudo: unknown user: x"));
        assert_eq!(words(host), said(host.trim_end()));
        assert_eq!(
            words("\u{1b}[31mThis account\u{7} is not available.\n"),
            said("[31mThis account is not available.")
        );
        assert_eq!(words(&"é".repeat(300)).unwrap().chars().count(), 200);
        for nothing in ["", "\n \r\n", "mark-password:", "sudo: hunter2 is wrong\n", "sh -c x"] {
            assert_eq!(words(nothing), None, "{nothing}");
        }
    }
}
