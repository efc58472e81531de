//! The reading of the probe's answer. It is total: whatever the bytes, there is a result, and what was not told in
//! full is unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};

use super::certificates::{KeyMatch, authority_key, directory, pair};
use super::probe::Question;
use super::{
    ClockOffset, Container, FileSystem, Installed, Leftover, Limit, Limits, Listener, LocalNetwork, Machine,
    NodeProcess, Rights, Space, StoreContent, StoreFacts, System, Unit, Writable,
};
use crate::deploy::info::{self, InfoError};
use crate::fact::Fact;
use crate::kwbase::output;
use crate::owner::{Owner, StartLine};
use crate::topology::{Address, StartMode};

/// How much of a text from outside is kept.
pub(super) const TEXT: usize = 400;
const SILENT: &str = "the host did not say";

/// What the operator's clock showed before the probe was sent and after it was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    pub(crate) sent: Timestamp,
    pub(crate) answered: Timestamp,
}

/// What the probe found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) build: Fact<String>,
    pub(crate) stores: Vec<StoreFacts>,
    /// Whether the three files that commands log in with can be read.
    pub(crate) can_authenticate: Fact<bool>,
    pub(crate) machine: Machine,
    /// The items of the script that the question added; none where it added none.
    pub(crate) also: Fact<Vec<String>>,
}

/// Everything is unknown, for one reason.
pub(crate) fn nothing(question: &Question, why: &str) -> Found {
    read_items(question, &[], &[], None, why)
}

/// Reads the answer. `stderr` tells why the inner part did not come, where it did not.
pub(crate) fn read(question: &Question, stdout: &str, stderr: &str, trip: Option<RoundTrip>) -> Found {
    let (also, items): (Vec<&str>, Vec<&str>) =
        stdout.split_terminator('\0').partition(|item| item.starts_with('X'));
    let code = items.last().and_then(|last| last.strip_prefix('Z'));
    let (Some(code), true) = (code, stdout.ends_with('\0')) else {
        return nothing(question, "the answer of the host was cut off");
    };
    // The outer part comes first and begins with the clock; the inner one ends with E. What an inner part that was cut
    // off told of itself is left out.
    let end = items.iter().rposition(|item| *item == "E");
    let begin =
        items.iter().position(|item| !item.starts_with('K') || INNER.iter().any(|k| key(item) == Some(k)));
    let found = match (begin, end) {
        (Some(begin), Some(end)) => {
            let (outer, rest) = items.split_at_checked(begin).unwrap_or((&[], &[]));
            let (inner, tail) = rest.split_at_checked(end.saturating_sub(begin)).unwrap_or((rest, &[]));
            let outer: Vec<&str> = outer.iter().chain(tail).copied().collect();
            read_items(question, &outer, inner, trip, SILENT)
        }
        (begin, _) => {
            let outer = items.get(..begin.unwrap_or(items.len())).unwrap_or_default();
            let said = output::last_lines(stderr, 1);
            let why = match (question.prefix.first(), said.is_empty()) {
                (Some(prefix), true) => format!("'{prefix}' ended with exit code {}", text(code)),
                (Some(prefix), false) => {
                    format!("'{prefix}' ended with exit code {}: {}", text(code), text(&said))
                }
                (None, _) => "the answer of the host was cut off".to_owned(),
            };
            read_items(question, outer, &[], trip, &why)
        }
    };
    let also = also.iter().filter_map(|item| item.strip_prefix('X')).map(str::to_owned).collect();
    Found { also: Fact::Known(also), ..found }
}

/// Keys with which the inner part may begin before any other item.
const INNER: [&str; 1] = ["version-state"];

fn key(item: &str) -> Option<&str> {
    item.strip_prefix('K').map(|rest| rest.split_once(' ').map_or(rest, |(key, _)| key))
}

/// The facts of a list of items, by key and in order.
pub(super) struct Facts<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Facts<'a> {
    fn of(items: &[&'a str]) -> Self {
        let mut map: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for item in items {
            if let Some(rest) = item.strip_prefix('K') {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                map.entry(key).or_default().push(value);
            }
        }
        Self(map)
    }

    fn all(&self, key: &str) -> &[&'a str] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn one(&self, key: &str) -> Option<&'a str> {
        self.all(key).first().copied()
    }

    fn word(&self, key: &str, why: &str) -> Fact<String> {
        Fact::from_option(self.one(key).filter(|v| !v.trim().is_empty()).map(text), why)
    }
}

pub(super) fn text(value: &str) -> String {
    value.trim().chars().take(TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `missing` is why an item that is not there is not there.
fn read_items(
    question: &Question,
    outer: &[&str],
    inner: &[&str],
    trip: Option<RoundTrip>,
    missing: &str,
) -> Found {
    let (out, within) = (Facts::of(outer), Facts::of(inner));
    // Why a part of the machine is not told: for the outer part `missing` only when there is none at all.
    let silent = if outer.is_empty() { missing } else { SILENT };
    let secure = question.certs_dir.is_some();
    let (stores, can_authenticate, ports) = listed(question, inner, missing);
    let machine = Machine {
        program: question.program.clone(),
        inside: !question.prefix.is_empty(),
        system: match (out.one("kernel"), out.one("arch")) {
            (Some(kernel), Some(architecture)) => Fact::Known(System {
                id: out.one("os-ID").map(text),
                version: out.one("os-VERSION_ID").map(text),
                kernel: text(kernel),
                architecture: text(architecture),
            }),
            _ => Fact::unknown(silent),
        },
        user: out.word("user", silent),
        sudo: Fact::from_option(out.one("sudo").map(|v| v == "yes"), silent),
        installed: file(&out, "mode", silent, |text| info::mode(text).map(Installed::from)),
        peers: file(&out, "node", silent, info::peers),
        deploy_scripts: listed_if(&out, "deploy-looked", silent, || {
            out.all("deploy").iter().map(|p| text(p)).collect()
        }),
        unit: unit(&out, silent),
        container: container(question, &out, silent),
        owner: question.owner.clone(),
        described: question.described.clone(),
        ports,
        addresses: addresses(&within, missing),
        binds: question.binds.clone(),
        file_systems: file_systems(question, &within, missing),
        writable: writable(question, &within, missing),
        limits: Limits {
            open_files: limit(within.one("session-files"), missing),
            locked_memory: limit(within.one("session-memory"), missing),
            max_map_count: Fact::from_option(out.one("maps").and_then(|v| v.trim().parse().ok()), silent),
        },
        clock: clock(out.all("clock"), trip, silent),
        certificates: if secure { directory(question, inner, &within, missing) } else { Fact::Known(None) },
        authority_key: authority_key(question, &within, missing),
        leftovers: leftovers(&out, &within, missing),
        processes: if within.one("proc-looked").is_some() {
            Fact::Known(processes(inner))
        } else if inner.is_empty() {
            Fact::unknown(missing)
        } else {
            Fact::unknown("the host has no /proc")
        },
    };
    Found {
        build: build(&question.program, &within, missing),
        stores,
        can_authenticate: match &machine.certificates {
            _ if !secure => Fact::Known(true),
            Fact::Known(Some(dir)) if !dir.damage(&["ca", "client.root"]).is_empty() => Fact::Known(false),
            _ => can_authenticate,
        },
        machine,
        also: Fact::unknown(missing),
    }
}

/// A name as it is, but for signs that cannot be shown.
fn shown(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_control() || c == '\\' { text.extend(c.escape_debug()) } else { text.push(c) }
    }
    text
}

fn listed_if<T>(facts: &Facts<'_>, looked: &str, why: &str, list: impl FnOnce() -> Vec<T>) -> Fact<Vec<T>> {
    match facts.one(looked) {
        Some(_) => Fact::Known(list()),
        None if facts.0.is_empty() => Fact::unknown(SILENT),
        None => Fact::unknown(why),
    }
}

/// Store directories, the readable certificates and the listening sockets: items that stand in an order.
fn listed(
    question: &Question,
    items: &[&str],
    missing: &str,
) -> (Vec<StoreFacts>, Fact<bool>, Fact<Vec<Listener>>) {
    let mut told: Vec<StoreFacts> = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let (mut readable, mut unreadable) = (0, 0);
    let mut ports: Option<Vec<Listener>> = None;
    for item in items {
        let mut rest = item.chars();
        let tag = rest.next();
        let value = rest.as_str();
        match tag {
            Some('S') => {
                seen.clear();
                let mut store = StoreFacts::new(
                    "",
                    match value {
                        "dir" => Fact::Known(StoreContent::Empty),
                        "absent" => Fact::Known(StoreContent::Absent),
                        "denied" => Fact::unknown("the user that runs kwbase may not look into it"),
                        "other" => Fact::unknown("it is no directory (a file, or a link that leads nowhere)"),
                        other => Fact::unknown(format!("the host said '{}'", text(other).escape_debug())),
                    },
                );
                // Only of a directory that can be entered it is asked.
                if value == "dir" {
                    store.mounts = Fact::unknown("the host has no /proc/self/mountinfo");
                }
                told.push(store);
            }
            Some('M') => {
                if let Some(store) = told.last_mut() {
                    store.content = Fact::unknown("it holds more entries than can be listed");
                }
            }
            Some('R') => {
                if let Some(store) = told.last_mut() {
                    store.leads_to = Some(shown(value));
                }
            }
            Some('W') => {
                if let Some(store) = told.last_mut() {
                    store.unmovable = true;
                }
            }
            Some('A') => {
                if let Some(store) = told.last_mut() {
                    store.asides.push(shown(value));
                }
            }
            Some('P') => match told.last_mut().map(|store| &mut store.mounts) {
                Some(Fact::Known(places)) => places.push(shown(value)),
                Some(last) => *last = Fact::Known(Vec::new()),
                None => {}
            },
            Some('N') => {
                let name = shown(value);
                if !seen.insert(name.clone()) {
                    continue;
                }
                match told.last_mut().map(|store| &mut store.content) {
                    Some(Fact::Known(StoreContent::InUse(names))) => {
                        names.push(name);
                    }
                    Some(last @ Fact::Known(_)) => *last = Fact::Known(StoreContent::InUse(vec![name])),
                    Some(Fact::Unknown(_)) | None => {}
                }
            }
            Some('C') if value.starts_with('+') => readable += 1,
            Some('C') => unreadable += 1,
            Some('T') => {
                ports.get_or_insert_default();
            }
            Some('L') => {
                if let (Some(ports), Some(listener)) = (&mut ports, listener(value)) {
                    ports.push(listener);
                }
            }
            _ => {}
        }
    }
    if let Some(ports) = &mut ports {
        ports.sort_unstable();
        ports.dedup();
    }
    let mut told = told.into_iter();
    let untold =
        || StoreFacts { mounts: Fact::unknown(missing), ..StoreFacts::new("", Fact::unknown(missing)) };
    let stores = question
        .directories
        .iter()
        .take(question.stores())
        .map(|(path, _)| StoreFacts { path: path.clone(), ..told.next().unwrap_or_else(untold) });
    let can = match (readable, unreadable) {
        (3, 0) => Fact::Known(true),
        (_, 1..) => Fact::Known(false),
        _ => Fact::unknown(missing),
    };
    let no_table = if items.is_empty() { missing } else { "the host has no /proc/net/tcp" };
    (stores.collect(), can, Fact::from_option(ports, no_table))
}

/// `0100007F:6691`, or 32 digits for IPv6: words of 4 bytes in the machine's order, which is taken for little-endian.
fn listener(value: &str) -> Option<Listener> {
    let (address, port) = value.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_le_bytes)
    };
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = Vec::with_capacity(16);
            for at in 0..4 {
                bytes.extend(word(at)?);
            }
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()
        }
        _ => return None,
    };
    Some(Listener { ip, port })
}

/// Every machine has an address of IPv4, that of its loopback: where none was told, nothing was.
fn addresses(facts: &Facts<'_>, missing: &str) -> Fact<Vec<LocalNetwork>> {
    let (four, six) = (facts.all("address"), facts.all("address6"));
    let mut all: Vec<LocalNetwork> = four.iter().filter_map(|value| network(value)).collect();
    if !all.iter().any(|network| network.ip.is_ipv4()) {
        return Fact::unknown(if facts.0.is_empty() {
            missing
        } else {
            "the host has no /proc/net/fib_trie"
        });
    }
    let one = |digits: &&str| {
        let bits = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32)?;
        Some(LocalNetwork { ip: Ipv6Addr::from_bits(bits).into(), prefix: 128 })
    };
    all.extend(six.iter().filter_map(one));
    all.sort_unstable();
    all.dedup();
    Fact::Known(all)
}

fn network(value: &str) -> Option<LocalNetwork> {
    let (ip, prefix) = value.split_once('/')?;
    let (ip, prefix) = (ip.parse::<IpAddr>().ok()?, prefix.parse().ok()?);
    (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some(LocalNetwork { ip, prefix })
}

/// What `probe::LOOKS` told: the release of the program, and whether the key is the certificate's, where there is a key.
pub(crate) fn looks(program: &str, items: &[String]) -> (Fact<String>, Option<Fact<KeyMatch>>) {
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let facts = Facts::of(&items);
    (build(program, &facts, SILENT), facts.one("pair").map(pair))
}

/// The release that a program tells of itself.
fn build(program: &str, facts: &Facts<'_>, missing: &str) -> Fact<String> {
    let said = facts.one("version").unwrap_or_default();
    match facts.one("version-state") {
        None => Fact::unknown(missing),
        Some("absent") => {
            Fact::unknown(format!("{program}: the program is not there; install KWDB, or name its path"))
        }
        Some("denied") => Fact::unknown(format!("{program}: it is no file that may be run")),
        Some("124") => Fact::unknown(format!("{program} version did not end within 5 s")),
        Some("0") => match output::version(said) {
            Ok(version) => Fact::Known(text(&version.build)),
            Err(e) => Fact::unknown(format!("{program} version: {e}")),
        },
        Some(code) => Fact::unknown(format!(
            "{program} version ended with exit code {}: {}",
            text(code),
            text(&output::last_lines(said, 1))
        )),
    }
}

fn file<T>(
    facts: &Facts<'_>,
    name: &str,
    silent: &str,
    read: impl FnOnce(&str) -> Result<T, InfoError>,
) -> Fact<Option<T>> {
    match facts.one(&format!("{name}-state")) {
        Some("absent") => Fact::Known(None),
        Some("there") => match read(&facts.all(name).join("\n")) {
            Ok(found) => Fact::Known(Some(found)),
            Err(e) => Fact::Unknown(e.to_string()),
        },
        Some(_) => Fact::unknown("it may not be read"),
        None => Fact::unknown(silent),
    }
}

fn unit(facts: &Facts<'_>, silent: &str) -> Fact<Option<Unit>> {
    let value =
        |name: &str| facts.all("unit").iter().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(text);
    match (facts.one("unit-state"), value("LoadState").as_deref()) {
        (None, _) => Fact::unknown(silent),
        (Some("absent"), _) | (Some("there"), Some("not-found")) => Fact::Known(None),
        (Some("there"), Some(_)) => {
            match (value("ActiveState"), value("MainPID").map(|v| v.parse::<u32>())) {
                (Some(active), Some(Ok(pid))) => Fact::Known(Some(Unit {
                    active,
                    enabled: value("UnitFileState")
                        .filter(|v| !v.is_empty())
                        .unwrap_or_else(|| "none".to_owned()),
                    main_pid: Some(pid).filter(|pid| *pid != 0),
                    user: value("User").map(|user| if user.is_empty() { "root".to_owned() } else { user }),
                    starts: value("ExecStart").as_deref().and_then(StartLine::read),
                })),
                _ => Fact::unknown("systemctl show left out a part of its state"),
            }
        }
        _ => Fact::unknown("systemctl did not answer"),
    }
}

fn container(question: &Question, facts: &Facts<'_>, silent: &str) -> Fact<Option<Container>> {
    if let Some(line) = facts.one("container") {
        let mut words = line.splitn(4, ' ');
        return match (words.next(), words.next()) {
            (Some(engine), Some(state)) => Fact::Known(Some(Container {
                engine: text(engine),
                state: text(state),
                image: text(words.next().unwrap_or_default()),
                returns: facts.one("container-returns").map(text),
                starts: words.next().and_then(StartLine::read),
            })),
            _ => Fact::unknown("the engine answered in another form"),
        };
    }
    if let (Owner::Container { engine, .. }, Some("none")) = (&question.owner, facts.one("container-absent"))
    {
        return Fact::Unknown(format!("there is no program {engine} on the host"));
    }
    match (facts.one("container-unknown"), facts.one("container-absent")) {
        (Some(why), _) => Fact::unknown(text(why)),
        (None, Some(_)) => Fact::Known(None),
        (None, None) => Fact::unknown(silent),
    }
}

fn file_systems(question: &Question, facts: &Facts<'_>, missing: &str) -> Vec<FileSystem> {
    let mut lines = facts.all("space").iter();
    let all = question.directories.iter().map(|(directory, purpose)| FileSystem {
        directory: directory.clone(),
        purpose: *purpose,
        space: match lines.next() {
            None => Fact::unknown(missing),
            Some(line) => Fact::from_option(space(line), "df did not answer"),
        },
    });
    all.collect()
}

/// A line of `df -Pk`: source, 1024-byte blocks, used, available, share, mount. The first and the last may hold blanks.
fn space(line: &str) -> Option<Space> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.windows(4).position(|w| match w {
        [size, used, free, share] => {
            [size, used, free].iter().all(|n| n.parse::<u64>().is_ok()) && share.ends_with('%')
        }
        _ => false,
    })?;
    let kilobytes = |at: usize| words.get(at)?.parse::<u64>().ok()?.checked_mul(1024);
    Some(Space {
        source: text(&words.get(..at)?.join(" ")),
        mount: text(&words.get(at + 4..)?.join(" ")),
        size: kilobytes(at)?,
        free: kilobytes(at + 2)?,
    })
}

fn writable(question: &Question, facts: &Facts<'_>, missing: &str) -> Vec<Writable> {
    let rights = facts.all("rights");
    let told = facts.all("write").iter().filter_map(|v| {
        let (answer, directory) = v.split_once(' ')?;
        Some(Writable {
            directory: text(directory),
            writable: Fact::Known(answer == "yes"),
            rights: rights.iter().find_map(|v| read_rights(v, directory)),
        })
    });
    let mut all: Vec<Writable> = told.collect();
    for (directory, _) in question.directories.iter().take(question.stores()) {
        let bare = directory.trim_end_matches('/');
        if !all.iter().any(|w| w.directory == bare) {
            all.push(Writable { directory: bare.to_owned(), writable: Fact::unknown(missing), rights: None });
        }
    }
    all
}

fn read_rights(value: &str, of: &str) -> Option<Rights> {
    let mut words = value.splitn(4, ' ');
    let (mode, owner, group) = (words.next()?, words.next()?, words.next()?);
    let mode = u32::from_str_radix(mode, 8).ok()?;
    (words.next()? == of).then(|| Rights { mode, owner: text(owner), group: text(group) })
}

fn limit(value: Option<&str>, missing: &str) -> Fact<Limit> {
    let Some(value) = value else { return Fact::unknown(missing) };
    let number = |word: &str| match word {
        "unlimited" => Some(None),
        digits => digits.parse().ok().map(Some),
    };
    let found = value
        .split_once(' ')
        .and_then(|(soft, hard)| Some(Limit { soft: number(soft)?, hard: number(hard.trim())? }));
    Fact::from_option(found, "the host told it in another form")
}

/// The machine's clock stands twice in the answer. The first reading was made after the probe was sent, the second
/// before it was answered; both bound the offset.
fn clock(readings: &[&str], trip: Option<RoundTrip>, silent: &str) -> Fact<ClockOffset> {
    let Some(trip) = trip else { return Fact::unknown("no clock to compare with was given") };
    let ([first, .., last], true) = (readings, readings.len() > 1) else { return Fact::unknown(silent) };
    let (Some(first), Some(last)) = (reading(first), reading(last)) else {
        return Fact::unknown("the host told its time in another form");
    };
    // Without fractions a reading stands for the whole second that it begins.
    let most = first.0.saturating_add(first.1).ok().map(|t| t.duration_since(trip.sent));
    let least = last.0.duration_since(trip.answered);
    match most {
        Some(most) if most >= least => {
            let width = most.saturating_sub(least);
            let uncertainty = width.checked_div(2).unwrap_or(width);
            Fact::Known(ClockOffset { offset: least.saturating_add(uncertainty), uncertainty })
        }
        _ => Fact::unknown("one of the two clocks was set meanwhile"),
    }
}

fn reading(value: &str) -> Option<(Timestamp, SignedDuration)> {
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    if digits(fraction) {
        let nanos: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        return Some((Timestamp::new(seconds, nanos).ok()?, SignedDuration::ZERO));
    }
    Some((Timestamp::from_second(seconds).ok()?, SignedDuration::from_secs(1)))
}

fn octal(word: &str) -> Option<u32> {
    u32::from_str_radix(word, 8).ok()
}

/// What both parts of the probe found. Nothing was left only where both have looked.
fn leftovers(out: &Facts<'_>, within: &Facts<'_>, missing: &str) -> Fact<Vec<Leftover>> {
    let list = |facts: &Facts<'_>, silent: &str| match facts.one("left-looked") {
        Some(_) => Fact::Known(facts.all("left").iter().filter_map(|v| leftover(v)).collect::<Vec<_>>()),
        None if facts.0.is_empty() => Fact::unknown(silent),
        None => Fact::unknown("there is no `stat` on the host"),
    };
    match (list(out, SILENT), list(within, missing)) {
        (Fact::Known(found), Fact::Known(more)) => Fact::Known([found, more].concat()),
        (Fact::Known(found), _) | (_, Fact::Known(found)) if !found.is_empty() => Fact::Known(found),
        (Fact::Unknown(why), _) | (_, Fact::Unknown(why)) => Fact::Unknown(why),
    }
}

fn leftover(value: &str) -> Option<Leftover> {
    let (mode, rest) = value.split_once(' ')?;
    let (owner, path) = rest.split_once(' ')?;
    Some(Leftover { path: text(path), mode: octal(mode)?, owner: text(owner) })
}

fn processes(items: &[&str]) -> Vec<NodeProcess> {
    #[derive(Default)]
    struct Told<'a> {
        process: &'a str,
        words: Vec<&'a str>,
        files: Option<&'a str>,
        memory: Option<&'a str>,
    }
    let mut told: Vec<Told<'_>> = Vec::new();
    for item in items {
        let Some(rest) = item.strip_prefix('K') else { continue };
        let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match (key, told.last_mut()) {
            ("proc", _) => told.push(Told { process: value, ..Told::default() }),
            ("arg", Some(last)) => last.words.push(value),
            ("proc-files", Some(last)) => last.files = Some(value),
            ("proc-memory", Some(last)) => last.memory = Some(value),
            _ => {}
        }
    }
    let read = |told: Told<'_>| {
        let (pid, user) = told.process.split_once(' ').unwrap_or((told.process, ""));
        let values = |flags: &[&str]| flag_values(told.words.get(2..).unwrap_or_default(), flags);
        Some(NodeProcess {
            pid: pid.parse().ok()?,
            user: text(user),
            start_mode: StartMode::from(told.words.get(1).copied()?),
            stores: values(&["--store", "-s"]).iter().map(|spec| store_path(spec)).collect(),
            listen_addr: values(&["--listen-addr"]).first().map(Address::new),
            open_files: limit(told.files, SILENT),
            locked_memory: limit(told.memory, SILENT),
        })
    };
    told.into_iter().filter_map(read).collect()
}

/// The values of a flag, by any of its names, on a command line.
pub(crate) fn flag_values(words: &[&str], flags: &[&str]) -> Vec<String> {
    let mut values = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        for flag in flags {
            match word.strip_prefix(flag) {
                Some("") => values.extend(words.next().map(|v| text(v))),
                Some(rest) => values.extend(rest.strip_prefix('=').map(text)),
                None => {}
            }
        }
    }
    values
}

/// The path of a `--store`, which may be `path=…,attrs=…`.
pub(crate) fn store_path(spec: &str) -> String {
    let path = spec.split(',').find_map(|part| part.strip_prefix("path="));
    path.or_else(|| spec.split(',').next()).unwrap_or(spec).trim_end_matches('/').to_owned()
}
