//! `get` and `describe`.

use super::{Session, connect};
use crate::api::client::Watched;
use crate::cli::args::{Format, Get};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use sandpiper_proto::convert::{ListQuery, ResourceKind};

/// The kind and, in `TYPE/NAME`, the name. Singular and plural are both understood.
fn kind_and_name(text: &str) -> Result<(ResourceKind, Option<&str>), CliError> {
    let (kind, name) = match text.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (text, None),
    };
    let matches = |k: &ResourceKind| k.name() == kind || k.name().trim_end_matches('s') == kind;
    let known = || ResourceKind::ALL.map(ResourceKind::name).join(", ");
    let found = ResourceKind::ALL.into_iter().find(matches);
    let found = found.ok_or_else(|| {
        CliError::Usage(format!(
            "`{kind}` is no type of resource; there are {}",
            known()
        ))
    })?;
    if name == Some("") {
        return Err(CliError::Usage(format!(
            "`{text}` lacks a name: write {kind}/NAME"
        )));
    }
    Ok((found, name))
}

pub(super) async fn get(session: &mut Session<'_>, args: Get) -> Result<(), CliError> {
    let (kind, slashed) = kind_and_name(&args.kind)?;
    if slashed.is_some() && args.name.is_some() {
        return Err(CliError::Usage("the name is given twice".to_owned()));
    }
    let name = slashed.map(str::to_owned).or(args.name);
    let query = ListQuery {
        kind,
        name: name.clone(),
        selector: args.selector,
    };
    let mut client = connect(session.context).await?;
    if !args.watch {
        let items = client.list(query).await?;
        if let (true, Some(name)) = (items.is_empty(), &name) {
            return Err(CliError::NotFound(format!(
                "{}/{name}",
                kind.name().trim_end_matches('s')
            )));
        }
        return session.show(
            &Output::Resources {
                kind,
                items,
                single: name.is_some(),
            },
            args.output,
        );
    }
    let mut watch = client.watch(query).await?;
    let mut first = Vec::new();
    let mut synced = false;
    while let Some(change) = watch.next().await? {
        match change {
            Watched::Now(item) if !synced => first.push(item),
            Watched::Now(item) => {
                session.show(
                    &Output::Resources {
                        kind,
                        items: vec![item],
                        single: true,
                    },
                    args.output,
                )?;
            }
            Watched::Synced => {
                synced = true;
                let items = std::mem::take(&mut first);
                session.show(
                    &Output::Resources {
                        kind,
                        items,
                        single: false,
                    },
                    args.output,
                )?;
            }
            Watched::Gone(item) => session.line(format!("{} is gone", item.name))?,
        }
    }
    Ok(())
}

pub(super) async fn describe(session: &mut Session<'_>, resource: &str) -> Result<(), CliError> {
    let (kind, name) = kind_and_name(resource)?;
    let Some(name) = name else {
        return Err(CliError::Usage(format!(
            "`{resource}` lacks a name: write TYPE/NAME"
        )));
    };
    let query = ListQuery {
        kind,
        name: Some(name.to_owned()),
        selector: None,
    };
    let items = connect(session.context).await?.list(query).await?;
    if items.is_empty() {
        return Err(CliError::NotFound(resource.to_owned()));
    }
    session.show(
        &Output::Resources {
            kind,
            items,
            single: true,
        },
        Format::Yaml,
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_singular_or_plural() {
        assert_eq!(
            kind_and_name("devices").unwrap(),
            (ResourceKind::Devices, None)
        );
        assert_eq!(
            kind_and_name("device/pi").unwrap(),
            (ResourceKind::Devices, Some("pi"))
        );
        assert!(kind_and_name("pods").is_err());
        assert!(kind_and_name("device/").is_err());
    }
}
