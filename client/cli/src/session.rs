//! What a command has at hand: its settings, its ways out, and the way to the cluster.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;

use doldam_client::{Client, ClientConfig};
use doldam_runtime::Seams;
use doldam_runtime::clock::Uptime;
use serde::Serialize;

use crate::args::{ColorChoice, GlobalArgs};
use crate::config::{ConfigFile, Settings};
use crate::error::CommandError;
use crate::messages::{Messages, no_color};
use crate::output::{Format, Output};
use crate::progress::Progress;

/// How long an interrupted command may take to give up what it was writing.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// One run of one command.
pub(crate) struct Session {
    /// As typed, for what is not a setting.
    pub(crate) global: GlobalArgs,
    /// Merged settings.
    pub(crate) settings: Settings,
    /// The configuration file.
    pub(crate) file: ConfigFile,
    /// Standard output.
    pub(crate) output: Output,
    /// Standard error.
    pub(crate) messages: Messages,
    /// Bars on standard error.
    pub(crate) progress: Progress,
    /// Clock, chance, disk, network.
    pub(crate) seams: Seams,
    client: OnceLock<Client>,
}

impl Session {
    /// Opens the session of `command`.
    ///
    /// # Errors
    /// If the configuration file cannot be used, or standard output is closed.
    pub(crate) fn open(
        command: &'static str,
        global: &GlobalArgs,
        progress: &Progress,
    ) -> Result<Self, CommandError> {
        let file = ConfigFile::load(global.config.as_deref())?;
        let format = if global.json { Format::Json } else { Format::Text };
        Ok(Self {
            global: global.clone(),
            settings: Settings::merge(global, &file.client),
            file,
            output: Output::standard(format).map_err(CommandError::Output)?,
            messages: Messages::new(command, global, progress.clone()),
            progress: progress.clone(),
            seams: Seams::system(),
            client: OnceLock::new(),
        })
    }

    /// Reaches the cluster.
    ///
    /// # Errors
    /// If no namenode answers in time.
    pub(crate) async fn connect(&self) -> Result<Client, CommandError> {
        self.connect_with(|_| {}).await
    }

    /// Reaches the cluster with settings of this command's own.
    ///
    /// # Errors
    /// If no namenode answers in time.
    pub(crate) async fn connect_with(
        &self,
        adjust: impl FnOnce(&mut ClientConfig),
    ) -> Result<Client, CommandError> {
        let mut config = ClientConfig::default();
        if let Some(timeout) = self.settings.timeout {
            apply_timeout(&mut config, timeout);
        }
        if let Some(hedge) = self.settings.hedge {
            hedge.apply(&mut config);
        }
        config.client_host.clone_from(&self.settings.host);
        config.client_rack.clone_from(&self.settings.rack);
        adjust(&mut config);
        let namenodes = self.settings.namenodes.iter().cloned();
        let builder = Client::builder().namenodes(namenodes).config(config);
        let connected = builder.connect().await;
        let client = connected.map_err(CommandError::cluster("reach", self.cluster_name()))?;
        // A command connects once.
        Ok(self.client.get_or_init(|| client).clone())
    }

    /// Lets the cluster know of writes that were given up half-way, for a moment at the most.
    pub(crate) async fn settle(&self) {
        if let Some(client) = self.client.get() {
            client.settle(SETTLE_WITHIN).await;
        }
    }

    /// The cluster as the user named it.
    pub(crate) fn cluster_name(&self) -> String {
        format!("the cluster at {}", self.settings.namenodes.join(","))
    }

    /// Prints what a command changed where silence would mean the same: with `--json` or `-v`.
    ///
    /// # Errors
    /// If standard output does not take it.
    pub(crate) fn changed<R: Serialize + fmt::Display>(
        &mut self,
        record: &R,
    ) -> Result<(), CommandError> {
        if self.output.is_json() || self.global.verbose > 0 {
            self.output.record(record)?;
        }
        Ok(())
    }

    /// Whether results on standard output may be coloured.
    pub(crate) fn colors_output(&self) -> bool {
        match self.global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !self.global.json && io::stdout().is_terminal() && !no_color(),
        }
    }

    /// Monotonic time.
    pub(crate) fn now(&self) -> Uptime {
        self.seams.clock.now()
    }

    /// Seconds since `start`.
    pub(crate) fn seconds_since(&self, start: Uptime) -> f64 {
        self.now().saturating_sub(start).as_secs_f64()
    }
}

/// One answer takes no longer than `timeout`, and neither does reaching the cluster.
fn apply_timeout(config: &mut ClientConfig, timeout: Duration) {
    config.connect_timeout = timeout;
    config.operation_timeout = timeout;
    config.attempt_timeout = config.attempt_timeout.min(timeout);
    config.datanode_connect_timeout = config.datanode_connect_timeout.min(timeout);
    config.read_timeout = timeout;
    config.write_timeout = timeout;
    config.stall_timeout = config.stall_timeout.min(timeout / 2);
}
