//! What the processes log and where they panic.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::panic;
use std::sync::{Arc, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::trace::Trace;

/// Name of the span that a process runs in, with its name as the one field.
pub(super) const PROCESS_SPAN: &str = "process";

/// Sends what this thread logs to `trace`, as long as the guard lives.
pub(super) fn to_trace(trace: &Arc<Trace>) -> DefaultGuard {
    let layer = ToTrace { trace: Arc::clone(trace) };
    tracing::subscriber::set_default(Registry::default().with(layer))
}

struct ToTrace {
    trace: Arc<Trace>,
}

struct ProcessName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ToTrace {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target().starts_with("doldam") && *metadata.level() <= Level::INFO
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() == PROCESS_SPAN
            && let Some(span) = context.span(id)
        {
            let mut line = Line::default();
            attributes.record(&mut line);
            span.extensions_mut().insert(ProcessName(line.0.replace(" name=", "")));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let process = context.event_scope(event).and_then(|scope| {
            scope
                .from_root()
                .find_map(|span| span.extensions().get::<ProcessName>().map(|name| name.0.clone()))
        });
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let process = process.as_deref().unwrap_or("?");
        self.trace.line(process, format_args!("{level} {target}:{}", line.0));
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

thread_local! {
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// The panics of this thread, also those that a task keeps to itself.
#[derive(Debug)]
pub(super) struct Panics;

impl Panics {
    /// Begins to watch.
    pub(super) fn watch() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                let is_ours = PANICS.with_borrow_mut(|panics| {
                    panics.as_mut().map(|panics| panics.push(panic.to_string())).is_some()
                });
                if !is_ours {
                    before(panic);
                }
            }));
        });
        PANICS.set(Some(Vec::new()));
        Self
    }

    /// The first.
    pub(super) fn first(&self) -> Option<String> {
        let Self = self;
        PANICS.take().and_then(|panics| panics.into_iter().next())
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        PANICS.set(None);
    }
}
