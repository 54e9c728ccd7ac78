//! Messages of Protobuf as text, a field on each line, so that a mutation of the text leaves the lengths right:
//!
//! ```text
//! 1 "text      a text; \n in it is a new line
//! 2 -5         a whole number
//! 3 =1.5       a double
//! 4 ~1.5       a float
//! 5 {          a message, until
//! }
//! ```
//!
//! Every other line stands for itself.

/// The bytes of the message. What is left open at the end is closed.
pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
    let mut outer: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut bytes = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_start();
        if line == b"}" {
            close(&mut outer, &mut bytes);
            continue;
        }
        match field(line) {
            Some((number, b"{")) => outer.push((number, std::mem::take(&mut bytes))),
            Some((number, value)) if put(&mut bytes, number, value).is_some() => {}
            _ => bytes.extend_from_slice(line),
        }
    }
    while !outer.is_empty() {
        close(&mut outer, &mut bytes);
    }
    bytes
}

fn close(outer: &mut Vec<(u64, Vec<u8>)>, bytes: &mut Vec<u8>) {
    if let Some((number, around)) = outer.pop() {
        let inner = std::mem::replace(bytes, around);
        delimited(bytes, number, &inner);
    }
}

fn field(line: &[u8]) -> Option<(u64, &[u8])> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let number = std::str::from_utf8(&line[..at]).ok()?.parse().ok()?;
    Some((number, &line[at + 1..]))
}

fn put(bytes: &mut Vec<u8>, number: u64, value: &[u8]) -> Option<()> {
    match value {
        [b'"', text @ ..] => delimited(bytes, number, &lines(text)),
        [b'=', text @ ..] => {
            let number_of = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
            key(bytes, number, 1);
            bytes.extend(number_of.to_le_bytes());
        }
        [b'~', text @ ..] => {
            let number_of = std::str::from_utf8(text).ok()?.parse::<f32>().ok()?;
            key(bytes, number, 5);
            bytes.extend(number_of.to_le_bytes());
        }
        text => {
            let whole = std::str::from_utf8(text).ok()?.parse::<i64>().ok()?;
            key(bytes, number, 0);
            varint(bytes, whole.cast_unsigned());
        }
    }
    Some(())
}

/// The text with its new lines.
fn lines(text: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        if let [b'\\', b'n', behind @ ..] = rest {
            lines.push(b'\n');
            rest = behind;
        } else {
            lines.push(*first);
            rest = behind;
        }
    }
    lines
}

fn delimited(bytes: &mut Vec<u8>, number: u64, inner: &[u8]) {
    key(bytes, number, 2);
    varint(bytes, inner.len() as u64);
    bytes.extend_from_slice(inner);
}

fn key(bytes: &mut Vec<u8>, number: u64, kind: u64) {
    varint(bytes, number << 3 | kind);
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}
