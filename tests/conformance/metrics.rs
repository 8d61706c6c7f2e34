//! What a scrape costs and says: no series outlives its topic, internal partitions have none unless asked for, and
//! each of the two dialects obeys its own rules.

use std::collections::{BTreeMap, BTreeSet};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Bed, Rpc, run, soon, tp, v1};

/// Head and body of a scrape that accepts `kind`.
async fn scrape(port: u16, kind: &str) -> (String, String) {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port));
    let mut stream = stream.await.unwrap();
    let text =
        format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {kind}\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("a scrape", stream.read_to_string(&mut answer))
        .await
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    (head.to_owned(), body.to_owned())
}

async fn text(bed: &Bed) -> String {
    scrape(bed.http(), "text/plain").await.1
}

/// Creates the internal topic of committed offsets.
async fn commit(rpc: &Rpc, topic: &str, group: &str) {
    let commit = v1::CommitOffsetsRequest {
        group: group.to_owned(),
        offsets: vec![v1::PartitionCommit {
            topic_partition: Some(tp(topic, 0)),
            offset: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    rpc.groups().commit_offsets(commit).await.unwrap();
}

/// Series of single partitions, by the topic that they are about.
fn per_partition(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("partition=\"")) {
        let topic = line.split("topic=\"").nth(1).unwrap();
        let topic = topic.split('"').next().unwrap().to_owned();
        *found.entry(topic).or_default() += 1;
    }
    found
}

#[test]
fn the_series_of_a_topic_go_with_it() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        let rpc = bed.rpc.clone();
        rpc.create("stays", 2).await;
        rpc.put("stays", 0, &["a"]).await;
        let before = text(&bed).await.lines().count();
        for round in 0..20 {
            let name = format!("comes-and-goes-{round}");
            rpc.create(&name, 3).await;
            rpc.put(&name, 0, &["a", "b"]).await;
            let request = v1::DeleteTopicRequest {
                topic: name,
                ..Default::default()
            };
            rpc.topics().delete_topic(request).await.unwrap();
        }
        let after = text(&bed).await;
        assert!(!after.contains("comes-and-goes"), "{after}");
        // The calls themselves are new series: DeleteTopic has a counter, and a histogram of its own.
        let calls = after.lines().filter(|l| l.contains("DeleteTopic")).count();
        assert_eq!(after.lines().count() - calls, before, "{after}");
        assert!(
            after.contains("varve_records_produced_total{topic=\"stays\"} 1"),
            "{after}"
        );
        bed.stop().await;
    });
}

#[test]
fn internal_partitions_have_series_only_when_asked_for() {
    run(async {
        for (setting, internal, own) in [
            (None, false, true),
            (Some("user"), false, true),
            (Some("all"), true, true),
            (Some("none"), false, false),
        ] {
            let settings: Vec<_> = setting
                .map(|value| ("metrics.per_partition", value))
                .into_iter()
                .collect();
            let mut bed = Bed::start(&settings).await;
            bed.rpc.create("orders", 1).await;
            bed.rpc.put("orders", 0, &["a", "b"]).await;
            commit(&bed.rpc, "orders", "billing").await;
            let text = text(&bed).await;
            let found = per_partition(&text);
            let has = |topic: &str| found.contains_key(topic);
            assert_eq!(
                has("__consumer_offsets"),
                internal,
                "{setting:?}: {found:?}"
            );
            assert_eq!(has("orders"), own, "{setting:?}: {found:?}");
            for line in [
                "varve_consumer_group_lag_sum{group=\"billing\",topic=\"orders\"} 1",
                "varve_topic_partitions{topic=\"orders\"} 1",
                "varve_records_produced_total{topic=\"orders\"} 2",
            ] {
                assert!(text.contains(line), "{setting:?}: {line} is not in\n{text}");
            }
            bed.stop().await;
        }
    });
}

/// A hundred thousand groups must not make a page of a hundred megabytes.
#[test]
fn groups_beyond_a_number_are_counted_and_have_no_series() {
    run(async {
        let mut bed = Bed::start(&[("metrics.groups.max", "2")]).await;
        bed.rpc.create("orders", 1).await;
        bed.rpc.put("orders", 0, &["a", "b"]).await;
        for group in ["d", "a", "c", "b"] {
            commit(&bed.rpc, "orders", group).await;
        }
        let shown = |text: &str| {
            let lags = text
                .lines()
                .filter(|l| l.starts_with("varve_consumer_group_lag{"));
            let groups = lags.filter_map(|line| line.split('"').nth(1).map(str::to_owned));
            groups.collect::<Vec<String>>()
        };
        let quiet = text(&bed).await;
        assert_eq!(shown(&quiet), ["a", "b"], "{quiet}");
        let counted = "varve_consumer_groups{state=\"empty\"} 4";
        assert!(quiet.contains(counted), "{quiet}");
        // A group with members comes first.
        let beat = v1::HeartbeatRequest {
            group: "d".to_owned(),
            member_id: "reader".to_owned(),
            owned: Some(v1::OwnedPartitions::default()),
            subscription: Some(v1::GroupSubscription {
                topics: vec!["orders".to_owned()],
                ..Default::default()
            }),
            ..Default::default()
        };
        bed.rpc.groups().heartbeat(beat).await.unwrap();
        let used = text(&bed).await;
        assert_eq!(shown(&used), ["d", "a"], "{used}");
        let counted = "varve_consumer_groups{state=\"empty\"} 3";
        assert!(used.contains(counted), "{used}");
        bed.stop().await;
    });
}

/// Every sample belongs to a family that was declared, by the rules of the dialect.
fn obeys(body: &str, open_metrics: bool) {
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                types.insert(name, kind).is_none(),
                "{name} is declared twice"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(helped.insert(rest.split(' ').next().unwrap()), "{line}");
        } else if line.starts_with('#') {
            assert!(open_metrics, "not of the text format: {line}");
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let belongs = types.iter().any(|(family, kind)| match *kind {
                "counter" if open_metrics => name == format!("{family}_total"),
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name == format!("{family}{end}")),
                "info" => name == format!("{family}_info"),
                _ => name == *family,
            });
            assert!(belongs, "{name} belongs to no family of\n{body}");
        }
    }
    assert_eq!(body.ends_with("# EOF\n"), open_metrics);
    assert!(types.values().any(|kind| *kind == "counter"));
    let same: BTreeSet<&str> = types.keys().copied().collect();
    assert_eq!(helped, same, "HELP and TYPE name the same families");
}

#[test]
fn each_dialect_obeys_its_own_rules() {
    run(async {
        let mut bed = Bed::start(&[]).await;
        bed.rpc.create("orders", 1).await;
        bed.rpc.put("orders", 0, &["a"]).await;
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, kind, open_metrics) in [
            ("*/*", "text/plain; version=0.0.4", false),
            ("text/plain", "text/plain; version=0.0.4", false),
            (
                prometheus,
                "application/openmetrics-text; version=1.0.0",
                true,
            ),
        ] {
            let (head, body) = scrape(bed.http(), accept).await;
            assert!(
                head.to_ascii_lowercase()
                    .contains(&format!("content-type: {kind}")),
                "{accept}: {head}"
            );
            obeys(&body, open_metrics);
        }
        bed.stop().await;
    });
}

#[test]
fn the_port_has_a_first_page_and_names_its_pages_when_one_is_missing() {
    run(async {
        let kafka = [
            ("listeners.kafka.address", "127.0.0.1:0"),
            ("listeners.kafka.advertised_address", "kafka.example:9092"),
            ("listeners.kafka.tls.mode", "insecure"),
        ];
        let mut bed = Bed::start(&kafka).await;
        let (status, page) = crate::health::get(bed.http(), "/").await.unwrap();
        assert_eq!(status, 200);
        for text in [
            "<title>varve</title>",
            "ready",
            "href=\"/metrics\"",
            "href=\"/healthz\"",
            "<th>Kafka protocol</th><td>kafka.example:9092</td>",
        ] {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        let (status, text) = crate::health::get(bed.http(), "/metric").await.unwrap();
        assert_eq!(status, 404);
        assert!(text.contains("/metrics"), "{text}");
        bed.stop().await;
    });
}
