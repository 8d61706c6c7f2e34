//! `varve cluster upgrade`: the feature level of a cluster, the levels that its nodes support, and how it is raised.

use varve_client::{Admin, proto as v1};

use crate::args::Global;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::operate_args::UpgradeCommand;
use crate::output::{Output, print_line, print_message, print_table};

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
    let Some(UpgradeCommand::Finalize {
        level,
        dry_run,
        form,
    }) = action
    else {
        show(&now, output)?;
        return Ok(0);
    };
    // `upgrade -o json finalize` means the same as `upgrade finalize -o json`.
    let output = match form.output {
        Output::Text => output,
        given => given,
    };
    let to = level.unwrap_or(now.possible_level);
    if !dry_run && to != now.level {
        confirm(
            global,
            &format!(
                "this raises the feature level of the cluster from {} to {to}, and nodes that run an older version can \
                 no longer join",
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
            (true, _) => {
                format!("the cluster is at level {after} and can be raised to {to} (dry run)")
            }
            (false, true) => format!("the cluster is already at level {after}"),
            (false, false) => format!("raised the cluster from level {} to {after}", now.level),
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
        let levels = match node.min_level == node.max_level {
            true => node.max_level.to_string(),
            false => format!("{} to {}", node.min_level, node.max_level),
        };
        vec![node.node_id.to_string(), node.version.clone(), levels]
    });
    print_table(&["NODE", "VERSION", "LEVELS"], rows.collect())?;
    print_line("")?;
    print_line(&if now.possible_level > now.level {
        format!(
            "the cluster is at level {} and every node supports level {}; to raise it: varve cluster upgrade finalize",
            now.level, now.possible_level
        )
    } else {
        format!(
            "the cluster is at level {}, the highest that every node supports",
            now.level
        )
    })
}
