//! Tensors of the Open Inference Protocol: JSON and the binary tensor extension.

use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use serde::Deserialize;
use serde_json::{Value, json};

/// Why a request is not one for this model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadRequest> {
    Err(BadRequest(why.into()))
}

#[derive(Debug, Deserialize)]
struct RawRequest {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<RawInput>,
    #[serde(default)]
    outputs: Option<Vec<RawOutput>>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Deserialize)]
struct RawInput {
    name: String,
    shape: Vec<u32>,
    datatype: String,
    #[serde(default)]
    data: Option<Value>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Deserialize)]
struct RawOutput {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

/// A request that fits the model.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// The caller's id, given back.
    pub id: Option<String>,
    /// Batch.
    pub batch: u32,
    /// Inputs in the order of the model.
    pub inputs: Vec<Vec<u8>>,
    /// Wanted outputs: index into the model's outputs, and whether as binary.
    pub outputs: Vec<(usize, bool)>,
}

/// Parses a request. `header_len` is the value of `Inference-Header-Content-Length`: the length
/// of the JSON in front of the binary tensors.
///
/// # Errors
/// [`BadRequest`] naming what does not fit.
pub fn parse(
    body: &[u8],
    header_len: Option<usize>,
    inputs: &[&TensorSpec],
    outputs: &[&TensorSpec],
    max_batch: u32,
) -> Result<Request, BadRequest> {
    let split = header_len.unwrap_or(body.len());
    let Some((json, mut binary)) = body.split_at_checked(split) else {
        return bad("Inference-Header-Content-Length is larger than the body");
    };
    let raw: RawRequest = serde_json::from_slice(json)
        .map_err(|e| BadRequest(format!("the request is not valid: {e}")))?;
    let mut placed: Vec<Option<(u32, Vec<u8>)>> = vec![None; inputs.len()];
    for input in raw.inputs {
        let Some(at) = inputs.iter().position(|s| s.name == input.name) else {
            return bad(format!("the model has no input `{}`", input.name));
        };
        if placed[at].is_some() {
            return bad(format!("input `{}` is given twice", input.name));
        }
        placed[at] = Some(take_input(input, inputs[at], max_batch, &mut binary)?);
    }
    if !binary.is_empty() {
        return bad(format!(
            "{} bytes follow the last binary tensor",
            binary.len()
        ));
    }
    let mut batch = 1;
    let mut bytes = Vec::with_capacity(inputs.len());
    for (spec, input) in inputs.iter().zip(placed) {
        let Some((b, data)) = input else {
            return bad(format!("input `{}` is missing", spec.name));
        };
        if spec.dims.contains(&Dim::Batch) {
            if batch != 1 && b != batch {
                return bad("the inputs differ in batch");
            }
            batch = b;
        }
        bytes.push(data);
    }
    // A first input of batch 1 followed by a larger one passes the loop above.
    let fits = |(s, d): (&&TensorSpec, &Vec<u8>)| s.size_bytes(batch) == d.len();
    if !inputs.iter().zip(&bytes).all(fits) {
        return bad("the inputs differ in batch");
    }
    let all_binary = raw.parameters.binary_data_output.unwrap_or(false);
    let outputs = wanted(raw.outputs, outputs, all_binary)?;
    Ok(Request {
        id: raw.id,
        batch,
        inputs: bytes,
        outputs,
    })
}

fn wanted(
    raw: Option<Vec<RawOutput>>,
    outputs: &[&TensorSpec],
    all_binary: bool,
) -> Result<Vec<(usize, bool)>, BadRequest> {
    let Some(raw) = raw.filter(|r| !r.is_empty()) else {
        return Ok((0..outputs.len()).map(|i| (i, all_binary)).collect());
    };
    let mut wanted: Vec<(usize, bool)> = Vec::with_capacity(outputs.len());
    for output in raw {
        let Some(at) = outputs.iter().position(|s| s.name == output.name) else {
            return bad(format!("the model has no output `{}`", output.name));
        };
        // A small request must not make a large answer.
        if wanted.iter().any(|(taken, _)| *taken == at) {
            return bad(format!("output `{}` is asked for twice", output.name));
        }
        wanted.push((at, output.parameters.binary_data.unwrap_or(all_binary)));
    }
    Ok(wanted)
}

fn take_input(
    input: RawInput,
    spec: &TensorSpec,
    max_batch: u32,
    binary: &mut &[u8],
) -> Result<(u32, Vec<u8>), BadRequest> {
    let name = &input.name;
    if input.datatype != spec.dtype.oip_name() {
        let want = spec.dtype.oip_name();
        return bad(format!(
            "input `{name}` has datatype {}, {want} is expected",
            input.datatype
        ));
    }
    let batch_at = spec.dims.iter().position(|d| *d == Dim::Batch);
    let batch = batch_at
        .and_then(|i| input.shape.get(i).copied())
        .unwrap_or(1);
    if batch == 0 || batch > max_batch {
        return bad(format!(
            "input `{name}` has batch {batch}, 1 to {max_batch} are possible"
        ));
    }
    if input.shape != spec.shape(batch) {
        let want = spec.shape(batch);
        return bad(format!(
            "input `{name}` has shape {:?}, {want:?} is expected",
            input.shape
        ));
    }
    let size = spec.size_bytes(batch);
    let data = match (input.parameters.binary_data_size, input.data) {
        (Some(n), None) => {
            let Some((data, rest)) = binary.split_at_checked(n).filter(|_| n == size) else {
                return bad(format!("input `{name}` needs {size} binary bytes"));
            };
            *binary = rest;
            data.to_vec()
        }
        (None, Some(data)) => {
            let mut bytes = Vec::with_capacity(size);
            flatten(&data, spec.dtype, &mut bytes, 0)
                .map_err(|why| BadRequest(format!("input `{name}`: {why}")))?;
            if bytes.len() != size {
                let (have, want) = (bytes.len() / spec.dtype.size_bytes(), spec.elements(batch));
                return bad(format!(
                    "input `{name}` has {have} elements, {want} are expected"
                ));
            }
            bytes
        }
        _ => {
            return bad(format!(
                "input `{name}` needs either data or binary_data_size"
            ));
        }
    };
    Ok((batch, data))
}

/// Appends numbers of nested or flat arrays, row-major.
fn flatten(value: &Value, dtype: DType, out: &mut Vec<u8>, depth: u8) -> Result<(), String> {
    if let Value::Array(items) = value {
        // No tensor has more dimensions than this; it bounds the recursion.
        if depth >= 16 {
            return Err("the data is nested too deeply".into());
        }
        return items
            .iter()
            .try_for_each(|v| flatten(v, dtype, out, depth + 1));
    }
    let wrong = || format!("`{value}` is not of type {}", dtype.oip_name());
    let int = || value.as_i64().ok_or_else(wrong);
    match dtype {
        DType::F32 => {
            let x = value.as_f64().ok_or_else(wrong)? as f32;
            if !x.is_finite() {
                return Err(wrong());
            }
            out.extend(x.to_le_bytes());
        }
        DType::I8 => out.extend(i8::try_from(int()?).map_err(|_| wrong())?.to_le_bytes()),
        DType::U8 => out.push(u8::try_from(int()?).map_err(|_| wrong())?),
        DType::I32 => out.extend(i32::try_from(int()?).map_err(|_| wrong())?.to_le_bytes()),
        DType::I64 => out.extend(int()?.to_le_bytes()),
        DType::Bool => match value.as_bool() {
            Some(b) => out.push(u8::from(b)),
            None => out.push(u8::from(int()? != 0)),
        },
    }
    Ok(())
}

fn to_json(bytes: &[u8], dtype: DType) -> Vec<Value> {
    let four = |c: &[u8]| [c[0], c[1], c[2], c[3]];
    match dtype {
        // JSON has no NaN and no infinity: they become null.
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|c| Value::from(f32::from_le_bytes(four(c))))
            .collect(),
        DType::I32 => bytes
            .chunks_exact(4)
            .map(|c| json!(i32::from_le_bytes(four(c))))
            .collect(),
        DType::I64 => bytes
            .chunks_exact(8)
            .map(|c| {
                json!(i64::from_le_bytes([
                    c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
                ]))
            })
            .collect(),
        DType::I8 => bytes.iter().map(|b| json!(b.cast_signed())).collect(),
        DType::U8 => bytes.iter().map(|b| json!(b)).collect(),
        DType::Bool => bytes.iter().map(|b| json!(*b != 0)).collect(),
    }
}

/// A response: body, and the length of its JSON when binary tensors follow.
pub fn render(
    request: &Request,
    names: (&str, &str, &str),
    specs: &[&TensorSpec],
    outputs: &[Vec<u8>],
) -> (Vec<u8>, Option<usize>) {
    let (model, version, variant) = names;
    let mut tail: Vec<u8> = Vec::new();
    let mut list = Vec::new();
    for &(at, binary) in &request.outputs {
        let (spec, bytes) = (specs[at], &outputs[at]);
        let mut tensor = json!({
            "name": spec.name,
            "datatype": spec.dtype.oip_name(),
            "shape": spec.shape(request.batch),
        });
        if binary {
            tensor["parameters"] = json!({ "binary_data_size": bytes.len() });
            tail.extend(bytes);
        } else {
            tensor["data"] = Value::Array(to_json(bytes, spec.dtype));
        }
        list.push(tensor);
    }
    let mut head = json!({
        "model_name": model,
        "model_version": version,
        "parameters": { "variant": variant },
        "outputs": list,
    });
    if let Some(id) = &request.id {
        head["id"] = json!(id);
    }
    let mut body = head.to_string().into_bytes();
    let binary = request.outputs.iter().any(|o| o.1).then_some(body.len());
    body.extend(tail);
    (body, binary)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spec() -> TensorSpec {
        TensorSpec {
            name: "x".into(),
            dtype: DType::F32,
            dims: vec![Dim::Batch, Dim::Fixed(2)],
        }
    }

    fn parsed(body: &[u8], header: Option<usize>) -> Result<Request, BadRequest> {
        parse(body, header, &[&spec()], &[&spec()], 4)
    }

    #[test]
    fn json_and_binary_give_the_same() {
        let head =
            br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4]]}]}"#;
        let a = parsed(head, None).unwrap();
        let mut body =
            br#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}],"outputs":[{"name":"x","parameters":{"binary_data":true}}]}"#
                .to_vec();
        let n = body.len();
        body.extend([1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()));
        let b = parsed(&body, Some(n)).unwrap();
        assert_eq!((a.batch, &a.inputs), (2, &b.inputs));
        let (out, length) = render(&b, ("m", "v1", "small"), &[&spec()], &b.inputs);
        assert_eq!(&out[length.unwrap()..], &b.inputs[0][..]);
        let (out, length) = render(&a, ("m", "v1", "small"), &[&spec()], &a.inputs);
        assert_eq!(length, None);
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["outputs"][0]["data"], json!([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(value["parameters"]["variant"], "small");
    }

    #[test]
    fn every_mistake_is_named() {
        let cases = [
            (r#"{"inputs":[]}"#, "missing"),
            (
                r#"{"inputs":[{"name":"y","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#,
                "no input",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT8","data":[1,2]}]}"#,
                "datatype",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}"#,
                "shape",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[9,2],"datatype":"FP32","data":[1,2]}]}"#,
                "batch",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1]}]}"#,
                "elements",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,"a"]}]}"#,
                "type",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,1e39]}]}"#,
                "type",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,-2],"datatype":"FP32","data":[1,2]}]}"#,
                "not valid",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}"#,
                "binary bytes",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32"}]}"#,
                "either data or",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"outputs":[{"name":"z"}]}"#,
                "no output",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}],"outputs":[{"name":"x"},{"name":"x"}]}"#,
                "twice",
            ),
            (r#"{"inputs":"#, "not valid"),
        ];
        for (body, part) in cases {
            let message = parsed(body.as_bytes(), None).unwrap_err().to_string();
            assert!(message.contains(part), "{body}: {message}");
        }
        assert!(parsed(b"{}", Some(99)).is_err());
    }
}
