//! Streams and frames of a link that is up.

use std::time::Duration;

use bytes::Bytes;
use quic_link::{CLOSE_NORMAL, FrameError, LinkError};

use crate::{Pair, pair, within};

#[tokio::test]
async fn frames_go_over_and_come_back() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let (mut to_server, mut from_server) = dialled.open_bi().await.unwrap();
    to_server
        .queue(5, [Bytes::from_static(b"ask"), Bytes::from_static(b"ing")])
        .unwrap();
    within(to_server.flush()).await.unwrap();
    let (mut to_client, mut from_client) = within(accepted.accept_bi()).await.unwrap();
    let frame = within(from_client.read(100)).await.unwrap().unwrap();
    assert_eq!((frame.kind, &frame.payload[..]), (5, &b"asking"[..]));
    to_client.queue(6, []).unwrap();
    within(to_client.flush()).await.unwrap();
    to_client.finish();
    let frame = within(from_server.read(0)).await.unwrap().unwrap();
    assert_eq!((frame.kind, frame.payload.len()), (6, 0));
    assert_eq!(within(from_server.read(0)).await.unwrap(), None);
}

#[tokio::test]
async fn many_frames_of_all_sizes_arrive_in_order() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let sizes =
        || (0..4_000_usize).map(|i| (i * 7_919) % 300 + if i % 500 == 0 { 200_000 } else { 0 });
    let payload = |i: usize, size: usize| Bytes::from(vec![(i % 251) as u8; size]);
    let mut writer = dialled.open_uni().await.unwrap();
    let write = async {
        for (i, size) in sizes().enumerate() {
            let whole = payload(i, size);
            writer
                .queue(1, [whole.slice(..size / 2), whole.slice(size / 2..)])
                .unwrap();
            if i % 32 == 0 {
                writer.flush().await.unwrap();
            }
        }
        writer.flush().await.unwrap();
        assert_eq!(writer.queued_bytes(), 0);
        writer.finish();
    };
    let read = async {
        let mut reader = accepted.accept_uni().await.unwrap();
        let mut expected = sizes().enumerate();
        while let Some(frame) = reader.read(1 << 20).await.unwrap() {
            let (i, size) = expected.next().unwrap();
            assert!(frame.payload == payload(i, size), "frame {i}");
        }
        assert_eq!(expected.next(), None);
    };
    within(async { tokio::join!(write, read) }).await;
}

#[tokio::test]
async fn a_frame_above_the_writers_limit_is_not_queued() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    let limit = crate::limits().frame_payload_bytes_max;
    let half = Bytes::from(vec![0; limit / 2 + 1]);
    assert!(matches!(
        writer.queue(1, [half.clone(), half]),
        Err(LinkError::TooLarge { limit: named, .. }) if named == limit
    ));
    writer.queue(2, [Bytes::from_static(b"fits")]).unwrap();
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    assert_eq!(within(reader.read(10)).await.unwrap().unwrap().kind, 2);
}

#[tokio::test]
async fn frames_that_nobody_flushes_are_bounded() {
    let Pair { dialled, .. } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    let part = Bytes::from(vec![0; 60 << 20]);
    writer.queue(1, [part.clone()]).unwrap();
    writer.queue(1, [part.clone()]).unwrap();
    assert!(matches!(
        writer.queue(1, [part]),
        Err(LinkError::QueueFull { .. })
    ));
}

#[tokio::test]
async fn a_frame_above_the_readers_limit_is_refused() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(1, [Bytes::from(vec![0; 101])]).unwrap();
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(
            within(reader.read(100)).await,
            Err(LinkError::Frame(FrameError::TooLarge {
                bytes: 101,
                limit: 100
            }))
        ));
    }
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_stream_with_an_error_and_the_link_lives() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut frame = vec![0xf1, 7, 1, 7, 3, 0, 0, 0, 0x3d, 0xb6, 0xd4, 0xd4];
    frame.extend_from_slice(b"abc");
    for position in [0, 2, 3, 8, 14] {
        let mut bad = frame.clone();
        bad[position] ^= 0x40;
        let mut writer = dialled.open_uni().await.unwrap();
        writer.queue_raw(frame.clone().into());
        writer.queue_raw(bad.into());
        within(writer.flush()).await.unwrap();
        let mut reader = within(accepted.accept_uni()).await.unwrap();
        let good = within(reader.read(100)).await.unwrap().unwrap();
        assert_eq!((good.kind, &good.payload[..]), (7, &b"abc"[..]));
        let error = within(reader.read(100)).await.unwrap_err();
        assert!(matches!(error, LinkError::Frame(_)), "{position}: {error}");
    }
    assert!(!dialled.is_closed());
}

#[tokio::test]
async fn cancelled_reads_lose_nothing() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    const FRAMES: u32 = 300;
    let mut writer = dialled.open_uni().await.unwrap();
    let write = async {
        for i in 0..FRAMES {
            let mut payload = vec![0; 3_000];
            payload[..4].copy_from_slice(&i.to_le_bytes());
            writer.queue(1, [payload.into()]).unwrap();
            writer.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        writer.finish();
    };
    let read = async {
        let mut reader = accepted.accept_uni().await.unwrap();
        let (mut next, mut cancelled) = (0, 0);
        loop {
            // Polled once and dropped, most of the time in the middle of a frame.
            let frame = tokio::select! {
                biased;
                frame = reader.read(4_000) => frame.unwrap(),
                () = std::future::ready(()) => {
                    cancelled += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Some(frame) = frame else { break };
            assert_eq!(frame.payload[..4], u32::to_le_bytes(next));
            next += 1;
        }
        assert_eq!(next, FRAMES);
        assert!(cancelled > 0);
    };
    within(async { tokio::join!(write, read) }).await;
}

#[tokio::test]
async fn a_cancelled_flush_goes_on_where_it_stopped() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    // More than the windows take, so that the flush must wait for the reader.
    let parts: Vec<Bytes> = (0..40_u8).map(|i| Bytes::from(vec![i; 1 << 20])).collect();
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(9, parts.clone()).unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(50), writer.flush()).await;
    assert!(waiting.is_err(), "nobody reads, so not all can be flushed");
    let read = async {
        let mut reader = accepted.accept_uni().await.unwrap();
        let frame = reader.read(64 << 20).await.unwrap().unwrap();
        assert!(frame.payload == parts.concat());
    };
    let write = async { writer.flush().await.unwrap() };
    within(async { tokio::join!(write, read) }).await;
}

#[tokio::test]
async fn try_read_takes_what_is_there_and_never_waits() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    for kind in 1..=3 {
        writer.queue(kind, [Bytes::from_static(b"x")]).unwrap();
    }
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    assert_eq!(within(reader.read(1)).await.unwrap().unwrap().kind, 1);
    assert_eq!(reader.try_read(1).unwrap().unwrap().kind, 2);
    assert_eq!(reader.try_read(1).unwrap().unwrap().kind, 3);
    assert_eq!(reader.try_read(1).unwrap(), None);
    writer.queue(4, []).unwrap();
    within(writer.flush()).await.unwrap();
    assert_eq!(within(reader.read(1)).await.unwrap().unwrap().kind, 4);
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_frame_is_an_error() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(1, [Bytes::from(vec![0; 20 << 20])]).unwrap();
    // The window takes a part of the frame, then the stream is finished.
    let _ = tokio::time::timeout(Duration::from_millis(50), writer.flush()).await;
    writer.finish();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    assert!(matches!(
        within(reader.read(32 << 20)).await,
        Err(LinkError::Truncated)
    ));
}

#[tokio::test]
async fn a_reset_stream_is_an_error_and_the_link_lives() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(1, [Bytes::from_static(b"first")]).unwrap();
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    within(reader.read(10)).await.unwrap();
    writer.reset(17);
    assert!(matches!(
        within(reader.read(10)).await,
        Err(LinkError::StreamEnded(17))
    ));
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(2, []).unwrap();
    within(writer.flush()).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    assert_eq!(within(reader.read(10)).await.unwrap().unwrap().kind, 2);
    reader.stop(18);
    let stopped = within(async {
        loop {
            writer.queue(3, [Bytes::from_static(b"x")]).unwrap();
            if let Err(error) = writer.flush().await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(matches!(stopped.await, LinkError::StreamEnded(18)));
}

#[tokio::test]
async fn a_closed_link_tells_the_peer_why() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    dialled.close(CLOSE_NORMAL, "moving house");
    let why = within(accepted.closed()).await;
    assert!(why.contains("moving house"), "{why}");
    assert!(accepted.is_closed() && dialled.is_closed());
    assert!(matches!(
        within(accepted.accept_uni()).await,
        Err(LinkError::Closed(_))
    ));
    assert!(matches!(
        within(dialled.open_uni()).await,
        Err(LinkError::Closed(_))
    ));
}

#[tokio::test]
async fn a_closed_endpoint_ends_its_links_and_its_accept_loop() {
    let Pair {
        server,
        client,
        dialled,
        accepted,
    } = pair().await;
    drop(accepted);
    server.close("shutting down").await;
    assert!(within(server.accept()).await.is_none());
    within(dialled.closed()).await;
    client.close("test over").await;
}

#[tokio::test]
async fn a_frame_leaves_in_slices_and_arrives_whole() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let payload = Bytes::from((0..50_000_u32).map(|i| i as u8).collect::<Vec<_>>());
    let mut writer = dialled.open_uni().await.unwrap();
    assert_eq!(writer.flush_slice(10).await.unwrap(), 0);
    for kind in [1, 2] {
        let small = Bytes::from_static(b"small");
        writer.queue(kind, [small, payload.clone()]).unwrap();
    }
    let all = writer.queued_bytes();
    let (mut slices, mut bytes) = (0, 0);
    while writer.queued_bytes() > 0 {
        let slice = within(writer.flush_slice(3_000)).await.unwrap();
        assert!((1..=3_000).contains(&slice), "{slice}");
        slices += 1;
        bytes += slice;
    }
    assert_eq!(bytes, all);
    assert!(slices >= all / 3_000, "{slices}");
    // And beside whole flushes.
    writer.queue(3, [payload.clone()]).unwrap();
    within(writer.flush_slice(1)).await.unwrap();
    within(writer.flush()).await.unwrap();
    writer.finish();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    for kind in [1, 2, 3] {
        let frame = within(reader.read(1 << 20)).await.unwrap().unwrap();
        assert_eq!(frame.kind, kind);
        assert!(frame.payload.ends_with(&payload));
    }
    assert_eq!(within(reader.read(0)).await.unwrap(), None);
}

#[tokio::test]
async fn a_writer_that_stands_still_is_noticed_and_a_slow_one_is_not_cut_off() {
    let Pair {
        accepted, dialled, ..
    } = pair().await;
    let idle = Duration::from_secs(1);
    let mut writer = dialled.open_uni().await.unwrap();
    writer.queue(1, [Bytes::from(vec![7; 1_000])]).unwrap();
    within(writer.flush_slice(400)).await.unwrap();
    let mut reader = within(accepted.accept_uni()).await.unwrap();
    let stalled = within(reader.read_moving(1_000, idle)).await;
    assert!(matches!(stalled, Err(LinkError::Stalled { after }) if after == idle));
    // What has come is not lost; and the whole takes longer than each piece may.
    let write = async {
        while writer.queued_bytes() > 0 {
            within(writer.flush_slice(200)).await.unwrap();
            tokio::time::sleep(idle / 2).await;
        }
        writer.finish();
    };
    let read = within(reader.read_moving(1_000, idle));
    let (frame, ()) = tokio::join!(read, write);
    assert_eq!(frame.unwrap().unwrap().payload.len(), 1_000);
    assert_eq!(within(reader.read_moving(1_000, idle)).await.unwrap(), None);
}
