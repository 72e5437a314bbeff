//! NumPy archives: a zip of `.npy` arrays.

use npyz::{DType as NpyType, NpyHeader, Order, TypeChar};
use sandpiper_core::tensor::DType;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

/// Most bytes of all arrays of an archive together: it is held in memory, and a small file can
/// unpack to any size.
pub const MAX_ARCHIVE_BYTES: u64 = 4 << 30;
/// Most arrays of an archive; a model has at most 256 tensors.
const MAX_ARRAYS: usize = 1024;

/// An array in C order, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `shape` product times the element size in bytes.
    pub bytes: Vec<u8>,
}

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be opened or written.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// `read` or `written`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not a zip archive, or a truncated one.
    #[error("this is not a complete .npz archive; make one with numpy.savez")]
    Archive(#[source] zip::result::ZipError),
    /// An array is truncated or has a broken header.
    #[error("array `{name}` is damaged: {why}")]
    Damaged {
        /// Its name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An element type that no model takes.
    #[error(
        "array `{name}` has type {found}; f32, u8, i8, i32, i64 and bool are supported, convert it with .astype(...)"
    )]
    Type {
        /// Its name.
        name: String,
        /// The type, as NumPy writes it.
        found: String,
    },
    /// Column-major order.
    #[error("array `{name}` is in Fortran order; save numpy.ascontiguousarray(...) of it")]
    FortranOrder {
        /// Its name.
        name: String,
    },
    /// Too many or too large arrays.
    #[error("the archive holds more than {MAX_ARCHIVE_BYTES} bytes or {MAX_ARRAYS} arrays")]
    TooLarge,
    /// No array of this name.
    #[error("there is no array `{name}`; the archive holds {}", list(found))]
    Missing {
        /// The name asked for.
        name: String,
        /// The names it holds.
        found: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names
        .iter()
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Array {
    /// A one-dimensional or deeper array of floats.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self {
            dtype: DType::F32,
            shape,
            bytes,
        }
    }

    /// Length of the first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len().checked_div(self.rows()).unwrap_or(0)
    }

    /// Bytes of the rows from `start`, `count` of them.
    pub fn slice(&self, start: usize, count: usize) -> &[u8] {
        let row = self.row_bytes();
        &self.bytes[start * row..(start + count) * row]
    }

    /// The elements as integers; `None` for floats.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let chunks = |n| self.bytes.chunks_exact(n);
        match self.dtype {
            DType::F32 => None,
            DType::U8 | DType::Bool => Some(self.bytes.iter().map(|&b| i64::from(b)).collect()),
            DType::I8 => Some(self.bytes.iter().map(|&b| i64::from(b as i8)).collect()),
            DType::I32 => Some(
                chunks(4)
                    .map(|c| i64::from(i32::from_le_bytes(fixed(c))))
                    .collect(),
            ),
            DType::I64 => Some(chunks(8).map(|c| i64::from_le_bytes(fixed(c))).collect()),
        }
    }
}

fn fixed<const N: usize>(chunk: &[u8]) -> [u8; N] {
    chunk
        .try_into()
        .expect("chunks_exact gives chunks of exactly N bytes")
}

/// The array of this name.
///
/// # Errors
/// [`NpzError::Missing`] with the names that there are.
pub fn get<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a Array, NpzError> {
    arrays.get(name).ok_or_else(|| NpzError::Missing {
        name: name.to_owned(),
        found: arrays.keys().cloned().collect(),
    })
}

/// Reads a file.
///
/// # Errors
/// [`NpzError`].
pub fn read_file(path: &Path) -> Result<Arrays, NpzError> {
    let file = |source| NpzError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    read(&std::fs::read(path).map_err(file)?)
}

/// Reads an archive.
///
/// # Errors
/// [`NpzError`] naming the array at fault.
pub fn read(bytes: &[u8]) -> Result<Arrays, NpzError> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(NpzError::Archive)?;
    if archive.len() > MAX_ARRAYS {
        return Err(NpzError::TooLarge);
    }
    let mut left = MAX_ARCHIVE_BYTES;
    let mut arrays = Arrays::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(NpzError::Archive)?;
        let file = entry.name().map_err(NpzError::Archive)?.into_owned();
        let name = file.strip_suffix(".npy").unwrap_or(&file).to_owned();
        let array = read_array(&name, entry, left)?;
        left = left.saturating_sub(array.bytes.len() as u64);
        arrays.insert(name, array);
    }
    Ok(arrays)
}

fn read_array(name: &str, mut reader: impl Read, limit: u64) -> Result<Array, NpzError> {
    let damaged = |why: String| NpzError::Damaged {
        name: name.to_owned(),
        why,
    };
    let header = NpyHeader::from_reader(&mut reader).map_err(|e| damaged(e.to_string()))?;
    let dtype = element_type(name, &header.dtype())?;
    let mut size = dtype.size_bytes() as u64;
    for n in header.shape() {
        size = size.checked_mul(*n).ok_or(NpzError::TooLarge)?;
    }
    if size > limit {
        return Err(NpzError::TooLarge);
    }
    if header.order() == Order::Fortran && header.shape().len() > 1 {
        return Err(NpzError::FortranOrder {
            name: name.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    let read = reader
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|e| damaged(e.to_string()))?;
    if read as u64 != size {
        return Err(damaged(format!(
            "it has {read} bytes where its shape needs {size}"
        )));
    }
    let shape = header.shape().iter().map(|&n| n as usize).collect();
    Ok(Array {
        dtype,
        shape,
        bytes,
    })
}

fn element_type(name: &str, found: &NpyType) -> Result<DType, NpzError> {
    let refused = || NpzError::Type {
        name: name.to_owned(),
        found: found.descr(),
    };
    let NpyType::Plain(plain) = found else {
        return Err(refused());
    };
    let big = plain.endianness() == npyz::Endianness::Big;
    match (plain.type_char(), plain.size_field()) {
        (TypeChar::Bool, 1) => Ok(DType::Bool),
        (TypeChar::Int, 1) => Ok(DType::I8),
        (TypeChar::Uint, 1) => Ok(DType::U8),
        (TypeChar::Float, 4) if !big => Ok(DType::F32),
        (TypeChar::Int, 4) if !big => Ok(DType::I32),
        (TypeChar::Int, 8) if !big => Ok(DType::I64),
        _ => Err(refused()),
    }
}

/// The archive of these arrays, compressed.
///
/// # Errors
/// [`NpzError::Archive`] when the zip cannot be made.
pub fn write(arrays: &Arrays) -> Result<Vec<u8>, NpzError> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .large_file(true);
    for (name, array) in arrays {
        archive
            .start_file(format!("{name}.npy"), options)
            .map_err(NpzError::Archive)?;
        let put = archive
            .write_all(&npy_header(array))
            .and_then(|()| archive.write_all(&array.bytes));
        put.map_err(|e| NpzError::Archive(e.into()))?;
    }
    Ok(archive.finish().map_err(NpzError::Archive)?.into_inner())
}

/// Writes a file.
///
/// # Errors
/// [`NpzError`].
pub fn write_file(path: &Path, arrays: &Arrays) -> Result<(), NpzError> {
    let file = |source| NpzError::File {
        what: "written",
        path: path.to_owned(),
        source,
    };
    std::fs::write(path, write(arrays)?).map_err(file)
}

/// Version 1.0 of the format: magic, version, length, a Python dict padded to 64 bytes.
fn npy_header(array: &Array) -> Vec<u8> {
    let descr = match array.dtype {
        DType::F32 => "<f4",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::Bool => "|b1",
    };
    let dims: String = array.shape.iter().map(|n| format!("{n},")).collect();
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let unpadded = 10 + dict.len() + 1;
    dict.extend(std::iter::repeat_n(
        ' ',
        unpadded.next_multiple_of(64) - unpadded,
    ));
    dict.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((dict.len() as u16).to_le_bytes());
    out.extend(dict.as_bytes());
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sample() -> Arrays {
        let of = |dtype, shape: &[usize], bytes: &[u8]| Array {
            dtype,
            shape: shape.to_vec(),
            bytes: bytes.to_vec(),
        };
        [
            (
                "x".to_owned(),
                Array::from_f32(vec![2, 2], &[1.0, -2.5, 3.0, f32::NAN]),
            ),
            ("y".to_owned(), of(DType::U8, &[2], &[0, 255])),
            ("i".to_owned(), of(DType::I8, &[3], &[0, 255, 128])),
            ("w".to_owned(), of(DType::I32, &[1], &(-7i32).to_le_bytes())),
            ("l".to_owned(), of(DType::I64, &[], &9i64.to_le_bytes())),
            ("b".to_owned(), of(DType::Bool, &[1, 2], &[1, 0])),
            ("empty".to_owned(), of(DType::F32, &[0, 4], &[])),
        ]
        .into()
    }

    #[test]
    fn every_type_survives_a_round_trip() {
        assert_eq!(read(&write(&sample()).unwrap()).unwrap(), sample());
    }

    #[test]
    fn integers_keep_their_sign() {
        let all = sample();
        assert_eq!(all["i"].integers().unwrap(), [0, -1, -128]);
        assert_eq!(all["w"].integers().unwrap(), [-7]);
        assert_eq!(all["l"].integers().unwrap(), [9]);
        assert_eq!(all["x"].integers(), None);
    }

    #[test]
    fn any_truncation_is_an_error_and_never_a_panic() {
        let whole = write(&sample()).unwrap();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_missing_array_lists_those_that_there_are() {
        let error = get(&sample(), "z").unwrap_err().to_string();
        assert!(
            error.starts_with("there is no array `z`; the archive holds `b`, `empty`"),
            "{error}"
        );
    }

    fn archive_of(name: &str, npy: &[u8]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(name, zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(npy).unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn npy(dict: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((dict.len() as u16 + 1).to_le_bytes());
        out.extend(dict.as_bytes());
        out.push(b'\n');
        out.extend(data);
        out
    }

    #[test]
    fn doubles_fortran_order_short_data_and_bombs_are_refused() {
        let refuse =
            |dict: &str, data: &[u8]| read(&archive_of("x.npy", &npy(dict, data))).unwrap_err();
        let doubles = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
        assert!(matches!(refuse(doubles, &[0; 8]), NpzError::Type { .. }));
        let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (1,2), }";
        assert!(matches!(
            refuse(fortran, &[0; 8]),
            NpzError::FortranOrder { .. }
        ));
        let short = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }";
        assert!(matches!(refuse(short, &[0; 8]), NpzError::Damaged { .. }));
        let bomb = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999,99999999), }";
        assert!(matches!(refuse(bomb, &[]), NpzError::TooLarge));
    }
}
