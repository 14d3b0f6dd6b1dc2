use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::Frame;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::Sleep;

use super::*;

const BATCH: usize = 16 * MIB;
const SECOND: Duration = Duration::from_secs(1);

/// A body of which pieces come, each so long after the one before.
struct Script {
    pieces: VecDeque<(Duration, usize)>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// A body that comes in pieces of 32 KiB, without a pause.
fn prompt(size: usize) -> Vec<(Duration, usize)> {
    (0..size).step_by(32 * KIB).map(|at| (Duration::ZERO, (size - at).min(32 * KIB))).collect()
}

/// So many bytes, and then nothing for ever.
fn stalled(size: usize) -> Vec<(Duration, usize)> {
    let mut pieces = prompt(size);
    pieces.push((SECOND * 100_000, 1));
    pieces
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((after, size)) = self.pieces.front().copied() else { return Poll::Ready(None) };
        if !after.is_zero() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
            ready!(pause.as_mut().poll(context));
        }
        self.pause = None;
        self.pieces.pop_front();
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; size].into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
}

type Received = Result<(Bytes, Held), Problem>;

fn receive(
    bodies: &Bodies,
    pieces: Vec<(Duration, usize)>,
    announced: Option<usize>,
) -> JoinHandle<Received> {
    let (bodies, body) = (bodies.clone(), Script { pieces: pieces.into(), pause: None });
    tokio::spawn(async move { bodies.receive(body, announced, BATCH).await })
}

fn code(received: &Received) -> &'static str {
    received.as_ref().map_or_else(Problem::code, |_| "received")
}

fn free(bodies: &Bodies) -> usize {
    bodies.0.steps.iter().map(|step| step.budget.available()).sum()
}

/// Lets everything that can go on without time go on.
async fn settle() {
    for _ in 0..5_000 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_takes_nothing_and_what_came_takes_its_size() {
    let bodies = Bodies::new();
    let all = free(&bodies);
    let liars: Vec<_> = (0..1_024).map(|_| receive(&bodies, stalled(1), Some(BATCH))).collect();
    let chunked: Vec<_> = (0..1_024).map(|_| receive(&bodies, stalled(FREE), None)).collect();
    settle().await;
    assert_eq!(free(&bodies), all, "16 KiB of each connection need no room");
    for size in [0, 1, FREE, FREE + 1, 100 * KIB, 300 * KIB, MIB, MIB + 1, BATCH] {
        for announced in [Some(size), None] {
            let (body, held) = receive(&bodies, prompt(size), announced).await.unwrap().unwrap();
            assert!(body.len() == size && body.iter().all(|byte| *byte == b'x'), "{size}");
            let taken = if size <= FREE { 0 } else { size.div_ceil(KIB) * KIB };
            assert_eq!(all - free(&bodies), taken, "{size} bytes, announced: {announced:?}");
            drop(held);
            assert_eq!(free(&bodies), all);
        }
    }
    for liar in liars.into_iter().chain(chunked) {
        assert_eq!(code(&liar.await.unwrap()), "too-slow");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_given_up_when_it_comes_too_slowly_and_not_before() {
    let bodies = Bodies::new();
    let drops = |interval: Duration, bytes: usize| -> Vec<_> { vec![(interval, bytes); 1_000] };
    for (pieces, expected, after) in [
        (stalled(0), "too-slow", PATIENT),
        (stalled(700), "too-slow", PATIENT),
        (drops(SECOND / 10, 1), "too-slow", PATIENT),
        (stalled(15 * MIB), "too-slow", PATIENT),
        (drops(SECOND * 4, LEAST), "too-slow", LONGEST),
        (vec![(SECOND * 4, 100)], "received", SECOND * 4),
        (vec![(SECOND * 2, LEAST); 10], "received", SECOND * 20),
    ] {
        let started = Instant::now();
        let received = receive(&bodies, pieces, None).await.unwrap();
        assert_eq!(code(&received), expected);
        assert!(started.elapsed().abs_diff(after) < SECOND / 10, "{:?}, not {after:?}", started.elapsed());
    }
    let large = receive(&bodies, prompt(BATCH + 1), None).await.unwrap();
    assert_eq!(code(&large), "too-large");
    assert_eq!(free(&bodies), free(&Bodies::new()));
}

#[tokio::test(start_paused = true)]
async fn bodies_that_hold_a_part_and_wait_for_more_do_not_wait_for_each_other() {
    let bodies = Bodies::new();
    let started = Instant::now();
    // Together 200 MiB, more than there is. Each comes in pieces, so that all of them are half read at once.
    let many: Vec<_> = (0..100)
        .map(|_| {
            let pieces = prompt(2 * MIB).into_iter().map(|(_, size)| (SECOND / 10_000, size)).collect();
            let received = receive(&bodies, pieces, Some(2 * MIB));
            tokio::spawn(async move { code(&received.await.unwrap()) })
        })
        .collect();
    for one in many {
        assert_eq!(one.await.unwrap(), "received");
    }
    assert!(started.elapsed() < SECOND * 5, "{:?}", started.elapsed());
    assert!(!bodies.are_turned_away());
    assert_eq!(free(&bodies), free(&Bodies::new()));
}

#[tokio::test(start_paused = true)]
async fn beside_200_stalled_bodies_of_any_size_small_ones_do_not_wait_and_larger_ones_get_room() {
    for size in [FREE + 1, 64 * KIB + 1, 256 * KIB + 1, MIB + 1, 15 * MIB] {
        let bodies = Bodies::new();
        let stalled: Vec<_> = (0..200).map(|_| receive(&bodies, stalled(size), None)).collect();
        settle().await;
        for honest in [1, FREE, 64 * KIB, 256 * KIB, MIB, BATCH] {
            let started = Instant::now();
            let received = receive(&bodies, prompt(honest), Some(honest)).await.unwrap();
            assert_eq!(code(&received), "received", "{honest} bytes beside {size}");
            let most = if honest <= 64 * KIB { Duration::ZERO } else { STEPS[0].2 };
            assert!(started.elapsed() <= most, "{honest} bytes beside {size}: {:?}", started.elapsed());
        }
        drop(stalled);
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_room_for_long_is_refused_and_a_probe_learns_of_it() {
    let bodies = Bodies::new();
    // They are read, and their events are being committed: slowness cannot be held against them.
    let mut committing = Vec::new();
    for _ in 0..4 {
        committing.push(receive(&bodies, prompt(BATCH), Some(BATCH)).await.unwrap().unwrap());
    }
    assert!(!bodies.are_turned_away());
    let started = Instant::now();
    let refused = receive(&bodies, prompt(BATCH), None).await.unwrap();
    assert_eq!((code(&refused), started.elapsed()), ("busy", STEPS[3].2));
    assert_eq!(refused.unwrap_err().answer().headers()["retry-after"], "1");
    assert!(bodies.are_turned_away());
    assert_eq!(code(&receive(&bodies, prompt(MIB), None).await.unwrap()), "received", "smaller ones go on");
    committing.pop();
    assert_eq!(code(&receive(&bodies, prompt(BATCH), None).await.unwrap()), "received");
    tokio::time::advance(SECOND * 6).await;
    assert!(!bodies.are_turned_away());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_all_there_is_does_not_wait_for_itself() {
    let bodies = Bodies::new();
    let body = Script { pieces: prompt(64 * MIB).into(), pause: None };
    let (body, mut held) = bodies.receive(body, Some(64 * MIB), 64 * MIB).await.unwrap();
    assert_eq!(body.len(), 64 * MIB);
    bodies.add_deliveries(&mut held, 10_000).await.unwrap();
    assert!(held.is_reserved());
}

#[tokio::test(start_paused = true)]
async fn many_deliveries_are_bounded_together_and_few_take_no_room() {
    let bodies = Bodies::new();
    let mut all = Vec::new();
    while let (true, mut held) = (all.len() < 6, Held::nothing()) {
        bodies.add_deliveries(&mut held, 10_000).await.unwrap();
        all.push(held);
    }
    let mut held = Held::nothing();
    let refused = bodies.add_deliveries(&mut held, 10_000).await.unwrap_err();
    assert_eq!(refused.code(), "busy");
    bodies.add_deliveries(&mut held, 64).await.unwrap();
    assert!(!held.is_reserved());
    all.clear();
    bodies.add_deliveries(&mut held, 1_000_000).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_queue_has_not_stored_is_held_although_its_client_has_gone() {
    let (bodies, all) = (Bodies::new(), free(&Bodies::new()));
    let (_body, held) = receive(&bodies, prompt(MIB), Some(MIB)).await.unwrap().unwrap();
    let (stored, storing) = tokio::sync::oneshot::channel::<()>();
    let client = tokio::spawn(held.until_end_of(storing));
    settle().await;
    client.abort();
    settle().await;
    assert_eq!(all - free(&bodies), MIB);
    stored.send(()).unwrap();
    settle().await;
    assert_eq!(free(&bodies), all);
}
