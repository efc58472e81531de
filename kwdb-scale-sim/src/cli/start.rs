//! `start`, `start-single-replica` and `start-single-node`.

use std::time::Duration;

use jiff::Timestamp;
use kwdb_scale_core::topology::{Address, Locality, StartMode};

use super::args::{Args, BadFlag, Flag, full_address};
use super::{ClientEnv, Output, State, Step, failure};
use crate::model::{Cluster, NodeStart, Phase, Security};
use kwdb_scale_core::version::{Capabilities, Version};

const FLAGS: &[Flag] = &[
    ("listen-addr", "", true),
    ("advertise-addr", "", true),
    ("sql-addr", "", true),
    ("advertise-sql-addr", "", true),
    ("http-addr", "", true),
    ("brpc-addr", "", true),
    ("join", "j", true),
    ("store", "s", true),
    ("ts-store", "", true),
    ("attrs", "", true),
    ("locality", "", true),
    ("cache", "", true),
    ("max-sql-memory", "", true),
    ("max-offset", "", true),
    ("storage-engine", "", true),
    ("temp-dir", "", true),
    ("external-io-dir", "", true),
    ("max-disk-temp-storage", "", true),
    ("certs-dir", "", true),
    ("insecure", "", false),
    ("background", "", false),
    ("pid-file", "", true),
    ("listening-url-file", "", true),
    ("cluster-name", "", true),
    ("disable-cluster-name-verification", "", false),
    ("experimental-dns-srv", "", false),
    ("use-raft-store", "", false),
    ("buffer-pool-size", "", true),
    ("thread-pool-size", "", true),
    ("task-queue-size", "", true),
    ("restful-port", "", true),
    ("restful-timeout", "", true),
    ("upgrade-complete", "", false),
    ("log-dir", "", true),
    ("logtostderr", "", false),
    ("no-color", "", false),
    ("vmodule", "", true),
    ("help", "h", false),
];

/// A start command that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct StartArgs {
    /// The sub-command.
    pub mode: StartMode,
    /// Where the RPC listener binds (`--listen-addr`).
    pub listen: Address,
    /// What others dial (`--advertise-addr`).
    pub advertise: Address,
    /// Where SQL is served when not on the RPC listener (`--sql-addr`).
    pub sql: Option<Address>,
    /// The HTTP listener.
    pub http: Address,
    /// `--join`.
    pub join: Vec<Address>,
    /// Paths of `--store`.
    pub stores: Vec<String>,
    /// `--locality`.
    pub locality: Option<Locality>,
    /// `--certs-dir`; `None` is `--insecure`.
    pub certs_dir: Option<String>,
    /// `--background`.
    pub background: bool,
    /// `--pid-file`.
    pub pid_file: Option<String>,
}

impl StartArgs {
    /// Reads a command line that begins with the sub-command (`start --insecure …`).
    ///
    /// # Errors
    /// The text after `ERROR: `, as `kwbase` prints it.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        Self::parse_as(words, Version::NEWEST)
    }

    /// The same as a `kwbase` of that release reads it: before V3.0.0 there is no `--brpc-addr`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_as(words: &[String], release: Version) -> Result<Self, String> {
        let can = Capabilities::of(Some(release));
        let mode = StartMode::from(words.first().map(String::as_str).unwrap_or_default());
        let args = Args::parse(words.get(1..).unwrap_or_default(), &[FLAGS]).map_err(|BadFlag(text)| text)?;
        if let Some(word) = args.words.first() {
            return Err(format!("unknown command \"{word}\" for \"kwbase {mode}\""));
        }
        let brpc = args.get("brpc-addr").map(Address::new);
        if !can.brpc_addr && brpc.is_some() {
            return Err("unknown flag: --brpc-addr".to_owned());
        }
        if can.brpc_addr && mode != StartMode::SingleNode && brpc.and_then(|a| a.port()).is_none() {
            return Err("--brpc-addr's port not specified".to_owned());
        }
        let listen = full_address(args.get("listen-addr").unwrap_or_default(), "26257");
        let own_host = |text: &str, of: &Address, port: &str| {
            let given = full_address(text, port);
            if text.starts_with(':') || text.is_empty() {
                Address::new(format!("{}:{}", of.host(), given.port().unwrap_or_default()))
            } else {
                given
            }
        };
        let port = listen.port().unwrap_or(26257).to_string();
        let advertise = match args.get("advertise-addr") {
            Some(text) => own_host(text, &listen, &port),
            None => listen.clone(),
        };
        let sql = args.get("sql-addr").map(|text| own_host(text, &advertise, "26257"));
        let sql = args.get("advertise-sql-addr").map(|t| own_host(t, &advertise, "26257")).or(sql);
        let http = own_host(args.get("http-addr").unwrap_or_default(), &listen, "8080");
        let join = args.list("join").iter().map(|j| full_address(j, "26257")).collect();
        let mut stores: Vec<String> = args
            .all("store")
            .iter()
            .filter_map(|s| {
                let path = |p: &str| p.strip_prefix("path=").map(str::to_owned);
                s.split(',').find_map(path).or_else(|| s.split(',').next().map(str::to_owned))
            })
            .map(|s| s.trim_end_matches('/').to_owned())
            .collect();
        if stores.is_empty() {
            stores.push("kwbase-data".to_owned());
        }
        let certs_dir = (!args.is_set("insecure"))
            .then(|| args.get("certs-dir").unwrap_or("~/.kwbase-certs").trim_end_matches('/').to_owned());
        Ok(Self {
            mode,
            listen,
            advertise,
            sql,
            http,
            join,
            stores,
            locality: args.get("locality").map(Locality::from),
            certs_dir,
            background: args.is_set("background"),
            pid_file: args.get("pid-file").map(str::to_owned),
        })
    }

    /// Where others find its HTTP port: an address that means all of a machine's is the advertised one's.
    fn advertised_http(&self) -> Address {
        let all = self.http.host().parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
        match self.http.port().filter(|_| all) {
            Some(port) => Address::new(format!("{}:{port}", self.advertise.host())),
            None => self.http.clone(),
        }
    }

    /// The model's start of it. `host` keeps equal store paths of different machines apart; `ca` names the
    /// authority of the certificates.
    pub fn node_start(&self, host: &str, ca: Option<&str>, build: Option<&str>) -> NodeStart {
        let security = match (&self.certs_dir, ca) {
            (None, _) => Security::Insecure,
            (Some(_), ca) => Security::Ca(ca.unwrap_or_default().to_owned()),
        };
        NodeStart {
            address: self.advertise.clone(),
            sql_address: self.sql.clone(),
            http_address: Some(self.advertised_http()),
            locality: self.locality.clone(),
            mode: self.mode.clone(),
            // The node's own address in the list is no use to it.
            join: self.join.clone(),
            stores: self.stores.iter().map(|path| store_key(host, path)).collect(),
            build: build.map(str::to_owned),
            security,
        }
    }
}

/// The model's key of a store path on a machine.
pub fn store_key(host: &str, path: &str) -> String {
    format!("{host}:{}", path.trim_end_matches('/'))
}

/// What an insecure node prints first.
pub fn insecure_warning(listen: &Address) -> String {
    format!(
        "*\n* WARNING: RUNNING IN INSECURE MODE!\n* \n* - Your cluster is open for any client that can access {}.\n* - Any user, even root, can log in without providing a password.\n* - Any user, connecting as root, can read or write any data in your cluster.\n* - There is no network encryption nor authentication, and thus no confidentiality.\n* \n* Check out how to secure your cluster on KWDB website\n*\n",
        listen.host()
    )
}

/// What a node prints that has not joined when it is ready.
pub const WAITING: &str = "*\n* INFO: initial startup completed.\n* Node will now attempt to join a running cluster, or wait for `kwbase init`.\n* Client connections will be accepted after this completes successfully.\n* Check the log file(s) for progress. \n*\n";

/// A start command under way.
#[derive(Debug)]
pub(crate) struct Starting {
    address: Address,
    ready_at: Timestamp,
    background: bool,
    told: bool,
}

pub(crate) fn begin(cluster: &mut Cluster, words: &[String], env: &ClientEnv, out: &mut Output) -> State {
    let name = words.first().map(String::as_str).unwrap_or_default();
    let fail = |out: &mut Output, text: &str| {
        out.stderr += &failure(text, name);
        State::Ended(1)
    };
    let args = match StartArgs::parse_as(words, env.release(cluster)) {
        Ok(args) => args,
        Err(text) => return fail(out, &text),
    };
    let certs = args.certs_dir.as_ref().map(|dir| env.certs.get(dir));
    let ca = match certs {
        Some(certs) => match certs.and_then(|c| c.ca.clone()) {
            Some(ca) => Some(ca),
            None => {
                let text = "cannot load certificates.\nCheck your certificate settings, set --certs-dir, or use --insecure for insecure clusters.\n\nfailed to start server: problem with CA certificate: not found";
                return fail(out, text);
            }
        },
        None => {
            out.stderr += &insecure_warning(&args.listen);
            None
        }
    };
    match cluster.start_node(args.node_start(&env.host, ca.as_deref(), env.build.as_deref())) {
        Ok(reply) => State::Start(Box::new(Starting {
            address: args.advertise,
            ready_at: reply.ready_at,
            background: args.background,
            told: false,
        })),
        Err(error) => {
            let text = error.to_string();
            fail(out, text.strip_prefix("ERROR: ").unwrap_or(&text))
        }
    }
}

impl Starting {
    pub(crate) fn step(&mut self, cluster: &Cluster, out: &mut Output) -> Step {
        let now = cluster.now();
        let soon = now + Duration::from_millis(100);
        match cluster.process(&self.address).map(|p| p.phase) {
            Some(Phase::Exited { code, message }) => {
                out.stdout += &message;
                Step::Exit(code)
            }
            Some(Phase::Booting | Phase::Waiting) if now < self.ready_at => Step::At(soon.min(self.ready_at)),
            Some(phase) => {
                if phase == Phase::Waiting && !std::mem::replace(&mut self.told, true) {
                    out.stdout += WAITING;
                }
                if self.background { Step::Done } else { Step::Hang }
            }
            None => Step::Exit(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<StartArgs, String> {
        StartArgs::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn reads_the_observed_command_line() {
        let args = parse(
            "start --insecure --store=/data/n4 --listen-addr=127.0.0.1:26260 --http-addr=127.0.0.1:8083 --brpc-addr=127.0.0.1:27260 --join=127.0.0.1:26257,127.0.0.1:26258 --cache=64MiB --max-sql-memory=64MiB --pid-file=/data/n4.pid --background",
        )
        .unwrap();
        assert_eq!(args.advertise.as_str(), "127.0.0.1:26260");
        assert_eq!(args.http.as_str(), "127.0.0.1:8083");
        assert_eq!(args.join.len(), 2);
        assert_eq!(args.stores, ["/data/n4"]);
        assert!(args.background && args.certs_dir.is_none());
    }

    #[test]
    fn brpc_port_is_demanded() {
        assert_eq!(parse("start --insecure").unwrap_err(), "--brpc-addr's port not specified");
        assert!(parse("start --nope").unwrap_err().contains("unknown flag: --nope"));
    }

    #[test]
    fn store_with_attributes() {
        let args = parse("start --brpc-addr=:1 --store=path=/d/1,attrs=ssd --store=/d/2/").unwrap();
        assert_eq!(args.stores, ["/d/1", "/d/2"]);
        assert_eq!(args.certs_dir.as_deref(), Some("~/.kwbase-certs"));
    }
}
