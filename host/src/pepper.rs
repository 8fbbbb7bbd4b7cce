//! Peppers as text: up to four, newest last, each hex or base64 of at least 32 bytes.
//!
//! A text that consists of an even number of hex digits is hex. Any other text is base64, in the
//! standard or the URL-safe alphabet, with or without padding. Everything that was read is wiped
//! after use, and no error shows any of it.

mod file;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding};
use keytally_core::{MAX_PEPPERS, MIN_PEPPER_LEN};
use keytally_core::{Peppers, PeppersError};
use zeroize::Zeroizing;

use crate::entropy;
use crate::error::{Error, PepperError};
use crate::publish::create_file as create_owned_file;

/// The largest length of a pepper file, in bytes.
pub const MAX_FILE_LEN: usize = 1 << 16;

/// Parses peppers separated by commas, as in the environment variable `KEYTALLY_PEPPER`.
///
/// Spaces around each pepper are ignored.
///
/// ```
/// use keytally::pepper;
/// let old = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// let new = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
/// pepper::parse(&format!("{old}, {new}"))?;
///
/// let error = pepper::parse(&format!("{old}, letmein")).unwrap_err();
/// assert!(error.to_string().starts_with("pepper 2 of 2 "));
/// # Ok::<(), keytally::Error>(())
/// ```
///
/// # Errors
/// [`Error::Pepper`] if the text is not valid. It names an invalid pepper by its number.
pub fn parse(text: &str) -> Result<Peppers, Error> {
    let items: Vec<&[u8]> = match text.trim_ascii() {
        "" => Vec::new(),
        text => text.split(',').map(|item| item.trim_ascii().as_bytes()).collect(),
    };
    refuse_byte_order_mark(text.as_bytes())
        .and_then(|()| peppers(&items))
        .map_err(|source| Error::Pepper { path: None, source })
}

/// Reads the peppers in a file, one per line. Blank lines and lines that begin with `#` are
/// ignored.
///
/// The path `-` is standard input. The file may be a pipe: then the call waits for its writer.
/// Symbolic links are followed. Two kinds of file are accepted:
///
/// - a file that root owns and no other user can write, as systemd, Kubernetes and Docker provide
///   secrets;
/// - a file of the user of this process that no other user can read or write. A process of root
///   may read such a file of any user.
///
/// ```
/// use std::{fs, os::unix::fs::PermissionsExt};
/// use keytally::pepper;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pepper");
/// fs::write(&path, format!("# made in spring\n{}\n", *pepper::generate()?))?;
///
/// fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
/// assert!(pepper::read_file(&path).unwrap_err().to_string().contains("fix it with: chmod"));
///
/// fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
/// pepper::read_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// - [`Error::Pepper`] if its text is not valid.
/// - [`Error::Mode`], [`Error::Writable`] or [`Error::Owner`] if a pepper file is of neither kind
///   above.
/// - [`Error::Account`] on Windows, if another user owns a pepper file or has access to it.
/// - [`Error::NotAFile`] if the path leads to a directory or a device.
/// - [`Error::Io`] if it cannot be read.
pub fn read_file(path: impl AsRef<Path>) -> Result<Peppers, Error> {
    let path = path.as_ref();
    let file::Opened { file, refusal } = file::open(path)?;
    let text = read_all(&file).map_err(|error| Error::io("read", path, error))?;
    let invalid = |source| Error::Pepper { path: Some(PathBuf::from(path)), source };
    let peppers = from_file(&text).map_err(invalid)?;
    match refusal {
        Some(error) => Err(error),
        None => Ok(peppers),
    }
}

/// Opens the file of another secret, by the rules of [`read_file`]. Returns it with the reason why
/// its contents must not be used, if there is one.
///
/// # Errors
/// Those of [`read_file`], except for the text of the file.
#[doc(hidden)]
pub fn open_secret(path: &Path) -> Result<(File, Option<Error>), Error> {
    file::open(path).map(|file::Opened { file, refusal }| (file, refusal))
}

/// Parses the text of a pepper file.
fn from_file(text: &[u8]) -> Result<Peppers, PepperError> {
    if text.len() > MAX_FILE_LEN {
        return Err(PepperError::Long { max: MAX_FILE_LEN });
    }
    refuse_byte_order_mark(text)?;
    let lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let items: Vec<&[u8]> =
        lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).collect();
    peppers(&items)
}

/// Generates a pepper: 32 bytes of the system's entropy as 64 hex digits, wiped when dropped.
///
/// ```
/// let pepper = keytally::pepper::generate()?;
/// assert_eq!(pepper.len(), 64);
/// # Ok::<(), keytally::Error>(())
/// ```
///
/// # Errors
/// [`Error::Entropy`] if the system provides none.
pub fn generate() -> Result<Zeroizing<String>, Error> {
    let bytes = entropy::random::<MIN_PEPPER_LEN>()?;
    let mut digits = Zeroizing::new([0; 2 * MIN_PEPPER_LEN]);
    // The buffer has exactly the length of the digits, so this cannot fail.
    let text = base16ct::lower::encode_str(&*bytes, &mut *digits).unwrap_or_default();
    Ok(Zeroizing::new(text.to_owned()))
}

/// Writes a new pepper to a new file at `path`, to which only its owner has access. The file
/// appears atomically, and is on the disk when the call returns.
///
/// ```
/// use keytally::pepper;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("pepper");
/// pepper::create_file(&path)?;
/// pepper::read_file(&path)?;
/// assert!(pepper::create_file(&path).unwrap_err().to_string().contains("already exists"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// - [`Error::Exists`] if `path` exists, whatever it is.
/// - [`Error::Entropy`] if the system provides none.
/// - [`Error::Io`] if the file cannot be written.
pub fn create_file(path: impl AsRef<Path>) -> Result<(), Error> {
    let text = Zeroizing::new(format!("{}\n", *generate()?));
    create_owned_file(path.as_ref(), text.as_bytes())
}

/// Reads a pepper file, at most one byte more than the longest one. The buffer never reallocates,
/// so it leaves no copies.
fn read_all(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN + 1));
    file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// Refuses a text that begins with a byte-order mark, which some editors and shells of Windows
/// write.
fn refuse_byte_order_mark(text: &[u8]) -> Result<(), PepperError> {
    const MARKS: [(&[u8], &str); 3] =
        [(b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")];
    match MARKS.iter().find(|(mark, _)| text.starts_with(mark)) {
        Some(&(_, encoding)) => Err(PepperError::ByteOrderMark { encoding }),
        None => Ok(()),
    }
}

/// Decodes the texts of the peppers, and checks their number, lengths and differences.
fn peppers(items: &[&[u8]]) -> Result<Peppers, PepperError> {
    let count = items.len();
    // The form is checked before the count: for a file that is not a pepper file, that is the
    // clearer error.
    let decoded = items
        .iter()
        .enumerate()
        .map(|(index, item)| decode(item).ok_or(PepperError::Form { number: index + 1, count }));
    let decoded = decoded.collect::<Result<Vec<_>, _>>()?;
    let too_few_or_many = PepperError::Count { given: count };
    if count > MAX_PEPPERS {
        return Err(too_few_or_many);
    }
    let list: Vec<&[u8]> = decoded.iter().map(|pepper| pepper.as_slice()).collect();
    let mut peppers = Err(too_few_or_many);
    // Each list has one pepper more, so the first error concerns the last pepper of its list.
    for number in 1..=count {
        peppers = Ok(Peppers::new(&list[..number]).map_err(|error| match error {
            PeppersError::TooShort(short) => {
                let encoding = if is_hex(items[number - 1]) { "hex" } else { "base64" };
                PepperError::Short { number, count, len: short.len, encoding }
            }
            // Two peppers that differ only in zeros at the end are equal: HMAC pads keys with
            // zeros.
            _ => PepperError::Repeated { number, count },
        })?);
    }
    peppers
}

/// Returns whether the text is hex: an even number of hexadecimal digits.
fn is_hex(text: &[u8]) -> bool {
    text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit)
}

/// Decodes hex or base64. `None` if the text is neither.
fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; text.len()]);
    let len = if is_hex(text) {
        base16ct::mixed::decode(text, &mut bytes).ok()?.len()
    } else {
        let unpadded = unpadded(text)?;
        if unpadded.iter().any(|byte| b"-_".contains(byte)) {
            Base64UrlUnpadded::decode(unpadded, &mut bytes).ok()?.len()
        } else {
            Base64Unpadded::decode(unpadded, &mut bytes).ok()?.len()
        }
    };
    bytes.truncate(len);
    Some(bytes)
}

/// Returns the text without its padding. `None` if the padding is wrong.
fn unpadded(text: &[u8]) -> Option<&[u8]> {
    let len = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let padding = text.len() - len;
    (padding == 0 || (padding <= 2 && text.len().is_multiple_of(4))).then_some(&text[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text.as_bytes()).map(|bytes| bytes.to_vec())
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn hex_and_both_base64_alphabets_decode_to_the_same() {
        let bytes = decoded(HEX).unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[31]), (32, 0, 0xff));
        assert_eq!(decoded(&HEX.to_uppercase()).unwrap(), bytes);
        for text in [
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8=",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHv8",
        ] {
            assert_eq!(decoded(text).unwrap(), bytes);
        }
        assert_eq!(decoded("+/+/").unwrap(), decoded("-_-_").unwrap());
    }

    #[test]
    fn text_that_is_neither_hex_nor_base64_is_refused() {
        for text in ["ä", "AAE=A", "A===", "AAEC=", "+/-_", "A", "AAF", "a b", "AA\0A"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    #[test]
    fn error_names_the_first_pepper_that_repeats_another() {
        let other = &HEX.replace("ff", "fe");
        for (text, number) in [
            (format!("{HEX},{HEX},{other}"), 2),
            (format!("{HEX},{HEX}00,{other}"), 2),
            (format!("{other},{HEX},{HEX}0000"), 3),
        ] {
            let expected = format!("pepper {number} of 3 is the same as one before it");
            assert_eq!(error(&text), expected);
        }
    }

    #[test]
    fn error_names_the_pepper_by_number_and_shows_none() {
        let short = &HEX[..62];
        assert_eq!(error(""), "no pepper is given; `openssl rand -hex 32` makes one");
        assert_eq!(error(" \n"), error(""));
        assert!(error(&format!("{HEX},{short}")).starts_with(
            "pepper 2 of 2 has 31 bytes after decoding as hex, and must have at least 32"
        ));
        assert!(error("abc").starts_with(
            "pepper 1 of 1 has 2 bytes after decoding as base64, and must have at least 32"
        ));
        assert!(error(&format!("{HEX},")).starts_with("pepper 2 of 2 has 0 bytes"));
        assert_eq!(
            error(&format!("{HEX}, {}", HEX.to_uppercase())),
            "pepper 2 of 2 is the same as one before it"
        );
        // These two differ only in a zero at the end, so HMAC gives the same results for them.
        assert_eq!(error(&format!("{HEX},{HEX}00")), "pepper 2 of 2 is the same as one before it");
        assert_eq!(error(&format!("{HEX},!{HEX}")), "pepper 2 of 2 is neither hex nor base64");
        assert_eq!(
            error(&[HEX; 5].join(",")),
            "5 peppers are given, and at most 4 can be in use; leave out the oldest"
        );
        assert_eq!(
            error(&["root:x:0:0:root"; 5].join(",")),
            "pepper 1 of 5 is neither hex nor base64"
        );
        for text in [format!("{HEX},{short}"), format!("!{HEX}"), format!("{HEX},{HEX}")] {
            let error = parse(&text).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("0102"), "{error:?}");
        }
    }

    #[test]
    fn byte_order_mark_error_names_the_encoding() {
        assert_eq!(
            error(&format!("\u{feff}{HEX}")),
            "the text begins with a UTF-8 byte-order mark; save it as ASCII or as UTF-8 without that mark"
        );
        for (mark, encoding) in
            [(&b"\xff\xfe"[..], "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\xef\xbb\xbf", "UTF-8")]
        {
            assert_eq!(
                refuse_byte_order_mark(&[mark, b"5f"].concat()),
                Err(PepperError::ByteOrderMark { encoding })
            );
        }
        assert_eq!(refuse_byte_order_mark(b"\xef\xbb"), Ok(()));
    }

    #[test]
    fn generated_peppers_parse_and_differ() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(*one, *two);
        assert!(parse(&format!("{},{}", *one, *two)).is_ok());
        assert_eq!(format!("{:?}", parse(&one).unwrap()), "Peppers([Pepper(…)])");
    }
}
