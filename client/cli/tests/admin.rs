//! `admin report`, `df` and `bench`: the cluster as a whole.

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
