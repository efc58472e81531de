//! A person's ssh_config, as OpenSSH itself reads it: `ssh -G` resolves `Host`, `Match` and `Include`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use tokio::process::Command;
use tokio::time::timeout;

use crate::config::{Agent, KeyFile, SshHost};
use crate::error::{SshFault, blocking, config, local_file_kind};
use crate::host_keys::HostKeyPolicy;
use crate::keys::{is_public, public_key};
use crate::paths::{expand, separate, split_home};

/// `ssh -G` reads files only, but a `Match exec` may run anything.
const DEADLINE: Duration = Duration::from_secs(30);
/// Tokens of paths that only `ssh` knows. Every release since 7.2 takes them in a ControlPath, which `ssh -G` shows with their values.
const TOKENS: [char; 7] = ['C', 'i', 'L', 'l', 'n', 'p', 'u'];
/// Between the values; stands in none of them.
const SEPARATOR: char = '\u{1f}';
/// Jump hosts behind jump hosts; more is a circle.
const MOST_JUMPS: usize = 8;

/// Reads hosts out of an ssh_config by asking `ssh -G`, which must be installed.
///
/// Taken over are HostName, User, Port, ConnectTimeout, HostKeyAlias, IdentityFile (those that exist), CertificateFile,
/// IdentitiesOnly, IdentityAgent, ProxyJump, UserKnownHostsFile, GlobalKnownHostsFile, HashKnownHosts, RevokedHostKeys (a list of
/// keys) and StrictHostKeyChecking, of which `no` and `ask` mean `yes`, because nobody can be asked. A ProxyCommand and a
/// KnownHostsCommand, which may also revoke keys, are refused with [`Unsupported`](PortErrorKind::Unsupported). Everything else is left to
/// this crate.
///
/// Paths hold the tokens that ssh_config(5) allows in them, and `${VARIABLE}` of this process.
///
/// The agent's keys that an IdentityFile names come first, then its others unless IdentitiesOnly is set, then the files, as for `ssh`.
/// An IdentityFile that holds a public key stands for that key in the agent.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use kwdb_scale_ssh::{SshConfig, SshTransport};
///
/// let host = SshConfig::of_user().host("db1").await?;
/// let transport = SshTransport::new([("db1".into(), host)])?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SshConfig {
    program: PathBuf,
    file: Option<PathBuf>,
}

impl SshConfig {
    /// `~/.ssh/config` and `/etc/ssh/ssh_config`.
    pub fn of_user() -> Self {
        Self { program: "ssh".into(), file: None }
    }

    /// This file only (`ssh -F`).
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self { program: "ssh".into(), file: Some(path.into()) }
    }

    /// Another `ssh` than the one on the `PATH`.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// The host that `ssh NAME` would connect to. More ways to log in can be added to it.
    ///
    /// Fails with [`NotFound`](PortErrorKind::NotFound) where `ssh` is not installed, and with
    /// [`Config`](PortErrorKind::Config) where it does not like its configuration. Whether that is so for every host alike is
    /// told by [`SshFault::of`].
    pub async fn host(&self, name: &str) -> Result<SshHost, PortError> {
        self.resolve(&Target::parse(name)?, 0).await
    }

    async fn resolve(&self, target: &Target, depth: usize) -> Result<SshHost, PortError> {
        if depth > MOST_JUMPS {
            return Err(config(format!("the jump hosts of '{}' go in a circle", target.host)));
        }
        let settings = Settings::parse(&self.ask(target).await?);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let reading = (settings.clone(), target.host.clone());
        let mut host = blocking(move || reading.0.host(&reading.1, home.as_deref())).await?;
        let jumps = settings.one("proxyjump").filter(|j| *j != "none").unwrap_or_default().to_owned();
        // The first is reached as its own settings say, each other through the one before.
        let mut before: Option<SshHost> = None;
        for jump in jumps.split(',').map(str::trim).filter(|j| !j.is_empty()) {
            let next = Box::pin(self.resolve(&Target::parse(jump)?, depth + 1)).await?;
            before = Some(match before {
                Some(before) => next.via(before),
                None => next,
            });
        }
        if let Some(jump) = before {
            host = host.via(jump);
        }
        Ok(host)
    }

    async fn ask(&self, target: &Target) -> Result<String, PortError> {
        let output = self.resolved(target).await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("no reason given");
        let error =
            config(format!("'{} -G' cannot resolve '{}': {reason}", self.program.display(), target.host));
        // What it does not like may be this name alone.
        let other = Target { user: None, host: "localhost".to_owned(), port: None };
        match self.resolved(&other).await?.status.success() {
            true => Err(error),
            false => Err(error.with_source(SshFault::SshConfig.caused_by(reason.to_owned()))),
        }
    }

    /// What `ssh -G` says of it.
    async fn resolved(&self, target: &Target) -> Result<Output, PortError> {
        let mut command = Command::new(&self.program);
        let tokens: String = TOKENS.iter().map(|token| format!("{SEPARATOR}%{token}")).collect();
        command.arg("-G").arg("-o").arg(format!("ControlPath=/{tokens}"));
        if let Some(file) = &self.file {
            command.arg("-F").arg(file);
        }
        if let Some(user) = &target.user {
            command.arg("-l").arg(user);
        }
        if let Some(port) = target.port {
            command.arg("-p").arg(port.to_string());
        }
        command.arg("--").arg(&target.host).stdin(Stdio::null()).kill_on_drop(true);
        let shown = self.program.display();
        let output = timeout(DEADLINE, command.output()).await.map_err(|_| {
            let text = format!("'{shown} -G' does not end");
            PortError::new(PortErrorKind::Deadline, text.clone())
                .with_source(SshFault::SshConfig.caused_by(text))
        })?;
        output.map_err(|e| {
            let what = format!("'{shown}', which reads the ssh_config, cannot be run");
            let kind = local_file_kind(&e);
            PortError::new(kind, what).with_source(SshFault::SshConfig.caused_by(e))
        })
    }
}

/// `[ssh://][user@]host[:port]`
#[derive(Debug, Eq, PartialEq)]
struct Target {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Target {
    fn parse(text: &str) -> Result<Self, PortError> {
        let bad = || config(format!("'{}' is not a host of an ssh_config", text.escape_default()));
        let rest = text.strip_prefix("ssh://").unwrap_or(text);
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host, port) =
            match (rest.strip_prefix('[').and_then(|r| r.split_once(']')), rest.split_once(':')) {
                (Some((host, "")), _) => (host, None),
                (Some((host, port)), _) => (host, Some(port.strip_prefix(':').ok_or_else(bad)?)),
                // More than one colon: an IPv6 address.
                (None, Some((host, port))) if !port.contains(':') => (host, Some(port)),
                (None, _) => (rest, None),
            };
        let port = port.map(|p| p.parse().map_err(|_| bad())).transpose()?;
        let usable = |t: &str| !t.is_empty() && !t.starts_with('-') && !t.chars().any(char::is_control);
        match usable(host) && user.as_deref().is_none_or(usable) {
            true => Ok(Self { user, host: host.to_owned(), port }),
            false => Err(bad()),
        }
    }
}

/// What `ssh -G` printed: a keyword and its value on each line.
#[derive(Clone, Debug)]
struct Settings(BTreeMap<String, Vec<String>>);

impl Settings {
    fn parse(text: &str) -> Self {
        let mut map = BTreeMap::<String, Vec<String>>::new();
        for (keyword, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            map.entry(keyword.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
        }
        Self(map)
    }

    fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    fn one(&self, keyword: &str) -> Option<&str> {
        self.all(keyword).first().map(String::as_str)
    }

    /// Looks for key files. Blocks.
    fn host(&self, name: &str, home: Option<&Path>) -> Result<SshHost, PortError> {
        if let Some(command) = self.one("proxycommand").filter(|c| *c != "none") {
            let program = command.split_whitespace().next().unwrap_or_default();
            return Err(PortError::new(
                PortErrorKind::Unsupported,
                format!("'{name}' is reached by a ProxyCommand ('{program} …'): write a ProxyJump instead"),
            ));
        }
        if let Some(command) = self.one("knownhostscommand").filter(|c| *c != "none") {
            let program = command.split_whitespace().next().unwrap_or_default();
            return Err(PortError::new(
                PortErrorKind::Unsupported,
                format!(
                    "the host keys of '{name}' are asked of a KnownHostsCommand ('{program} …'), which is not run here: put them in \
                     a file (UserKnownHostsFile) and write 'KnownHostsCommand none' for this host"
                ),
            ));
        }
        let address = self.one("hostname").unwrap_or(name);
        let user =
            self.one("user").ok_or_else(|| config(format!("'{name}' has no user in the ssh_config")))?;
        let port = self.one("port").map_or(Ok(22), str::parse);
        let port =
            port.map_err(|e| config(format!("the port of '{name}' is not a number")).with_source(e))?;
        let alias = self.one("hostkeyalias");
        let tokens = self.tokens(address, user, alias);
        let expand = |path: &str| expand(path, home, &tokens);
        let mut host = SshHost::new(address, user, self.policy(home)?).port(port);
        if let Some(alias) = alias {
            host = host.known_as(alias);
        }
        if let Some(seconds) = self.one("connecttimeout").and_then(|t| t.parse().ok()).filter(|s| *s > 0) {
            host = host.connect_timeout(Duration::from_secs(seconds));
        }
        for file in self.files("revokedhostkeys", home)? {
            host = host.revoked_keys(file);
        }
        if self.one("pubkeyauthentication") == Some("no") || self.one("pubkeyauthentication") == Some("false")
        {
            return Ok(host);
        }
        let identities: Vec<PathBuf> = self
            .all("identityfile")
            .iter()
            .filter(|i| *i != "none")
            .map(|i| expand(i))
            .collect::<Result<_, _>>()?;
        let agent = self.agent(&expand)?;
        // A public key stands for the private one that the agent has.
        let in_agent = |identity: &Path| agent.is_some() && is_public(identity);
        let files: Vec<&PathBuf> = identities.iter().filter(|i| i.is_file() && !in_agent(i)).collect();
        if let Some(agent) = agent {
            let named: Vec<PathBuf> = identities.iter().filter_map(|i| public_file(i)).collect();
            if self.one("identitiesonly") != Some("yes") {
                host = host.login(named.into_iter().fold(agent, Agent::first));
            } else if !named.is_empty() {
                host = host.login(named.into_iter().fold(agent, Agent::only));
            }
        }
        let certificates: Vec<PathBuf> =
            self.all("certificatefile").iter().map(|c| expand(c)).collect::<Result<_, _>>()?;
        for identity in &files {
            let beside = with_suffix(identity, "-cert.pub");
            let certificate = certificates
                .iter()
                .find(|c| files.len() == 1 || belongs(c, identity))
                .cloned()
                .or_else(|| beside.is_file().then_some(beside));
            let key = KeyFile::new(identity.as_path());
            host = host.login(match certificate {
                Some(certificate) => key.certificate(certificate),
                None => key,
            });
        }
        Ok(host)
    }

    /// What the tokens of a path stand for.
    fn tokens(&self, address: &str, user: &str, alias: Option<&str>) -> BTreeMap<char, String> {
        let told = self.one("controlpath").unwrap_or_default().split(SEPARATOR).skip(1);
        let told = TOKENS.into_iter().zip(told.map(str::to_owned));
        // As it stands there with a release that does not know it.
        let mut tokens: BTreeMap<char, String> =
            told.filter(|(token, value)| *value != format!("%{token}")).collect();
        tokens.extend([('h', address.to_owned()), ('r', user.to_owned())]);
        if let Some(alias) = alias.map(str::to_owned).or_else(|| tokens.get(&'n').cloned()) {
            tokens.insert('k', alias);
        }
        tokens
    }

    /// The files of a setting that takes several, of which `ssh -G` has expanded all but the `~`.
    fn files(&self, keyword: &str, home: Option<&Path>) -> Result<Vec<PathBuf>, PortError> {
        let files =
            self.all(keyword).iter().flat_map(|line| separate(line, &|path| Path::new(path).is_file()));
        let path = |file: &str| split_home(file, home).map(|(home, rest)| (home + rest).into());
        files.filter(|file| *file != "none").map(path).collect()
    }

    fn policy(&self, home: Option<&Path>) -> Result<HostKeyPolicy, PortError> {
        let files = |keyword| self.files(keyword, home);
        let (user, global) = (files("userknownhostsfile")?, files("globalknownhostsfile")?);
        let also = |rest: &[PathBuf]| rest.iter().chain(&global).cloned().collect();
        Ok(match (self.one("stricthostkeychecking"), user.split_first()) {
            (Some("accept-new"), Some((file, rest))) => {
                let hashed = self.one("hashknownhosts") == Some("yes");
                HostKeyPolicy::AcceptNew { file: file.clone(), also: also(rest), hashed }
            }
            _ => HostKeyPolicy::Strict { files: also(&user) },
        })
    }

    fn agent(&self, expand: &dyn Fn(&str) -> Result<PathBuf, PortError>) -> Result<Option<Agent>, PortError> {
        let socket = match self.one("identityagent") {
            Some("none") => return Ok(None),
            None | Some("SSH_AUTH_SOCK") => std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            Some(variable) if variable.starts_with('$') => {
                let name = variable.trim_start_matches('$').trim_matches(['{', '}']);
                std::env::var_os(name).map(PathBuf::from)
            }
            // Releases up to 8.3 leave the tokens.
            Some(path) => Some(match Path::new(path).exists() {
                true => path.into(),
                false => expand(path)?,
            }),
        };
        Ok(socket.map(Agent::at))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The file that tells an identity's public key: its own, or the `.pub` beside it.
fn public_file(identity: &Path) -> Option<PathBuf> {
    [identity.to_owned(), with_suffix(identity, ".pub")].into_iter().find(|path| public_key(path).is_ok())
}

/// Whether a certificate is one of a key.
fn belongs(certificate: &Path, identity: &Path) -> bool {
    let key = public_file(identity).and_then(|path| public_key(&path).ok());
    key.is_some() && key == public_key(certificate).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let parse = |text| Target::parse(text).map(|t| (t.user, t.host, t.port)).ok();
        let some =
            |user: Option<&str>, host: &str, port| Some((user.map(str::to_owned), host.to_owned(), port));
        assert_eq!(parse("h"), some(None, "h", None));
        assert_eq!(parse("u@h:22"), some(Some("u"), "h", Some(22)));
        assert_eq!(parse("ssh://u@e.x@h"), some(Some("u@e.x"), "h", None));
        assert_eq!(parse("[::1]:22"), some(None, "::1", Some(22)));
        assert_eq!(parse("[::1]"), some(None, "::1", None));
        assert_eq!(parse("fe80::1"), some(None, "fe80::1", None));
        for bad in ["", "-oProxyCommand=x", "u@", "@h", "-l@h", "h:x", "h:99999", "a\nb", "[::1]22"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths() {
        let told = "hostname h\ncontrolpath /\u{1f}c0\u{1f}1000\u{1f}box\u{1f}%l\u{1f}N\u{1f}22\u{1f}me";
        let expand = |path: &str, alias| {
            let tokens = Settings::parse(told).tokens("h", "r", alias);
            expand(path, Some(Path::new("/home/u%")), &tokens).map(|p| p.display().to_string())
        };
        let good = |path| expand(path, None).unwrap();
        assert_eq!(good("~/.ssh/id"), "/home/u%/.ssh/id");
        assert_eq!(good("%d/%h-%r%%"), "/home/u%/h-r%");
        assert_eq!(good("/%C %i %L %n %p %u %k"), "/c0 1000 box N 22 me N");
        assert_eq!(expand("%k", Some("alias")).unwrap(), "alias");
        assert_eq!(good("/$x ${CARGO_PKG_NAME}}"), "/$x kwdb-scale-ssh}");
        for bad in ["~other/x", "%T", "%l", "${NO_SUCH_VARIABLE}/id", "${}", "${=}", "${X", "%", "%ä"] {
            let error = expand(bad, None).unwrap_err().to_string();
            assert!(error.contains(&format!("'{bad}'")), "{error}");
        }
    }

    #[test]
    fn never_less_than_strict() {
        for (word, new) in
            [("yes", false), ("ask", false), ("no", false), ("false", false), ("accept-new", true)]
        {
            let files = "userknownhostsfile /a /b\nglobalknownhostsfile /c";
            let text = format!("stricthostkeychecking {word}\nhashknownhosts no\n{files}\n");
            let policy = Settings::parse(&text).policy(None).unwrap();
            let (a, rest) = ("/a".into(), ["/b", "/c"].map(PathBuf::from));
            match new {
                true => {
                    assert_eq!(policy, HostKeyPolicy::AcceptNew { file: a, also: rest.into(), hashed: false })
                }
                false => assert_eq!(policy, HostKeyPolicy::Strict { files: [vec![a], rest.into()].concat() }),
            }
        }
    }

    #[test]
    fn commands_are_refused() {
        for (keyword, name) in [("proxycommand", "ProxyCommand"), ("knownhostscommand", "KnownHostsCommand")]
        {
            let host = |value: &str| Settings::parse(&format!("user u\n{keyword} {value}\n")).host("h", None);
            let error = host("nc secret %h").unwrap_err();
            assert_eq!(error.kind(), PortErrorKind::Unsupported);
            assert!(error.to_string().contains(name) && !error.to_string().contains("secret"), "{error}");
            let _host = host("none").unwrap();
        }
    }
}
