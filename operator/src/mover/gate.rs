//! The body of an upload: it ends well only when the disk is proven, and is never silent for long until then.

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use futures::stream;
use tokio::{sync::mpsc, time::timeout};

use super::image::ByteStream;
use crate::transfer::FIRST_BYTES;

/// Bytes in one piece of a body. uwsgi, which Glance runs under, refuses 1 MiB and more by default.
const PIECE: usize = 256 << 10;
/// What is held back at the end. Byte by byte it lasts for three days.
const HELD: usize = 128 << 10;
/// For how long nothing may come. uwsgi breaks an upload off after 4 s.
const QUIET: Duration = Duration::from_secs(2);

/// What a body is made of.
pub(super) enum Piece {
    Data(Bytes),
    /// All of it was sent, and is right.
    End,
}

/// A body that ends well only after [`Piece::End`]: a sender that is dropped before makes it fail. The last bytes come
/// only then, too: who is told the length beforehand, and sees all of it arrive, waits for no end.
pub(super) struct Gate {
    receiver: mpsc::Receiver<Piece>,
    /// What may be sent.
    ready: VecDeque<Bytes>,
    held: Bytes,
    state: State,
    quiet: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Broken,
}

/// A gate, and what is sent through it.
pub(super) fn gate() -> (mpsc::Sender<Piece>, Gate) {
    gate_with(QUIET)
}

fn gate_with(quiet: Duration) -> (mpsc::Sender<Piece>, Gate) {
    let (sender, receiver) = mpsc::channel(8);
    let (ready, held) = (VecDeque::new(), Bytes::new());
    (sender, Gate { receiver, ready, held, state: State::Open, quiet })
}

impl Gate {
    /// Waits for the first bytes, and gives a copy of them: before there are any, a body would be silent. `None`: there
    /// are none, since the sender gave up.
    pub async fn first(&mut self) -> Option<Vec<u8>> {
        while self.ready.is_empty() && self.held.is_empty() && self.state == State::Open {
            let piece = self.receiver.recv().await;
            self.take(piece);
        }
        let waiting = self.ready.iter().chain([&self.held]).flatten();
        (self.state != State::Broken).then(|| waiting.take(FIRST_BYTES).copied().collect())
    }

    /// The body.
    pub fn body(self) -> ByteStream {
        Box::pin(stream::unfold(self, |mut gate| async { gate.next().await.map(|item| (item, gate)) }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.next_ready() {
                return Some(Ok(piece));
            }
            match self.state {
                State::Ended => return None,
                State::Broken => {
                    self.state = State::Ended;
                    let broken = "the disk's stream broke off before it was proven whole";
                    return Some(Err(io::Error::other(broken)));
                }
                State::Open => match timeout(self.quiet, self.receiver.recv()).await {
                    Ok(piece) => self.take(piece),
                    // At least one byte stays.
                    Err(_) if self.held.len() > 1 => return Some(Ok(self.held.split_to(1))),
                    Err(_) => {}
                },
            }
        }
    }

    fn next_ready(&mut self) -> Option<Bytes> {
        while self.ready.front().is_some_and(Bytes::is_empty) {
            self.ready.pop_front();
        }
        let front = self.ready.front_mut()?;
        Some(front.split_to(PIECE.min(front.len())))
    }

    fn take(&mut self, piece: Option<Piece>) {
        match piece {
            Some(Piece::Data(piece)) => self.hold(piece),
            Some(Piece::End) => {
                self.ready.push_back(std::mem::take(&mut self.held));
                self.state = State::Ended;
            }
            None => self.state = State::Broken,
        }
    }

    /// Holds the last bytes of all that came, and lets those before them go.
    fn hold(&mut self, mut piece: Bytes) {
        let mut before = std::mem::take(&mut self.held);
        let stays = HELD.saturating_sub(piece.len()).min(before.len());
        let tail = before.split_off(before.len() - stays);
        self.ready.push_back(before);
        self.ready.push_back(piece.split_to(piece.len().saturating_sub(HELD)));
        self.held = if tail.is_empty() { piece } else { [tail, piece].concat().into() };
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn piece(length: usize, byte: u8) -> Piece {
        Piece::Data(Bytes::from(vec![byte; length]))
    }

    #[tokio::test]
    async fn a_body_ends_well_only_when_told_and_keeps_its_last_bytes_until_then() {
        for (told, lengths) in [(false, [1 << 20, 5]), (true, [1 << 20, 5]), (true, [7, 9]), (false, [7, 9])]
        {
            let (sender, gate) = gate_with(QUIET);
            for (length, byte) in lengths.into_iter().zip([b'a', b'b']) {
                sender.send(piece(length, byte)).await.unwrap();
            }
            if told {
                sender.send(Piece::End).await.unwrap();
            }
            drop(sender);
            let items: Vec<_> = gate.body().collect().await;
            let (good, bad): (Vec<_>, Vec<_>) = items.into_iter().partition(Result::is_ok);
            let good: Vec<Bytes> = good.into_iter().map(Result::unwrap).collect();
            assert!(
                good.iter().all(|piece| !piece.is_empty() && piece.len() <= 512 << 10),
                "uwsgi refuses it"
            );
            let all = [vec![b'a'; lengths[0]], vec![b'b'; lengths[1]]].concat();
            let wanted = if told { all.len() } else { all.len().saturating_sub(HELD) };
            assert_eq!(
                (good.concat() == all[..wanted], bad.len()),
                (true, usize::from(!told)),
                "{lengths:?}"
            );
        }
        let (sender, gate) = gate_with(QUIET);
        sender.send(Piece::End).await.unwrap();
        assert_eq!(gate.body().count().await, 0);
    }

    #[tokio::test]
    async fn while_nothing_comes_a_body_trickles_and_still_ends_only_when_told() {
        let (sender, mut gate) = gate_with(Duration::from_millis(1));
        sender.send(piece(20, b'a')).await.unwrap();
        assert_eq!(gate.first().await, Some(vec![b'a'; 20]));
        let mut body = gate.body();
        for _ in 0..19 {
            assert_eq!(body.next().await.unwrap().unwrap().len(), 1);
        }
        // The last byte is held until the end, and nothing is lost or comes twice.
        assert!(timeout(Duration::from_millis(20), body.next()).await.is_err());
        sender.send(piece(HELD + 3, b'b')).await.unwrap();
        sender.send(Piece::End).await.unwrap();
        let rest: Vec<_> = body.map(Result::unwrap).collect().await;
        assert!(rest.concat() == [vec![b'a'], vec![b'b'; HELD + 3]].concat());
    }

    #[tokio::test]
    async fn the_first_bytes_are_waited_for() {
        let (sender, mut gate) = gate_with(QUIET);
        sender.send(piece(FIRST_BYTES - 1, b'a')).await.unwrap();
        assert_eq!(gate.first().await.map(|first| first.len()), Some(FIRST_BYTES - 1));
        let (sender, mut gate) = gate_with(QUIET);
        drop(sender);
        assert_eq!(gate.first().await, None);
    }
}
