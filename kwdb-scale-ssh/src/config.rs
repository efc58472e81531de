//! How a host is reached: address, login, host key, way, privilege.

use std::path::PathBuf;
use std::time::Duration;

use kwdb_scale_core::ports::PortError;
use kwdb_scale_core::secret::Secret;

use crate::error::config;
use crate::host_keys::HostKeyPolicy;

/// A host and how to reach it.
///
/// ```
/// use kwdb_scale_core::secret::Secret;
/// use kwdb_scale_ssh::{Agent, HostKeyPolicy, KeyFile, Privilege, SshHost};
///
/// let keys = HostKeyPolicy::Strict { files: vec!["/etc/ssh/ssh_known_hosts".into()] };
/// let bastion = SshHost::new("bastion.example.com", "ops", keys.clone()).login(Agent::from_env());
/// let node = SshHost::new("10.0.0.1", "ops", keys)
///     .port(2222)
///     .login(KeyFile::new("/home/ops/.ssh/id_ed25519").passphrase(Secret::new("…")))
///     .via(bastion)
///     .privilege(Privilege::Sudo { user: Some("kaiwudb".into()) });
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct SshHost {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) logins: Vec<Login>,
    pub(crate) host_keys: HostKeyPolicy,
    pub(crate) known_as: Option<String>,
    pub(crate) revoked: Vec<PathBuf>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) via: Option<Box<SshHost>>,
    pub(crate) privilege: Privilege,
}

impl SshHost {
    /// A host at a DNS name or an IP address (without brackets), port 22.
    pub fn new(address: impl Into<String>, user: impl Into<String>, host_keys: HostKeyPolicy) -> Self {
        Self {
            address: address.into(),
            port: 22,
            user: user.into(),
            logins: Vec::new(),
            host_keys,
            known_as: None,
            revoked: Vec::new(),
            connect_timeout: None,
            via: None,
            privilege: Privilege::AsIs,
        }
    }

    /// Another port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// One more way to log in. They are tried in the order given; servers end the connection after a few that fail
    /// (`MaxAuthTries`, 6 by default, where every key of an agent counts).
    pub fn login(mut self, login: impl Into<Login>) -> Self {
        self.logins.push(login.into());
        self
    }

    /// How long this host may take to answer and let us in, instead of [`SshLimits::connect`] (`ConnectTimeout`).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// A file of host keys and authorities that are never accepted, whatever else is known of them: public keys, one
    /// a line (`RevokedHostKeys`). Read anew for every connection, which fails when the file cannot be read or holds
    /// anything else: a binary revocation list of `ssh-keygen -k` is not understood.
    pub fn revoked_keys(mut self, file: impl Into<PathBuf>) -> Self {
        self.revoked.push(file.into());
        self
    }

    /// The name under which the host is looked up in known_hosts files, instead of its address and port
    /// (`HostKeyAlias`).
    pub fn known_as(mut self, name: impl Into<String>) -> Self {
        self.known_as = Some(name.into());
        self
    }

    /// Reaches the host through a connection to another (`ProxyJump`). Hosts behind the same jump host share one
    /// connection to it.
    pub fn via(mut self, jump: SshHost) -> Self {
        self.via = Some(Box::new(jump));
        self
    }

    /// As whom commands run and files are written.
    pub fn privilege(mut self, privilege: Privilege) -> Self {
        self.privilege = privilege;
        self
    }

    /// `address:port`, for messages.
    pub(crate) fn shown(&self) -> String {
        match self.address.contains(':') {
            true => format!("[{}]:{}", self.address, self.port),
            false => format!("{}:{}", self.address, self.port),
        }
    }

    /// The same as far as the connection is concerned: hosts of which this is equal share one.
    pub(crate) fn connection(&self) -> Self {
        self.clone().privilege(Privilege::AsIs)
    }

    pub(crate) fn check(&self) -> Result<(), PortError> {
        // These become fields of known_hosts lines and words of command lines.
        let plain = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && !text.chars().any(|c| {
                    c.is_whitespace()
                        || c.is_control()
                        || matches!(c, '*' | '?' | '!' | ',' | '|' | '[' | ']' | '#' | '@' | '/')
                })
        };
        for (what, text) in [("address", Some(&self.address)), ("known_hosts name", self.known_as.as_ref())] {
            if text.is_some_and(|text| !plain(text)) {
                return Err(config(format!(
                    "the {what} '{}' of an SSH host is not a DNS name or an IP address",
                    text.map(|t| t.escape_default().to_string()).unwrap_or_default()
                )));
            }
        }
        if self.user.is_empty() || self.user.starts_with('-') || self.user.chars().any(char::is_control) {
            return Err(config(format!(
                "the user '{}' to log in to '{}' as is no user's name (it is empty, begins with a dash, or holds control characters): write the name alone",
                self.user.escape_default(),
                self.shown()
            )));
        }
        if self.port == 0 {
            return Err(config(format!("'{}' has port 0", self.address)));
        }
        if self.logins.is_empty() {
            return Err(config(format!(
                "no way to log in to '{}' is given: name a key file that is there (IdentityFile), or an agent (SSH_AUTH_SOCK, IdentityAgent)",
                self.shown()
            )));
        }
        if let Some(user) = self.privilege.user()
            && (user.is_empty()
                || user.starts_with('-')
                || user.chars().any(|c| c.is_control() || c.is_whitespace()))
        {
            return Err(config(format!(
                "the user '{}' that sudo is to run commands as on '{}' is no user's name (it is empty, begins with a dash, or holds spaces): write \
                 the name alone",
                user.escape_default(),
                self.shown()
            )));
        }
        // sudo reads one line. The rest would be the standard input of what it runs.
        if let Some(password) = self.privilege.password()
            && let Some(sign) = password.expose().chars().find(|c| matches!(c, '\n' | '\r' | '\0'))
        {
            return Err(config(format!(
                "the password for sudo on '{}' holds {}, with which what comes after it would be given to the command: leave it out (a \
                 file of a password often ends with a line break)",
                self.shown(),
                named(sign)
            )));
        }
        self.host_keys.check()?;
        self.via.as_ref().map_or(Ok(()), |jump| jump.check())
    }
}

/// A way to log in.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Login {
    /// With a private key in a file.
    Key(KeyFile),
    /// With the keys of an SSH agent.
    Agent(Agent),
    /// With the `password` method.
    Password(Secret),
    /// With the `keyboard-interactive` method: the first answer whose prompt is part of what the server asks.
    KeyboardInteractive(Vec<Answer>),
}

impl From<KeyFile> for Login {
    fn from(key: KeyFile) -> Self {
        Self::Key(key)
    }
}

impl From<Agent> for Login {
    fn from(agent: Agent) -> Self {
        Self::Agent(agent)
    }
}

/// A private key in a file: OpenSSH, PKCS#1, PKCS#8, SEC1 or PuTTY format. Whether others may read the file is not judged,
/// though `ssh` refuses such a file.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct KeyFile {
    pub(crate) path: PathBuf,
    pub(crate) passphrase: Option<Secret>,
    pub(crate) certificate: Option<PathBuf>,
}

impl KeyFile {
    /// The key in the file at `path`, read anew for every connection. An encrypted one is opened once, and again when
    /// the file has changed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), passphrase: None, certificate: None }
    }

    /// What the key is encrypted with.
    pub fn passphrase(mut self, passphrase: Secret) -> Self {
        self.passphrase = Some(passphrase);
        self
    }

    /// The OpenSSH certificate of the key (`…-cert.pub`). Where it cannot be used, the key is tried without it.
    pub fn certificate(mut self, path: impl Into<PathBuf>) -> Self {
        self.certificate = Some(path.into());
        self
    }
}

/// An SSH agent and which of its keys to offer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Agent {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) only: Vec<PathBuf>,
    pub(crate) first: Vec<PathBuf>,
}

impl Agent {
    /// The agent that `SSH_AUTH_SOCK` names.
    pub fn from_env() -> Self {
        Self::default()
    }

    /// The agent that listens at `socket`.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: Some(socket.into()), ..Self::default() }
    }

    /// Offers only keys (and their certificates) whose public key stands in one of the files named with this method:
    /// `.pub` files, or private keys, which need not be opened for that.
    pub fn only(mut self, public_key: impl Into<PathBuf>) -> Self {
        self.only.push(public_key.into());
        self
    }

    /// Offers the keys (and their certificates) whose public key stands in one of the files named with this method before
    /// the others, so that the right one comes before the server has had enough. A file that names no key is passed over.
    pub fn first(mut self, public_key: impl Into<PathBuf>) -> Self {
        self.first.push(public_key.into());
        self
    }
}

/// What to send when somebody asks: in a login dialogue, or on a terminal, where it may hold no control characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    pub(crate) prompt: String,
    pub(crate) secret: Secret,
}

impl Answer {
    /// Sends `secret` when `prompt` is part of what is asked.
    pub fn new(prompt: impl Into<String>, secret: Secret) -> Self {
        Self { prompt: prompt.into(), secret }
    }

    /// Fails when it cannot be typed on a terminal.
    pub(crate) fn check_typed(&self) -> Result<(), PortError> {
        typed(&self.secret, &format!("the answer to the prompt '{}'", self.prompt.escape_default()))
    }
}

/// Fails when `secret`, which `what` names, cannot be typed on a terminal, where a control character does something: a line break
/// answers the next prompt too, others end the command or delete what was typed.
fn typed(secret: &Secret, what: &str) -> Result<(), PortError> {
    match secret.expose().chars().find(|c| c.is_control()) {
        Some(sign) => Err(config(format!(
            "{what} holds {}, which a terminal does not take as part of an answer; nothing was run: leave it out (a file of a \
             password often ends with a line break)",
            named(sign)
        ))),
        None => Ok(()),
    }
}

/// A control character, for a message about a secret that holds it.
fn named(sign: char) -> String {
    match sign {
        '\n' => "a line break".to_owned(),
        '\r' => "a carriage return".to_owned(),
        '\0' => "a NUL".to_owned(),
        '\t' => "a tab".to_owned(),
        _ => "a control character".to_owned(),
    }
}

/// As whom commands run, files are written and read, and processes are started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Privilege {
    /// As the user who logs in.
    #[default]
    AsIs,
    /// Through `sudo -n`, which never asks for a password.
    Sudo {
        /// `sudo -u`; root when absent.
        user: Option<String>,
    },
    /// Through `sudo -S`. The password is written to sudo's standard input when sudo asks, and only then.
    SudoPassword {
        /// `sudo -u`; root when absent.
        user: Option<String>,
        /// The password that sudo asks for: one line, without a line break.
        password: Secret,
    },
}

impl Privilege {
    fn user(&self) -> Option<&str> {
        match self {
            Self::AsIs => None,
            Self::Sudo { user } | Self::SudoPassword { user, .. } => user.as_deref(),
        }
    }

    /// What stands before the command. `prompt` is what sudo asks with.
    pub(crate) fn prefix(&self, prompt: &str) -> Vec<String> {
        let mut argv = match self {
            Self::AsIs => return Vec::new(),
            Self::Sudo { .. } => vec!["sudo".to_owned(), "-n".to_owned()],
            Self::SudoPassword { .. } => ["sudo", "-S", "-p", prompt].map(str::to_owned).to_vec(),
        };
        if let Some(user) = self.user() {
            argv.extend(["-u".to_owned(), user.to_owned()]);
        }
        argv.push("--".to_owned());
        argv
    }

    pub(crate) fn is_sudo(&self) -> bool {
        !matches!(self, Self::AsIs)
    }

    /// Fails when the password cannot be typed on a terminal.
    pub(crate) fn check_typed(&self) -> Result<(), PortError> {
        self.password().map_or(Ok(()), |password| typed(password, "the password for sudo"))
    }

    pub(crate) fn password(&self) -> Option<&Secret> {
        match self {
            Self::SudoPassword { password, .. } => Some(password),
            Self::AsIs | Self::Sudo { .. } => None,
        }
    }
}

/// How much is done at once, and how long a connection may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SshLimits {
    /// Handshakes at once, over all hosts of the transport. sshd begins to refuse at 10 that are not logged in
    /// (`MaxStartups`), which matters where hosts share one, as behind a jump host. A host that does not answer
    /// within half a second is waited for without being counted.
    pub handshakes: usize,
    /// Commands and file transfers at once on one connection. sshd allows 10 (`MaxSessions`), of which two are kept
    /// for ending commands.
    pub sessions: usize,
    /// For connecting, the key exchange and the login together, of each host on the way. A server that closes before
    /// the key exchange is done, as sshd does when too many are logging in, is tried up to six times within it, with
    /// pauses of 3.1 s in all.
    pub connect: Duration,
    /// Between two signs of life asked of a silent server; after three without an answer the connection is lost.
    pub keepalive: Duration,
}

impl Default for SshLimits {
    /// 8 handshakes, 8 sessions, 20 s to connect, a sign of life every 15 s.
    fn default() -> Self {
        Self {
            handshakes: 8,
            sessions: 8,
            connect: Duration::from_secs(20),
            keepalive: Duration::from_secs(15),
        }
    }
}

impl SshLimits {
    pub(crate) fn check(&self) -> Result<(), PortError> {
        if self.handshakes == 0 || self.sessions == 0 || self.connect.is_zero() || self.keepalive.is_zero() {
            return Err(config("a limit of the SSH transport is zero"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kwdb_scale_core::ports::PortErrorKind;

    use super::*;

    #[test]
    fn a_sudo_password_is_one_line() {
        let host = |password: &str| {
            let keys = HostKeyPolicy::Strict { files: vec!["/etc/ssh/ssh_known_hosts".into()] };
            let password = Secret::new(password);
            let privilege = Privilege::SudoPassword { user: None, password };
            SshHost::new("n1.example.com", "ops", keys).login(Agent::from_env()).privilege(privilege).check()
        };
        for password in ["hunter2", "t\tab", "", "ümlaut \u{7f}"] {
            assert!(host(password).is_ok());
        }
        for (password, name) in
            [("hunter2\n", "a line break"), ("hun\rter2", "a carriage return"), ("hunter2\0", "a NUL")]
        {
            let error = host(password).unwrap_err();
            assert_eq!(error.kind(), PortErrorKind::Config);
            let text = error.to_string();
            assert!(
                text.contains(name) && text.contains("n1.example.com") && !text.contains("ter2"),
                "{text}"
            );
            assert!(!text.contains("hun"), "{text}");
        }
    }

    #[test]
    fn an_answer_on_a_terminal_has_no_control_characters() {
        let answer = |secret: &str| Answer::new("Password:", Secret::new(secret)).check_typed();
        assert!(answer("correct horse ü").is_ok());
        for (secret, name) in [
            ("hunter2\nyes", "a line break"),
            ("hunter2\r", "a carriage return"),
            ("hunter2\0", "a NUL"),
            ("hun\tter2", "a tab"),
            ("hunter2\u{3}", "a control character"),
            ("hunter2\u{4}", "a control character"),
            ("hunter2\u{7f}", "a control character"),
        ] {
            let error = answer(secret).unwrap_err();
            assert_eq!(error.kind(), PortErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("'Password:'") && !text.contains("hun"), "{text}");
        }
    }
}
