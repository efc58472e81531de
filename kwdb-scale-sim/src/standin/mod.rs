//! Stand-ins for what an installed KWDB host has besides kwbase: `deploy.sh`, `systemctl`, `kw-status`, the unit and the
//! files of the installer. For tests of the documented procedures on hosts that have none of it.
//!
//! They were written for this library, after the documented scripts: the same words on the same streams, the same files,
//! exit codes and order of events, and the same faults. Which, stands in the assets and in `docs/deploy-sh.md`. What
//! they cannot do ends as an unknown command does in the real ones. The unit lacks the real one's `ExecStartPre`, which
//! sets `vm.max_map_count` of the whole machine.
//!
//! A host's tree lies under a root directory, so that several hosts fit on one machine; an empty root is the real one, for
//! hosts that have namespaces of their own.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use kwdb_scale_core::host_facts::{MODE_FILE, NODE_FILE};
use kwdb_scale_core::topology::StartMode;
use kwdb_scale_core::version::{Capabilities, Version};

const DEPLOY: &str = include_str!("deploy.sh");
const SYSTEMCTL: &str = include_str!("systemctl.sh");
const KW_STATUS: &str = include_str!("kw-status.sh");

/// An installation to be made.
#[derive(Clone, Debug)]
pub struct Standin {
    /// Under which the tree of the host lies; empty for the real root.
    pub root: PathBuf,
    /// The directory of `deploy.sh`, as the host sees it; not under `root`.
    pub install_dir: PathBuf,
    /// The program that is to run as `/usr/local/kaiwudb/bin/kwbase`: the twin's wrapper or a real kwbase.
    pub kwbase: PathBuf,
    /// The release whose scripts are stood in for.
    pub release: Version,
    /// Line 2 of MODE.
    pub mode: StartMode,
    /// Line 8 of MODE: `tls`, or `insecure`.
    pub secure: bool,
    /// The last line of MODE: the node's IPv4 address.
    pub address: String,
    /// Port for RPC and SQL.
    pub port: u16,
    /// Port of HTTP.
    pub http_port: u16,
    /// Port of brpc.
    pub brpc_port: u16,
    /// `--join` of the unit; this node's own address when `None`, as the installer leaves it.
    pub join: Option<String>,
    /// The user of the unit.
    pub user: String,
    /// The password that the script asks for, where the user may not run sudo without one. With an empty root the real
    /// sudo decides.
    pub password: Option<String>,
    /// `KAIWUDB_START_ARG`: more flags of the start.
    pub start_arg: String,
    /// Seconds for which the script waits after the start, and between two looks.
    pub waits: (f32, f32),
    /// More lines of the unit's section `[Service]`, such as `Restart=always`.
    pub service: Vec<String>,
}

impl Standin {
    /// A bare-metal installation of V3.2.1 for three replicas, insecure, at the usual ports.
    pub fn new(
        root: impl Into<PathBuf>,
        install_dir: impl Into<PathBuf>,
        kwbase: impl Into<PathBuf>,
        address: impl Into<String>,
    ) -> Self {
        Self {
            root: root.into(),
            install_dir: install_dir.into(),
            kwbase: kwbase.into(),
            release: Version::NEWEST,
            mode: StartMode::MultiReplica,
            secure: false,
            address: address.into(),
            port: 26257,
            http_port: 8080,
            brpc_port: 27257,
            join: None,
            user: "kaiwudb".to_owned(),
            password: None,
            start_arg: String::new(),
            waits: (3.0, 2.0),
            service: Vec::new(),
        }
    }

    fn can(&self) -> Capabilities {
        Capabilities::of(Some(self.release))
    }

    /// A path of the host's tree.
    pub fn at(&self, path: &str) -> PathBuf {
        if self.root.as_os_str().is_empty() {
            PathBuf::from(path)
        } else {
            self.root.join(path.trim_start_matches('/'))
        }
    }

    /// Where the node's data lies.
    pub fn data_root(&self) -> PathBuf {
        self.at("/var/lib/kaiwudb")
    }

    /// Writes everything.
    ///
    /// # Errors
    /// The files cannot be written; the root has a character that the scripts would not survive.
    pub fn install(&self) -> io::Result<()> {
        for path in [&self.root, &self.install_dir] {
            let text = path.to_string_lossy();
            if !text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
                let what = format!("'{text}' has characters that deploy.sh pastes unquoted into shell texts");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        for dir in [self.at("/etc/kaiwudb/certs"), self.at("/usr/local/kaiwudb/bin"), self.data_root()] {
            fs::create_dir_all(dir)?;
        }
        for (path, text, mode) in self.files() {
            if let Some(dir) = path.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        replace_link(&self.kwbase, &self.at("/usr/local/kaiwudb/bin/kwbase"))?;
        if let Some((target, link)) = self.link() {
            replace_link(&target, &link)?;
        }
        Ok(())
    }

    /// Every file but kwbase: path, content and mode.
    pub(crate) fn files(&self) -> Vec<(PathBuf, String, u32)> {
        let start_arg = format!("KAIWUDB_START_ARG=\"{}\"\n", self.start_arg);
        let mut files = vec![
            (self.install_dir.join("deploy.sh"), self.script(DEPLOY), 0o755),
            (self.at("/usr/bin/systemctl"), self.script(SYSTEMCTL), 0o755),
            (self.at(MODE_FILE), self.mode_file(), 0o644),
            // Of an installation of this host alone.
            (self.at(NODE_FILE), "\n\n\n".to_owned(), 0o644),
            (self.at("/etc/kaiwudb/script/kaiwudb_env"), start_arg, 0o644),
            (self.at("/etc/systemd/system/kaiwudb.service"), self.unit(), 0o644),
        ];
        if let Some((target, _)) = self.link() {
            files.push((target, self.script(KW_STATUS), 0o755));
        }
        files
    }

    /// What `kw-status` is and the link by which it is called, where the release has it.
    pub(crate) fn link(&self) -> Option<(PathBuf, PathBuf)> {
        let target = || self.at("/usr/local/kaiwudb/bin/kw-status.sh");
        self.can().kw_status.then(|| (target(), self.at("/usr/bin/kw-status")))
    }

    fn script(&self, text: &str) -> String {
        let yes = |is: bool| if is { "yes" } else { "no" };
        let root = self.root.display().to_string();
        let as_user = if root.is_empty() { format!("sudo -u {} ", self.user) } else { String::new() };
        text.replace("@ROOT@", &root)
            .replace("@RELEASE@", &self.release.to_string())
            .replace("@PASSWORD@", self.password.as_deref().unwrap_or_default())
            .replace("@TLS@", yes(self.can().deploy_join_tls))
            .replace("@WAITS@", yes(self.can().deploy_join_waits))
            .replace("@LOG_BY_SUDO@", yes(self.release >= Version::new(3, 1, 0)))
            .replace("@GRACE@", &self.waits.0.to_string())
            .replace("@PAUSE@", &self.waits.1.to_string())
            .replace("@SECURITY@", &self.security())
            .replace("@PORT@", &self.port.to_string())
            .replace("@AS@", &as_user)
    }

    fn security(&self) -> String {
        if self.secure {
            format!("--certs-dir={}", self.at("/etc/kaiwudb/certs").display())
        } else {
            "--insecure".to_owned()
        }
    }

    fn mode_file(&self) -> String {
        let mode = match self.mode {
            StartMode::SingleReplica => "single-replication",
            StartMode::SingleNode => "single",
            _ => "multi-replication",
        };
        let mut lines = vec![
            "bare".to_owned(),
            mode.to_owned(),
            "/usr/local/kaiwudb".to_owned(),
            self.data_root().display().to_string(),
            self.port.to_string(),
            self.http_port.to_string(),
            self.user.clone(),
            if self.secure { "tls" } else { "insecure" }.to_owned(),
        ];
        if self.release >= Version::new(2, 2, 0) {
            lines.push("false".to_owned());
        }
        lines.push(self.address.clone());
        lines.join("\n") + "\n"
    }

    fn unit(&self) -> String {
        let Self { address, port, http_port, brpc_port, user, .. } = self;
        let bin = self.at("/usr/local/kaiwudb/bin").display().to_string();
        let brpc =
            if self.can().brpc_addr { format!("--brpc-addr=0.0.0.0:{brpc_port} ") } else { String::new() };
        let more: String = self.service.iter().map(|line| format!("{line}\n")).collect();
        format!(
            "\n[Unit]\nDescription=KaiwuDB Service\nAfter=network.target\nWants=network.target\n[Service]\nUser={user}\n\
             Group={user}\nType=simple\nLimitMEMLOCK=infinity\nLimitNOFILE=1048576\n\nWorkingDirectory={bin}\n\
             EnvironmentFile={env}\nExecStart={bin}/kwbase {mode} $KAIWUDB_START_ARG {security} \
             --listen-addr=0.0.0.0:{port} --advertise-addr={address}:{port} --http-addr=0.0.0.0:{http_port} \
             {brpc}--store={data}  --join {join}\nExecStop=/bin/kill $MAINPID\nKillMode=control-group\n\
             # Restart=on-failure\n# ExecStopPost=sudo umount -a -t squashfs\n#RuntimeMaxSec=2592000\n\
             # Don't restart in the case of configuration error\nRestartPreventExitStatus=INVALIDARGUMENT\n{more}\
             [Install]\nWantedBy=multi-user.target\n",
            env = self.at("/etc/kaiwudb/script/kaiwudb_env").display(),
            mode = self.mode,
            security = self.security(),
            data = self.data_root().display(),
            join = self.join.clone().unwrap_or_else(|| format!("{address}:{port}")),
        )
    }
}

fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(target, link)
}
