//! Logging in: each way in turn, as long as the server offers its method.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kwdb_scale_core::ports::{PortError, PortErrorKind};
use kwdb_scale_core::secret::Secret;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Reply};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use russh::{AgentAuthError, MethodKind, MethodSet};
use tokio::time::timeout;

use crate::config::{Agent, Answer, KeyFile, Login, SshHost};
use crate::connection::Client;
use crate::error::{blocking, config, unreachable};
use crate::keys::{CertificateOf, KeySigner, Keys, public_key};

/// A server may ask several times in one dialogue (a password, a code, a new password), not for ever.
const MOST_ROUNDS: usize = 10;
/// A password that is not answered by then may be one that the server wants changed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Logs in or says why not; nothing was done on the host then.
pub(crate) async fn log_in(
    handle: &mut Handle<Client>,
    host: &SshHost,
    keys: &Keys,
) -> Result<(), PortError> {
    let mut login =
        Attempts { handle, host, offered: None, tried: Vec::new(), declined: Vec::new(), unusable: None };
    for way in &host.logins {
        let done = match way {
            Login::Key(file) if login.offers(MethodKind::PublicKey) => match keys.open(file).await {
                Ok((key, certificate)) => login.key(file, key, certificate).await?,
                Err(error) => login.cannot_use(error),
            },
            Login::Agent(agent) if login.offers(MethodKind::PublicKey) => match identities(agent).await {
                Ok((client, identities)) => login.agent(client, identities).await?,
                Err(error) => login.cannot_use(error),
            },
            Login::Password(password) if login.offers(MethodKind::Password) => {
                login.password(password).await?
            }
            Login::KeyboardInteractive(answers) if login.offers(MethodKind::KeyboardInteractive) => {
                login.dialogue(answers).await?
            }
            // The server does not offer that method.
            _ => false,
        };
        if done {
            return Ok(());
        }
    }
    match login.unusable.take() {
        // Nothing else was tried: that is what is wrong.
        Some(error) if login.tried.is_empty() => Err(error),
        Some(error) => Err(login.refused("").with_source(error)),
        None => Err(login.refused("")),
    }
}

struct Attempts<'a> {
    handle: &'a mut Handle<Client>,
    host: &'a SshHost,
    /// What the server offers; `None` before it said so.
    offered: Option<MethodSet>,
    /// For the message.
    tried: Vec<String>,
    /// Keys that the server did not accept: each counts against its limit when it is offered again.
    declined: Vec<KeyData>,
    /// The first key or agent that could not be used. Others may do.
    unusable: Option<PortError>,
}

impl Attempts<'_> {
    fn refused(&self, more: &str) -> PortError {
        let tried = match self.tried.is_empty() {
            true => "no way to log in that was given fits".to_owned(),
            false => format!("it did not accept {}", self.tried.join(", nor ")),
        };
        let offered: Vec<String> = self.offered.iter().flat_map(|set| set.iter()).map(String::from).collect();
        let offered = match offered.is_empty() {
            true => String::new(),
            false => format!("; it offers {}", offered.join(", ")),
        };
        PortError::new(
            PortErrorKind::Authentication,
            format!(
                "'{}' did not let '{}' in: {tried}{offered}{more}; give a user, and a key or password, that it lets in",
                self.host.shown(),
                self.host.user
            ),
        )
    }

    fn cannot_use(&mut self, error: PortError) -> bool {
        tracing::debug!(error = error.chain(), "a way to log in cannot be used");
        self.unusable.get_or_insert(error);
        false
    }

    fn offers(&self, method: MethodKind) -> bool {
        self.offered.as_ref().is_none_or(|set| set.contains(&method))
    }

    /// Takes the server's answer in; true: logged in.
    fn take(
        &mut self,
        what: impl Into<String>,
        result: Result<AuthResult, russh::Error>,
    ) -> Result<bool, PortError> {
        match result {
            Ok(AuthResult::Success) => return Ok(true),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                // A server that went away is reported as a refusal of everything.
                if !self.handle.is_closed() {
                    self.offered = Some(remaining_methods);
                    match partial_success {
                        // From here on it may take what it did not before.
                        true => self.declined.clear(),
                        false => self.tried.push(what.into()),
                    }
                    return Ok(false);
                }
            }
            Err(e) if !self.handle.is_closed() => {
                return Err(
                    unreachable(format!("the login to '{}' failed", self.host.shown())).with_source(e)
                );
            }
            Err(_) => {}
        }
        if self.offered.is_none() {
            let message = format!("'{}' closed the connection during the login", self.host.shown());
            return Err(unreachable(message));
        }
        self.tried.push(what.into());
        Err(self.refused("; it closed the connection (too many attempts, or none allowed)"))
    }

    /// The same of a key, which is not offered again.
    fn take_key(
        &mut self,
        what: impl Into<String>,
        key: KeyData,
        result: Result<AuthResult, russh::Error>,
    ) -> Result<bool, PortError> {
        let declined = matches!(result, Ok(AuthResult::Failure { partial_success: false, .. }));
        let done = self.take(what, result)?;
        if declined {
            self.declined.push(key);
        }
        Ok(done)
    }

    async fn password(&mut self, password: &Secret) -> Result<bool, PortError> {
        let asked = self.handle.authenticate_password(&self.host.user, password.expose());
        match timeout(ANSWER_PATIENCE, asked).await {
            Ok(result) => self.take("the password", result),
            Err(_) => self.unanswered().await,
        }
    }

    /// The library drops a server's request to change the password (SSH_MSG_USERAUTH_PASSWD_CHANGEREQ) without telling.
    /// Such a server answers whatever is asked next, so one more request, which lets nobody in, ends the wait. A server that
    /// is only slow answers the password first.
    async fn unanswered(&mut self) -> Result<bool, PortError> {
        let result = self.handle.authenticate_none(&self.host.user).await;
        let (shown, user) = (self.host.shown(), &self.host.user);
        match result {
            // The answer to the other request is still to come: no further way can be tried here.
            Ok(AuthResult::Failure { partial_success: true, .. }) => {
                Err(unreachable(format!("'{shown}' takes too long over the password of '{user}': try again")))
            }
            Ok(AuthResult::Failure { .. }) if !self.handle.is_closed() => Err(PortError::new(
                PortErrorKind::Authentication,
                format!(
                    "'{shown}' did not let '{user}' in: the password has expired and is to be changed, by logging in \
                     with ssh, or it is wrong"
                ),
            )),
            result => self.take("the password", result),
        }
    }

    async fn dialogue(&mut self, answers: &[Answer]) -> Result<bool, PortError> {
        let mut reply = self.handle.authenticate_keyboard_interactive_start(&self.host.user, None).await;
        let mut what = "the answers".to_owned();
        for _ in 0..MOST_ROUNDS {
            let responses = match reply {
                Ok(Reply::InfoRequest { ref prompts, .. }) => {
                    let mut responses = Vec::new();
                    for prompt in prompts {
                        match answers.iter().find(|a| prompt.prompt.contains(&a.prompt)) {
                            Some(answer) => responses.push(answer.secret.expose().to_owned()),
                            None => {
                                // Ends the dialogue properly: the next way can be tried on this connection.
                                what = format!("the answers (none is given to {:?})", prompt.prompt.trim());
                                responses.push(String::new());
                            }
                        }
                    }
                    responses
                }
                Ok(Reply::Success) => return Ok(true),
                Ok(Reply::Failure { remaining_methods, partial_success }) => {
                    return self.take(what, Ok(AuthResult::Failure { remaining_methods, partial_success }));
                }
                Err(e) => return self.take(what, Err(e)),
            };
            reply = self.handle.authenticate_keyboard_interactive_respond(responses).await;
        }
        Err(PortError::new(
            PortErrorKind::Authentication,
            format!(
                "'{}' asked more than {MOST_ROUNDS} times in one login: give another way to log in",
                self.host.shown()
            ),
        ))
    }

    async fn key(
        &mut self,
        file: &KeyFile,
        key: Arc<PrivateKey>,
        certificate: CertificateOf,
    ) -> Result<bool, PortError> {
        let mut shown = format!("the key '{}'", file.path.display());
        let user = &self.host.user;
        let hash = self.hash_for(&key.algorithm()).await?;
        match certificate {
            Ok(Some(certificate)) => {
                let mut signer = KeySigner(Arc::clone(&key));
                let result =
                    self.handle.authenticate_certificate_with(user, certificate, hash, &mut signer).await;
                let result = result.map_err(|e| match e {
                    AgentAuthError::Send(_) => russh::Error::SendError,
                    AgentAuthError::Key(e) => e.into(),
                });
                if self.take(format!("{shown} with its certificate"), result)? {
                    return Ok(true);
                }
            }
            Ok(None) => {}
            // The key alone may do.
            Err(error) => shown = format!("{shown} without its certificate ({})", error.chain()),
        }
        let public = key.public_key().key_data().clone();
        if self.declined.contains(&public) {
            return Ok(false);
        }
        let result = self.handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await;
        self.take_key(shown, public, result)
    }

    /// The hash for signatures of this type of key; an error where the server knows only SHA-1.
    async fn hash_for(&self, algorithm: &Algorithm) -> Result<Option<HashAlg>, PortError> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(None)) => Err(PortError::new(
                PortErrorKind::Unsupported,
                format!("'{}' takes RSA keys with SHA-1 only: use an Ed25519 key", self.host.shown()),
            )),
            Ok(Some(hash)) => Ok(hash),
            // It did not say; every server since 2016 knows this one.
            Ok(None) | Err(_) => Ok(Some(HashAlg::Sha256)),
        }
    }

    async fn agent(
        &mut self,
        mut client: AgentStream,
        identities: Vec<AgentIdentity>,
    ) -> Result<bool, PortError> {
        for identity in &identities {
            if !self.offers(MethodKind::PublicKey) {
                break;
            }
            let what = format!("the agent's key {}", identity.public_key().fingerprint(HashAlg::Sha256));
            let hash = self.hash_for(&identity.public_key().algorithm()).await?;
            let user = &self.host.user;
            let result = match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key.clone(), hash, &mut client).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle
                        .authenticate_certificate_with(user, certificate.clone(), hash, &mut client)
                        .await
                }
            };
            match result {
                Ok(result) => {
                    let done = match identity {
                        AgentIdentity::PublicKey { key, .. } => {
                            self.take_key(what, key.key_data().clone(), Ok(result))?
                        }
                        AgentIdentity::Certificate { .. } => self.take(what, Ok(result))?,
                    };
                    if done {
                        return Ok(true);
                    }
                }
                // The agent would not sign with this one (a key that wants to be confirmed, or a token pulled out).
                Err(e) => {
                    tracing::debug!(error = %e, "{what} could not be used");
                    self.tried.push(format!("{what} (which the agent would not use)"));
                }
            }
        }
        Ok(false)
    }
}

type AgentStream = AgentClient<tokio::net::UnixStream>;

/// The agent and those of its keys that are to be offered, at least one.
async fn identities(agent: &Agent) -> Result<(AgentStream, Vec<AgentIdentity>), PortError> {
    let (mut client, shown) = connect(agent).await?;
    let fault = |why: &str| {
        PortError::new(PortErrorKind::Authentication, format!("the SSH agent at '{shown}' {why}"))
    };
    let files = agent.clone();
    let (only, first) = blocking(move || {
        let only = files.only.iter().map(|path| public_key(path)).collect::<Result<Vec<_>, _>>()?;
        let first: Vec<KeyData> = files.first.iter().filter_map(|path| public_key(path).ok()).collect();
        Ok((only, first))
    })
    .await?;
    let mut identities = client
        .request_identities()
        .await
        .map_err(|e| fault("does not list its keys: unlock it, or start another").with_source(e))?;
    identities.retain(|i| only.is_empty() || only.contains(i.public_key().key_data()));
    // Stable: the rest stays in the agent's order.
    identities.sort_by_key(|i| !first.contains(i.public_key().key_data()));
    match identities.is_empty() {
        true => Err(fault("has no key that fits: add one (ssh-add)")),
        false => Ok((client, identities)),
    }
}

async fn connect(agent: &Agent) -> Result<(AgentStream, String), PortError> {
    let socket = match &agent.socket {
        Some(socket) => socket.clone(),
        None => std::env::var_os("SSH_AUTH_SOCK")
            .map(PathBuf::from)
            .ok_or_else(|| config("no SSH agent is known: SSH_AUTH_SOCK is not set"))?,
    };
    let shown = socket.display().to_string();
    let client = AgentClient::connect_uds(&socket).await.map_err(|e| {
        PortError::new(
            PortErrorKind::Authentication,
            format!(
                "no SSH agent answers at '{shown}': start one, or correct SSH_AUTH_SOCK or IdentityAgent"
            ),
        )
        .with_source(e)
    })?;
    Ok((client, shown))
}
