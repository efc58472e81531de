//! Looking at a host: from its description to the probe's question, and from the probe's answer to facts.

use std::net::IpAddr;

use super::command::CommandLine;
use super::host::{KwbaseHost, Security};
use crate::host_facts::probe::{Also, Question};
use crate::host_facts::read::Found;
use crate::host_facts::{DirectoryUse, HostFacts, Listener};
use crate::owner::Described;
use crate::topology::Address;

const EXTERNAL: &str = "--external-io-dir=";

/// What is to be asked of `host`, on which the authority's private key may lie in a file.
pub(super) fn question(host: &KwbaseHost, authority_key: Option<&str>, also: Option<Also>) -> Question {
    let stores = host.stores.iter().map(|s| (s.path.clone(), DirectoryUse::Store));
    let series = host.ts_store.iter().map(|dir| (dir.clone(), DirectoryUse::TimeSeries));
    let external = host.extra_flags.iter().filter_map(|flag| flag.strip_prefix(EXTERNAL));
    let external =
        external.filter(|dir| dir.starts_with('/')).map(|dir| (dir.to_owned(), DirectoryUse::External));
    Question {
        program: host.program.clone(),
        prefix: host.prefix(),
        owner: host.owner.clone(),
        described: (!host.owner.is_quit()).then(|| Described::of(host)),
        binds: host.binds(),
        certs_dir: match &host.security {
            Security::Insecure => None,
            Security::Certs { certs_dir } => Some(certs_dir.clone()),
        },
        authority_key: authority_key.map(str::to_owned),
        directories: stores.chain(series).chain(external).collect(),
        also,
    }
}

/// The probe's command line for `host`. It begins on the machine itself and enters the prefix on its own.
pub(super) fn command(host: &KwbaseHost, question: &Question) -> CommandLine {
    host.on_machine("inspect", question.argv())
}

/// What was found, as facts of the host.
pub(super) fn facts(host: &KwbaseHost, found: Found) -> HostFacts {
    let listening = found.machine.ports.as_ref().map(|ports| listening(host.listening_addresses(), ports));
    HostFacts {
        host: host.name.clone(),
        build: found.build,
        stores: found.stores,
        listening,
        can_authenticate: found.can_authenticate,
        secure: host.secure(),
        by_service: !host.owner.is_quit(),
        archive_only: false,
        script: None,
        machine: Some(Box::new(found.machine)),
    }
}

/// Those of `addresses` that a listener of `ports` holds. A listener of one address does not hinder another address of
/// the machine; where an address is a name, or the loopback that stands for all of them, every listener counts.
fn listening(addresses: Vec<Address>, ports: &[Listener]) -> Vec<Address> {
    let held = |address: &Address| {
        let own: Option<IpAddr> = address.host().parse().ok().filter(|ip: &IpAddr| !ip.is_loopback());
        ports.iter().any(|p| {
            Some(p.port) == address.port()
                && (p.ip.is_unspecified() || own.is_none_or(|own| own.to_canonical() == p.ip))
        })
    };
    addresses.into_iter().filter(held).collect()
}
