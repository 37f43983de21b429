//! A tree of ten thousand small files, in and out through the command line, identical.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::bytes;
use doldam_integration_tests::cluster::disk_fault::files_below;

const FILES: usize = 10_000;

/// A hundred folders, some nested, with a hundred files each: empty ones, odd names, up to 3 KiB.
fn make_tree(root: &Path) {
    for folder in 0..FILES / 100 {
        let dir = match folder % 3 {
            0 => root.join(format!("d{folder}")),
            1 => root.join(format!("d{folder}/ünder")),
            _ => root.join(format!("nested/a b/c{folder}")),
        };
        fs::create_dir_all(&dir).unwrap();
        for file in 0..100 {
            let seed = folder * 100 + file;
            let name =
                if file == 7 { "with space & ü.txt".to_owned() } else { format!("f{file}") };
            fs::write(dir.join(name), bytes(seed as u64, seed * 37 % 3000)).unwrap();
        }
    }
    fs::create_dir_all(root.join("empty/one")).unwrap();
}

/// Every file below `root` with its content's digest, by relative path.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let relative = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let digest = |path: &Path| blake3::hash(&fs::read(path).unwrap()).to_string();
    files_below(root).iter().map(|path| (relative(path), digest(path))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files_go_in_and_out_identical() {
    let cluster = Cluster::start(3).await;
    let (source, target) = (cluster.folder().join("source"), cluster.folder().join("target"));
    make_tree(&source);
    let before = tree(&source);
    assert_eq!(before.len(), FILES);

    let arguments =
        |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let put = cluster.doldam(&arguments(&[
        "put",
        "--durability",
        "memory",
        source.to_str().unwrap(),
        "/tree",
    ]));
    let errors = String::from_utf8_lossy(&put.stderr);
    assert!(put.status.success(), "{errors}");
    assert!(errors.lines().count() < 20, "sane output, not a line per file: {errors}");
    assert!(put.stdout.len() < 4000, "{}", String::from_utf8_lossy(&put.stdout));

    cluster.doldam_ok(&arguments(&["get", "/tree", target.to_str().unwrap()]));
    let after = tree(&target);
    assert_eq!(after.len(), before.len());
    assert!(after == before, "every file is identical");
    assert!(target.join("empty/one").is_dir(), "empty folders too");

    let found = cluster.doldam_ok(&["find", "/tree", "--type", "f"]);
    assert_eq!(found.lines().count(), FILES);
    cluster.doldam_ok(&["rm", "--recursive", "/tree"]);
    assert!(cluster.doldam_ok(&["ls", "/"]).is_empty());
}
