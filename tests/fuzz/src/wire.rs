//! Any protobuf message as a tree, without its schema: to be changed and written again.

/// A field and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Number in its message.
    pub number: u32,
    /// What it holds.
    pub body: Body,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An integer of variable length.
    Varint(u64),
    /// 8 bytes.
    Fixed64([u8; 8]),
    /// 4 bytes.
    Fixed32([u8; 4]),
    /// Bytes that are no message: text, numbers, an empty message.
    Bytes(Vec<u8>),
    /// Bytes that can be read as a message; they may as well be text that looks like one.
    Message(Vec<Field>),
}

/// Deeper nesting is left as bytes: files have 6 levels.
const MAX_DEPTH: usize = 12;

/// Reads a message; none if the bytes are not one.
pub fn read(bytes: &[u8]) -> Option<Vec<Field>> {
    message(bytes, 0)
}

fn message(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|n| (1..1 << 29).contains(n))?;
        let body = match tag & 7 {
            0 => Body::Varint(varint(&mut bytes)?),
            1 => Body::Fixed64(*take(&mut bytes, 8)?.first_chunk()?),
            5 => Body::Fixed32(*take(&mut bytes, 4)?.first_chunk()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                let nested = (!inner.is_empty() && depth < MAX_DEPTH)
                    .then(|| message(inner, depth + 1))
                    .flatten();
                nested.map_or_else(|| Body::Bytes(inner.to_vec()), Body::Message)
            }
            _ => return None,
        };
        fields.push(Field { number, body });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(count)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes a message.
pub fn write(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for Field { number, body } in fields {
        let (kind, content) = match body {
            Body::Varint(v) => (0, leb(*v)),
            Body::Fixed64(b) => (1, b.to_vec()),
            Body::Fixed32(b) => (5, b.to_vec()),
            Body::Bytes(b) => (2, [leb(b.len() as u64), b.clone()].concat()),
            Body::Message(inner) => {
                let inner = write(inner);
                (2, [leb(inner.len() as u64), inner].concat())
            }
        };
        out.extend(leb(u64::from(*number) << 3 | kind));
        out.extend(content);
    }
    out
}

fn leb(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_written_unchanged() {
        for seed in 0..50 {
            let onnx = crate::grow::network(seed).onnx();
            let fields = read(&onnx).unwrap();
            assert!(matches!(
                fields.last().unwrap().body,
                Body::Message(_) | Body::Bytes(_)
            ));
            assert_eq!(write(&fields), onnx);
        }
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        assert_eq!(read(&[0x08]), None);
        assert_eq!(read(&[0x0a, 5, 1]), None);
        assert_eq!(read(&[0x00, 0x01]), None);
        assert_eq!(read(&[0x0b]), None);
        assert_eq!(read(&[]), Some(Vec::new()));
    }
}
