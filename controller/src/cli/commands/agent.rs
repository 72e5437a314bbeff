//! `agent`.

use super::{Session, connect};
use crate::cli::agents::{AgentCommand, AgentImport, AgentUpdate};
use crate::cli::context;
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use crate::cli::parse;
use crate::clock;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::fleet::OrderedDevices;
use sandpiper_core::names::ActorName;
use sandpiper_core::signed::Purpose;
use sandpiper_core::target::Arch;
use sandpiper_core::update::{AgentRelease, MAX_AGENT_BYTES, elf};
use sandpiper_core::view::AgentOrdersDoc;
use sandpiper_proto::convert::{AgentOrders, ListQuery, ResourceKind};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) async fn agent(
    session: &mut Session<'_>,
    command: AgentCommand,
) -> Result<(), CliError> {
    match command {
        AgentCommand::Import(args) => import(session, args).await,
        AgentCommand::List { output } => {
            let query = ListQuery {
                kind: ResourceKind::AgentReleases,
                name: None,
                selector: None,
            };
            let items = connect(session.context).await?.list(query).await?;
            let kind = ResourceKind::AgentReleases;
            let single = false;
            session.show(
                &Output::Resources {
                    kind,
                    items,
                    single,
                },
                output,
            )
        }
        AgentCommand::Update(args) => update(session, args).await,
    }
}

/// A program and the architecture that it says it is for.
fn program(path: &Path) -> Result<(Arch, Vec<u8>), CliError> {
    let unreadable = |source| CliError::File {
        what: "read",
        path: path.to_owned(),
        source,
    };
    let bad = |why: String| CliError::Content {
        path: path.to_owned(),
        why,
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_AGENT_BYTES {
        return Err(bad(format!(
            "it has {size} bytes; a program of the agent has at most {MAX_AGENT_BYTES}"
        )));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let arch = elf::arch_of(&bytes).map_err(|e| bad(e.to_string()))?;
    Ok((arch, bytes))
}

async fn import(session: &mut Session<'_>, args: AgentImport) -> Result<(), CliError> {
    let key = context::publisher_key(session.context)?;
    let mut programs = BTreeMap::new();
    for path in &args.files {
        let (arch, bytes) = program(path)?;
        if programs.insert(arch, bytes).is_some() {
            return Err(CliError::Usage(format!(
                "two of the files are programs for {arch}: a release has one for each architecture"
            )));
        }
    }
    let of = |(arch, bytes): (&Arch, &Vec<u8>)| (*arch, ArtefactRef::of(bytes));
    let release = AgentRelease {
        version: args.version,
        publisher: ActorName::new("publisher").map_err(|e| CliError::Usage(e.to_string()))?,
        published_at: clock::now(),
        oldest: args.oldest,
        binaries: programs.iter().map(of).collect(),
    };
    release
        .check()
        .map_err(|e| CliError::Usage(e.to_string()))?;
    let mut client = connect(session.context).await?;
    let wanted: Vec<_> = release.binaries.values().copied().collect();
    for artefact in client.missing(&wanted).await? {
        let mut held = release.binaries.iter();
        let arch = held.find(|(_, a)| **a == artefact).map(|(arch, _)| arch);
        if let Some(bytes) = arch.and_then(|arch| programs.get(arch)) {
            client.upload(artefact, bytes).await?;
        }
    }
    let payload = serde_json::to_vec(&release).map_err(|e| CliError::Answer(e.to_string()))?;
    client
        .publish_agent(key.sign(Purpose::Agent, payload))
        .await?;
    let mut table = Grid::new(&["ARCH", "SIZE", "DIGEST"]);
    for (arch, artefact) in &release.binaries {
        table.rows.push(vec![
            arch.to_string(),
            format!("{:.1} MiB", artefact.size_bytes as f64 / f64::from(1 << 20)),
            artefact.digest.short(),
        ]);
    }
    let name = format!("agent-release/{}", release.version);
    let report = Output::Report {
        notes: vec![format!("{name} published")],
        name,
        document: json!(release),
        table,
    };
    session.show(&report, args.output)
}

async fn update(session: &mut Session<'_>, args: AgentUpdate) -> Result<(), CliError> {
    let devices = match (&args.device, args.selector) {
        (Some(device), _) => {
            let name = parse::name_of("device", device)?;
            let name = name
                .parse()
                .map_err(|e: sandpiper_core::names::NameError| CliError::Usage(e.to_string()))?;
            OrderedDevices::One(name)
        }
        (None, Some(selector)) => OrderedDevices::Matching(selector),
        (None, None) => return Err(CliError::Usage("name --device or --selector".to_owned())),
    };
    let version = args.version;
    let orders = AgentOrders { version, devices };
    let mut client = connect(session.context).await?;
    let doc: AgentOrdersDoc = client.order_agents(orders).await?;
    let mut table = Grid::new(&["DEVICE", "ORDERED", "WHY NOT"]);
    for device in &doc.ordered {
        let row = [device.as_str(), "yes", "-"];
        table.rows.push(row.map(str::to_owned).to_vec());
    }
    for passed in &doc.passed_by {
        let row = [passed.device.as_str(), "no", passed.why.as_str()];
        table.rows.push(row.map(str::to_owned).to_vec());
    }
    let name = match &doc.version {
        Some(version) => format!("agent-release/{version}"),
        None => "the installed agent".to_owned(),
    };
    let notes = vec![format!("{name} ordered for {} devices", doc.ordered.len())];
    let document = json!(doc);
    let report = Output::Report {
        name,
        document,
        table,
        notes,
    };
    session.show(&report, args.output)
}
