//! A service that adds a node to a secure cluster over SSH: logins, host keys, certificates that are issued where the
//! authority's key lies, the admin RPC where it can be had, and an operation that runs as a task of its own.
//!
//! `cargo run --example embed_over_ssh`, as root: the hosts are small machines of this one with an sshd each, made at the
//! beginning of `main`. Where they cannot be made it says so in one line, and in CI it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::SignedDuration;
use kwdb_scale_core::certs::IssueOnHost;
use kwdb_scale_core::execute::{End, ObserveOptions, Operation, Ports, Progress, observe};
use kwdb_scale_core::kwbase::{Authority, Kwbase, KwbaseHost, Security, StoreSpec};
use kwdb_scale_core::plan::{gateways, plan};
use kwdb_scale_core::policy::Policy;
use kwdb_scale_core::request::{
    Certificates, Inventory, InventoryHost, Operation as Change, Options, Request,
};
use kwdb_scale_core::topology::HostName;
use kwdb_scale_local::{FileJournal, FileLock, SystemClock};
use kwdb_scale_rpc::{AdminRpc, Prefer};
use kwdb_scale_sim::lab::{
    self, CERTS, Hosts, Lab, LabHost, LabInfo, LabOptions, Login, NetnsOptions, ORDINARY_USER,
};
use kwdb_scale_sql::{Secure, SqlSource};
use kwdb_scale_ssh::{HostKeyPolicy, KeyFile, Privilege, SshHost, SshTransport};

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    // Only for the lab: its nodes are this executable started again.
    kwdb_scale_sim::process::hook();
    if let Err(why) = lab::machines_can_be_made() {
        println!("not run: {why}");
        return if std::env::var_os("CI").is_some() { Err(why.into()) } else { Ok(()) };
    }
    let scratch = tempfile::tempdir()?;
    let mut lab = Lab::up(LabOptions {
        nodes: 3,
        secure: true,
        ranges: 10,
        speed: 20.0,
        hosts: Hosts::Netns(NetnsOptions { login: Login::Ordinary, ..NetnsOptions::default() }),
        ..LabOptions::new(scratch.path().join("lab"))
    })?;
    let added = lab.add_without_certs();
    let lab = lab.scoped();
    added?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(scale_out(lab.info()))
}

async fn scale_out(info: &LabInfo) -> Result<(), Failed> {
    // 1. How hosts are reached: who they are is proven by known_hosts, who we are by a key, and sudo does the rest.
    let reach = |host: &KwbaseHost| {
        let address = host.listen_addr.as_ref().map(|a| a.host().to_owned()).unwrap_or_default();
        let keys = HostKeyPolicy::Strict { files: vec![info.dir.join("known_hosts")] };
        SshHost::new(address, ORDINARY_USER, keys)
            .login(KeyFile::new(info.dir.join("id_ed25519")))
            .privilege(Privilege::Sudo { user: None })
    };
    let hosts: Vec<KwbaseHost> = info.hosts.iter().map(|h| describe(info, h)).collect();
    let transport = Arc::new(SshTransport::new(hosts.iter().map(|h| (h.name.clone(), reach(h))))?);

    // 2. Who issues: kwbase on the first host, where the authority's private key lies and stays. Another authority is a
    // `CertificateIssuer` of your own. What this service trusts is compared with it.
    let own_certs = info.certs_dir.clone().ok_or("the lab is insecure")?;
    let holder = hosts.first().ok_or("the lab has no host")?.clone();
    let in_certs = |name: &str| format!("{CERTS}/{name}");
    let issuer = IssueOnHost::new(transport.clone(), holder, in_certs("ca.key"), in_certs("ca.crt"))?;
    let authority = Authority {
        trusted: BTreeMap::from([(
            "this service".to_owned(),
            std::fs::read_to_string(own_certs.join("ca.crt"))?,
        )]),
        ..Authority::new(Arc::new(issuer))
    };

    // 3. The ports. Facts come over SQL, acts go by the admin RPC where it can be had and by kwbase on a host otherwise.
    let sql = SqlSource::builder(info.seeds())
        .security(Secure::certs_dir(&own_certs, "root"))
        .deadline(Duration::from_secs(10))
        .build()?;
    let inventory =
        Inventory { hosts: hosts.iter().filter_map(in_inventory).collect(), ..Inventory::default() };
    let kwbase = Arc::new(
        Kwbase::new(transport, hosts)?
            .with_authority(authority)
            // With what the hosts' clocks are compared.
            .with_clock(Arc::new(SystemClock::new())),
    );
    let request = Request {
        operation: Change::ScaleOut { hosts: vec![info.hosts.last().ok_or("no host")?.name.clone()] },
        inventory: inventory.clone(),
        options: Options { certificates: Certificates::Issue, ..Options::default() },
    };

    // 4. Observe and plan. Whoever issues is looked at, too, and so is by what means nodes are marked and stopped.
    let options = ObserveOptions {
        request: Some(request.clone()),
        inventory,
        certificates: Some(kwbase.clone()),
        ..ObserveOptions::default()
    };
    let mut observation = observe(&sql, Some(&*kwbase), &options).await?;
    let rpc = AdminRpc::builder().security(kwdb_scale_rpc::Secure::certs_dir(&own_certs, "root")).build();
    let chosen =
        Prefer::new(rpc, kwbase.clone()).choose(&gateways(&observation, &request, &BTreeSet::new())).await;
    observation.means = Some(chosen.means);
    // The defaults of a policy suit production; the twin's time is short.
    let policy = Policy {
        poll: SignedDuration::from_millis(200),
        settled_after: SignedDuration::from_secs(3),
        max_clock_skew: SignedDuration::from_secs(10),
        ..Policy::default()
    };
    let plan = plan(&observation, &request, &policy)?;
    print!("{plan}");

    // 5. Apply, as a task that goes on by itself.
    let journals = info.dir.join("journals");
    let ports = Ports {
        facts: Arc::new(sql.clone()),
        settings: Arc::new(sql),
        control: chosen.control,
        queue: chosen.queue,
        lifecycle: chosen.lifecycle,
        certificates: Some(kwbase),
        journal: Arc::new(FileJournal::create(&journals, "scale-out").await?),
        lock: Arc::new(FileLock::in_dir(&journals)),
        clock: Arc::new(SystemClock::new()),
    };
    let mut operation = Operation::begin(plan, ports).await?;
    let mut events = operation.events();
    let task = tokio::spawn(async move { operation.run().await });
    while let Some(event) = events.next().await {
        if let Progress::StepDone { step, note } = event {
            println!("step {step} done: {note}");
        }
    }
    match task.await? {
        End::Done(proof) => {
            println!("done: {}", proof.join("; "));
            Ok(())
        }
        other => Err(format!("not done: {other:?}").into()),
    }
}

/// Where a host's node is, for what is compared before anything is done.
fn in_inventory(host: &KwbaseHost) -> Option<(HostName, InventoryHost)> {
    let address = host.rpc_address()?;
    Some((
        host.name.clone(),
        InventoryHost { address, sql_address: None, brpc_address: host.brpc_addr.clone() },
    ))
}

/// How a host runs kwbase. In production this comes from the service's own inventory.
fn describe(info: &LabInfo, host: &LabHost) -> KwbaseHost {
    let mut described = KwbaseHost::new(host.name.clone(), Security::Certs { certs_dir: CERTS.to_owned() });
    described.program = info.host_program().display().to_string();
    described.stores = host.stores.iter().map(|s| StoreSpec::new(s.display().to_string())).collect();
    described.listen_addr = Some(host.address.clone());
    described.http_addr = Some(host.http_address.clone());
    described.brpc_addr = Some(host.brpc_address.clone());
    described.cache = Some("256MiB".to_owned());
    described
}
