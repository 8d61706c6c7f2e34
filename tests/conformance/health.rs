//! What operators look at: metrics by the names that dashboards use, and probes before, while and after a
//! node serves.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Bed, eventually, from, request, run, soon, v1};

/// Status and body of a page; `None` when nobody answers.
pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut answer = String::new();
    soon(path, stream.read_to_string(&mut answer)).await.ok()?;
    let status = answer.split_whitespace().nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}

/// Names of the metrics that mean something on one node. A promise to dashboards and alerts.
const NAMES: [&str; 68] = [
    "varve_build_info",
    "varve_cluster_nodes",
    "varve_cluster_topics",
    "varve_cluster_partitions",
    "varve_cluster_leaderless_partitions",
    "varve_cluster_controller",
    "varve_node_state",
    "varve_topic_partitions",
    "varve_partition_high_watermark",
    "varve_partition_log_start_offset",
    "varve_partition_log_end_offset",
    "varve_partition_replicas",
    "varve_partition_in_sync_replicas",
    "varve_partition_leader",
    "varve_partition_leader_is_preferred",
    "varve_partition_size_bytes",
    "varve_under_replicated_partitions",
    "varve_under_min_isr_partitions",
    "varve_records_produced_total",
    "varve_bytes_produced_total",
    "varve_records_fetched_total",
    "varve_bytes_fetched_total",
    "varve_produce_duration_seconds_count",
    "varve_rpc_duration_seconds_count",
    "varve_rpc_total",
    "varve_rpc_errors_total",
    "varve_connections",
    "varve_connections_refused_total",
    "varve_streams",
    "varve_consumer_groups",
    "varve_consumer_group_members",
    "varve_consumer_group_state",
    "varve_consumer_group_committed_offset",
    "varve_consumer_group_lag",
    "varve_consumer_group_lag_sum",
    "varve_storage_disk_total_bytes",
    "varve_storage_free_bytes",
    "varve_storage_free_space_alert",
    "varve_log_append_duration_seconds_count",
    "varve_log_fsync_duration_seconds_count",
    "varve_log_segments",
    "varve_log_deleted_bytes_total",
    "varve_log_corrupt_batches_total",
    "varve_log_damaged_files_total",
    "varve_log_failures_total",
    "varve_partition_repairs_total",
    "varve_partition_repairs_in_progress",
    "varve_log_flush_stalled",
    "varve_partition_offline",
    "varve_partition_damaged_ranges",
    "varve_scrub_bytes_total",
    "varve_scrub_damage_total",
    "varve_scrub_pass_progress_ratio",
    "varve_scrub_last_pass_timestamp_seconds",
    "varve_produce_in_flight_bytes",
    "varve_produce_answers_owed",
    "varve_lane_queue_length",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_threads",
    "process_cpu_seconds_total",
    "tokio_workers",
    "tokio_alive_tasks",
    "tokio_global_queue_depth",
    "varve_rpc_duration_seconds_bucket",
    "varve_rpc_duration_seconds_sum",
    "varve_produce_duration_seconds_bucket",
];

#[test]
fn metrics_have_the_names_that_dashboards_use() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        let rpc = bed.rpc.clone();
        rpc.create("orders", 2).await;
        rpc.put("orders", 0, &["a", "b", "c"]).await;
        rpc.fetch(from("orders", 0, 0)).await.unwrap();
        rpc.produce(request("none", 0, &["x"])).await.unwrap_err();
        let commit = v1::CommitOffsetsRequest {
            group: "billing".into(),
            offsets: vec![v1::PartitionCommit {
                topic_partition: Some(crate::support::tp("orders", 0)),
                offset: 1,
                ..Default::default()
            }],
            ..Default::default()
        };
        rpc.groups().commit_offsets(commit).await.unwrap();
        let watched = v1::SubscribeRequest {
            topic: "orders".into(),
            ..Default::default()
        };
        let open = rpc.consumer().subscribe(watched).await.unwrap();
        let (status, text) = get(bed.http(), "/metrics").await.unwrap();
        assert_eq!(status, 200);
        let names: std::collections::BTreeSet<&str> = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.split(['{', ' ']).next())
            .collect();
        let missing: Vec<_> = NAMES.iter().filter(|n| !names.contains(*n)).collect();
        assert!(missing.is_empty(), "{missing:?} are not in\n{names:#?}");
        assert!(!text.contains("varve_varve_"), "a prefix is there twice");
        for line in [
            "varve_records_produced_total{topic=\"orders\"} 3",
            "varve_partition_high_watermark{topic=\"orders\",partition=\"0\"} 3",
            "varve_rpc_total{service=\"varve.v1.ProducerService\",method=\"Produce\",code=\"NOT_FOUND\"} 1",
            "varve_rpc_errors_total{reason=\"TOPIC_NOT_FOUND\"} 1",
            "varve_streams{method=\"Subscribe\"} 1",
            "varve_consumer_group_lag{group=\"billing\",topic=\"orders\",partition=\"0\"} 2",
            "varve_cluster_controller 1",
            "varve_node_state{state=\"active\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(open);
        let http = bed.http();
        eventually("the stream to be counted out", || async move {
            let (_, text) = get(http, "/metrics").await.unwrap();
            text.contains("varve_streams{method=\"Subscribe\"} 0")
        })
        .await;
        bed.stop().await;
    });
}

#[test]
fn probes_follow_the_life_of_a_node() {
    run(async {
        // Before: the HTTP port of a node that recovers answers and says so.
        let (health, stop) = (
            varve_server::health::Health::default(),
            tokio_util::sync::CancellationToken::new(),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let metrics = varve_server::metrics::Metrics::new(&health);
        let serving = tokio::spawn(varve_server::http::serve(
            listener.into(),
            health,
            metrics,
            Default::default(),
            stop.clone(),
        ));
        for (path, status) in [
            ("/livez", 200),
            ("/readyz", 503),
            ("/startupz", 503),
            ("/healthz", 503),
        ] {
            assert_eq!(
                get(port, path).await.unwrap().0,
                status,
                "{path} during recovery"
            );
        }
        stop.cancel();
        serving.await.unwrap().unwrap();

        // While.
        let mut bed = Bed::start(&[("shutdown.drain_grace", "1s")]).await;
        let http = bed.http();
        for path in [
            "/livez",
            "/readyz",
            "/startupz",
            "/healthz",
            "/version",
            "/metrics/debug",
        ] {
            assert_eq!(get(http, path).await.unwrap().0, 200, "{path}");
        }
        let (_, body) = get(http, "/healthz").await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&body["ready"], &body["cluster"]["healthy"]),
            (&"ok".into(), &true.into())
        );
        assert_eq!(get(http, "/nothing").await.unwrap().0, 404);
        let mut check = HealthClient::new(bed.rpc.channel.clone());
        for service in [
            "",
            "readiness",
            "liveness",
            "startup",
            "varve.v1.ProducerService",
        ] {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let answer = check.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
        }

        // During the stop: not ready from the first moment, alive to the last.
        let stopping = tokio::spawn(bed.take().shutdown());
        eventually("readiness to go", || async move {
            get(http, "/readyz")
                .await
                .is_some_and(|(status, _)| status == 503)
        })
        .await;
        assert_eq!(
            get(http, "/livez").await.unwrap().0,
            200,
            "a stop is no reason to kill"
        );
        let request = HealthCheckRequest {
            service: String::new(),
        };
        if let Ok(answer) = check.check(request).await {
            assert_eq!(answer.into_inner().status(), ServingStatus::NotServing);
        }
        stopping.await.unwrap().unwrap();
        // After.
        assert!(
            get(http, "/livez").await.is_none(),
            "nobody listens any more"
        );
    });
}
