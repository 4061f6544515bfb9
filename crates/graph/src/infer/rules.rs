//! Which rule finds the dimensions of an operator's outputs.

use super::{
    call::{Call, Found, Outputs},
    computing, picking, quantized, runtime, shaping,
};
use crate::schema;

/// What is known of a node's outputs; nothing of operators without a rule.
pub(super) fn outputs(call: &Call<'_>) -> Outputs {
    match (schema::standard(&call.node.domain), call.node.op.as_str()) {
        ("", op) => standard(call, op),
        ("com.microsoft", op) => runtime::outputs(call, op),
        _ => Ok(Vec::new()),
    }
}

fn standard(call: &Call<'_>, op: &str) -> Outputs {
    match op {
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BatchNormalization"
        | "Bernoulli"
        | "BitwiseNot"
        | "CastLike"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "Cos"
        | "Cosh"
        | "CumProd"
        | "CumSum"
        | "Elu"
        | "Erf"
        | "Exp"
        | "EyeLike"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Hardmax"
        | "InstanceNormalization"
        | "IsInf"
        | "IsNaN"
        | "LRN"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "MeanVarianceNormalization"
        | "Mish"
        | "Neg"
        | "Not"
        | "RandomNormalLike"
        | "RandomUniformLike"
        | "Reciprocal"
        | "Relu"
        | "RotaryEmbedding"
        | "Round"
        | "ScatterElements"
        | "ScatterND"
        | "Scatter"
        | "Selu"
        | "Shrink"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tan"
        | "Tanh"
        | "ThresholdedRelu"
        | "TensorScatter"
        | "Trilu" => Ok(vec![Found::maybe(call.dims(0).map(<[_]>::to_vec))]),
        "Dropout" => Ok(vec![Found::maybe(call.dims(0).map(<[_]>::to_vec)); 2]),
        "Identity" | "Cast" | "BitCast" => computing::as_it_stands(call),
        "LayerNormalization" | "RMSNormalization" | "SimplifiedLayerNormalization" => {
            computing::normalization(call)
        }
        "Add" | "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Div" | "Equal"
        | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Max" | "Mean" | "Min" | "Mod" | "Mul"
        | "Or" | "PRelu" | "Pow" | "Sub" | "Sum" | "Where" | "Xor" => computing::elementwise(call),
        "MatMul" | "MatMulInteger" => computing::matmul(call),
        "Gemm" => computing::gemm(call),
        "Conv" | "ConvInteger" | "AveragePool" | "MaxPool" | "LpPool" => computing::windows(call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => computing::global(call),
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean"
        | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => computing::reduce(call),
        "ArgMax" | "ArgMin" => computing::arg(call),
        "DequantizeLinear" | "QuantizeLinear" => quantized::linear(call),
        "DynamicQuantizeLinear" => quantized::dynamic(call),
        "Attention" => runtime::standard_attention(call),
        "Shape" => shaping::shape(call),
        "Size" => shaping::size(call),
        "Reshape" => shaping::reshape(call),
        "Flatten" => shaping::flatten(call),
        "Transpose" => shaping::transpose(call),
        "Unsqueeze" => shaping::unsqueeze(call),
        "Squeeze" => shaping::squeeze(call),
        "Expand" => shaping::expand(call),
        "Tile" => shaping::tile(call),
        "Constant" => shaping::constant(call),
        "ConstantOfShape" => shaping::constant_of_shape(call),
        "Range" => shaping::range(call),
        "NonZero" => shaping::non_zero(call),
        "OneHot" => shaping::one_hot(call),
        "Concat" => picking::concat(call),
        "Split" => picking::split(call),
        "Slice" => picking::slice(call),
        "Gather" => picking::gather(call),
        "GatherElements" => picking::gather_elements(call),
        "GatherND" => picking::gather_nd(call),
        "TopK" => picking::top_k(call),
        _ => Ok(Vec::new()),
    }
}
