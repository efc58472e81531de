//! What an X.509 certificate says, as far as scaling cares: whose it is, who signed it, for which names, until when.
//!
//! Reading is all that is done here. Whether a certificate really carries the signature of an authority is proven by
//! TLS when it is used; [`Certificate::names_as_issuer`] tells a wrong file before anything starts.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_cert::der::asn1::OctetString;
use x509_cert::der::{Decode, DecodePem, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, SubjectAltName, SubjectKeyIdentifier,
};

use crate::canonical::hex;

/// What one certificate says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Certificate {
    /// Subject, such as `CN=node,O=KWDB`.
    pub subject: String,
    /// Common name of the subject, such as `node` or `root`.
    pub common_name: Option<String>,
    /// Issuer.
    pub issuer: String,
    /// DNS names and IP addresses that it is valid for, in its order.
    pub names: Vec<String>,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// What it may be used for (extended key usage), as object identifiers; `None` where it does not say, which allows
    /// everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purposes: Option<Vec<String>>,
    /// SHA-256 of its DER form, as 64 lower-case hex digits.
    pub fingerprint: String,
    subject_key: Option<String>,
    authority_key: Option<String>,
}

/// Why a certificate cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("this is no certificate in PEM form: {0}")]
pub struct CertificateError(#[source] x509_cert::der::Error);

impl Certificate {
    /// The first certificate of a PEM text.
    ///
    /// ```
    /// use kwdb_scale_core::certificate::Certificate;
    /// assert!(Certificate::from_pem("-----BEGIN NOTHING-----").is_err());
    /// ```
    ///
    /// # Errors
    /// [`CertificateError`]: the text does not begin with a certificate.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        const END: &str = "-----END CERTIFICATE-----";
        let begin = text.find("-----BEGIN CERTIFICATE-----").unwrap_or(0);
        let rest = text.get(begin..).unwrap_or_default();
        let first = rest.find(END).and_then(|at| rest.get(..at + END.len())).unwrap_or(rest);
        let read = x509_cert::Certificate::from_pem(format!("{first}\n")).map_err(CertificateError)?;
        Self::of(&read).map_err(CertificateError)
    }

    fn of(read: &x509_cert::Certificate) -> Result<Self, x509_cert::der::Error> {
        let body = &read.tbs_certificate;
        let extension = |oid| {
            let all = body.extensions.as_deref().unwrap_or_default();
            all.iter().find(|e| e.extn_id == oid).map(|e| e.extn_value.as_bytes())
        };
        let oid = |text: &str| {
            x509_cert::der::asn1::ObjectIdentifier::new(text).map_err(x509_cert::der::Error::from)
        };
        let alternative = extension(oid("2.5.29.17")?).map(SubjectAltName::from_der).transpose()?;
        let constraints = extension(oid("2.5.29.19")?).map(BasicConstraints::from_der).transpose()?;
        let purposes = extension(oid("2.5.29.37")?).map(ExtendedKeyUsage::from_der).transpose()?;
        let own = extension(oid("2.5.29.14")?).map(SubjectKeyIdentifier::from_der).transpose()?;
        let authority = extension(oid("2.5.29.35")?).map(AuthorityKeyIdentifier::from_der).transpose()?;
        let common = oid("2.5.4.3")?;
        let subject = &body.subject;
        let common_name = subject.0.iter().flat_map(|set| set.0.iter()).find(|a| a.oid == common);
        Ok(Self {
            subject: subject.to_string(),
            common_name: common_name.map(|a| String::from_utf8_lossy(a.value.value()).into_owned()),
            issuer: body.issuer.to_string(),
            names: alternative.map(|a| a.0.iter().filter_map(name).collect()).unwrap_or_default(),
            not_before: timestamp(body.validity.not_before)?,
            not_after: timestamp(body.validity.not_after)?,
            is_ca: constraints.is_some_and(|c| c.ca),
            purposes: purposes.map(|list| list.0.iter().map(ToString::to_string).collect()),
            fingerprint: hex(&Sha256::digest(read.to_der()?)),
            subject_key: own.map(|k| key(&k.0)),
            authority_key: authority.and_then(|k| k.key_identifier).map(|k| key(&k)),
        })
    }

    /// Whether it is valid for a host name or an IP address.
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(ip) => self.names.iter().any(|n| n.parse() == Ok(ip)),
            Err(_) => self.names.iter().any(|n| {
                let under = n
                    .strip_prefix("*.")
                    .zip(host.split_once('.'))
                    .map(|(w, (_, h))| w.eq_ignore_ascii_case(h));
                n.eq_ignore_ascii_case(host) || under == Some(true)
            }),
        }
    }

    /// Whether a server may show it, by what it says of its purposes.
    pub fn may_serve(&self) -> bool {
        self.is_meant_for("1.3.6.1.5.5.7.3.1")
    }

    /// Whether a client may show it, by what it says of its purposes. A node is a client of the others, too.
    pub fn may_log_in(&self) -> bool {
        self.is_meant_for("1.3.6.1.5.5.7.3.2")
    }

    fn is_meant_for(&self, purpose: &str) -> bool {
        const ANY: &str = "2.5.29.37.0";
        self.purposes.as_ref().is_none_or(|list| list.iter().any(|p| p == purpose || p == ANY))
    }

    /// Whether it says that `authority` signed it: by the identifier of the key where both carry one, else by name.
    pub fn names_as_issuer(&self, authority: &Self) -> bool {
        let by_key =
            self.authority_key.as_ref().zip(authority.subject_key.as_ref()).is_none_or(|(a, b)| a == b);
        authority.is_ca && self.issuer == authority.subject && by_key
    }
}

fn key(bytes: &OctetString) -> String {
    hex(bytes.as_bytes())
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(dns) => Some(dns.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

fn timestamp(time: x509_cert::time::Time) -> Result<Timestamp, x509_cert::der::Error> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_err(|_| x509_cert::der::ErrorKind::DateTime.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by `kwbase cert` of KWDB V3.2.1.
    fn read(name: &str) -> Certificate {
        let path = format!("{}/tests/data/certs/{name}", env!("CARGO_MANIFEST_DIR"));
        Certificate::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn what_kwbase_makes_is_read() {
        let (ca, node, root) = (read("ca.crt"), read("node.crt"), read("client.root.crt"));
        assert!(ca.is_ca && !node.is_ca && ca.names.is_empty());
        assert_eq!(ca.common_name.as_deref(), Some("KWDB CA"));
        assert_eq!((node.common_name.as_deref(), root.common_name.as_deref()), (Some("node"), Some("root")));
        assert_eq!(node.names, ["n5.example.com", "localhost", "10.0.0.5", "127.0.0.1", "::1"]);
        assert!(node.not_after > node.not_before && ca.not_after > node.not_after);
        assert_eq!(node.fingerprint.len(), 64);
        let may = |c: &Certificate| (c.may_serve(), c.may_log_in());
        assert_eq!((may(&node), may(&root), may(&ca)), ((true, true), (false, true), (true, true)));
        assert_eq!(node, serde_json::from_str(&serde_json::to_string(&node).unwrap()).unwrap());
    }

    #[test]
    fn names_and_addresses_are_matched_as_a_client_does() {
        let node = read("node.crt");
        for good in ["10.0.0.5", "N5.example.com", "::1", "[::1]", "0:0:0:0:0:0:0:1"] {
            assert!(node.is_for(good), "{good}");
        }
        for bad in ["10.0.0.6", "example.com", "x.n5.example.com", "", "::2"] {
            assert!(!node.is_for(bad), "{bad}");
        }
    }

    #[test]
    fn a_certificate_of_another_authority_with_the_same_name_is_told_apart() {
        let (node, ours, other) = (read("node.crt"), read("ca.crt"), read("other-ca.crt"));
        assert_eq!(ours.subject, other.subject);
        assert!(node.names_as_issuer(&ours), "{node:?} {ours:?}");
        assert!(!node.names_as_issuer(&other));
        assert!(!node.names_as_issuer(&node));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let pem = std::fs::read_to_string(format!("{}/tests/data/certs/ca.crt", env!("CARGO_MANIFEST_DIR")))
            .unwrap();
        let half = pem.get(..pem.len() / 2).unwrap();
        for text in ["", "x", half, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "\u{fffd}"] {
            assert!(Certificate::from_pem(text).is_err(), "{text}");
        }
        // Text before and after it, and Windows line ends, do no harm.
        let padded = format!("Bag Attributes\n{pem}{pem}").replace('\n', "\r\n");
        assert_eq!(Certificate::from_pem(&padded).unwrap(), read("ca.crt"));
    }
}
