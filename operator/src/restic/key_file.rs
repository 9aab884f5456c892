//! Key files of a repository, as restic writes them: the master keys, encrypted under a password.
//!
//! restic makes its first key file expensive on purpose: a password that people think up must not be guessed. Every
//! process pays that toll again, half a second of CPU. Our password is 256 random bits, which nobody guesses at any
//! price, so a key file whose derivation costs nothing opens the same repository just as safely.

use std::fmt;

use aes::{
    Aes128, Aes256,
    cipher::{BlockCipherEncrypt, KeyInit, KeyIvInit, StreamCipher},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use poly1305::Poly1305;
use scrypt::Params;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::shown;

type Aes256Ctr = ctr::Ctr128BE<Aes256>;

/// The smallest cost that scrypt knows.
const CHEAP_LOG_N: u8 = 1;
/// restic writes N=2^15, r=8: 32 MiB of memory. Four times that is taken, more would only be a trap.
const MAX_N_TIMES_R: u64 = 1 << 20;
/// N, r and p multiplied: what it costs. restic aims at half a second; a few seconds are borne for a file.
const MAX_COST: u64 = 1 << 23;
const NONCE: usize = 16;
const MAC: usize = 16;

/// Why a key file does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// It is no key file of restic's, or one with absurd costs.
    #[error("no usable key file: {0}")]
    Malformed(String),
    /// Of another password, or damaged.
    #[error("the password does not open it")]
    WrongPassword,
}

/// One file below `keys/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFile {
    created: String,
    username: String,
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    salt: String,
    data: String,
}

/// The master keys in clear, as restic lays them out.
pub struct MasterKeys(Vec<u8>);

impl KeyFile {
    /// Reads a key file.
    pub fn parse(json: &[u8]) -> Result<Self, KeyFileError> {
        serde_json::from_slice(json).map_err(|error| malformed(&error))
    }

    /// Whether it opens at no cost.
    pub fn is_cheap(&self) -> bool {
        self.n == 1 << CHEAP_LOG_N
    }

    /// Encrypts master keys under a password that nobody can guess.
    pub fn cheap(keys: &MasterKeys, password: &[u8], created: jiff::Timestamp) -> Result<Self, KeyFileError> {
        let mut file = Self {
            created: created.to_string(),
            username: "vmmigration".to_owned(),
            hostname: "mover".to_owned(),
            kdf: "scrypt".to_owned(),
            n: 1 << CHEAP_LOG_N,
            r: 8,
            p: 1,
            salt: BASE64.encode(rand::random::<[u8; 64]>()),
            data: String::new(),
        };
        file.data = BASE64.encode(file.derive(password)?.seal(&keys.0, rand::random()));
        Ok(file)
    }

    /// Decrypts the master keys.
    pub fn open(&self, password: &[u8]) -> Result<MasterKeys, KeyFileError> {
        let data = BASE64.decode(&self.data).map_err(|error| malformed(&error))?;
        self.derive(password)?.open(&data).map(MasterKeys).ok_or(KeyFileError::WrongPassword)
    }

    /// Its content, and the name that restic gives to such content.
    pub fn to_bytes(&self) -> Result<(String, Vec<u8>), KeyFileError> {
        let content = serde_json::to_vec(self).map_err(|error| malformed(&error))?;
        Ok((hex::encode(Sha256::digest(&content)), content))
    }

    fn derive(&self, password: &[u8]) -> Result<Keys, KeyFileError> {
        let log_n = u8::try_from(self.n.checked_ilog2().unwrap_or_default()).unwrap_or(u8::MAX);
        let absurd = self.kdf != "scrypt"
            || !self.n.is_power_of_two()
            || log_n == 0
            || self.n.saturating_mul(self.r.into()) > MAX_N_TIMES_R
            || self.n.saturating_mul(self.r.into()).saturating_mul(self.p.into()) > MAX_COST;
        if absurd {
            return Err(malformed(&format_args!("{} with N={} r={} p={}", self.kdf, self.n, self.r, self.p)));
        }
        let salt = BASE64.decode(&self.salt).map_err(|error| malformed(&error))?;
        let params = Params::new(log_n, self.r, self.p).map_err(|error| malformed(&error))?;
        let mut derived = [0; 64];
        scrypt::scrypt(password, &salt, &params, &mut derived).map_err(|error| malformed(&error))?;
        Ok(Keys::new(&derived))
    }
}

fn malformed(why: &dyn fmt::Display) -> KeyFileError {
    KeyFileError::Malformed(shown(&why.to_string()))
}

/// AES-256-CTR and Poly1305-AES: how restic seals everything.
struct Keys {
    encrypt: [u8; 32],
    k: [u8; 16],
    r: [u8; 16],
}

impl Keys {
    fn new(derived: &[u8; 64]) -> Self {
        let (mut encrypt, mut k, mut r) = ([0; 32], [0; 16], [0; 16]);
        encrypt.copy_from_slice(&derived[..32]);
        k.copy_from_slice(&derived[32..48]);
        r.copy_from_slice(&derived[48..]);
        Self { encrypt, k, r }
    }

    /// Nonce, ciphertext, code.
    fn seal(&self, plain: &[u8], nonce: [u8; NONCE]) -> Vec<u8> {
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(plain);
        Aes256Ctr::new(&self.encrypt.into(), &nonce.into()).apply_keystream(&mut sealed[NONCE..]);
        let code = self.code(&nonce, &sealed[NONCE..]);
        sealed.extend_from_slice(&code);
        sealed
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (text, code) = rest.split_last_chunk::<MAC>()?;
        if self.code(nonce, text) != *code {
            return None;
        }
        let mut plain = text.to_vec();
        Aes256Ctr::new(&self.encrypt.into(), nonce.into()).apply_keystream(&mut plain);
        Some(plain)
    }

    /// Poly1305 with the nonce, encrypted by AES-128, as its one-time pad.
    fn code(&self, nonce: &[u8; NONCE], text: &[u8]) -> [u8; MAC] {
        let mut pad = (*nonce).into();
        Aes128::new(&self.k.into()).encrypt_block(&mut pad);
        let mut key = [0; 32];
        key[..16].copy_from_slice(&self.r);
        key[16..].copy_from_slice(&pad);
        Poly1305::new(&key.into()).compute_unpadded(text).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cheap() -> KeyFile {
        let keys = MasterKeys(br#"{"mac":{}}"#.to_vec());
        KeyFile::cheap(&keys, b"password", jiff::Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn it_opens_with_its_password_only() {
        let (name, content) = cheap().to_bytes().unwrap();
        assert_eq!(name.len(), 64);
        let file = KeyFile::parse(&content).unwrap();
        assert!(file.is_cheap());
        assert_eq!(file.open(b"password").unwrap().0, br#"{"mac":{}}"#);
        assert_eq!(file.open(b"other").err(), Some(KeyFileError::WrongPassword));
    }

    /// The vectors of the paper that defines Poly1305-AES (D. J. Bernstein, appendix B).
    #[test]
    fn the_code_is_poly1305_aes() {
        let bytes = |text: &str| hex::decode(text).unwrap();
        let cases = [
            (
                "f3f6",
                "851fc40c3467ac0be05cc20404f3f700",
                "ec074c835580741701425b623235add6",
                "fb447350c4e868c52ac3275cf9d4327e",
                "f4c633c3044fc145f84f335cb81953de",
            ),
            (
                "",
                "a0f3080000f46400d0c7e9076c834403",
                "75deaa25c09f208e1dc4ce6b5cad3fbf",
                "61ee09218d29b0aaed7e154a2c5509cc",
                "dd3fab2251f11ac759f0887129cc2ee7",
            ),
        ];
        for (text, r, k, nonce, code) in cases {
            let array = |text: &str| <[u8; 16]>::try_from(bytes(text)).unwrap();
            let keys = Keys { encrypt: [0; 32], k: array(k), r: array(r) };
            assert_eq!(keys.code(&array(nonce), &bytes(text)).to_vec(), bytes(code));
        }
    }

    #[test]
    fn absurd_costs_are_refused() {
        let with = |n, r, p| KeyFile { n, r, p, ..cheap() }.open(b"password").err();
        for (n, r, p) in
            [(0, 8, 1), (1, 8, 1), (3, 8, 1), (1 << 40, 8, 1), (2, u32::MAX, u32::MAX), (2, 0, 0)]
        {
            assert!(matches!(with(n, r, p), Some(KeyFileError::Malformed(_))), "{n} {r} {p}");
        }
        let other = KeyFile { kdf: "pbkdf2".into(), ..cheap() };
        assert!(matches!(other.open(b"password"), Err(KeyFileError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = KeyFile::parse(&bytes);
        }

        #[test]
        fn a_damaged_key_file_never_opens(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let file = cheap();
            let mut data = BASE64.decode(&file.data).unwrap();
            let at = at.index(data.len());
            data[at] ^= 1 << bit;
            let damaged = KeyFile { data: BASE64.encode(data), ..file };
            prop_assert_eq!(damaged.open(b"password").err(), Some(KeyFileError::WrongPassword));
        }
    }
}
