//! Bytes of the log: sealing and opening one record. The layout stands in [the module](super).

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use jiff::Timestamp;
use perene_policy::Secret;
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Entry, EntryId, JournalError};

pub(super) const KEY_BYTES: usize = 32;
pub(super) const HEADER_BYTES: usize = 60;
/// Four tokens of 16 KiB, a table and a key, with room to spare.
pub(super) const PLAIN_BYTES_MAX: usize = 96 * 1024;

const MAGIC: &[u8; 8] = b"PERJRNL1";
pub(super) const MARKER: &[u8; 4] = b"\xa5rec";
const TAG_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;
/// Marker, length, number, kind.
const HEAD_BYTES: usize = 4 + 4 + 8 + 1;

pub(super) type FileId = [u8; 16];

/// The key with which records are sealed.
pub(super) struct Key(RandomizedNonceKey);

impl Key {
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("32 bytes are a key"))
    }

    /// Nonce, ciphertext and tag.
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, JournalError> {
        // Sealed in place: with the room for the tag there from the beginning, no copy of the plain text
        // stays behind.
        let mut sealed = Vec::with_capacity(plain.len() + TAG_BYTES);
        sealed.extend_from_slice(plain);
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(aad), &mut sealed)
            .map_err(|_| JournalError::Unwritable { reason: "the system gives no random bytes".to_owned() })?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let len = self.0.open_in_place(nonce, Aad::from(aad), &mut plain).ok()?.len();
        plain.truncate(len);
        Some(plain)
    }
}

/// What a record says.
#[derive(Debug, Clone)]
pub(super) enum Record {
    Entry(Entry),
    Forgotten(Vec<EntryId>),
}

/// A new file's id and header.
pub(super) fn header(key: &Key) -> Result<(FileId, Vec<u8>), JournalError> {
    let mut file = FileId::default();
    aws_lc_rs::rand::fill(&mut file)
        .map_err(|_| JournalError::Unwritable { reason: "the system gives no random bytes".to_owned() })?;
    let mut bytes = [MAGIC.as_slice(), &file].concat();
    let proof = key.seal(&bytes, &[])?;
    bytes.extend_from_slice(&proof);
    bytes.extend_from_slice(&checksum(&bytes));
    Ok((file, bytes))
}

/// What a header turned out to be.
pub(super) enum Header {
    Sound(FileId),
    /// Too short to have ever been whole, or nothing but zeros.
    Torn,
    Damaged,
    Newer,
    WrongKey,
}

pub(super) fn read_header(log: &[u8], key: &Key) -> Header {
    let Some(bytes) = log.get(..HEADER_BYTES) else { return Header::Torn };
    if bytes.iter().all(|byte| *byte == 0) {
        return Header::Torn;
    }
    if bytes[..7] == MAGIC[..7] && bytes[7] > MAGIC[7] {
        return Header::Newer;
    }
    let (body, sum) = bytes.split_at(HEADER_BYTES - CHECKSUM_BYTES);
    if checksum(body) != sum || &body[..8] != MAGIC {
        return Header::Damaged;
    }
    match key.open(&body[..24], &body[24..]) {
        Some(_) => Header::Sound(body[8..24].try_into().expect("16 bytes")),
        None => Header::WrongKey,
    }
}

/// One record as it stands at `offset` of the file.
pub(super) fn seal(
    key: &Key,
    file: &FileId,
    offset: u64,
    number: u64,
    record: &Record,
) -> Result<Vec<u8>, JournalError> {
    let (kind, plain) = match record {
        Record::Entry(entry) => (1, encode(entry)),
        Record::Forgotten(ids) => {
            (2, Zeroizing::new(ids.iter().flat_map(|id| id.0.to_le_bytes()).collect::<Vec<u8>>()))
        }
    };
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(JournalError::TooLarge { bytes: plain.len() });
    }
    let sealed = key.seal(&aad(file, offset, number, kind), &plain)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + sealed.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(MARKER);
    let len = u32::try_from(sealed.len()).expect("PLAIN_BYTES_MAX is far below");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&sealed);
    bytes.extend_from_slice(&checksum(&bytes));
    Ok(bytes)
}

/// How many bytes the record of an entry takes.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    HEAD_BYTES + NONCE_LEN + plain_bytes(entry) + TAG_BYTES + CHECKSUM_BYTES
}

/// What stands at some place of the log.
#[expect(clippy::large_enum_variant, reason = "one at a time, while a log is read")]
pub(super) enum Read {
    /// A record, and how many bytes it takes.
    Record(u64, Record, usize),
    /// It was written whole once: the checksum holds. But not here, not in this file, or not by us.
    Alien(usize),
    /// The end of the file, or zeros, stand where its last bytes should.
    Cut,
    /// Something else.
    Broken,
}

/// Reads the record that begins at `offset`.
pub(super) fn read(key: &Key, file: &FileId, log: &[u8], offset: usize) -> Read {
    let rest = &log[offset..];
    if rest.len() < HEAD_BYTES {
        return if rest.iter().zip(MARKER).all(|(byte, expected)| byte == expected) { Read::Cut } else { Read::Broken };
    }
    let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
    let len = usize::try_from(word(4)).unwrap_or(usize::MAX);
    if &rest[..4] != MARKER || len > PLAIN_BYTES_MAX + NONCE_LEN + TAG_BYTES {
        return Read::Broken;
    }
    let whole = HEAD_BYTES + len + CHECKSUM_BYTES;
    let Some(bytes) = rest.get(..whole) else { return Read::Cut };
    let (body, sum) = bytes.split_at(whole - CHECKSUM_BYTES);
    let expected = checksum(body);
    if expected != sum {
        let written = sum.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        return if expected.starts_with(&sum[..written]) { Read::Cut } else { Read::Broken };
    }
    let number = u64::from_le_bytes(body[8..16].try_into().expect("8 bytes"));
    let kind = body[16];
    let plain = key.open(&aad(file, offset as u64, number, kind), &body[HEAD_BYTES..]);
    let record = plain.and_then(|plain| match kind {
        1 => decode(&plain).map(Record::Entry),
        2 => Some(Record::Forgotten(
            plain.chunks_exact(8).map(|id| EntryId(u64::from_le_bytes(id.try_into().expect("8 bytes")))).collect(),
        )),
        _ => None,
    });
    record.map_or(Read::Alien(whole), |record| Read::Record(number, record, whole))
}

fn aad(file: &FileId, offset: u64, number: u64, kind: u8) -> Vec<u8> {
    [file.as_slice(), &offset.to_le_bytes(), &number.to_le_bytes(), &[kind]].concat()
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    Sha256::digest(bytes)[..CHECKSUM_BYTES].try_into().expect("a SHA-256 has 32 bytes")
}

/// Texts with their length before them; instants as seconds and nanoseconds; what may be absent behind a
/// byte that is 1 or 0.
fn encode(entry: &Entry) -> Zeroizing<Vec<u8>> {
    let refresh_tokens = [&entry.sent_refresh, &entry.refresh_token].map(|token| token.as_ref().map(Secret::expose));
    // Never grows: what a vector leaves behind when it moves would not be wiped.
    let mut plain = Zeroizing::new(Vec::with_capacity(plain_bytes(entry)));
    let mut text = |text: &str| {
        plain.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        plain.extend_from_slice(text.as_bytes());
    };
    [&entry.table, &entry.id, entry.sent.expose(), entry.token.expose()].into_iter().for_each(&mut text);
    refresh_tokens.into_iter().map(Option::unwrap_or_default).for_each(&mut text);
    plain.extend(refresh_tokens.map(|token| u8::from(token.is_some())));
    plain.extend_from_slice(entry.fence.as_bytes());
    for instant in [entry.expires_at, Some(entry.received_at)] {
        plain.push(instant.is_some().into());
        let instant = instant.unwrap_or_default();
        plain.extend_from_slice(&instant.as_second().to_le_bytes());
        plain.extend_from_slice(&instant.subsec_nanosecond().to_le_bytes());
    }
    plain
}

fn plain_bytes(entry: &Entry) -> usize {
    const INSTANT_BYTES: usize = 1 + 8 + 4;
    const FENCE_BYTES: usize = 16;
    let [sent_refresh, refresh_token] =
        [&entry.sent_refresh, &entry.refresh_token].map(|token| token.as_ref().map_or("", Secret::expose));
    let texts = [&entry.table, &entry.id, entry.sent.expose(), entry.token.expose(), sent_refresh, refresh_token];
    texts.iter().map(|text| 4 + text.len()).sum::<usize>() + 2 + FENCE_BYTES + 2 * INSTANT_BYTES
}

fn decode(mut plain: &[u8]) -> Option<Entry> {
    let mut text = || {
        let (len, rest) = plain.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        plain = rest;
        std::str::from_utf8(text).ok()
    };
    let [table, id, sent, token, sent_refresh, refresh_token] = [text()?, text()?, text()?, text()?, text()?, text()?];
    let [had_refresh_token, has_refresh_token] = [*plain.split_off_first()? == 1, *plain.split_off_first()? == 1];
    let (fence, rest) = plain.split_first_chunk::<16>()?;
    plain = rest;
    let mut instant = || {
        let (is_some, rest) = plain.split_first()?;
        let (second, rest) = rest.split_first_chunk::<8>()?;
        let (nanosecond, rest) = rest.split_first_chunk::<4>()?;
        plain = rest;
        let instant = Timestamp::new(i64::from_le_bytes(*second), i32::from_le_bytes(*nanosecond)).ok()?;
        Some((*is_some == 1).then_some(instant))
    };
    let (expires_at, received_at) = (instant()?, instant()??);
    Some(Entry {
        table: table.to_owned(),
        id: id.to_owned(),
        fence: Uuid::from_bytes(*fence),
        sent: Secret::new(sent),
        sent_refresh: had_refresh_token.then(|| Secret::new(sent_refresh)),
        token: Secret::new(token),
        refresh_token: has_refresh_token.then(|| Secret::new(refresh_token)),
        expires_at,
        received_at,
    })
}
