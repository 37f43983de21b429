//! `admin`, `df` and `bench`: the cluster as a whole, and datanodes that leave it.

mod support;

use support::Cluster;

#[test]
fn the_report_counts_and_names_every_datanode() {
    let cluster = Cluster::start();
    cluster.store("/d/a", "a");
    let text = cluster.run(&["admin", "report"]).ok();
    assert!(text.text().contains("datanodes    3 live of 3"), "{}", text.text());
    assert!(text.text().contains("1 files, "), "{}", text.text());
    let report = &cluster.run(&["--json", "admin", "report"]).ok().json()[0];
    assert_eq!(report["files"], 1);
    assert_eq!(report["blocks"], 1);
    assert_eq!(report["under_replicated"], 0);
    assert_eq!(report["datanodes"].as_array().unwrap().len(), 3);
    assert_eq!(report["datanodes"][0]["state"], "live");
    assert_eq!(report["cluster_id"].as_str().unwrap().len(), 32);
}

#[test]
fn the_report_tells_within_what_time_everything_was_verified() {
    let cluster = Cluster::start();
    cluster.store("/file", "content");
    let verified = loop {
        let report = cluster.run(&["--json", "admin", "report"]).ok().json().remove(0);
        let datanodes = report["datanodes"].as_array().unwrap().clone();
        if datanodes.iter().all(|node| node["scrub_passes"].as_u64().unwrap() > 0) {
            break datanodes;
        }
    };
    assert!(verified.iter().all(|node| node["scrub_oldest_secs"].is_u64()));
    let text = cluster.run(&["admin", "report"]).ok();
    assert!(text.text().contains("verified") && text.text().contains("  in "), "{}", text.text());
    assert!(!text.text().contains("not yet"), "{}", text.text());
}

#[test]
fn df_sums_what_the_datanodes_have() {
    let cluster = Cluster::start();
    let rooms = cluster.run(&["--json", "df"]).ok().json();
    assert_eq!(rooms.len(), 4);
    assert_eq!(rooms[0]["name"], "cluster");
    let sum: u64 = rooms[1..].iter().map(|room| room["capacity"].as_u64().unwrap()).sum();
    assert_eq!(rooms[0]["capacity"].as_u64().unwrap(), sum);
    let text = cluster.run(&["df", "--bytes"]).ok();
    assert!(text.text().starts_with("name "), "{}", text.text());
    assert!(text.text().contains(&sum.to_string()), "{}", text.text());
    assert_eq!(cluster.run(&["df", "-h"]).ok().text().lines().count(), 5);
}

#[test]
fn benchmarks_measure_and_clean_up() {
    let cluster = Cluster::start();
    let io = ["--json", "bench", "io", "--size", "3MiB", "--block-size", "1MiB", "--runs", "2"];
    let record = &cluster.run(&io).ok().json()[0];
    let kinds: Vec<_> =
        record["results"].as_array().unwrap().iter().map(|result| &result["what"]).collect();
    assert_eq!(kinds, ["put from memory", "put from file", "get to nowhere", "get to file"]);
    for result in record["results"].as_array().unwrap() {
        assert_eq!(result["megabytes_per_second"].as_array().unwrap().len(), 2);
        assert!(result["median"].as_f64().unwrap() > 0.0);
    }
    let meta = ["--json", "bench", "meta", "--clients", "4", "--ops", "20", "--connections", "2"];
    let record = &cluster.run(&meta).ok().json()[0];
    let operations = record["operations"].as_array().unwrap();
    let names: Vec<_> = operations.iter().map(|operation| &operation["operation"]).collect();
    assert_eq!(names, ["mkdir", "create+close", "stat", "list", "rename", "delete"]);
    assert!(operations.iter().all(|operation| operation["calls"] == 20));
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "", "everything is deleted afterwards");
    let text = cluster.run(&["bench", "io", "--size", "1000", "--runs", "1"]).ok();
    assert!(text.text().contains("put from memory"), "{}", text.text());
}

#[test]
fn benchmarks_of_small_operations_measure_and_clean_up() {
    let cluster = Cluster::start();
    let pread = ["--json", "bench", "pread", "--size", "1MiB", "--ops", "50", "--readers", "2"];
    let sizes = cluster.run(&pread).ok().json()[0]["sizes"].clone();
    let bytes: Vec<_> = sizes.as_array().unwrap().iter().map(|size| &size["read_bytes"]).collect();
    assert_eq!(bytes, [4096, 65536]);
    let small = ["--json", "bench", "small", "--files", "20", "--clients", "3"];
    let record = &cluster.run(&small).ok().json()[0];
    let results = record["results"].as_array().unwrap();
    let what: Vec<_> = results.iter().map(|result| &result["what"]).collect();
    assert_eq!(what, ["put", "get"]);
    for measured in results.iter().chain(sizes.as_array().unwrap()) {
        let at = |name: &str| measured[name].as_f64().unwrap();
        assert!(at("per_second") > 0.0 && at("p50_ms") > 0.0, "{measured}");
        assert!(at("p50_ms") <= at("p99_ms") && at("p999_ms") <= at("max_ms"), "{measured}");
    }
    cluster.run(&["bench", "small", "--size", "17MiB"]).expect(2).says(&["bench io"]);
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "", "everything is deleted afterwards");
}

#[test]
fn a_load_calls_what_its_mix_says_and_counts_every_call() {
    let cluster = Cluster::start();
    let load = ["--json", "bench", "load", "--rate", "100", "--seconds", "1", "--files", "3"];
    let record = &cluster.run(&[&load[..], &["--mix", "stat=1,read=1,write=1"]].concat()).ok();
    let operations = record.json()[0]["operations"].as_array().unwrap().clone();
    let names: Vec<_> = operations.iter().map(|operation| &operation["operation"]).collect();
    assert_eq!(names, ["stat", "read", "write"]);
    let calls: u64 = operations.iter().map(|operation| operation["calls"].as_u64().unwrap()).sum();
    assert!((50..200).contains(&calls), "{calls}");
    assert!(operations.iter().all(|operation| operation["failures"] == 0));
    assert_eq!(cluster.run(&["ls", "/"]).ok().text(), "", "everything is deleted afterwards");
    cluster
        .run(&["bench", "load", "--mix", "fly=1"])
        .expect(2)
        .says(&["there are stat, list, read, write"]);
}

#[test]
fn a_datanode_is_drained_taken_back_and_sent_into_maintenance() {
    let cluster = Cluster::with_datanodes(4);
    for file in 0..4 {
        cluster.store(&format!("/{file}"), vec![file; 100_000]);
    }
    let report = &cluster.run(&["--json", "admin", "report"]).ok().json()[0];
    let address = report["datanodes"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(report["datanodes"][0]["mode"], "in_service");

    let drained = cluster.run(&["--json", "admin", "decommission", "--wait", &address]).ok();
    let record = &drained.json()[0];
    assert_eq!((&record["mode"], &record["blocks_left"]), (&"draining".into(), &0.into()));
    assert_eq!(record["safe_to_stop"], true);
    let again = cluster.run(&["admin", "decommission", "1"]).ok();
    assert!(again.text().contains("decommissioned, may be stopped"), "{}", again.text());
    let report = cluster.run(&["admin", "report"]).ok();
    assert!(report.text().contains("live, decommissioned, may be stopped"), "{}", report.text());
    assert!(report.text().contains("1 draining or in maintenance"), "{}", report.text());
    cluster.run(&["fsck", "/"]).ok();

    let back = cluster.run(&["admin", "recommission", "1"]).ok();
    assert!(back.text().contains("in service"), "{}", back.text());
    let away = ["admin", "maintenance", "--for", "1h", "--wait", "2", "3"];
    let away = cluster.run(&away).ok();
    assert_eq!(away.text().lines().count(), 2, "{}", away.text());
    assert!(away.text().contains("in maintenance, may be stopped; ends in 3"), "{}", away.text());
    cluster.run(&["admin", "recommission", "2", "3"]).ok();
}

#[test]
fn what_cannot_be_done_with_a_datanode_says_what_to_do_and_the_rest_is_done() {
    let cluster = Cluster::start();
    cluster.store("/file", "content");
    let refused = cluster.run(&["admin", "decommission", "1"]).expect(2);
    refused.says(&["datanode 1 (", "3 replicas", "2 datanodes are in service", "add --force"]);
    let unknown = cluster.run(&["admin", "recommission", "nowhere", "2"]).expect(4);
    assert!(unknown.text().contains("in service"), "{}", unknown.text());
    unknown.says(&["cannot recommission nowhere", "no datanode", "3 (127.0.0.1:", "admin report"]);
    let ambiguous = cluster.run(&["admin", "maintenance", "--for", "1h", "127.0.0.1"]).expect(2);
    ambiguous.says(&["runs several datanodes"]);
    let forced = ["admin", "decommission", "--force", "--wait", "--wait-max", "60s", "1"];
    cluster.run(&forced).ok();
    cluster.run(&["admin", "maintenance", "1"]).expect(2).says(&["--for"]);
    assert_eq!(cluster.content("/file"), b"content");
}

#[test]
fn repair_is_shown_with_what_waits_and_why() {
    let cluster = Cluster::with_datanodes(2);
    cluster.store("/file", "content");
    let calm = cluster.run(&["admin", "repair"]).ok();
    assert!(calm.text().contains("at risk      nothing"), "{}", calm.text());
    assert!(calm.text().contains("balance      not balancing"), "{}", calm.text());
    cluster.run(&["setrep", "3", "/file"]).ok();
    let waiting = loop {
        let repair = cluster.run(&["--json", "admin", "repair"]).ok().json().remove(0);
        if repair["blocks"][0]["retry_ms"].is_number() {
            break repair;
        }
    };
    assert_eq!(waiting["blocks"][0]["path"], "/file");
    assert_eq!(waiting["at_risk"][0], serde_json::json!({ "live": 2, "blocks": 1 }));
    let text = cluster.run(&["admin", "repair"]).ok();
    let told = "of /file: 2 of 3 live: no datanode can take another replica; again in ";
    assert!(text.text().contains(told), "{}", text.text());
    assert!(text.text().contains("at risk      1 block with 2 live"), "{}", text.text());
}

#[test]
fn balancing_is_started_shown_waited_for_and_stopped() {
    let cluster = Cluster::start();
    let status = &cluster.run(&["--json", "admin", "balance", "--status"]).ok().json()[0];
    assert_eq!((&status["running"], &status["threshold_ppm"]), (&false.into(), &0.into()));
    let arguments = ["--json", "admin", "balance", "--threshold", "5", "--bandwidth", "1MiB", "-w"];
    let ended = &cluster.run(&arguments).ok().json()[0];
    assert_eq!(ended["ended"], "every datanode is within the threshold");
    assert_eq!(
        (&ended["threshold_ppm"], &ended["bytes_per_sec"]),
        (&50_000.into(), &1_048_576.into())
    );
    cluster.run(&["admin", "balance", "--stop"]).ok();
    cluster.run(&["admin", "balance", "--threshold", "100"]).expect(2).says(&["less than 100 %"]);
}
