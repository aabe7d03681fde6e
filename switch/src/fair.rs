//! Fairness among the meetings of a worker: deficit round robin (Shreedhar and Varghese, 1995), by datagrams sent.
//!
//! All meetings of a worker share its sockets, and a packet to a thousand listeners costs a thousand times one to a
//! single one. As long as there is time for everybody nothing is done here. A meeting that has sent its quantum of a
//! round waits in a queue of its own while others are read and served, so that neither their packets wait behind its
//! ones nor the kernel's buffers overflow meanwhile; what overflows is that queue, and that meeting's alone.

use std::collections::VecDeque;
use std::net::SocketAddr;

use switch_core::SocketId;

/// Datagrams a meeting may send in a round before others have their turn. Higher: fewer copies while the worker is
/// busy; lower: others wait less.
pub const QUANTUM: u32 = 2_000;

/// Rounds for which others are reckoned with who have sent something: a second or two, so that who says little is not
/// taken for nobody.
const COMPANY: u32 = 200;

/// Datagrams of one meeting that wait; one more and the oldest is lost.
pub const MOST_WAITING: usize = 512;

/// A received datagram that waits.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it came in.
    pub socket: SocketId,
    /// From where.
    pub remote: SocketAddr,
    /// As received.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
struct Queue {
    meeting: u32,
    waiting: VecDeque<Waiting>,
}

/// What meetings have sent in this round, and what of theirs waits.
#[derive(Debug, Default)]
pub struct Fair {
    /// By meeting.
    spent: Vec<u32>,
    /// Meetings that have spent anything.
    spenders: Vec<u32>,
    /// One of them has spent its quantum.
    in_debt: bool,
    /// Rounds from which on a meeting counts as alone that was not.
    company: u32,
    queues: VecDeque<Queue>,
    lost: u64,
}

impl Fair {
    /// Nobody has to wait: whose a datagram is need not be asked.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        (!self.in_debt || self.is_alone()) && self.queues.is_empty()
    }

    /// There is nobody to be fair to.
    fn is_alone(&self) -> bool {
        self.company == 0
    }

    /// Something waits.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Datagrams lost since the start because their meeting had too many waiting.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn spent(&self, meeting: u32) -> u32 {
        self.spent.get(meeting as usize).copied().unwrap_or(0)
    }

    /// Whether a datagram of the meeting has to wait: its quantum is spent, or others of its own wait already.
    #[must_use]
    pub fn must_wait(&self, meeting: u32) -> bool {
        let in_debt = self.spent(meeting) >= QUANTUM && !self.is_alone();
        in_debt || self.queues.iter().any(|queue| queue.meeting == meeting)
    }

    /// The meeting has sent so many datagrams.
    pub fn charge(&mut self, meeting: u32, datagrams: u32) {
        let at = meeting as usize;
        if self.spent.len() <= at {
            self.spent.resize(at + 1, 0);
        }
        if self.spent[at] == 0 && datagrams > 0 {
            self.spenders.push(meeting);
            if self.spenders.len() > 1 {
                self.company = COMPANY;
            }
        }
        self.spent[at] = self.spent[at].saturating_add(datagrams);
        self.in_debt |= self.spent[at] >= QUANTUM;
    }

    /// Lets a datagram wait.
    pub fn wait(&mut self, meeting: u32, datagram: Waiting) {
        let at = self
            .queues
            .iter()
            .position(|queue| queue.meeting == meeting);
        let at = at.unwrap_or_else(|| {
            self.queues.push_back(Queue {
                meeting,
                waiting: VecDeque::new(),
            });
            self.queues.len() - 1
        });
        let waiting = &mut self.queues[at].waiting;
        if waiting.len() >= MOST_WAITING {
            waiting.pop_front();
            self.lost += 1;
        }
        waiting.push_back(datagram);
    }

    /// Everybody has a quantum again; what was spent beyond the last is owed.
    pub fn begin_round(&mut self) {
        self.company = self.company.saturating_sub(1);
        let alone = self.is_alone();
        let spent = &mut self.spent;
        let mut in_debt = false;
        self.spenders.retain(|meeting| {
            let owed = &mut spent[*meeting as usize];
            *owed = if alone {
                0
            } else {
                owed.saturating_sub(QUANTUM)
            };
            in_debt |= *owed >= QUANTUM;
            *owed > 0
        });
        self.in_debt = in_debt;
    }

    /// The next datagram that may be served in this round, and its meeting.
    pub fn next(&mut self) -> Option<(u32, Waiting)> {
        for _ in 0..self.queues.len() {
            let queue = self.queues.front_mut()?;
            let meeting = queue.meeting;
            if self.spent(meeting) >= QUANTUM {
                self.queues.rotate_left(1);
                continue;
            }
            let queue = self.queues.front_mut()?;
            let datagram = queue.waiting.pop_front();
            if queue.waiting.is_empty() {
                self.queues.pop_front();
            }
            return datagram.map(|datagram| (meeting, datagram));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: usize) -> Waiting {
        Waiting {
            socket: SocketId(1),
            remote: SocketAddr::from(([192, 0, 2, 1], 4000)),
            bytes: vec![number as u8, (number >> 8) as u8],
        }
    }

    #[test]
    fn nobody_waits_who_has_not_spent_a_quantum() {
        let mut fair = Fair::default();
        fair.charge(4, 1);
        fair.charge(3, QUANTUM - 1);
        assert!(fair.is_calm() && !fair.must_wait(3));
        fair.charge(3, 1);
        assert!(!fair.is_calm() && fair.must_wait(3) && !fair.must_wait(4));
        fair.begin_round();
        assert!(fair.is_calm() && !fair.must_wait(3));
    }

    #[test]
    fn a_meeting_alone_on_its_worker_never_waits_and_owes_nothing() {
        let mut fair = Fair::default();
        for _ in 0..3 {
            fair.charge(3, 5 * QUANTUM);
            assert!(fair.is_calm() && !fair.must_wait(3));
            fair.begin_round();
        }
        fair.charge(4, 1);
        assert!(!fair.must_wait(3), "a quantum like everybody");
        fair.charge(3, QUANTUM);
        assert!(fair.must_wait(3), "there is somebody else now");
    }

    #[test]
    fn what_was_spent_beyond_the_quantum_is_owed() {
        let mut fair = Fair::default();
        fair.charge(0, 3 * QUANTUM);
        fair.charge(1, 1);
        for _ in 0..2 {
            fair.begin_round();
            fair.charge(1, 1);
            assert!(fair.must_wait(0));
        }
        fair.begin_round();
        assert!(!fair.must_wait(0));
    }

    #[test]
    fn a_meetings_datagrams_stay_in_order() {
        let mut fair = Fair::default();
        fair.charge(1, 1);
        fair.charge(0, QUANTUM);
        for number in 0..3 {
            fair.wait(0, datagram(number));
        }
        assert_eq!(fair.next(), None, "not in this round");
        fair.begin_round();
        assert!(fair.must_wait(0), "behind those that wait");
        for number in 0..3 {
            assert_eq!(fair.next(), Some((0, datagram(number))));
        }
        assert!(fair.is_calm());
    }

    #[test]
    fn two_that_always_want_more_get_the_same_and_a_modest_one_never_waits() {
        // A packet costs the first meeting a thousand datagrams, the second ten.
        let costs = [1_000, 10];
        let mut fair = Fair::default();
        let mut served = [0u64; 2];
        for _ in 0..1_000 {
            for (meeting, cost) in (0..).zip(costs) {
                for _ in 0..QUANTUM / cost + 5 {
                    if fair.must_wait(meeting) {
                        fair.wait(meeting, datagram(0));
                    } else {
                        fair.charge(meeting, cost);
                        served[meeting as usize] += u64::from(cost);
                    }
                }
            }
            assert!(!fair.must_wait(2));
            fair.charge(2, 100);
            fair.begin_round();
            while let Some((meeting, _)) = fair.next() {
                let cost = costs[meeting as usize];
                fair.charge(meeting, cost);
                served[meeting as usize] += u64::from(cost);
            }
        }
        let ratio = served[0] as f64 / served[1] as f64;
        assert!((0.95..1.05).contains(&ratio), "{served:?}");
        assert!(fair.lost() > 0, "more came than there is time for");
    }

    #[test]
    fn one_with_too_many_waiting_loses_its_own_oldest() {
        let mut fair = Fair::default();
        fair.charge(1, 1);
        fair.charge(0, QUANTUM);
        fair.wait(1, datagram(9));
        for number in 0..MOST_WAITING + 2 {
            fair.wait(0, datagram(number));
        }
        assert_eq!(fair.lost(), 2);
        fair.begin_round();
        let rest: Vec<_> = std::iter::from_fn(|| fair.next()).collect();
        assert_eq!(rest.len(), MOST_WAITING + 1);
        assert!(rest.contains(&(1, datagram(9))));
        assert!(!rest.contains(&(0, datagram(1))) && rest.contains(&(0, datagram(2))));
    }
}
