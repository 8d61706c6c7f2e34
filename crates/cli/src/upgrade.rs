//! `varve cluster upgrade`: the feature level of a cluster, what its nodes can work at, and how it is raised.

use varve_client::{Admin, proto as v1};

use crate::args::Global;
use crate::failure::Failure;
use crate::operate_args::UpgradeCommand;
use crate::output::{Output, print_line, print_message, print_table};
use crate::topic::confirm;

/// Runs the command.
///
/// # Errors
/// [`Failure`], with what was and was not changed.
pub async fn run(
    global: &Global,
    admin: &Admin,
    action: Option<UpgradeCommand>,
    output: Output,
) -> Result<u8, Failure> {
    let now = admin.get_features(v1::GetFeaturesRequest {}).await?;
    let Some(UpgradeCommand::Finalize { level, dry_run }) = action else {
        show(&now, output)?;
        return Ok(0);
    };
    let to = level.unwrap_or(now.possible_level);
    if !dry_run && to != now.level {
        confirm(
            global,
            &format!(
                "Raise the feature level of the cluster from {} to {to}? Older programs cannot take part afterwards.",
                now.level
            ),
        )?;
    }
    let request = v1::FinalizeFeaturesRequest {
        level: Some(to),
        validate_only: dry_run,
    };
    let answer = admin.finalize_features(request).await?;
    if !output.is_text() {
        print_message(output, "FinalizeFeaturesResponse", &answer)?;
    } else if !global.quiet {
        let after = answer.features.unwrap_or_default().level;
        let line = match (dry_run, after == now.level) {
            (true, _) => format!("level {to} is possible; the cluster is at {after}"),
            (false, true) => format!("the cluster is at level {after} already"),
            (false, false) => format!(
                "the cluster was at level {}, and is at {after} now",
                now.level
            ),
        };
        print_line(&line)?;
    }
    Ok(0)
}

fn show(now: &v1::GetFeaturesResponse, output: Output) -> Result<(), Failure> {
    if !output.is_text() {
        return print_message(output, "GetFeaturesResponse", now);
    }
    let rows = now.nodes.iter().map(|node| {
        let levels = format!("{} to {}", node.min_level, node.max_level);
        vec![node.node_id.to_string(), node.version.clone(), levels]
    });
    print_table(&["NODE", "VERSION", "LEVELS"], rows.collect())?;
    print_line("")?;
    print_line(&if now.possible_level > now.level {
        format!(
            "the cluster is at level {}; all nodes can work at {}: varve cluster upgrade finalize",
            now.level, now.possible_level
        )
    } else {
        format!(
            "the cluster is at level {}, the highest that all nodes can work at",
            now.level
        )
    })
}
