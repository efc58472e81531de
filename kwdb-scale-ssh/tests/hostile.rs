//! Servers that no sshd is: played by a server in this process. Also the logins by password and dialogue, which a
//! real sshd takes only for accounts of the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::borrow::Cow;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kwdb_scale_core::ports::{Command, Detached, HostTransport, PortError, PortErrorKind, PortState};
use kwdb_scale_core::secret::Secret;
use kwdb_scale_core::topology::HostName;
use kwdb_scale_ssh::{Answer, HostKeyPolicy, KeyFile, Login, SshHost, SshLimits, SshTransport};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, CryptoVec, MethodKind, MethodSet};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(30);

/// How the server behaves.
#[derive(Clone, Debug)]
enum Play {
    /// Says this after the mark and exits with 0.
    Answer,
    /// The same, and cuts the connection instead of telling the end.
    CutAfterOutput,
    /// Closes the channel without telling the end.
    NoEnd,
    /// Takes the request and says nothing more.
    Stall,
    /// Cuts the connection as soon as the request is there.
    CutAtOnce,
    /// Exits with 0, and loses the end of what it said within our own first line.
    Cut,
    /// Megabytes without the mark, then an end.
    Flood,
    /// A mark with a process that would mean everybody.
    Everybody,
    /// Says no to the request.
    RefuseExec,
    /// Says no to every session.
    RefuseSessions,
    /// Never answers a login.
    StallLogin,
    /// Never answers a request to connect to the host `silent`.
    StallForward,
}

#[derive(Clone)]
struct Host {
    play: Play,
    methods: Vec<MethodKind>,
    /// Every command line that came.
    lines: Arc<Mutex<Vec<String>>>,
    /// Logins going on, and the most at once.
    busy: Arc<(AtomicUsize, AtomicUsize)>,
    gate: Arc<Semaphore>,
    /// So many connections are closed before anything of the protocol is said.
    turns_away: usize,
}

impl Host {
    fn new(play: Play) -> Self {
        Self {
            play,
            methods: vec![MethodKind::PublicKey],
            lines: Arc::default(),
            busy: Arc::default(),
            gate: Arc::new(Semaphore::new(1000)),
            turns_away: 0,
        }
    }
}

/// A server that is ended when dropped.
struct Server {
    port: u16,
    dir: tempfile::TempDir,
    task: JoinHandle<()>,
    connections: Arc<AtomicUsize>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn private() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

impl Server {
    async fn start(host: Host) -> Self {
        Self::with_keys(host, vec![private()]).await
    }

    /// The first connection meets the first key, and so on; the last stays.
    async fn with_keys(host: Host, keys: Vec<PrivateKey>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("id"), private().to_openssh(LineEnding::LF).unwrap()).unwrap();
        let known = PublicKey::new(keys[0].public_key().key_data().clone(), "").to_openssh().unwrap();
        std::fs::write(dir.path().join("known_hosts"), format!("[127.0.0.1]:{port} {known}\n")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            // Dropped with the task, and every connection with it.
            let mut running = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                if number < host.turns_away {
                    // OpenSSH says it in words to some, and to some it does not.
                    if number % 2 == 1 {
                        let _ = stream.write_all(b"Not allowed at this time\r\n").await;
                    }
                    continue;
                }
                let config = server::Config {
                    keys: vec![keys[number.min(keys.len() - 1)].clone()],
                    methods: MethodSet::from(&host.methods[..]),
                    auth_rejection_time: Duration::ZERO,
                    ..server::Config::default()
                };
                let host = host.clone();
                running.spawn(async move {
                    if let Ok(session) = server::run_stream(Arc::new(config), stream, host).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { port, dir, task, connections }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bare_host(&self) -> SshHost {
        let policy = HostKeyPolicy::Strict { files: vec![self.path("known_hosts")] };
        SshHost::new("127.0.0.1", "me", policy).port(self.port)
    }

    fn host(&self) -> SshHost {
        self.bare_host().login(KeyFile::new(self.path("id")))
    }

    fn transport(&self) -> SshTransport {
        transport(self.host())
    }
}

fn n1() -> HostName {
    "n1".into()
}

/// One that does not wait long for a connection.
fn transport(host: SshHost) -> SshTransport {
    let mut limits = SshLimits::default();
    limits.connect = Duration::from_secs(2);
    SshTransport::with_limits([(n1(), host)], limits).unwrap()
}

impl Host {
    async fn login(&self) -> Auth {
        let (now, most) = &*self.busy;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _turn = self.gate.acquire().await.unwrap();
        if matches!(self.play, Play::StallLogin) {
            pending::<()>().await;
        }
        now.fetch_sub(1, Ordering::SeqCst);
        Auth::Accept
    }
}

/// The word that the client looks for.
fn mark(line: &str) -> &str {
    let at = line.find(" kwdb-scale kwdb-scale-").unwrap() + " kwdb-scale ".len();
    line[at..].split(' ').next().unwrap()
}

impl server::Handler for Host {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(self.login().await)
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        if password.contains("slow") {
            tokio::time::sleep(Duration::from_secs(7)).await;
        }
        let right = user == "me" && ["hunter2", "hunter2 slow"].contains(&password);
        Ok(if right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let ask = |prompt: &'static str| Auth::Partial {
            name: Cow::Borrowed(""),
            instructions: Cow::Borrowed(""),
            prompts: Cow::Owned(vec![(Cow::Borrowed(prompt), false)]),
        };
        let given: Option<Vec<_>> = response.map(|r| r.map(|b| b.to_vec()).collect());
        Ok(match given {
            None => ask("Password for me: "),
            Some(given) if given == [b"hunter2".to_vec()] => ask("Code: "),
            Some(given) if given == [b"123456".to_vec()] => Auth::Accept,
            Some(_) => Auth::reject(),
        })
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.play {
            Play::RefuseSessions => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
            _ => reply.accept().await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        to: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        match self.play {
            Play::StallForward if to == "silent" => {
                tokio::spawn(async move {
                    pending::<()>().await;
                    drop(reply);
                });
            }
            // Without the words that an OpenSSH has for it.
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let line = String::from_utf8(data.to_vec()).unwrap();
        let mark = mark(&line).to_owned();
        self.lines.lock().unwrap().push(line);
        let begin = |pid| format!("{mark} start {pid}\noutput");
        let say = |session: &mut Session, text: String| {
            session.data(channel, CryptoVec::from(text.as_str()).to_vec())
        };
        match self.play {
            Play::CutAtOnce => return Err(russh::Error::Disconnect),
            Play::RefuseExec => return session.channel_failure(channel),
            Play::Stall => return session.channel_success(channel),
            _ => session.channel_success(channel)?,
        }
        match self.play {
            Play::CutAfterOutput => {
                say(session, begin("99999 0"))?;
                let handle = session.handle();
                tokio::spawn(async move {
                    let _ =
                        handle.disconnect(russh::Disconnect::ByApplication, "bye".into(), "en".into()).await;
                });
                return Ok(());
            }
            Play::NoEnd => say(session, begin("99999 0"))?,
            Play::Cut => {
                say(session, format!("motd\n{mark} star"))?;
                session.exit_status_request(channel, 0)?;
            }
            Play::Everybody => say(session, begin("1 1"))?,
            Play::Flood => {
                for _ in 0..300 {
                    say(session, "noise\n".repeat(1000))?;
                }
                session.exit_status_request(channel, 0)?;
            }
            _ => {
                say(session, begin("99999 0"))?;
                session.extended_data(channel, 1, format!("{mark}\n").into_bytes())?;
                session.exit_status_request(channel, 0)?;
            }
        }
        session.eof(channel)?;
        session.close(channel)
    }
}

async fn run(transport: &SshTransport) -> Result<String, PortError> {
    let command = Command::new(["prog", "hunter2"]).deadline(Duration::from_secs(2));
    transport.run(&n1(), &command).await.map(|output| output.stdout)
}

async fn fails(transport: &SshTransport, kind: PortErrorKind) -> String {
    let start = Instant::now();
    let error = run(transport).await.unwrap_err();
    assert!(start.elapsed() < PATIENCE, "it ends: {:?}", start.elapsed());
    assert_eq!(error.kind(), kind, "{}", error.chain());
    let text = error.chain();
    assert!(!text.contains("hunter2"), "no argument is shown: {text}");
    text
}

#[tokio::test]
async fn a_server_that_plays_along() {
    let server = Server::start(Host::new(Play::Answer)).await;
    assert_eq!(run(&server.transport()).await.unwrap(), "output");
}

#[tokio::test]
async fn ends_that_are_not_told_are_losses() {
    for play in [Play::CutAfterOutput, Play::NoEnd, Play::CutAtOnce, Play::Cut] {
        let server = Server::start(Host::new(play.clone())).await;
        let text = fails(&server.transport(), PortErrorKind::ConnectionLost).await;
        assert!(text.contains("'prog'"), "{play:?}: {text}");
        let detached = Detached {
            command: Command::new(["prog", "hunter2"]),
            output_file: "/tmp/log".into(),
            wait: PATIENCE,
        };
        let error = server.transport().spawn(&n1(), &detached).await.unwrap_err();
        assert_eq!(error.kind(), PortErrorKind::ConnectionLost, "{play:?}: {}", error.chain());
    }
}

#[tokio::test]
async fn a_command_is_sent_once() {
    let host = Host::new(Play::CutAtOnce);
    let lines = Arc::clone(&host.lines);
    let server = Server::start(host).await;
    fails(&server.transport(), PortErrorKind::ConnectionLost).await;
    assert_eq!(lines.lock().unwrap().len(), 1, "what may have been done is not done again");
}

#[tokio::test]
async fn stalls_end_at_the_deadline() {
    let stalled = Server::start(Host::new(Play::Stall)).await;
    let text = fails(&stalled.transport(), PortErrorKind::Deadline).await;
    assert!(text.contains("could not be ended"), "{text}");
    let login = Server::start(Host::new(Play::StallLogin)).await;
    fails(&login.transport(), PortErrorKind::Unreachable).await;
    let forward = Server::start(Host::new(Play::StallForward)).await;
    let ssh = forward.transport();
    let (host, nobody) = (n1(), "silent:1".into());
    let mut silent = std::pin::pin!(ssh.probe(&host, &nobody, Duration::from_secs(600)));
    let others = async {
        for _ in 0..3 {
            ssh.probe(&n1(), &"h:1".into(), Duration::from_secs(60)).await.unwrap();
        }
    };
    tokio::select! {
        state = &mut silent => panic!("{state:?}"),
        () = others => {}
    }
    let state = ssh.probe(&n1(), &"silent:1".into(), Duration::from_millis(300)).await.unwrap();
    assert_eq!(state, PortState::NoAnswer);
    assert_eq!(forward.connections.load(Ordering::SeqCst), 1, "it is as good as before");
}

#[tokio::test]
async fn a_refusal_without_words_is_no_closed_port() {
    let server = Server::start(Host::new(Play::Answer)).await;
    let state = server.transport().probe(&n1(), &"h:1".into(), Duration::from_secs(20)).await.unwrap();
    assert_eq!(state, PortState::NoAnswer);
}

#[tokio::test]
async fn refusals() {
    for play in [Play::RefuseExec, Play::RefuseSessions, Play::Flood] {
        let server = Server::start(Host::new(play)).await;
        fails(&server.transport(), PortErrorKind::Denied).await;
    }
    let server = Server::start(Host::new(Play::Everybody)).await;
    fails(&server.transport(), PortErrorKind::Malformed).await;
}

#[tokio::test]
async fn a_changed_host_key() {
    let (old, new) = (private(), private());
    let server = Server::with_keys(Host::new(Play::CutAfterOutput), vec![old, new.clone()]).await;
    let ssh = server.transport();
    fails(&ssh, PortErrorKind::ConnectionLost).await;
    let text = fails(&ssh, PortErrorKind::Authentication).await;
    let place = format!("{}:1", server.path("known_hosts").display());
    assert!(text.contains(&place) && text.contains(&new.fingerprint(HashAlg::Sha256).to_string()), "{text}");
}

#[tokio::test]
async fn passwords_and_dialogues() {
    let mut host = Host::new(Play::Answer);
    host.methods = vec![MethodKind::Password, MethodKind::KeyboardInteractive];
    let server = Server::start(host).await;
    let with = |login: Login| transport(server.bare_host().login(login));
    let password = |text: &str| Login::Password(Secret::new(text));
    let dialogue = |code: &str| {
        let answers = [("Password for me", "hunter2"), ("Code:", code)];
        Login::KeyboardInteractive(answers.map(|(p, s)| Answer::new(p, Secret::new(s))).into())
    };
    assert_eq!(run(&with(password("hunter2"))).await.unwrap(), "output");
    assert_eq!(run(&with(dialogue("123456"))).await.unwrap(), "output");
    fails(&with(password("wrong hunter2")), PortErrorKind::Authentication).await;
    fails(&with(dialogue("hunter2 1")), PortErrorKind::Authentication).await;
    let none = Login::KeyboardInteractive(vec![Answer::new("Passcode", Secret::new("hunter2"))]);
    let text = fails(&with(none), PortErrorKind::Authentication).await;
    assert!(text.contains("Password for me:"), "it tells what was asked: {text}");
    // One after the other; a method that is not offered is passed over.
    let all = server
        .bare_host()
        .login(KeyFile::new(server.path("id")))
        .login(password("wrong hunter2"))
        .login(dialogue("123456"));
    assert_eq!(run(&transport(all)).await.unwrap(), "output");
}

/// A server that wants a password changed does not say either that it takes it or that it does not. This library's cannot
/// say that: one that takes its time is waited for in the same way.
#[tokio::test]
async fn a_password_that_is_not_answered_at_once() {
    let mut host = Host::new(Play::Answer);
    host.methods = vec![MethodKind::Password, MethodKind::KeyboardInteractive];
    let server = Server::start(host).await;
    let login = async |text: &str| {
        let host = server.bare_host().login(Login::Password(Secret::new(text)));
        SshTransport::new([(n1(), host)]).unwrap().connect(&n1()).await
    };
    let start = Instant::now();
    let (right, wrong) = tokio::join!(login("hunter2 slow"), login("slow hunter2"));
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
    right.unwrap();
    let error = wrong.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{}", error.chain());
    let text = error.to_string();
    assert!(text.contains("has expired") && text.contains("with ssh") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_over_a_fleet_are_bounded() {
    let mut host = Host::new(Play::Answer);
    host.gate = Arc::new(Semaphore::new(0));
    let (gate, busy) = (Arc::clone(&host.gate), Arc::clone(&host.busy));
    let server = Server::start(host).await;
    let known = std::fs::read_to_string(server.path("known_hosts")).unwrap();
    let key = known.split_once(' ').unwrap().1;
    let names: Vec<String> = (0..6).map(|i| format!("host{i}")).collect();
    std::fs::write(server.path("known_hosts"), format!("host* {key}")).unwrap();
    let hosts = names.iter().map(|n| (HostName::from(n.as_str()), server.host().known_as(n.as_str())));
    let mut limits = SshLimits::default();
    limits.handshakes = 2;
    let ssh = SshTransport::with_limits(hosts, limits).unwrap();
    let runs: Vec<_> = names
        .into_iter()
        .map(|name| {
            let ssh = ssh.clone();
            tokio::spawn(async move { ssh.run(&name.into(), &Command::new(["prog"])).await })
        })
        .collect();
    let start = Instant::now();
    while busy.0.load(Ordering::SeqCst) < 2 {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gate.add_permits(1000);
    for run in runs {
        run.await.unwrap().unwrap();
    }
    assert_eq!(busy.1.load(Ordering::SeqCst), 2, "the most at once");
}

#[tokio::test]
async fn a_server_with_too_many_logins_is_asked_again() {
    let mut host = Host::new(Play::Answer);
    host.turns_away = 3;
    let server = Server::start(host).await;
    assert_eq!(run(&server.transport()).await.unwrap(), "output");
    assert_eq!(server.connections.load(Ordering::SeqCst), 4);
    let mut host = Host::new(Play::Answer);
    host.turns_away = usize::MAX;
    let server = Server::start(host).await;
    let text = fails(&server.transport(), PortErrorKind::Unreachable).await;
    assert!(text.contains("MaxStartups"), "{text}");
    assert!(server.connections.load(Ordering::SeqCst) > 1);
}

/// A server that is none.
async fn raw<F, Fut>(serve: F) -> (SshTransport, JoinHandle<()>, tempfile::TempDir)
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut running = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            running.spawn(serve(stream));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let policy = HostKeyPolicy::Strict { files: vec![dir.path().join("known_hosts")] };
    let host = SshHost::new("127.0.0.1", "me", policy).port(port).login(KeyFile::new(Path::new("id")));
    (transport(host), task, dir)
}

#[tokio::test]
async fn servers_that_do_not_speak_the_protocol() {
    // Silence, an endless banner, another protocol, a protocol version of the last century.
    let (silent, task, _dir) = raw(|stream| async move {
        pending::<()>().await;
        drop(stream);
    })
    .await;
    fails(&silent, PortErrorKind::Unreachable).await;
    task.abort();
    for text in [
        "no end\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-1.5-old\r\n",
        "SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14",
    ] {
        let (flood, task, _dir) = raw(move |mut stream| async move {
            while stream.write_all(text.as_bytes()).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        fails(&flood, PortErrorKind::Unreachable).await;
        task.abort();
    }
}
