//! Certificates as `kwbase cert` makes them: a CA, one certificate for all nodes of a loopback cluster and one for
//! each client user, RSA 2048, keys in PKCS#1 PEM with mode 0600 (seen on KWDB V3.2.1).
//!
//! ```no_run
//! use std::path::Path;
//! let dir = Path::new("certs");
//! kwdb_scale_sim::certs::create(dir, &["127.0.0.1", "localhost"], &["root"])?;
//! // Later, from the same CA:
//! kwdb_scale_sim::certs::create_client(dir, "alice")?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Two calls of [`create`] with two directories give two clusters that refuse each other: the material of a test
//! of a wrong CA.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey, LineEnding};
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// `--lifetime` of a CA unless given, in hours.
pub(crate) const CA_HOURS: u64 = 87_840;
/// `--lifetime` of other certificates unless given, in hours.
pub(crate) const CERT_HOURS: u64 = 43_920;
const HOUR: Duration = Duration::from_secs(3600);

fn lifetime_of(hours: u64) -> Duration {
    Duration::from_secs(hours * HOUR.as_secs())
}

/// A private RSA key.
pub(crate) struct Key(RsaPrivateKey);

impl Key {
    pub(crate) fn new(bits: usize) -> io::Result<Self> {
        RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).map(Self).map_err(io::Error::other)
    }

    /// Reads PEM of PKCS#1 or, as kwbase does too (V3.2.1), PKCS#8.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        match RsaPrivateKey::from_pkcs1_pem(&text) {
            Ok(key) => Ok(Self(key)),
            Err(e) => RsaPrivateKey::from_pkcs8_pem(&text).map(Self).map_err(|_| io::Error::other(e)),
        }
    }

    pub(crate) fn pkcs1_pem(&self) -> io::Result<String> {
        Ok(self.0.to_pkcs1_pem(LineEnding::LF).map_err(io::Error::other)?.to_string())
    }

    pub(crate) fn pkcs8_der(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.to_pkcs8_der().map_err(io::Error::other)?.as_bytes().to_vec())
    }

    fn pair(&self) -> io::Result<KeyPair> {
        let der = self.0.to_pkcs8_der().map_err(io::Error::other)?;
        let signs = KeyPair::from_pkcs8_der_and_sign_algo(&der.as_bytes().into(), &PKCS_RSA_SHA256);
        signs.map_err(io::Error::other)
    }

    /// Several at once: finding primes is nearly all of the time.
    fn many(n: usize) -> io::Result<Vec<Self>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..n).map(|_| scope.spawn(|| Self::new(2048))).collect();
            threads
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("key generation failed"))))
                .collect()
        })
    }
}

/// An authority that signs.
pub(crate) struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// A new one with its certificate in PEM.
    pub(crate) fn new(key: &Key, lifetime: Duration) -> io::Result<(Self, String)> {
        let mut ca = params("KWDB CA", lifetime);
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        ca.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let pair = key.pair()?;
        let cert = ca.self_signed(&pair).map_err(io::Error::other)?;
        Ok((Self(Issuer::new(ca, pair)), cert.pem()))
    }

    /// The one whose key and certificate these are.
    pub(crate) fn of(key: &Key, certificate: &Path) -> io::Result<Self> {
        let mut ca = params("KWDB CA", lifetime_of(CA_HOURS));
        let der = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
        if let Some(id) = subject_key(&der) {
            ca.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        Ok(Self(Issuer::new(ca, key.pair()?)))
    }

    /// Whether the certificate is of this key.
    pub(crate) fn fits(&self, certificate: &Path) -> io::Result<bool> {
        let der = CertificateDer::from_pem_file(certificate).map_err(io::Error::other)?;
        let public = self.0.key().public_key_raw();
        Ok(der.windows(public.len()).any(|w| w == public))
    }

    /// A certificate for nodes in PEM, valid for these names and addresses.
    pub(crate) fn node(&self, key: &Key, hosts: &[&str], lifetime: Duration) -> io::Result<String> {
        let mut node = params("node", lifetime);
        let names: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
        node.subject_alt_names = CertificateParams::new(names).map_err(io::Error::other)?.subject_alt_names;
        node.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(node, key)
    }

    /// A client certificate of `user` in PEM.
    pub(crate) fn client(&self, key: &Key, user: &str, lifetime: Duration) -> io::Result<String> {
        let mut client = params(user, lifetime);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(client, key)
    }

    fn sign(&self, mut params: CertificateParams, key: &Key) -> io::Result<String> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let cert: Certificate = params.signed_by(&key.pair()?, &self.0).map_err(io::Error::other)?;
        Ok(cert.pem())
    }
}

/// Makes the authority alone: `ca.crt` and `ca.key` in `dir`, which is made when absent.
///
/// # Errors
/// As [`create`].
pub fn create_ca(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write_ca(dir, &Key::new(2048)?).map(drop)
}

/// Makes `node.crt` and `node.key` in `dir`, which is made when absent, from the CA in `ca`.
///
/// # Errors
/// No usable `ca.key` in `ca`; a file that cannot be written or exists already.
pub fn create_node(ca: &Path, dir: &Path, hosts: &[&str]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let authority = Authority::of(&Key::read(&ca.join("ca.key"))?, &ca.join("ca.crt"))?;
    write_node(dir, hosts, &Key::new(2048)?, &authority)
}

/// Makes `ca.crt`, `ca.key`, `node.crt`, `node.key` and, for each user, `client.<user>.crt` and
/// `client.<user>.key` in `dir`, which is made when absent.
///
/// `hosts` are the names and IP addresses that the node certificate is valid for. The key of the CA lies in the same
/// directory so that [`create_client`] can be called later; a real cluster keeps it elsewhere.
///
/// # Errors
/// A file that cannot be written; one of the files exists already (`AlreadyExists`; nothing is overwritten).
pub fn create(dir: &Path, hosts: &[&str], users: &[&str]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut keys = Key::many(2 + users.len())?.into_iter();
    let mut key = || keys.next().ok_or_else(|| io::Error::other("a key is missing"));
    let authority = write_ca(dir, &key()?)?;
    write_node(dir, hosts, &key()?, &authority)?;
    for user in users {
        write_client(dir, user, &key()?, &authority)?;
    }
    Ok(())
}

/// Makes `client.<user>.crt` and `client.<user>.key` from the CA in `dir`.
///
/// # Errors
/// No usable `ca.crt` and `ca.key` in `dir`; a file that cannot be written or exists already.
pub fn create_client(dir: &Path, user: &str) -> io::Result<()> {
    let authority = Authority::of(&Key::read(&dir.join("ca.key"))?, &dir.join("ca.crt"))?;
    write_client(dir, user, &Key::new(2048)?, &authority)
}

fn write_ca(dir: &Path, key: &Key) -> io::Result<Authority> {
    let (authority, cert) = Authority::new(key, lifetime_of(CA_HOURS))?;
    write(dir, "ca.key", 0o600, &key.pkcs1_pem()?)?;
    write(dir, "ca.crt", 0o644, &cert)?;
    Ok(authority)
}

fn write_node(dir: &Path, hosts: &[&str], key: &Key, authority: &Authority) -> io::Result<()> {
    let cert = authority.node(key, hosts, lifetime_of(CERT_HOURS))?;
    write(dir, "node.key", 0o600, &key.pkcs1_pem()?)?;
    write(dir, "node.crt", 0o644, &cert)
}

fn write_client(dir: &Path, user: &str, key: &Key, authority: &Authority) -> io::Result<()> {
    let cert = authority.client(key, user, lifetime_of(CERT_HOURS))?;
    write(dir, &format!("client.{user}.key"), 0o600, &key.pkcs1_pem()?)?;
    write(dir, &format!("client.{user}.crt"), 0o644, &cert)
}

/// The subject's common name of a certificate in DER.
pub(crate) fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate, _) = tlv(der)?;
    let (_, mut rest, _) = tlv(certificate)?;
    // [0] version, serial number, signature algorithm, issuer, validity; then the subject.
    for _ in 0..5 {
        rest = tlv(rest)?.2;
    }
    let (_, mut names, _) = tlv(rest)?;
    while !names.is_empty() {
        let (_, set, after) = tlv(names)?;
        let (_, attribute, _) = tlv(set)?;
        let (_, oid, value) = tlv(attribute)?;
        if oid == [0x55, 0x04, 0x03] {
            return String::from_utf8(tlv(value)?.1.to_vec()).ok();
        }
        names = after;
    }
    None
}

/// Tag, content and what follows of the first element of a DER text.
fn tlv(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        (bytes.iter().try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)))?, rest)
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// The subject key identifier of a certificate in DER.
fn subject_key(der: &[u8]) -> Option<Vec<u8>> {
    const OID: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x0e];
    let at = der.windows(OID.len()).position(|w| w == OID)?;
    let (_, value, _) = tlv(der.get(at + OID.len()..)?)?;
    Some(tlv(value)?.1.to_vec())
}

fn params(common_name: &str, lifetime: Duration) -> CertificateParams {
    let now = Duration::from_secs(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "KWDB");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = epoch + now.saturating_sub(24 * HOUR);
    params.not_after = epoch + now + lifetime;
    params
}

fn write(dir: &Path, name: &str, mode: u32, content: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(dir.join(name))?
        .write_all(content.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn reads_both_forms_of_a_key() {
        let tmp = tempfile::tempdir().unwrap();
        let (key, path) = (Key::new(2048).unwrap(), tmp.path().join("ca.key"));
        for pem in [key.pkcs1_pem().unwrap(), key.0.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()] {
            fs::write(&path, pem).unwrap();
            assert_eq!(Key::read(&path).unwrap().0, key.0);
        }
        fs::write(&path, "garbage").unwrap();
        assert!(Key::read(&path).is_err());
    }

    #[test]
    fn makes_what_kwbase_cert_makes() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("certs");
        create(&dir, &["127.0.0.1", "localhost"], &["root"]).unwrap();
        create_client(&dir, "alice").unwrap();
        for (file, name) in
            [("ca", "KWDB CA"), ("node", "node"), ("client.root", "root"), ("client.alice", "alice")]
        {
            let cert = CertificateDer::from_pem_file(dir.join(format!("{file}.crt"))).unwrap();
            assert_eq!(common_name(&cert).as_deref(), Some(name));
            let key = dir.join(format!("{file}.key"));
            assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // As those of the real one do, they name the authority's key.
        let ca = CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap();
        let id = subject_key(&ca).unwrap();
        for file in ["node.crt", "client.root.crt", "client.alice.crt"] {
            let cert = CertificateDer::from_pem_file(dir.join(file)).unwrap();
            assert!(cert.windows(id.len()).any(|w| w == id), "{file}");
        }
        assert_eq!(create(&dir, &["127.0.0.1"], &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_broken_certificate_has_no_name() {
        assert_eq!(common_name(&[]), None);
        assert_eq!(common_name(&[0x30, 0x82, 0xff]), None);
        assert_eq!(common_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 1]), None);
    }
}
