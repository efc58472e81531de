//! [`IssueOnHost`]: certificates made with `kwbase cert` on the host where the authority's key lies.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64ct::{Base64, Encoding};

use super::{
    Archive, CertificateIssuer, CertificateSet, IssueOrder, IssuingAuthority, Pair, ROOT, archive, brief,
    check_order, check_tag, lifetime,
};
use crate::certificate::Certificate;
use crate::fact::Fact;
use crate::host_facts::probe::{COMMON, LOOKS};
use crate::host_facts::read::looks;
use crate::kwbase::{KwbaseHost, error};
use crate::ports::{CommandOutput, HostTransport, PortError, PortErrorKind};
use crate::secret::Secret;
use crate::topology::HostName;

/// Everything that is done there, by a verb. Temporary things lie in a fresh directory that only its owner may enter,
/// whose name begins with the order's tag; it goes when the script ends, however that is (but for SIGKILL). Answers are
/// items that end with a NUL byte: `F<name>:<content>`, `+` or `-` (the key can be read), `M<its mode>`, what `probe::LOOKS`
/// tells, `L<path>`, `A<base64>`, and `E` at the end.
const SCRIPT: &str = r#"
set -f
umask 077
verb=$1 tag=$2 key=$3 ca=$4
shift 4
temp=${TMPDIR:-/tmp}
file() { printf 'F%s:' "$1" && dd bs=65536 count=1 2>/dev/null < "$2" && printf '\0'; }
work() {
  dir=$(mktemp -d "$temp/kwdb-scale-$tag.XXXXXX") || exit 1
  trap 'rm -rf -- "$dir"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}
case $verb in
  authority)
    [ ! -f "$ca" ] || file ca.crt "$ca" || exit 1
    if [ -f "$key" ] && [ -r "$key" ]; then emit +; else emit -; fi
    ! mode=$(stat -L -c %a -- "$key" 2>/dev/null) || emit "M$mode"
    pair "$ca" "$key"
    version "$1" ;;
  issue)
    program=$1 life=$2 user=$3
    shift 3
    work
    cp -- "$ca" "$dir/ca.crt" || exit 1
    "$program" cert create-node "--certs-dir=$dir" "--ca-key=$key" "--lifetime=$life" -- "$@" >&2 || exit 1
    "$program" cert create-client "--certs-dir=$dir" "--ca-key=$key" "--lifetime=$life" -- "$user" >&2 || exit 1
    for name in ca.crt node.crt node.key "client.$user.crt" "client.$user.key"; do
      file "$name" "$dir/$name" || exit 1
    done ;;
  archive)
    work
    cp -- "$key" "$dir/ca.key" && cp -- "$ca" "$dir/ca.crt" || exit 1
    cd -- "$dir" && chmod 600 ca.key && chmod 644 ca.crt || exit 1
    tar -czf "$1" ./ca.key ./ca.crt || exit 1
    printf A && base64 < "$1" && printf '\0' ;;
  left)
    set +f
    for path in "$temp/kwdb-scale-$tag."*; do
      if [ -e "$path" ] || [ -L "$path" ]; then emit "L$path"; fi
    done ;;
  clean)
    set +f
    for path in "$temp/kwdb-scale-$tag."*; do rm -rf -- "$path" || exit 1; done ;;
esac || exit 1
emit E
"#;

/// Issues on the host where the authority's key lies: a node of the cluster, or the operator's own machine with a
/// transport to it.
#[derive(Debug)]
pub struct IssueOnHost<H: HostTransport + ?Sized> {
    transport: Arc<H>,
    host: KwbaseHost,
    ca_key: String,
    ca_crt: String,
}

impl<H: HostTransport + ?Sized> Clone for IssueOnHost<H> {
    fn clone(&self) -> Self {
        Self {
            transport: self.transport.clone(),
            host: self.host.clone(),
            ca_key: self.ca_key.clone(),
            ca_crt: self.ca_crt.clone(),
        }
    }
}

impl<H: HostTransport + ?Sized> IssueOnHost<H> {
    /// Of `host` only name, program, prefix and environment are used. `ca_key` and `ca_crt` are absolute paths there.
    ///
    /// # Errors
    /// [`Config`](PortErrorKind::Config): a path is not absolute.
    pub fn new(
        transport: Arc<H>,
        host: KwbaseHost,
        ca_key: impl Into<String>,
        ca_crt: impl Into<String>,
    ) -> Result<Self, PortError> {
        let issuer = Self { transport, host, ca_key: ca_key.into(), ca_crt: ca_crt.into() };
        for path in [&issuer.ca_key, &issuer.ca_crt] {
            if !path.starts_with('/') || path.chars().any(char::is_control) {
                let text = format!(
                    "'{}' is no absolute path of the authority's key or certificate",
                    path.escape_debug()
                );
                return Err(PortError::new(PortErrorKind::Config, text));
            }
        }
        Ok(issuer)
    }

    async fn run(
        &self,
        what: &'static str,
        tag: &str,
        args: &[&str],
        deadline: Duration,
    ) -> Result<Vec<String>, PortError> {
        let script = format!("{COMMON}{LOOKS}{SCRIPT}");
        let fixed = ["sh", "-c", &script, "sh", what, tag, &self.ca_key, &self.ca_crt];
        let argv = fixed.into_iter().chain(args.iter().copied()).map(str::to_owned);
        let line = self.host.script(what, argv);
        let output = self.transport.run(&self.host.name, &line.command(deadline)).await?;
        answer(&self.host, verb_name(what), output)
    }

    /// The authority, which must be the one of the order; with the lifetime that it can give.
    async fn ready(&self, order: &IssueOrder) -> Result<Option<String>, PortError> {
        check_order(order)?;
        let authority = self.authority(order.deadline).await?;
        let found = &authority.certificate.fingerprint;
        if *found != order.authority {
            let text = format!(
                "{} on host {} is the certificate of another authority ({}) than the cluster's ({}); nothing was made",
                self.ca_crt,
                self.host.name,
                brief(found),
                brief(&order.authority)
            );
            return Err(PortError::new(PortErrorKind::Config, text));
        }
        Ok(lifetime(&authority.certificate, order.now))
    }
}

/// How the verb is called in errors.
fn verb_name(what: &'static str) -> &'static str {
    match what {
        "issue" => "cert create-node and create-client",
        "archive" => "tar of ca.key and ca.crt",
        other => other,
    }
}

/// The items of a script's answer. What a failed script printed is not shown: keys could be in it.
pub(super) fn answer(
    host: &KwbaseHost,
    what: &'static str,
    output: CommandOutput,
) -> Result<Vec<String>, PortError> {
    if !output.end.success() {
        let output = CommandOutput { stdout: String::new(), ..output };
        return Err(error::classify(&host.name, what, &output));
    }
    let mut items: Vec<String> = output.stdout.split_terminator('\0').map(str::to_owned).collect();
    if output.truncated || items.pop().as_deref() != Some("E") {
        let text = format!("the answer of host {} to '{what}' was cut off", host.name);
        return Err(PortError::new(PortErrorKind::Malformed, text));
    }
    Ok(items)
}

/// The content of a file among the items.
pub(super) fn content<'a>(items: &'a [String], name: &str) -> Option<&'a str> {
    items.iter().find_map(|item| item.strip_prefix('F')?.strip_prefix(name)?.strip_prefix(':'))
}

#[async_trait]
impl<H: HostTransport + ?Sized> CertificateIssuer for IssueOnHost<H> {
    fn place(&self) -> String {
        format!("host {}", self.host.name)
    }

    fn key_file(&self) -> Option<(&HostName, &str)> {
        Some((&self.host.name, &self.ca_key))
    }

    async fn authority(&self, deadline: Duration) -> Result<IssuingAuthority, PortError> {
        let program = &self.host.program;
        let items = self.run("authority", "none", &[program], deadline).await?;
        let fail = |why: String| {
            let text =
                format!("the authority's certificate {} on host {}: {why}", self.ca_crt, self.host.name);
            PortError::new(PortErrorKind::NotFound, text)
        };
        let pem = content(&items, "ca.crt").ok_or_else(|| {
            fail(
                "there is no such file, or it may not be read by the user that commands there run as (sudo)"
                    .to_owned(),
            )
        })?;
        let certificate = Certificate::from_pem(pem).map_err(|e| fail(e.to_string()))?;
        if !certificate.is_ca {
            return Err(fail("it may not sign others".to_owned()));
        }
        let can_sign = Fact::Known(items.iter().any(|i| i == "+"));
        let (build, key) = looks(program, &items);
        let mode = items.iter().find_map(|i| u32::from_str_radix(i.strip_prefix('M')?, 8).ok());
        Ok(IssuingAuthority { certificate, can_sign, key, build: Some(build), key_mode: mode })
    }

    async fn issue(&self, order: &IssueOrder) -> Result<CertificateSet, PortError> {
        let life = self.ready(order).await?.unwrap_or_else(|| "43920h".to_owned());
        let fixed = [self.host.program.as_str(), life.as_str(), ROOT];
        let args: Vec<&str> = fixed.into_iter().chain(order.names.iter().map(String::as_str)).collect();
        let items = self.run("issue", &order.tag, &args, order.deadline).await?;
        let file = |name: &str| {
            content(&items, name).map(str::to_owned).ok_or_else(|| {
                let text = format!("host {} did not give {name}", self.host.name);
                PortError::new(PortErrorKind::Malformed, text)
            })
        };
        let pair = |name: &str| {
            Ok::<_, PortError>(Pair {
                certificate: file(&format!("{name}.crt"))?,
                key: Secret::new(file(&format!("{name}.key"))?),
            })
        };
        Ok(CertificateSet { ca: file("ca.crt")?, node: pair("node")?, root: pair("client.root")? })
    }

    async fn archive(&self, order: &IssueOrder) -> Result<Archive, PortError> {
        self.ready(order).await?;
        let items = self.run("archive", &order.tag, &[archive::NAME], order.deadline).await?;
        let fail = |why: String| {
            let text = format!("the archive made on host {}: {why}", self.host.name);
            PortError::new(PortErrorKind::Malformed, text)
        };
        let text = items.iter().find_map(|i| i.strip_prefix('A'));
        let text: String = text.unwrap_or_default().split_whitespace().collect();
        let packed = Base64::decode_vec(&text).map_err(|e| fail(e.to_string()))?;
        let archive = Archive::open(&packed).map_err(|e| fail(e.to_string()))?;
        if archive.authority().fingerprint != order.authority {
            return Err(fail("it holds another authority than the cluster's".to_owned()));
        }
        Ok(archive)
    }

    async fn leftovers(&self, tag: &str, deadline: Duration) -> Result<Vec<String>, PortError> {
        check_tag(tag)?;
        let items = self.run("left", tag, &[], deadline).await?;
        let paths = items.iter().filter_map(|i| i.strip_prefix('L'));
        Ok(paths.map(|p| format!("{} on host {}", p.escape_debug(), self.host.name)).collect())
    }

    async fn clean(&self, tag: &str, deadline: Duration) -> Result<(), PortError> {
        check_tag(tag)?;
        self.run("clean", tag, &[], deadline).await.map(drop)
    }
}
