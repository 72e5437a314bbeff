//! `model`.

use super::{Session, connect};
use crate::cli::args::Model;
use crate::cli::error::CliError;
use crate::cli::output::Output;
use sandpiper_proto::convert::{ListQuery, ResourceKind};

pub(super) async fn model(session: &mut Session<'_>, command: Model) -> Result<(), CliError> {
    let Model::Inspect { version, output } = command;
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
