//! `model`.

use super::{Session, connect};
use crate::cli::args::{Import, Model};
use crate::cli::context;
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use crate::cli::parse;
use crate::import::build::{Built, ImportRequest, VariantSource, build};
use crate::import::evaluate::Samples;
use crate::import::{ImportError, npz, run};
use sandpiper_compiler::{Options, Report};
use sandpiper_core::digest::Digest;
use sandpiper_core::manifest::{AccuracySource, Evaluation, VersionManifest};
use sandpiper_core::names::{ActorName, VariantName};
use sandpiper_core::signed::Purpose;
use sandpiper_core::target::Target;
use sandpiper_core::tensor::Dim;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{ListQuery, ResourceKind};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) async fn model(session: &mut Session<'_>, command: Model) -> Result<(), CliError> {
    match command {
        Model::Import(args) => import(session, *args).await,
        Model::Check {
            file,
            max_batch,
            shapes,
            output,
        } => {
            let options = Options {
                max_batch,
                shapes: parse::shapes(&shapes)?,
            };
            let report = sandpiper_compiler::check(&read(&file)?, &options).map_err(|source| {
                CliError::Compile {
                    path: file.clone(),
                    source,
                }
            })?;
            session.show(&check_report(&file, &report), output)
        }
        Model::Run {
            file,
            weights,
            inputs,
            outputs,
            shapes,
            batch,
        } => {
            let options = Options {
                max_batch: batch,
                shapes: parse::shapes(&shapes)?,
            };
            let unusable = |path: &PathBuf| {
                let path = path.clone();
                move |source| CliError::Npz { path, source }
            };
            let bytes = read(&file)?;
            let weights = weights.as_deref().map(read).transpose()?;
            let arrays = npz::read_file(&inputs).map_err(unusable(&inputs))?;
            let results = run::run(&bytes, weights.as_deref(), &options, &arrays);
            let results = results.map_err(|source| CliError::Run {
                path: file.clone(),
                source: Box::new(source),
            })?;
            npz::write_file(&outputs, &results).map_err(unusable(&outputs))
        }
        Model::Inspect { version, output } => {
            let name = version
                .strip_prefix("model/")
                .unwrap_or(&version)
                .to_owned();
            if name.split('/').filter(|part| !part.is_empty()).count() != 2 {
                return Err(CliError::Usage(format!(
                    "`{version}` is no version: write MODEL/VERSION"
                )));
            }
            let query = ListQuery {
                kind: ResourceKind::Models,
                name: Some(name.clone()),
                selector: None,
            };
            let items = connect(session.context).await?.list(query).await?;
            if items.is_empty() {
                return Err(CliError::NotFound(format!("model/{name}")));
            }
            session.show(
                &Output::Resources {
                    kind: ResourceKind::Models,
                    items,
                    single: true,
                },
                output,
            )
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|source| CliError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

async fn import(session: &mut Session<'_>, args: Import) -> Result<(), CliError> {
    let key = context::publisher_key(session.context)?;
    let request = request(&args)?;
    // Reached first: measuring takes a while, and would be in vain without a controller.
    let mut client = connect(session.context).await?;
    let built = build(&request, &mut |text| tracing::info!("{text}"))?;
    let wanted: Vec<_> = built.artefacts.keys().copied().collect();
    for artefact in client.missing(&wanted).await? {
        if let Some(bytes) = built.artefacts.get(&artefact) {
            client.upload(artefact, bytes).await?;
        }
    }
    let payload =
        serde_json::to_vec(&built.manifest).map_err(|e| CliError::Answer(e.to_string()))?;
    client.publish(key.sign(Purpose::Version, payload)).await?;
    session.show(&variants_report(&built), args.output)
}

fn request(args: &Import) -> Result<ImportRequest, CliError> {
    let name = |text: &str| VariantName::new(text).map_err(|e| CliError::Usage(e.to_string()));
    let mut claims = parse::pairs("--claim-accuracy", &args.claims)?;
    let mut weights = parse::pairs("--weights", &args.weights)?;
    let mut variants = Vec::new();
    for text in &args.variants {
        let (variant, file) = text.split_once('=').ok_or_else(|| {
            CliError::Usage(format!("`{text}` after --variant must be NAME=FILE"))
        })?;
        let claim = claims.remove(variant).map(|share| {
            share
                .parse()
                .map_err(|_| CliError::Usage(format!("`{share}` is no share in 0..=1")))
        });
        let source = VariantSource {
            name: name(variant)?,
            file: read(Path::new(file))?,
            weights: weights
                .remove(variant)
                .map(|file| read(Path::new(&file)))
                .transpose()?,
            claimed_accuracy: claim.transpose()?,
        };
        variants.push(source);
    }
    let strangers = [("--claim-accuracy", &claims), ("--weights", &weights)];
    for (flag, left) in strangers {
        if let Some(unknown) = left.keys().next() {
            return Err(CliError::Usage(format!(
                "{flag} names `{unknown}`, which is no variant here"
            )));
        }
    }
    let labels = match &args.labels {
        None => Vec::new(),
        Some(path) => labels(path)?,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    Ok(ImportRequest {
        model: args.model.clone(),
        version: args.version.clone(),
        publisher: ActorName::new("publisher").map_err(|e| CliError::Usage(e.to_string()))?,
        published_at: Millis(now),
        variants,
        labels,
        evaluation: args
            .eval
            .as_deref()
            .map(|path| evaluation(args, path))
            .transpose()?,
        targets: if args.native.is_empty() {
            Target::ALL.to_vec()
        } else {
            args.native.clone()
        },
        max_batch: args.max_batch,
        allow_nonfinite: args.allow_nonfinite,
    })
}

/// One name a line; an empty or repeated one is a mistake.
fn labels(path: &Path) -> Result<Vec<String>, CliError> {
    let bad = |why: String| CliError::Content {
        path: path.to_owned(),
        why,
    };
    let text = String::from_utf8(read(path)?).map_err(|_| bad("it is not UTF-8".to_owned()))?;
    let mut labels: Vec<String> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let label = line.trim();
        if label.is_empty() {
            return Err(bad(format!(
                "line {} is empty; it needs one class name per line",
                index + 1
            )));
        }
        if labels.iter().any(|known| known == label) {
            return Err(bad(format!("line {} repeats `{label}`", index + 1)));
        }
        labels.push(label.to_owned());
    }
    Ok(labels)
}

fn evaluation(args: &Import, path: &Path) -> Result<(Samples, Evaluation), CliError> {
    let bytes = read(path)?;
    let unusable = |source| CliError::Npz {
        path: path.to_owned(),
        source,
    };
    let mut arrays = npz::read(&bytes).map_err(unusable)?;
    let targets = npz::get(&arrays, &args.targets).map_err(unusable)?.clone();
    npz::get(&arrays, &args.inputs).map_err(unusable)?;
    let inputs = arrays.remove(&args.inputs).expect("`get` has found it");
    let samples = Samples::new(&args.inputs, inputs, &targets)
        .map_err(|e| ImportError::Samples(Box::new(e)))?;
    let count = u32::try_from(samples.targets.len()).unwrap_or(u32::MAX);
    Ok((
        samples,
        Evaluation {
            data: Digest::of(&bytes),
            samples: count,
        },
    ))
}

fn variants_report(built: &Built) -> Output {
    let manifest: &VersionManifest = &built.manifest;
    let mut table = Grid::new(&[
        "VARIANT", "ACCURACY", "MEMORY", "WEIGHTS", "MACS", "TYPE", "HOST P50", "HOST P95",
    ]);
    for v in &manifest.variants {
        let sign = if v.accuracy.source == AccuracySource::Claimed {
            " (claimed)"
        } else {
            ""
        };
        let host = |us: Option<u32>| us.map_or_else(|| "-".to_owned(), |us| format!("{us} µs"));
        table.rows.push(vec![
            v.name.to_string(),
            format!(
                "{:.2} ± {:.2} %{sign}",
                v.accuracy.value * 100.0,
                v.accuracy.standard_error() * 100.0
            ),
            format!("{} KiB", v.memory_bytes() / 1024),
            format!(
                "{:.1} KiB",
                v.weights.map_or(0, |w| w.size_bytes) as f64 / 1024.0
            ),
            format!("{:.3} M", v.macs.values().sum::<u64>() as f64 / 1e6),
            v.main_dtype().to_string(),
            host(v.host_latency.as_ref().map(|h| h.p50_us)),
            host(v.host_latency.as_ref().map(|h| h.p95_us)),
        ]);
    }
    let name = format!("model/{}/{}", manifest.model, manifest.version);
    let notes = vec![format!("{name} published")];
    Output::Report {
        name,
        document: json!(manifest),
        table,
        notes,
    }
}

/// `Nx6x128`, where N is the batch.
fn dims(shape: &[Dim]) -> String {
    let texts = shape.iter().map(|d| match d {
        Dim::Batch => "N".to_owned(),
        Dim::Fixed(n) => n.to_string(),
    });
    texts.collect::<Vec<_>>().join("x")
}

fn check_report(file: &Path, report: &Report) -> Output {
    let mut table = Grid::new(&["STEP", "KERNEL", "SHAPE", "MACS", "TYPE"]);
    for (index, step) in report.steps.iter().enumerate() {
        table.rows.push(vec![
            (index + 1).to_string(),
            step.kernel.to_string(),
            dims(&step.shape),
            step.macs.to_string(),
            step.dtype.to_string(),
        ]);
    }
    let steps: Vec<_> = report
        .steps
        .iter()
        .map(|s| {
            json!({ "kernel": s.kernel, "nodes": s.nodes, "shape": dims(&s.shape),
                "macs": s.macs, "dtype": s.dtype })
        })
        .collect();
    let macs: u64 = report.macs.values().sum();
    let notes = vec![
        format!(
            "memory {} bytes: weights {}, arena {}",
            report.memory_bytes, report.weights_bytes, report.arena_bytes
        ),
        format!(
            "code {} bytes, {} parameters, {macs} multiply-accumulates, opset {}",
            report.wasm_bytes, report.params, report.opset
        ),
    ];
    let document = json!({
        "memory_bytes": report.memory_bytes, "weights_bytes": report.weights_bytes,
        "arena_bytes": report.arena_bytes, "wasm_bytes": report.wasm_bytes,
        "params": report.params, "opset": report.opset, "macs": report.macs,
        "steps": steps,
    });
    Output::Report {
        name: file.display().to_string(),
        document,
        table,
        notes,
    }
}
