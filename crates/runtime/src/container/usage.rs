//! An engine's figures of a container as ours. Pure.

use bollard::models::{ContainerBlkioStatEntry, ContainerStatsResponse};

use crate::UnitStats;

pub(super) fn of(stats: ContainerStatsResponse) -> UnitStats {
    let pids = stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
    let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage);
    let memory = stats.memory_stats.and_then(|memory| memory.usage);
    let blocks = stats
        .blkio_stats
        .and_then(|it| it.io_service_bytes_recursive);
    let moved = |op: &str| blocks.as_deref().map(|entries| sum(entries, op));
    let networks = stats.networks.as_ref();
    UnitStats {
        cpu_nanos: cpu.and_then(|usage| usage.total_usage).unwrap_or(0),
        memory: memory.unwrap_or(0),
        pids: u32::try_from(pids).unwrap_or(u32::MAX),
        read: moved("read"),
        written: moved("write"),
        // A container in the node's own network has no figures of its own.
        received: networks.map(|all| all.values().filter_map(|it| it.rx_bytes).sum()),
        sent: networks.map(|all| all.values().filter_map(|it| it.tx_bytes).sum()),
    }
}

/// Over all devices; engines write the word with or without a capital.
fn sum(entries: &[ContainerBlkioStatEntry], op: &str) -> u64 {
    let of_op = entries
        .iter()
        .filter(|it| it.op.as_ref().is_some_and(|it| it.eq_ignore_ascii_case(op)));
    of_op.filter_map(|it| it.value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_summed_over_devices_and_networks_and_what_is_not_told_is_not_known() {
        let text = r#"{"pids_stats": {"current": 3}, "memory_stats": {"usage": 7},
            "cpu_stats": {"cpu_usage": {"total_usage": 9}},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"major": 8, "minor": 0, "op": "Read", "value": 1}, {"major": 8, "minor": 0, "op": "Write", "value": 2},
                {"major": 9, "minor": 0, "op": "read", "value": 10}, {"major": 9, "minor": 0, "op": "Total", "value": 99}]},
            "networks": {"eth0": {"rx_bytes": 4, "tx_bytes": 5}, "eth1": {"rx_bytes": 40, "tx_bytes": 50}}}"#;
        let stats = of(serde_json::from_str(text).unwrap());
        let expected = UnitStats {
            cpu_nanos: 9,
            memory: 7,
            pids: 3,
            read: Some(11),
            written: Some(2),
            received: Some(44),
            sent: Some(55),
        };
        assert_eq!(stats, expected);
        let silent = of(serde_json::from_str("{}").unwrap());
        assert_eq!(silent, UnitStats::default());
    }
}
