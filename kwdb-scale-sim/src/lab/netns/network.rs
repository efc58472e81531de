//! The network of a lab: a namespace that holds a bridge, one for each host, and one interface through which the
//! operator reaches them all.
//!
//! The bridge is in a namespace of its own, where no packet filter of this machine looks at what the hosts say to
//! each other.

use std::env;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::super::{LabError, io_error};
use super::{FIRST, Login, NetnsOptions, unfit};
use crate::process::random;

/// The operator's number in the subnet.
const OPERATOR: u8 = 254;
const BRIDGE: &str = "br0";
const UPLINK: &str = "up0";
const NAMESPACES: &str = "/run/netns";

/// Programs of this machine that make hosts, by absolute paths.
#[derive(Debug)]
pub(in crate::lab) struct Tools {
    pub(super) ip: PathBuf,
    pub(super) setsid: PathBuf,
    pub(super) nsenter: PathBuf,
    pub(super) unshare: PathBuf,
    pub(super) sshd: PathBuf,
    pub(super) keygen: PathBuf,
}

impl Tools {
    /// Finds them all, and that we may use them.
    pub(in crate::lab) fn find() -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(unfit(
                "hosts with namespaces of their own are made by root",
                "run it as root (sudo)",
            ));
        }
        let find = |name: &str, cure| {
            let path = env::var_os("PATH").unwrap_or_default();
            let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
            let found = env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|p| p.is_file());
            found.ok_or_else(|| {
                unfit(
                    format!("hosts with namespaces of their own need `{name}`, which is not installed"),
                    cure,
                )
            })
        };
        Ok(Self {
            ip: find("ip", "install iproute2")?,
            setsid: find("setsid", "install util-linux")?,
            nsenter: find("nsenter", "install util-linux")?,
            unshare: find("unshare", "install util-linux")?,
            sshd: find("sshd", "install openssh-server")?,
            keygen: find("ssh-keygen", "install openssh-client")?,
        })
    }

    /// `ip` with one command a line, in a namespace or in ours.
    fn ip(&self, namespace: Option<&str>, lines: &str) -> Result<String, LabError> {
        let what = || format!("`ip` in {}", namespace.unwrap_or("the namespace of the operator"));
        let mut command = Command::new(&self.ip);
        if let Some(namespace) = namespace {
            command.args(["-n", namespace]);
        }
        let mut child = command
            .args(["-4", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io_error(what()))?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.as_bytes()).map_err(io_error(what()))?;
        }
        let output = child.wait_with_output().map_err(io_error(what()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Command {
            command: format!("{}: {}", what(), lines.trim().replace('\n', "; ")),
            end: format!("ended with {}", output.status),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// The network of a lab whose hosts are machines of their own.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LabNet {
    /// Begins the name of every namespace of the lab, and is that of the operator's interface and of the namespace
    /// with the bridge.
    pub id: String,
    /// The first three numbers of every address.
    pub subnet: [u8; 3],
    /// As whom the lab's ssh_config logs in.
    pub login: Login,
    /// Whether hosts were installed with `deploy.sh`, and nodes run from the unit that it makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deploy: bool,
}

impl LabNet {
    /// A name that nobody has, and a subnet that nothing of this machine knows a way to. Makes nothing.
    pub(in crate::lab) fn choose(tools: &Tools, how: &NetnsOptions) -> Result<Self, LabError> {
        let taken = prefixes(&tools.ip(None, "addr show\nroute show table all\n")?);
        let subnet = free_subnet(&taken, random).ok_or_else(|| {
            unfit(
                "every private subnet that was tried is in use on this machine",
                "remove the routes that cover 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16",
            )
        })?;
        let bits = random();
        Ok(Self {
            id: format!("kw{:08x}", (bits >> 32) ^ (bits & 0xffff_ffff)),
            subnet,
            login: how.login,
            deploy: how.deploy,
        })
    }

    /// The operator's address.
    pub fn operator(&self) -> Ipv4Addr {
        self.address(OPERATOR)
    }

    /// The network namespace of a host, as `ip netns` knows it.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.id)
    }

    /// The address of the host of that index, counted from zero.
    pub(in crate::lab) fn host(&self, index: usize) -> Option<Ipv4Addr> {
        let number = u8::try_from(index + FIRST + 1).ok().filter(|n| *n < OPERATOR)?;
        (index < super::MOST).then(|| self.address(number))
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.subnet;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Makes the bridge and the operator's interface.
    pub(in crate::lab) fn make(&self, tools: &Tools) -> Result<(), LabError> {
        let (id, operator) = (&self.id, self.operator());
        tools.ip(None, &format!("netns add {id}\n"))?;
        tools.ip(
            Some(id),
            &format!("link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"),
        )?;
        tools.ip(
            None,
            &format!(
                "link add {id} type veth peer name {UPLINK} netns {id}\naddr add {operator}/24 dev {id}\nlink set {id} up\n"
            ),
        )?;
        tools.ip(Some(id), &format!("link set {UPLINK} master {BRIDGE} up\n")).map(drop)
    }

    /// Makes a host's namespace and its interface.
    pub(super) fn make_host(&self, tools: &Tools, host: &str, address: Ipv4Addr) -> Result<(), LabError> {
        let namespace = self.namespace(host);
        tools.ip(None, &format!("netns add {namespace}\n"))?;
        tools.ip(
            Some(&self.id),
            &format!("link add {host} type veth peer name eth0 netns {namespace}\nlink set {host} master {BRIDGE} up\n"),
        )?;
        let lines = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
        tools.ip(Some(&namespace), &lines).map(drop)
    }

    /// Pulls a host's cable, or puts it in again.
    pub(in crate::lab) fn connect(&self, tools: &Tools, host: &str, on: bool) -> Result<(), LabError> {
        let state = if on { "up" } else { "down" };
        tools.ip(Some(&self.id), &format!("link set {host} {state}\n")).map(drop)
    }

    /// Removes a namespace in which no process is left.
    pub(super) fn remove_host(&self, tools: &Tools, host: &str) -> Result<(), LabError> {
        let namespace = self.namespace(host);
        // At once: what is left in a namespace goes some time after it.
        if exists(&self.id) {
            let _ = tools.ip(Some(&self.id), &format!("link del {host}\n"));
        }
        remove(tools, &namespace)
    }

    /// Removes the bridge and the operator's interface.
    pub(in crate::lab) fn remove(&self, tools: &Tools) -> Result<(), LabError> {
        if Path::new("/sys/class/net").join(&self.id).exists() {
            tools.ip(None, &format!("link del {}\n", self.id))?;
        }
        remove(tools, &self.id)
    }
}

fn remove(tools: &Tools, namespace: &str) -> Result<(), LabError> {
    if exists(namespace) { tools.ip(None, &format!("netns del {namespace}\n")).map(drop) } else { Ok(()) }
}

/// The file that stands for a namespace.
pub(super) fn file(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

fn exists(namespace: &str) -> bool {
    fs::symlink_metadata(file(namespace)).is_ok()
}

/// What the words of `ip` call an address or a network, but for the default route.
fn prefixes(text: &str) -> Vec<(u32, u32)> {
    text.split_whitespace()
        .filter_map(|word| {
            let (address, length) = word.split_once('/').unwrap_or((word, "32"));
            let (address, length) = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u32>().ok()?);
            (1..=32).contains(&length).then(|| (u32::from(address), u32::MAX << (32 - length)))
        })
        .collect()
}

/// A subnet of 256 private addresses that overlaps nothing that is taken.
fn free_subnet(taken: &[(u32, u32)], mut random: impl FnMut() -> u64) -> Option<[u8; 3]> {
    let free = |net: &[u8; 3]| {
        let [a, b, c] = *net;
        let address = u32::from(Ipv4Addr::new(a, b, c, 0));
        taken.iter().all(|(other, mask)| (address ^ other) & mask & 0xffff_ff00 != 0)
    };
    let tries = (0..256).map(|attempt| {
        let [x, y, ..] = random().to_le_bytes();
        match attempt {
            0..128 => [10, x, y],
            128..192 => [172, 16 + x % 16, y],
            _ => [192, 168, y],
        }
    });
    tries.into_iter().find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_free_of_what_the_machine_knows() {
        let text = "2: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\n\
                    default via 192.0.2.1 dev eth0\n10.0.0.0/9 via 192.0.2.1 dev eth0\n10.200.7.0/24 dev x";
        let taken = prefixes(text);
        let mut next = [[1_u8, 1], [127, 255], [200, 7], [200, 8]].into_iter();
        let mut draw = || next.next().map_or(0, |[x, y]| u64::from_le_bytes([x, y, 0, 0, 0, 0, 0, 0]));
        assert_eq!(free_subnet(&taken, &mut draw), Some([10, 200, 8]));
        assert_eq!(
            free_subnet(&[(u32::from(Ipv4Addr::new(10, 0, 0, 0)), 0xff00_0000)], || 0x0507),
            Some([172, 23, 5])
        );
        assert_eq!(free_subnet(&[(0, 0)], || 1), None);
    }

    #[test]
    fn names_fit_an_interface() {
        let net =
            LabNet { id: "kw01234567".to_owned(), subnet: [10, 1, 2], login: Login::Root, deploy: false };
        assert!(net.id.len() <= 15, "IFNAMSIZ");
        assert_eq!(net.host(0), Some(Ipv4Addr::new(10, 1, 2, 11)));
        assert_eq!((net.host(199).is_some(), net.host(200)), (true, None));
        assert_eq!(net.namespace("n3"), "kw01234567-n3");
    }
}
