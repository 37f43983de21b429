//! Settings, as administrators write them.

use doldam_datanode::DatanodeConfig;
use doldam_namenode::NamenodeConfig;

/// The sections of a configuration file: what is accepted is checked without a panic, and is the same when it is
/// written and read again.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(settings) = toml::from_str::<NamenodeConfig>(text) {
        let _ = settings.check();
        let again = toml::to_string(&settings).map(|text| toml::from_str::<NamenodeConfig>(&text));
        assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == settings)));
    }
    if let Ok(settings) = toml::from_str::<DatanodeConfig>(text) {
        let _ = settings.check();
        let again = toml::to_string(&settings).map(|text| toml::from_str::<DatanodeConfig>(&text));
        assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == settings)));
    }
}

pub(super) fn config_seeds() -> Vec<Vec<u8>> {
    [
        "dir = \"/srv/nn\"\nlisten = \"0.0.0.0:8020\"\ndead_after = \"30s\"\ncache_bytes = \"128MiB\"\n",
        "dirs = [\"/a\", \"/b\"]\nnamenodes = [\"a:1\"]\nrack = \"/r1\"\nreserve_bytes = \"1.5GiB\"\n",
        "heartbeat = \"1s 500ms\"\nsuspect_after = \"1h\"\n",
        "streams_max = 18446744073709551615\nscrub_interval = \"99999999999999999999d\"\n",
        "default_block_bytes = 3\nlease_soft = -1\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
