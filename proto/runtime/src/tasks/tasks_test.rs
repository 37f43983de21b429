//! Tests of the life cycle of tasks and threads.

use std::convert::Infallible;
use std::future::pending;
use std::sync::mpsc;

use super::*;

const GRACE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_work_in_progress() {
    let tasks = BackgroundTasks::default();
    let stopping = tasks.stopping();
    let (finished, mut is_finished) = tokio::sync::oneshot::channel();
    tasks.spawn_critical("scrubber", async move {
        stopping.cancelled().await;
        tokio::task::yield_now().await; // The block being verified when the signal came.
        finished.send(()).map_err(|()| "nobody waited")
    });
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
    assert_eq!(is_finished.try_recv(), Ok(()));
    assert_eq!(tasks.first_failure(), None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_critical_task_stops_the_server_and_is_remembered() {
    let tasks = BackgroundTasks::default();
    tasks.spawn_critical::<_, Infallible>("scrubber", async { panic!("a bug") });
    tasks.stopping().cancelled().await;
    let failure = TaskFailure { name: "scrubber".to_owned(), cause: "panicked".to_owned() };
    assert_eq!(tasks.first_failure(), Some(failure));
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_failure_and_an_early_end_of_a_critical_task_stop_the_server() {
    for (result, cause) in [
        (Err("no more disk"), "no more disk"),
        (Ok(()), "ended although the server was not stopping"),
    ] {
        let tasks = BackgroundTasks::default();
        tasks.spawn_critical("journal", async move { result });
        tasks.stopping().cancelled().await;
        assert_eq!(tasks.first_failure().unwrap().cause, cause);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_any_other_task_leaves_the_server_up() {
    let tasks = BackgroundTasks::default();
    let (dropped, is_dropped) = tokio::sync::oneshot::channel::<()>();
    tasks.spawn("connection", async move {
        let _held = dropped;
        panic!("a bug in one connection")
    });
    assert!(is_dropped.await.is_err());
    assert!(!tasks.stopping().is_cancelled());
    assert_eq!(tasks.running(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn who_ignores_the_signal_is_reported_by_name_and_not_waited_for() {
    let tasks = BackgroundTasks::default();
    tasks.spawn_critical("stuck", pending::<Result<(), Infallible>>());
    tasks.spawn("connection", pending());
    tasks.spawn("connection", pending());
    let names = ["stuck", "connection (2)"].map(str::to_owned).to_vec();
    let expected = StillRunning { names, grace: GRACE };
    assert_eq!(expected.to_string(), "still running after 5s: stuck, connection (2)");
    assert_eq!(tasks.shutdown(GRACE).await, Err(expected));
}

#[tokio::test]
async fn a_panic_in_a_critical_thread_stops_the_server() {
    let tasks = BackgroundTasks::default();
    tasks.spawn_critical_thread::<_, Infallible>("journal", || panic!("a bug")).unwrap();
    tasks.stopping().cancelled().await;
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
    assert_eq!(tasks.first_failure().unwrap().name, "journal");
}

#[tokio::test]
async fn shutdown_waits_for_threads_too() {
    let tasks = BackgroundTasks::default();
    let (may_end, wait) = mpsc::channel::<()>();
    tasks.spawn_thread("checkpoint", move || assert!(wait.recv().is_err())).unwrap();
    let stuck = tasks.shutdown(Duration::ZERO).await.unwrap_err();
    assert_eq!(stuck.names, ["checkpoint"]);
    drop(may_end);
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
    assert_eq!(tasks.running(), [""; 0]);
}

#[tokio::test]
async fn data_runtimes_share_out_their_tasks_and_each_stays_on_its_thread() {
    let tasks = BackgroundTasks::default();
    let runtimes = DataRuntimes::start(&tasks, "stream", 2, 1).unwrap();
    let (report, mut reports) = tokio::sync::mpsc::channel(2);
    let release = CancellationToken::new();
    for _ in 0..2 {
        let (report, release) = (report.clone(), release.clone());
        runtimes.spawn_on_next("connection", move || async move {
            let before = thread::current().id();
            let name = thread::current().name().map(str::to_owned);
            release.cancelled().await;
            assert_eq!(thread::current().id(), before);
            report.send(name).await.unwrap();
        });
    }
    assert_eq!(runtimes.tasks_running(), 2);
    release.cancel();
    let mut names = [reports.recv().await.unwrap(), reports.recv().await.unwrap()];
    names.sort();
    assert_eq!(names, [Some("stream-0".to_owned()), Some("stream-1".to_owned())]);
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
}

#[tokio::test]
async fn a_data_runtime_with_fewer_tasks_is_preferred_to_the_one_whose_turn_it_is() {
    let tasks = BackgroundTasks::default();
    let runtimes = DataRuntimes::start(&tasks, "stream", 2, 1).unwrap();
    let (report, mut reports) = tokio::sync::mpsc::channel(8);
    let stopping = tasks.stopping();
    runtimes.spawn_on_next("long", move || async move { stopping.cancelled().await });
    for _ in 0..3 {
        let report = report.clone();
        runtimes.spawn_on_next("short", move || async move {
            report.send(thread::current().name().map(str::to_owned)).await.unwrap();
        });
        assert_eq!(reports.recv().await.flatten().as_deref(), Some("stream-1"));
        while runtimes.tasks_running() > 1 {
            tokio::task::yield_now().await; // Until the short one has ended.
        }
    }
    assert_eq!(tasks.shutdown(GRACE).await, Ok(()));
}

#[tokio::test]
async fn data_runtimes_let_a_stream_finish_and_drop_one_that_never_does() {
    let tasks = BackgroundTasks::default();
    let runtimes = DataRuntimes::start(&tasks, "stream", 1, 1).unwrap();
    let (dropped, is_dropped) = tokio::sync::oneshot::channel::<()>();
    let (finished, is_finished) = tokio::sync::oneshot::channel();
    let stopping = tasks.stopping();
    runtimes.spawn_on_next("polite", move || async move {
        stopping.cancelled().await;
        finished.send(()).unwrap();
    });
    runtimes.spawn_on_next("stuck", move || async move {
        let _held = dropped;
        pending::<()>().await;
    });
    tasks.stop();
    assert_eq!(is_finished.await, Ok(()));
    while tasks.running().len() > 2 {
        tokio::task::yield_now().await; // Until the polite one has ended, too.
    }
    let stopped = tasks.shutdown(Duration::ZERO).await;
    assert_eq!(stopped.unwrap_err().names, ["stream-0", "stuck"]);
    assert!(is_dropped.await.is_err(), "its runtime is gone");
}

#[tokio::test]
async fn a_detached_task_is_joined_by_its_handle() {
    assert_eq!(spawn_detached("answer", async { 42 }).await.unwrap(), 42);
    let failed = spawn_detached("bug", async { panic!("a bug") }).await;
    assert!(failed.unwrap_err().is_panic());
}

#[test]
fn causes_are_told_in_one_line_and_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("the journal has failed")]
    struct Failed(#[source] io::Error);

    let full = Failed(io::Error::other("no space left"));
    assert_eq!(with_causes(&full), "the journal has failed: no space left");
    assert_eq!(with_causes(&io::Error::other(full)), "the journal has failed: no space left");
}
