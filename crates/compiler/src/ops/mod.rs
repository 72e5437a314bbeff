//! The operators: one file each (or a family that differs in a formula), with its typing, its
//! evaluation on the host, and its lowering to kernels.
//!
//! To add one: write its file, add a line to [`find`], and a test in `tests/`.

mod affine_grid;
mod average_pool;
mod batch_normalization;
mod binary;
mod choose;
mod clip;
mod col2im;
mod concat;
mod constant;
mod conv;
mod conv_integer;
mod conv_transpose;
mod create;
mod depth_space;
mod dequantize_linear;
mod dynamic_quantize;
mod einsum;
mod expand;
mod extreme;
mod flatten;
mod fourier;
mod gather;
mod gather_elements;
mod gather_nd;
mod gemm;
mod global_average_pool;
mod grid_sample;
mod identity;
mod lanes;
mod lookup;
mod lrn;
mod map;
mod matmul;
mod matrices;
mod max_pool;
mod max_unpool;
mod non_max_suppression;
mod normalize;
mod one_hot;
mod pad;
mod pair;
mod pool_rest;
mod qgemm;
mod qlinear_average_pool;
mod qlinear_binary;
mod qlinear_concat;
mod qlinear_conv;
mod qlinear_global_average_pool;
mod qlinear_matmul;
mod qlinear_reduce_mean;
mod qlinear_softmax;
mod quantize_linear;
mod recurrent;
mod reduce;
mod relu;
mod reshape;
mod resize;
mod roi_align;
mod scatter;
mod shape;
mod slice;
mod softmax;
mod split;
mod squeeze;
mod table;
mod tile;
mod top_k;
mod transpose;
mod trilu;
mod unsqueeze;
mod variadic;

pub(crate) use batch_normalization::affine as batch_norm_affine;
pub(crate) use clip::limits as clip_limits;
pub(crate) use relu::LIMITS as RELU_LIMITS;
pub(crate) use table::all_bytes;

use crate::lower::LowerCx;
use crate::onnx::{Attrs, NodeProto};
use crate::reference::{Built, Inputs, required};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// The domain of operators that only the rewriting makes.
pub(crate) const OWN: &str = "sandpiper";

/// Why a node that would mix the items of a batch is refused.
pub(crate) const MIXES: &str = "it mixes the items of a batch; give the input a fixed shape";

/// A node to be evaluated.
pub(crate) struct Call<'a> {
    /// Operator and attributes.
    pub(crate) proto: &'a NodeProto,
    /// Version of ONNX's own operators.
    pub(crate) opset: i64,
    /// Inputs in order.
    pub(crate) inputs: &'a Inputs<'a>,
}

impl<'a> Call<'a> {
    /// Attributes.
    pub(crate) fn attrs(&self) -> Attrs<'a> {
        Attrs::of(self.proto)
    }

    /// The input at `index`, which must be there.
    pub(crate) fn input(&self, index: usize) -> Result<&'a Tensor, String> {
        required(self.inputs, index)
    }

    /// The input at `index`, if it is there.
    pub(crate) fn optional(&self, index: usize) -> Option<&'a Tensor> {
        self.inputs.get(index).copied().flatten()
    }

    /// Applies a function of the reference.
    pub(crate) fn run(&self, built: Built) -> Result<Vec<Tensor>, String> {
        built?(self.inputs)
    }
}

/// What the compiler has to know about an operator. Errors are in words and name what is not
/// supported, and the way out if there is one.
pub(crate) trait Operator: Sync {
    /// Types of the outputs. Refuses what cannot be lowered.
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String>;

    /// Evaluates it in plain scalar arithmetic: folds constants, and is the oracle of the tests. So
    /// it shares with lowering how attributes are read, and nothing of how results are computed.
    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String>;

    /// Adds the kernels of the node that `cx` stands at.
    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String>;

    /// Whether it only moves elements: it then works on any type, and on the mark that stands for
    /// the batch among constants.
    fn moves(&self) -> bool {
        false
    }

    /// Whether it is folded when all of its inputs are constants.
    fn folds(&self) -> bool {
        true
    }

    /// Whether it applies the node's limits, so that a Relu or Clip can become part of it.
    fn clamps(&self) -> bool {
        false
    }

    /// Whether it is a function of each element of its first input, and of nothing else but
    /// attributes: of quantised values it is then a table.
    fn by_element(&self) -> bool {
        false
    }

    /// Outputs that are known although the inputs are not.
    fn known(&self, _node: &NodeView<'_>) -> Result<Option<Vec<Tensor>>, String> {
        Ok(None)
    }
}

/// The operator of this name; the domain is empty for ONNX's own.
pub(crate) fn find(domain: &str, op_type: &str) -> Result<&'static dyn Operator, String> {
    Ok(match (domain, op_type) {
        ("" | "ai.onnx", name) => match name {
            "Add" => &binary::ADD,
            "Sub" => &binary::SUB,
            "Mul" => &binary::MUL,
            "Div" => &binary::DIV,
            "Abs" => &map::ABS,
            "Neg" => &map::NEG,
            "Floor" => &map::FLOOR,
            "Ceil" => &map::CEIL,
            "Round" => &map::ROUND,
            "Sqrt" => &map::SQRT,
            "Reciprocal" => &map::RECIPROCAL,
            "Sign" => &map::SIGN,
            "Exp" => &map::EXP,
            "Log" => &map::LOG,
            "Sigmoid" => &map::SIGMOID,
            "Tanh" => &map::TANH,
            "Sinh" => &map::SINH,
            "Cosh" => &map::COSH,
            "Asinh" => &map::ASINH,
            "Acosh" => &map::ACOSH,
            "Atanh" => &map::ATANH,
            "Sin" => &map::SIN,
            "Cos" => &map::COS,
            "Tan" => &map::TAN,
            "Asin" => &map::ASIN,
            "Acos" => &map::ACOS,
            "Atan" => &map::ATAN,
            "Erf" => &map::ERF,
            "Gelu" => &map::GELU,
            "Softplus" => &map::SOFTPLUS,
            "Softsign" => &map::SOFTSIGN,
            "Mish" => &map::MISH,
            "HardSwish" => &map::HARD_SWISH,
            "HardSigmoid" => &map::HARD_SIGMOID,
            "LeakyRelu" => &map::LEAKY_RELU,
            "ThresholdedRelu" => &map::THRESHOLDED_RELU,
            "Elu" => &map::ELU,
            "Selu" => &map::SELU,
            "Celu" => &map::CELU,
            "Shrink" => &map::SHRINK,
            "IsNaN" => &map::IS_NAN,
            "IsInf" => &map::IS_INF,
            "Equal" => &pair::EQUAL,
            "Less" => &pair::LESS,
            "LessOrEqual" => &pair::LESS_OR_EQUAL,
            "Greater" => &pair::GREATER,
            "GreaterOrEqual" => &pair::GREATER_OR_EQUAL,
            "And" => &pair::AND,
            "Or" => &pair::OR,
            "Xor" => &pair::XOR,
            "Pow" => &pair::POW,
            "Mod" => &pair::MOD,
            "BitwiseAnd" => &pair::BIT_AND,
            "BitwiseOr" => &pair::BIT_OR,
            "BitwiseXor" => &pair::BIT_XOR,
            "Min" => &variadic::MIN,
            "Max" => &variadic::MAX,
            "Sum" => &variadic::SUM,
            "Mean" => &variadic::MEAN,
            "Where" => &choose::Where,
            "Not" => &choose::Not,
            "BitwiseNot" => &choose::BitwiseNot,
            "Cast" => &choose::Cast,
            "CastLike" => &choose::CastLike,
            "PRelu" => &choose::PRelu,
            "ReduceSum" => &reduce::SUM,
            "ReduceMean" => &reduce::MEAN,
            "ReduceProd" => &reduce::PROD,
            "ReduceMin" => &reduce::MIN,
            "ReduceMax" => &reduce::MAX,
            "ReduceL1" => &reduce::L1,
            "ReduceL2" => &reduce::L2,
            "ReduceSumSquare" => &reduce::SUM_SQUARE,
            "ReduceLogSum" => &reduce::LOG_SUM,
            "ReduceLogSumExp" => &reduce::LOG_SUM_EXP,
            "ArgMax" => &extreme::ARG_MAX,
            "ArgMin" => &extreme::ARG_MIN,
            "Hardmax" => &extreme::Hardmax,
            "LayerNormalization" => &normalize::LAYER,
            "RMSNormalization" | "SimplifiedLayerNormalization" => &normalize::RMS,
            "InstanceNormalization" => &normalize::INSTANCE,
            "GroupNormalization" => &normalize::GROUP,
            "MeanVarianceNormalization" => &normalize::MEAN_VARIANCE,
            "LogSoftmax" => &lanes::LogSoftmax,
            "CumSum" => &lanes::CumSum,
            "LpNormalization" => &lanes::LpNormalization,
            "Einsum" => &einsum::Einsum,
            "NonMaxSuppression" => &non_max_suppression::NonMaxSuppression,
            "DFT" => &fourier::Dft,
            "STFT" => &fourier::Stft,
            "HannWindow" => &create::HannWindow,
            "HammingWindow" => &create::HammingWindow,
            "BlackmanWindow" => &create::BlackmanWindow,
            "AffineGrid" => &affine_grid::AffineGrid,
            "Col2Im" => &col2im::Col2Im,
            "MaxUnpool" => &max_unpool::MaxUnpool,
            "RoiAlign" => &roi_align::RoiAlign,
            "Expand" => &expand::Expand,
            "Tile" => &tile::Tile,
            "Pad" => &pad::Pad,
            "Trilu" => &trilu::Trilu,
            "DepthToSpace" => &depth_space::DEPTH_TO_SPACE,
            "SpaceToDepth" => &depth_space::SPACE_TO_DEPTH,
            "Split" => &split::Split,
            "GatherElements" => &gather_elements::GatherElements,
            "GatherND" => &gather_nd::GatherNd,
            "ScatterElements" => &scatter::ScatterElements,
            "Scatter" => &scatter::ScatterElements,
            "ScatterND" => &scatter::ScatterNd,
            "OneHot" => &one_hot::OneHot,
            "ConstantOfShape" => &create::ConstantOfShape,
            "Range" => &create::Range,
            "EyeLike" => &create::EyeLike,
            "Size" => &create::Size,
            "MatMulInteger" => &matrices::MatMulInteger,
            "Resize" | "Upsample" => &resize::Resize,
            "TopK" => &top_k::TopK,
            "GlobalMaxPool" => &pool_rest::GlobalMaxPool,
            "LpPool" => &pool_rest::LP_POOL,
            "GlobalLpPool" => &pool_rest::GLOBAL_LP_POOL,
            "LRN" => &lrn::Lrn,
            "ConvTranspose" => &conv_transpose::ConvTranspose,
            "RNN" => &recurrent::RNN,
            "GRU" => &recurrent::GRU,
            "LSTM" => &recurrent::LSTM,
            "GridSample" => &grid_sample::GridSample,
            "DynamicQuantizeLinear" => &dynamic_quantize::DynamicQuantizeLinear,
            "ConvInteger" => &conv_integer::ConvInteger,
            "BitShift" => &pair::BIT_SHIFT,
            "CenterCropPad" => &pad::CenterCropPad,
            "AveragePool" => &average_pool::AveragePool,
            "BatchNormalization" => &batch_normalization::BatchNormalization,
            "Clip" => &clip::Clip,
            "Concat" => &concat::Concat,
            "Constant" => &constant::Constant,
            "Conv" => &conv::Conv,
            "DequantizeLinear" => &dequantize_linear::DequantizeLinear,
            "Flatten" => &flatten::Flatten,
            "Gather" => &gather::Gather,
            "Gemm" => &gemm::Gemm,
            "GlobalAveragePool" => &global_average_pool::GlobalAveragePool,
            "Identity" | "Dropout" => &identity::Identity,
            "MatMul" => &matmul::MatMul,
            "MaxPool" => &max_pool::MaxPool,
            "QLinearConv" => &qlinear_conv::QLinearConv,
            "QLinearMatMul" => &qlinear_matmul::QLinearMatMul,
            "QuantizeLinear" => &quantize_linear::QuantizeLinear,
            "Relu" => &relu::Relu,
            "Reshape" => &reshape::Reshape,
            "Shape" => &shape::Shape,
            "Slice" => &slice::Slice,
            "Softmax" => &softmax::Softmax,
            "Squeeze" => &squeeze::Squeeze,
            "Transpose" => &transpose::Transpose,
            "Unsqueeze" => &unsqueeze::Unsqueeze,
            _ => return Err("this operator is not known".into()),
        },
        ("com.microsoft", name) => match name {
            "QGemm" => &qgemm::QGemm,
            "QLinearAdd" => &qlinear_binary::ADD,
            "QLinearMul" => &qlinear_binary::MUL,
            "QLinearAveragePool" => &qlinear_average_pool::QLinearAveragePool,
            "QLinearGlobalAveragePool" => &qlinear_global_average_pool::QLinearGlobalAveragePool,
            "QLinearSoftmax" => &qlinear_softmax::QLinearSoftmax,
            "QLinearSigmoid" => &table::SIGMOID,
            "QLinearLeakyRelu" => &table::LEAKY_RELU,
            "QLinearConcat" => &qlinear_concat::QLinearConcat,
            "QLinearReduceMean" => &qlinear_reduce_mean::QLinearReduceMean,
            _ => return Err("this operator of com.microsoft is not known".into()),
        },
        // What the rewriting makes; it means the same in a file.
        (OWN, "Lookup") => &table::Lookup,
        ("ai.onnx.ml", _) => {
            return Err("trees and other classic models (ai.onnx.ml) are not supported".into());
        }
        (domain, _) => return Err(format!("the domain `{domain}` is not known")),
    })
}
