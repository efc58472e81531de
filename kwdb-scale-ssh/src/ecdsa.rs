//! ECDSA keys whose private number is short. OpenSSH leaves leading zero bytes of it out (RFC 4251, `mpint`), which one
//! key of P-256 in 256 has, and the key library (`ssh-key` 0.7) takes no number under 32 bytes. Here the zeros are put back.

use base64ct::{Base64, Encoding};
use russh::keys::PrivateKey;
use russh::keys::ssh_key::encoding::{Decode, Encode};
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{Cipher, Kdf};

const HEAD: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const TAIL: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The one curve whose numbers can be shorter than the library takes them.
const CURVE: &str = "ecdsa-sha2-nistp256";
const WIDTH: usize = 32;

/// The key of a file with a short number; `None` for every other file, and where the passphrase is wrong or missing.
pub(crate) fn with_short_number(text: &str, passphrase: Option<&str>) -> Option<PrivateKey> {
    let (_, body) = text.split_once(HEAD)?;
    let (body, _) = body.split_once(TAIL)?;
    let body: String = body.split_ascii_whitespace().collect();
    let file = Base64::decode_vec(&body).ok()?;
    let mut rest = file.strip_prefix(MAGIC)?;
    let cipher = Cipher::decode(&mut rest).ok()?;
    let kdf = Kdf::decode(&mut rest).ok()?;
    let (1, _public) = (u32::decode(&mut rest).ok()?, Vec::<u8>::decode(&mut rest).ok()?) else {
        return None;
    };
    let mut private = Vec::<u8>::decode(&mut rest).ok()?;
    if cipher.is_some() {
        let (key, iv) = kdf.derive_key_and_iv(cipher, passphrase?).ok()?;
        // What follows is the tag of the ciphers that have one.
        cipher.decrypt(&key, &iv, &mut private, rest.try_into().ok()).ok()?;
    }
    widened(&private)
}

/// The key of a private section: two equal check numbers, name, curve, point, number, comment, padding.
fn widened(mut section: &[u8]) -> Option<PrivateKey> {
    let section = &mut section;
    if u32::decode(section).ok()? != u32::decode(section).ok()? || String::decode(section).ok()? != CURVE {
        return None;
    }
    let (curve, point) = (String::decode(section).ok()?, Vec::<u8>::decode(section).ok()?);
    let (short, comment) = (Vec::<u8>::decode(section).ok()?, String::decode(section).ok()?);
    let mut number = vec![0; WIDTH.checked_sub(short.len()).filter(|zeros| *zeros > 0)?];
    number.extend(short);
    let mut wide = Vec::new();
    CURVE.encode(&mut wide).ok()?;
    curve.encode(&mut wide).ok()?;
    point.encode(&mut wide).ok()?;
    number.encode(&mut wide).ok()?;
    PrivateKey::new(KeypairData::decode(&mut wide.as_slice()).ok()?, comment).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = include_str!("../tests/data/ecdsa-short");

    #[test]
    fn a_short_number_gets_its_zeros_back() {
        assert!(
            russh::keys::decode_secret_key(SHORT, None).is_err(),
            "the library takes it now: delete this file"
        );
        let key = with_short_number(SHORT, None).unwrap();
        assert_eq!(key.key_data().ecdsa().unwrap().private_key_bytes()[0], 0);
        assert_eq!(key.comment().to_string(), "only for tests");
    }

    #[test]
    fn other_files_are_left_alone() {
        let pem = |key: PrivateKey| key.to_openssh(Default::default()).unwrap().to_string();
        let rng = &mut russh::keys::key::safe_rng();
        let other = PrivateKey::random(rng, russh::keys::Algorithm::Ed25519).unwrap();
        assert!(with_short_number(&pem(other), None).is_none());
        for text in ["", HEAD, &format!("{HEAD}\n{TAIL}"), &SHORT.replace('A', "B"), &SHORT[..300]] {
            assert!(with_short_number(text, None).is_none(), "{text}");
        }
    }
}
