//! Hosts of an ssh_config, as the `ssh` of this machine resolves it, reached over real sshds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sshd;

use kwdb_scale_core::ports::{Command, HostTransport as _, PortErrorKind};
use kwdb_scale_ssh::{SshConfig, SshFault};
use sshd::{SshAgent, Sshd, installed, key, keygen, n1, public, sh, transport, user};

#[tokio::test]
async fn hosts_of_a_file() {
    let Some(program) = installed() else { return };
    let (bastion, node) = (Sshd::start(&program, ""), Sshd::start(&program, ""));
    let file = node.path("config");
    let (user, id) = (user(), |sshd: &Sshd| sshd.path("id").display().to_string());
    let known = |sshd: &Sshd| sshd.known_hosts().display().to_string();
    let new = node.path("new");
    let text = format!(
        "Host node direct
  Port {}
  IdentityFile {}
  UserKnownHostsFile /nonexistent/known_hosts {}
Match host node
  ProxyJump {user}@bastion
Host bastion
  Port {}
  IdentityFile {}
  StrictHostKeyChecking accept-new
  HashKnownHosts yes
  UserKnownHostsFile {}
Host revoked
  Port {}
  IdentityFile {}
  UserKnownHostsFile {}
  RevokedHostKeys {}
Host commanded
  ProxyCommand nc %h %p
Host circle
  ProxyJump circle
Host *
  HostName 127.0.0.1
  User {user}
  IdentityAgent none
  GlobalKnownHostsFile none
",
        node.port,
        id(&node),
        known(&node),
        bastion.port,
        id(&bastion),
        new.display(),
        node.port,
        id(&node),
        known(&node),
        node.path("revoked").display(),
    );
    std::fs::write(&file, text).unwrap();
    let (_, key) = std::fs::read_to_string(node.known_hosts())
        .unwrap()
        .split_once(' ')
        .map(|(name, key)| (name.to_owned(), key.to_owned()))
        .unwrap();
    std::fs::write(node.path("revoked"), key).unwrap();
    let config = SshConfig::in_file(&file);
    sh(&transport(config.host("direct").await.unwrap()), "true").await;
    assert_eq!((bastion.logins(), node.logins()), (0, 1));
    sh(&transport(config.host("node").await.unwrap()), "true").await;
    assert_eq!((bastion.logins(), node.logins()), (1, 2), "through the jump host");
    let recorded = std::fs::read_to_string(&new).unwrap();
    assert_eq!(recorded.lines().count(), 1, "recorded");
    assert!(recorded.starts_with("|1|"), "as the ssh_config wants it: {recorded}");

    for (name, kind) in [
        ("commanded", PortErrorKind::Unsupported),
        ("circle", PortErrorKind::Config),
        ("-oProxyCommand=true", PortErrorKind::Config),
        // Refused by ssh itself.
        ("$x", PortErrorKind::Config),
    ] {
        let error = config.host(name).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {}", error.chain());
        assert_eq!(SshFault::of(&error), None, "of this host alone: {}", error.chain());
    }
    let revoked = transport(config.host("revoked").await.unwrap());
    let error = revoked.run(&n1(), &Command::new(["true"])).await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Authentication, "{}", error.chain());
    assert!(error.to_string().contains("revoked:1 revokes"), "{error}");

    // Listens, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "Host *\n  HostName 127.0.0.1\n  Port {}\n  ConnectTimeout 1\n  IdentityFile {}\n  IdentityAgent none\n",
        silent.local_addr().unwrap().port(),
        id(&node)
    );
    std::fs::write(&file, text).unwrap();
    let error =
        transport(config.host("x").await.unwrap()).run(&n1(), &Command::new(["true"])).await.unwrap_err();
    assert!(
        error.kind() == PortErrorKind::Unreachable && error.to_string().ends_with("within 1s"),
        "{error}"
    );

    std::fs::write(&file, "NoSuchKeyword x\n").unwrap();
    let error = config.host("x").await.unwrap_err();
    assert!(error.kind() == PortErrorKind::Config && error.to_string().contains("line 1"), "{error}");
    assert_eq!(SshFault::of(&error), Some(SshFault::SshConfig));
    assert_eq!(error.chain(), error.to_string(), "the reason is told once");
    let error = SshConfig::in_file(&file).program("/nonexistent/ssh").host("x").await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::NotFound, "{error}");
    assert_eq!(SshFault::of(&error), Some(SshFault::SshConfig));
}

/// A server that hears of two keys, and an agent with more.
#[tokio::test]
async fn keys_of_an_agent() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "MaxAuthTries 2");
    let agent = SshAgent::start(sshd.dir.path());
    let id = key(sshd.dir.path(), "locked", "ed25519", "");
    std::fs::write(sshd.path("authorized_keys"), public(&id)).unwrap();
    for name in ["a", "b", "c"] {
        agent.add(&key(sshd.dir.path(), name, "ed25519", ""));
    }
    agent.add(&id);
    // From now on only the agent can open it, and only the file itself tells which it is.
    keygen(&["-p", "-P", "", "-N", "hunter2", "-f", id.to_str().unwrap()]);
    std::fs::rename(id.with_extension("pub"), sshd.path("token.pub")).unwrap();
    let text = format!(
        "Host *only
  IdentitiesOnly yes
Host locked*
  IdentityFile {}
Host token*
  IdentityFile {}
Host stem*
  IdentityFile {}
Host bare*
  IdentityAgent none
  IdentityFile {}
Host *
  HostName 127.0.0.1
  Port {}
  User {}
  IdentityAgent {}
  UserKnownHostsFile {}
  GlobalKnownHostsFile none
",
        id.display(),
        sshd.path("token.pub").display(),
        sshd.path("token").display(),
        sshd.path("token.pub").display(),
        sshd.port,
        user(),
        agent.socket.display(),
        sshd.known_hosts().display(),
    );
    let file = sshd.path("config");
    std::fs::write(&file, text).unwrap();
    let config = SshConfig::in_file(&file);
    for name in ["locked", "locked-only", "token", "token-only", "stem", "stem-only"] {
        let host = transport(config.host(name).await.unwrap());
        let output = host.run(&n1(), &Command::new(["true"])).await;
        assert!(output.is_ok(), "{name}: {}", output.unwrap_err().chain());
    }
    let bare = transport(config.host("bare").await.unwrap());
    let error = bare.run(&n1(), &Command::new(["true"])).await.unwrap_err();
    assert!(error.to_string().contains("token.pub") && error.to_string().contains("public key"), "{error}");
}

/// Paths with tokens and spaces, found where `ssh` finds them.
#[tokio::test]
async fn paths_as_ssh_reads_them() {
    let Some(program) = installed() else { return };
    let sshd = Sshd::start(&program, "");
    let output = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let node = output("uname", &["-n"]);
    let short = node.split('.').next().unwrap();
    let name =
        format!("%-{}-Node-{}-{}-alias-{}-{node}-{short}", user(), sshd.port, output("id", &["-u"]), user());
    let dir = sshd.path("a dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(sshd.path("id"), dir.join(&name)).unwrap();
    let known = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    let (_, host_key) = known.split_once(' ').unwrap();
    std::fs::write(dir.join("known Node%"), format!("alias {host_key}")).unwrap();
    let text = format!(
        "Host *
  HostName 127.0.0.1
  HostKeyAlias Alias
  Port {}
  User {}
  IdentityAgent none
  IdentityFile \"{dir}/%%-%u-%n-%p-%i-%k-%r-%l-%L\"
  UserKnownHostsFile \"{dir}/absent file\" \"{dir}/known %n%%\"
  GlobalKnownHostsFile none
  ControlPath none
",
        sshd.port,
        user(),
        dir = dir.display(),
    );
    let file = sshd.path("config");
    std::fs::write(&file, &text).unwrap();
    // What ssh itself makes of it.
    let by_ssh = [
        "-F",
        file.to_str().unwrap(),
        "-o",
        "BatchMode=yes",
        "-o",
        "StrictHostKeyChecking=yes",
        "Node",
        "true",
    ];
    let by_ssh = std::process::Command::new("ssh").args(by_ssh).output().unwrap();
    assert!(by_ssh.status.success(), "{by_ssh:?}");
    sh(&transport(SshConfig::in_file(&file).host("Node").await.unwrap()), "true").await;

    std::fs::write(&file, format!("{text}  KnownHostsCommand /bin/cat secret\n")).unwrap();
    let error = SshConfig::in_file(&file).host("Node").await.unwrap_err();
    assert_eq!(error.kind(), PortErrorKind::Unsupported);
    assert!(error.to_string().contains("KnownHostsCommand"), "{error}");
}
