//! Dense tensors on the host, row-major.

use sandpiper_core::tensor::DType;

/// Most elements of one tensor.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// Elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Signed bytes.
    I8(Vec<i8>),
    /// Unsigned bytes.
    U8(Vec<u8>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// Booleans, one byte each.
    Bool(Vec<u8>),
}

/// A tensor: dimensions and as many elements as their product.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    dims: Vec<usize>,
    data: Data,
}

/// Product of dimensions; `None` above [`MAX_ELEMENTS`].
pub fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter()
        .try_fold(1usize, |n, d| n.checked_mul(*d))
        .filter(|n| *n <= MAX_ELEMENTS)
}

impl Tensor {
    /// A tensor of these dimensions.
    ///
    /// # Errors
    /// In words, when the number of elements is not the product of the dimensions.
    pub fn new(dims: Vec<usize>, data: Data) -> Result<Self, String> {
        let want = elements(&dims).ok_or_else(|| format!("{dims:?} has too many elements"))?;
        let tensor = Self { dims, data };
        if tensor.len() == want {
            Ok(tensor)
        } else {
            Err(format!(
                "{:?} needs {want} elements, there are {}",
                tensor.dims,
                tensor.len()
            ))
        }
    }

    /// A tensor of floats.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn f32(dims: &[usize], data: Vec<f32>) -> Result<Self, String> {
        Self::new(dims.to_vec(), Data::F32(data))
    }

    /// Dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(v) => v.len(),
            Data::I8(v) => v.len(),
            Data::U8(v) | Data::Bool(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I64(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::I8(_) => DType::I8,
            Data::U8(_) => DType::U8,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::Bool(_) => DType::Bool,
        }
    }

    /// The floats.
    ///
    /// # Errors
    /// In words, when the type is another.
    pub fn as_f32(&self) -> Result<&[f32], String> {
        match &self.data {
            Data::F32(v) => Ok(v),
            _ => Err(format!("f32 is expected, not {}", self.dtype())),
        }
    }

    /// Integers of any type, widened.
    ///
    /// # Errors
    /// In words, for floats.
    pub fn to_i64(&self) -> Result<Vec<i64>, String> {
        Ok(match &self.data {
            Data::F32(_) => return Err("integers are expected, not f32".into()),
            Data::I8(v) => v.iter().map(|x| i64::from(*x)).collect(),
            Data::U8(v) | Data::Bool(v) => v.iter().map(|x| i64::from(*x)).collect(),
            Data::I32(v) => v.iter().map(|x| i64::from(*x)).collect(),
            Data::I64(v) => v.clone(),
        })
    }

    /// All elements in order, little-endian, as modules have them in memory.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.data {
            Data::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I8(v) => v.iter().map(|x| *x as u8).collect(),
            Data::U8(v) | Data::Bool(v) => v.clone(),
            Data::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Data::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// The tensor whose [`Self::to_bytes`] these are.
    ///
    /// # Errors
    /// As [`Self::new`]; bytes behind the last whole element count as none.
    pub fn from_bytes(dtype: DType, dims: Vec<usize>, bytes: &[u8]) -> Result<Self, String> {
        fn each<const N: usize, T>(bytes: &[u8], of: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks().0.iter().map(|b| of(*b)).collect()
        }
        let data = match dtype {
            DType::F32 => Data::F32(each(bytes, f32::from_le_bytes)),
            DType::I8 => Data::I8(bytes.iter().map(|b| b.cast_signed()).collect()),
            DType::U8 => Data::U8(bytes.to_vec()),
            DType::Bool => Data::Bool(bytes.to_vec()),
            DType::I32 => Data::I32(each(bytes, i32::from_le_bytes)),
            DType::I64 => Data::I64(each(bytes, i64::from_le_bytes)),
        };
        Self::new(dims, data)
    }

    /// The same elements under other dimensions.
    ///
    /// # Errors
    /// In words, when the number of elements differs.
    pub fn reshaped(&self, dims: Vec<usize>) -> Result<Self, String> {
        Self::new(dims, self.data.clone())
    }

    /// A tensor of `dims` whose element `i` is this one's element `source(i)`.
    ///
    /// # Errors
    /// In words, when the dimensions are too large or a source lies outside.
    pub fn gathered(
        &self,
        dims: Vec<usize>,
        source: impl Fn(usize) -> usize,
    ) -> Result<Self, String> {
        let n = elements(&dims).ok_or_else(|| format!("{dims:?} has too many elements"))?;
        let outside = || "an index lies outside the tensor".to_owned();
        fn pick<T: Copy>(v: &[T], n: usize, source: impl Fn(usize) -> usize) -> Option<Vec<T>> {
            (0..n).map(|i| v.get(source(i)).copied()).collect()
        }
        let data = match &self.data {
            Data::F32(v) => pick(v, n, source).map(Data::F32),
            Data::I8(v) => pick(v, n, source).map(Data::I8),
            Data::U8(v) => pick(v, n, source).map(Data::U8),
            Data::I32(v) => pick(v, n, source).map(Data::I32),
            Data::I64(v) => pick(v, n, source).map(Data::I64),
            Data::Bool(v) => pick(v, n, source).map(Data::Bool),
        };
        Self::new(dims, data.ok_or_else(outside)?)
    }
}
