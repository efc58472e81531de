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

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256,
};
use rsa::RsaPrivateKey;
use rsa::pkcs1::{DecodeRsaPrivateKey, EncodeRsaPrivateKey, LineEnding};
use rsa::pkcs8::EncodePrivateKey;

const CA_YEARS: i16 = 10;
const CERT_YEARS: i16 = 5;

/// Makes the authority alone: `ca.crt` and `ca.key` in `dir`, which is made when absent.
///
/// # Errors
/// As [`create`].
pub fn create_ca(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write_ca(dir, &new_key()?).map(drop)
}

/// Makes `node.crt` and `node.key` in `dir`, which is made when absent, from the CA in `ca`.
///
/// # Errors
/// No usable `ca.key` in `ca`; a file that cannot be written or exists already.
pub fn create_node(ca: &Path, dir: &Path, hosts: &[&str]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    write_node(dir, hosts, &new_key()?, &issuer(ca)?)
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
    // Finding primes is nearly all of the time.
    let mut keys = new_keys(2 + users.len())?.into_iter();
    let mut key = || keys.next().ok_or_else(|| io::Error::other("a key is missing"));

    let issuer = write_ca(dir, &key()?)?;
    write_node(dir, hosts, &key()?, &issuer)?;
    for user in users {
        write_client(dir, user, &key()?, &issuer)?;
    }
    Ok(())
}

fn write_ca(dir: &Path, key: &RsaPrivateKey) -> io::Result<Issuer<'static, KeyPair>> {
    let mut ca = params("KWDB CA", CA_YEARS);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    ca.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::KeyEncipherment,
    ];
    let ca_pair = pair(key)?;
    let ca_cert = ca.self_signed(&ca_pair).map_err(io::Error::other)?;
    write(dir, "ca.key", 0o600, &pkcs1_pem(key)?)?;
    write(dir, "ca.crt", 0o644, &ca_cert.pem())?;
    Ok(Issuer::new(ca, ca_pair))
}

fn write_node(
    dir: &Path,
    hosts: &[&str],
    key: &RsaPrivateKey,
    issuer: &Issuer<'_, KeyPair>,
) -> io::Result<()> {
    let mut node = params("node", CERT_YEARS);
    node.subject_alt_names =
        CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>())
            .map_err(io::Error::other)?
            .subject_alt_names;
    node.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    node.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let cert = node.signed_by(&pair(key)?, issuer).map_err(io::Error::other)?;
    write(dir, "node.key", 0o600, &pkcs1_pem(key)?)?;
    write(dir, "node.crt", 0o644, &cert.pem())
}

/// Makes `client.<user>.crt` and `client.<user>.key` from the CA in `dir`.
///
/// # Errors
/// No usable `ca.crt` and `ca.key` in `dir`; a file that cannot be written or exists already.
pub fn create_client(dir: &Path, user: &str) -> io::Result<()> {
    write_client(dir, user, &new_key()?, &issuer(dir)?)
}

fn issuer(ca: &Path) -> io::Result<Issuer<'static, KeyPair>> {
    let key =
        RsaPrivateKey::from_pkcs1_pem(&fs::read_to_string(ca.join("ca.key"))?).map_err(io::Error::other)?;
    Ok(Issuer::new(params("KWDB CA", CA_YEARS), pair(&key)?))
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

fn write_client(dir: &Path, user: &str, key: &RsaPrivateKey, issuer: &Issuer<'_, KeyPair>) -> io::Result<()> {
    let mut client = params(user, CERT_YEARS);
    client.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let cert: Certificate = client.signed_by(&pair(key)?, issuer).map_err(io::Error::other)?;
    write(dir, &format!("client.{user}.key"), 0o600, &pkcs1_pem(key)?)?;
    write(dir, &format!("client.{user}.crt"), 0o644, &cert.pem())
}

fn params(common_name: &str, years: i16) -> CertificateParams {
    let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
    let date = |years: i16| {
        let (month, day) = (today.month().unsigned_abs(), today.day().unsigned_abs());
        // The 29th of February is not in every year.
        rcgen::date_time_ymd(i32::from(today.year() + years), month, day.min(28))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "KWDB");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(-1);
    params.not_after = date(years);
    params
}

fn new_keys(n: usize) -> io::Result<Vec<RsaPrivateKey>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n).map(|_| scope.spawn(new_key)).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("key generation failed"))))
            .collect()
    })
}

fn new_key() -> io::Result<RsaPrivateKey> {
    RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).map_err(io::Error::other)
}

fn pair(key: &RsaPrivateKey) -> io::Result<KeyPair> {
    let der = key.to_pkcs8_der().map_err(io::Error::other)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der.as_bytes().into(), &PKCS_RSA_SHA256).map_err(io::Error::other)
}

fn pkcs1_pem(key: &RsaPrivateKey) -> io::Result<String> {
    Ok(key.to_pkcs1_pem(LineEnding::LF).map_err(io::Error::other)?.to_string())
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

    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

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
        assert_eq!(create(&dir, &["127.0.0.1"], &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_broken_certificate_has_no_name() {
        assert_eq!(common_name(&[]), None);
        assert_eq!(common_name(&[0x30, 0x82, 0xff]), None);
        assert_eq!(common_name(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 1]), None);
    }
}
