//! The line that people and scripts wait for: the cluster takes writes.

use std::path::Path;

use serde_json::json;

use super::plan::Prepared;
use super::ready::Ready;
use super::status_line::Screen;

/// Prints that the cluster takes writes, and what to do with it.
pub(super) fn announce(ready: &Ready, prepared: &Prepared, screen: &mut Screen<'_>) {
    let (leader, endpoints) = (ready.leader, ready.endpoints.join(","));
    let is_durable = prepared.is_durable;
    let durability = if is_durable { "" } else { ", not durable" };
    let object = json!({
        "ready": { "leader": leader, "endpoints": ready.endpoints, "durable": is_durable },
    });
    screen.line(
        || object,
        || {
            let hint = hint(&prepared.layout.client_config);
            format!("ready: leader node {leader}, endpoints {endpoints}{durability}\n{hint}")
        },
    );
}

fn hint(client_config: &Path) -> String {
    let by_default = Path::new("./flotilla-data/client.toml");
    let option = if client_config == by_default {
        String::new()
    } else {
        format!(" -c {}", client_config.display())
    };
    format!("in another terminal: flotilla put{option} hello world")
}
